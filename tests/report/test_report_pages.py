"""The pages: complete, self-contained, and nothing that somebody wrote is taken for markup."""

from __future__ import annotations

import html.parser
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from built_run import ATTACK

from common import environment, golden
from common.report.reading import read
from common.report.render import as_html, as_markdown
from common.report.summary import summarize
from common.report.text import fenced, markdown


def report(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "common.report", *map(str, arguments)]
    variables = {**os.environ, "PYTHONPATH": str(environment.ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=variables)


class Page(html.parser.HTMLParser):
    """Every start tag with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_command_writes_three_files(run: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    before = sorted(path for path in run.rglob("*"))
    done = report(run, "--output", output)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(path.name for path in output.iterdir()) == ["report.html", "report.json", "report.md"]
    assert json.loads((output / "report.json").read_text("utf-8"))["run"] == str(run)
    assert sorted(path for path in run.rglob("*")) == before


def test_a_wrong_call_writes_nothing(run: Path, tmp_path: Path) -> None:
    for folder in (tmp_path / "none", run / "weights"):
        done = report(folder, "--output", tmp_path / "out")
        assert done.returncode == 2 and done.stderr.startswith("error: ") and "Traceback" not in done.stderr
        assert str(folder) in done.stderr and not (tmp_path / "out").exists()
    done = report(run)
    assert done.returncode == 2 and "--output" in done.stderr


def test_the_page_asks_nothing_of_the_network(run: Path) -> None:
    directory = read(run)
    page = as_html(summarize(directory), directory.rows)
    tags = Page(page).tags
    assert [name for name, _ in tags if name == "svg"] == ["svg"] * 6
    assert {"script", "link", "img", "iframe", "object", "embed"}.isdisjoint(name for name, _ in tags)
    targets = [
        value for _, attributes in tags for name, value in attributes.items() if name.split(":")[-1] in ("src", "href")
    ]
    assert all(value and value.startswith("#") for value in targets)
    assert not re.findall(r"url\((?!#)|@import", page)


def test_ids_of_the_plots_do_not_clash(run: Path) -> None:
    directory = read(run)
    page = as_html(summarize(directory), directory.rows)
    ids = [attributes["id"] for _, attributes in Page(page).tags if "id" in attributes]
    used = set(re.findall(r"""(?:url\(|href=")#([^)"]*)""", page))
    assert used and used <= set(ids) and len(ids) == len(set(ids))


def test_markdown_takes_nothing_for_markup(run: Path) -> None:
    text = as_markdown(summarize(read(run)))
    outside, fence = [], None
    for line in text.splitlines():
        if fence is None and (match := re.match(r"(`{3,})text$", line)):
            fence = match[1]
        elif fence is not None and line == fence:
            fence = None
        elif fence is None:
            outside.append(line)
    assert fence is None and ATTACK in text
    assert not any("<" in line for line in outside)
    rows = [line for line in outside if line.startswith("|")]
    widths = [len(re.findall(r"(?<!\\)\|", line)) for line in rows]
    assert set(widths) <= {3, 4, 5, 7, 8, 10} and widths.count(10) == 3  # the data: head, rule, one split


def test_what_a_stage_says_is_shown_and_not_taken_for_markup(run: Path) -> None:
    section = {"title": "The plan <u>", "text": [ATTACK], "head": ["What", "Time"], "rows": [["a | b", "3 ms"]]}
    (run / "train" / "section.json").write_text(json.dumps(section), encoding="utf-8")
    text = as_markdown(summarize(read(run)))
    assert f"## {markdown('The plan <u>')}" in text and "| a \\| b | 3 ms |" in text
    assert not any("<script" in line for line in text.split("## The plan")[1].split("## Evaluation")[0].splitlines())
    page = Page(as_html(summarize(read(run)), []))
    assert "script" not in {name for name, _ in page.tags} and "u" not in {name for name, _ in page.tags}
    assert "3 ms" in as_html(summarize(read(run)), [])


def test_the_golden_curve_is_a_table(run: Path) -> None:
    curve = golden.read().curves["full"]
    golden.record(run, golden.compare("full", [*curve[:-1], curve[-1] + 0.25]), {"framework": "1.0"})
    text = as_markdown(summarize(read(run)))
    assert f"| 1 | {curve[0]:.6f} | {curve[0]:.6f} | 0.0e+00 |" in text
    assert "Not on the curve: step 20" in text and "| 2.5e-01 |" in text
    golden.record(run, golden.compare("full", curve), {"framework": "1.0"})
    assert "The losses are on the reference curve" in as_markdown(summarize(read(run)))


@pytest.mark.parametrize("text", ["a | b", "# a", "<b>", "a\nb", "*a* _b_ `c` [d](e)", "&lt;"])
def test_markdown_cells_are_one_line_of_text(text: str) -> None:
    shown = markdown(text)
    assert "\n" not in shown and "<" not in shown
    assert not re.search(r"(?<!\\)[|#*_`\[\]]", shown)


def test_fences_are_longer_than_what_they_hold() -> None:
    assert fenced("a ````` b").splitlines()[0] == "``````text"
    assert fenced("\x07") == "```text\n␇\n```"


def test_a_browser_shows_the_text_and_runs_nothing(run: Path, tmp_path: Path) -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("there is no Chromium: the page was not opened in a browser")
    directory = read(run)
    file = tmp_path / "report.html"
    file.write_text(as_html(summarize(directory), directory.rows), encoding="utf-8")
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    flags += " --disable-component-update --disable-sync"
    command = [browser, *flags.split(), f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    tags = Page(done.stdout).tags  # as the browser understood the page
    assert "script" not in {name for name, _ in tags} and "img" not in {name for name, _ in tags}
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title is not None and "owned" not in title[1]
    shown = html.unescape(re.sub(r"<[^>]*>", "", done.stdout))
    assert ATTACK in shown
    for words in ("6.9000 → 5.0000", "7.0000 → 5.0000", "Example CPU", "This is a smoke run", "Gradient norm"):
        assert words in shown
