"""Sphinx: the pages are Markdown, the generated parts are written by `python -m tools readme`.

Each recipe's README becomes a page recipes/NAME.md when the pages are built: a recipe that is copied is in
the documentation at once, and nothing is written twice.
"""

import re
from pathlib import Path

project = "Llama 3 recipes"
author = "The Llama 3 recipes contributors"
extensions = ["myst_parser"]
exclude_patterns = ["_build", "logs", "onboarding", "schema"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = project

MARK = re.compile(r"^<!-- (?:generated: [a-z-]+|end) -->\n", re.MULTILINE)
PAGES = Path(__file__).parent / "recipes"  # ignored by git
READMES = sorted((Path(__file__).parents[1] / "recipes").glob("*/README*.md"))


def page_name(readme: Path) -> str:
    """NAME.md, and NAME_zh-CN.md of README.zh-CN.md."""
    return readme.parent.name + readme.name.removeprefix("README").replace(".zh-", "_zh-")


def page(readme: Path) -> str:
    """The README without the marks of generated parts, its links to READMEs and to docs/ as they are from the page."""
    text = MARK.sub("", readme.read_text(encoding="utf-8")).replace("](../../docs/", "](../")
    for other in readme.parent.glob("README*.md"):
        text = text.replace(f"]({other.name})", f"]({page_name(other)})")
    return text


def write_recipe_pages() -> None:
    """A page for each README; pages of recipes that have gone are removed."""
    PAGES.mkdir(exist_ok=True)
    for old in PAGES.glob("*.md"):
        old.unlink()
    for readme in READMES:
        (PAGES / page_name(readme)).write_text(page(readme), encoding="utf-8")


write_recipe_pages()
