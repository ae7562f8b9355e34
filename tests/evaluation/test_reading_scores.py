"""F1 and exact match: SQuAD's own over all references, and the contest's metric."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from common.evaluation import emf1, squad


@pytest.mark.parametrize(
    ("prediction", "references", "f1", "em"),
    [
        ("The Denver Broncos!", ["Denver Broncos"], 100, 100),
        ("in Denver", ["Denver Broncos", "Denver"], 200 / 3, 0),
        ("x", ["Denver Broncos", "Denver"], 0, 0),
        ("the", ["a"], 0, 100),  # nothing is left of either: equal, and no word in common
        ("", ["Denver"], 0, 0),
        ("broncos denver", ["Denver Broncos"], 100, 0),
        ("a b b", ["b b c"], 200 * (2 / 2) * (2 / 3) / (2 / 2 + 2 / 3), 0),
    ],
)
def test_squad_takes_the_best_reference(prediction: str, references: list[str], f1: float, em: float) -> None:
    found = squad.official(prediction, references)
    assert (found.f1, found.em) == (pytest.approx(f1), em)


@pytest.mark.parametrize(
    ("prediction", "label", "f1", "em"),
    [
        # 3 of 10 segments of the label, spaces among them, without a gap
        ("2013", "May 21, 2013", 200 * 1 * (1 / 6) / (1 + 1 / 6), 0),
        ("Broncos Denver", "Denver Broncos", 100 / 3, 0),  # no run is longer than one segment of three
        ("the Broncos", "Broncos", 50, 0),  # articles stay
        ("Broncos.", "Broncos", 200 * 1 * 0.5 / 1.5, 0),  # so do ASCII full stops
        ("broncos-", "BRONCOS", 100, 100),
        (" Broncos\nand more", "Broncos", 100, 100),
        ("丹佛野马队", "野马", 200 * 1 * 0.4 / 1.4, 0),
        ("", "Broncos", 0, 0),
        ("", "", 0, 100),
    ],
)
def test_the_contest_counts_the_longest_run(prediction: str, label: str, f1: float, em: float) -> None:
    found = emf1.score(prediction, label)
    assert (found.f1, found.em) == (pytest.approx(f1), em)


Cut = Callable[[str], list[str]]
ODD = "AT&T at&t c# C# C++ c++ 1.5% 3.14.15 a+b x_y #1 % . & \t\r\n\u3000 café 漢字と仮名 Ω é́ ﬁ 😀"


@pytest.fixture(scope="session")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Cut:
    """jieba.cut; its dictionary's cache is where nobody else writes."""
    jieba = pytest.importorskip("jieba", reason="jieba is not installed: the contest's segments are not compared")
    jieba.dt.tmp_dir = str(tmp_path_factory.mktemp("jieba"))
    jieba.initialize()
    return lambda text: list(jieba.cut(text))


@given(text=st.one_of(st.text(max_size=40), st.text(st.sampled_from(ODD), max_size=40)))
@example(text=ODD)
@settings(deadline=None)
def test_segments_are_jieba_s(cut: Cut, text: str) -> None:
    if re.search("[\u9fa6-\u9fd5]", text):
        return  # said not to be
    expected: list[str] = []
    for part in re.split("([\u4e00-\u9fa5])", text):
        expected += [part] if re.fullmatch("[\u4e00-\u9fa5]", part) else cut(part)
    assert emf1.segments(text) == expected


def test_the_published_scores() -> None:
    """All published answers of the contest's base model, where LLAMA3_CONTEST_PAIRS names them."""
    file = os.environ.get("LLAMA3_CONTEST_PAIRS")
    if not file:
        pytest.skip("LLAMA3_CONTEST_PAIRS does not name the contest's published answers (JSON lines)")
    rows = [json.loads(line) for line in Path(file).read_text("utf-8").splitlines()]
    scores = [emf1.score(row["prediction"], row["label"]) for row in rows]
    assert [(each.f1, each.em) for each in scores] == [(row["f1"], row["em"]) for row in rows]
    assert squad.mean(scores) == squad.Scores(59.87023775108988, 44.17029511369134, 2067)


@given(st.text(max_size=20), st.lists(st.text(max_size=20), min_size=1, max_size=3))
def test_scores_are_percent_and_equal_texts_match(prediction: str, references: list[str]) -> None:
    found = squad.official(prediction, references)
    assert 0 <= found.f1 <= 100 + 1e-9 and found.em in (0, 100)
    assert squad.official(references[0], references).em == 100
    assert emf1.score(prediction.replace("\n", " "), prediction.replace("\n", " ")).em == 100
