"""Sphinx: the pages are Markdown, the generated parts are written by `python -m tools readme`."""

project = "Llama 3 recipes"
author = "The Llama 3 recipes contributors"
extensions = ["myst_parser"]
exclude_patterns = ["_build", "logs", "onboarding", "schema"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = project
