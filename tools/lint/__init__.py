"""The rules of the house, each a numbered check. docs/lints.md is generated from them."""
