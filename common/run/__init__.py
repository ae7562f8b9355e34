"""Carrying a plan out: stages in order, each whole or not at all, continued by the same command."""
