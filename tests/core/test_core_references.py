"""${section.key}: a reference is replaced, keeps its type, and never becomes a wrong word in silence."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UserError
from common.references import Values, flatten

VALUES: dict[str, Any] = {
    "train.seed": 42,
    "train.rate": 1e-4,
    "train.on": True,
    "data.eval": None,
    "lora.targets": ["q", "v"],
    "run": "/a b/跑",
}


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("${train.seed}", 42),
        ("${train.rate}", 1e-4),
        ("${train.on}", True),
        ("${data.eval}", None),
        ("${lora.targets}", ["q", "v"]),
        ("${run}/weights", "/a b/跑/weights"),
        ("${train.seed}-${train.on}", "42-true"),
        ("no reference, $run, {run}", "no reference, $run, {run}"),
        (7, 7),
        ({"a": ["${train.seed}", {"b": "${run}"}]}, {"a": [42, {"b": "/a b/跑"}]}),
    ],
)
def test_fill(template: object, value: object) -> None:
    filled = Values(VALUES).fill(template)
    assert filled == value
    assert type(filled) is type(value)


@pytest.mark.parametrize("template", ["${train.sed}", "x-${train.sed}", "${Train.seed}", "${train-seed}", "${}"])
def test_a_reference_to_nothing_is_an_error(template: str) -> None:
    with pytest.raises(UserError, match="names nothing") as caught:
        Values(VALUES).fill(template)
    if "sed}" in template:
        assert caught.value.hint == "did you mean 'train.seed'?"


def test_a_reference_that_is_not_set_is_no_part_of_a_longer_text() -> None:
    with pytest.raises(UserError, match=r"\$\{data\.eval\} is not set"):
        Values(VALUES).fill("${data.eval}/part")


def test_a_group_stands_once_for_each_item_of_a_list() -> None:
    values = Values({**VALUES, "data.columns": ["a=b c", "d=e"], "none": []})
    words = values.words(["x", ["--column", "${data.columns}"], ["--none", "${none}"], "y"])
    assert words == ["x", "--column", "a=b c", "--column", "d=e", "y"]


def test_words() -> None:
    values = Values(VALUES)
    words = values.words(["python", ["--eval", "${data.eval}"], ["--seed", "${train.seed}"], "--on", "${train.on}"])
    assert words == ["python", "--seed", "42", "--on", "true"]
    assert values.used == {"data.eval", "train.seed", "train.on"}


def test_an_inner_list_is_left_out_when_a_part_of_a_word_is_not_set() -> None:
    assert Values(VALUES).words(["a", ["--file", "${data.eval}/x", "${train.seed}"], "b"]) == ["a", "b"]


@pytest.mark.parametrize("word", ["${data.eval}", "${data.eval}/x"])
def test_a_command_that_needs_what_is_not_set(word: str) -> None:
    with pytest.raises(UserError, match="is not set, and the command needs it"):
        Values(VALUES).words(["a", word])


def test_what_a_stage_adds_is_not_seen_elsewhere_and_its_use_counts() -> None:
    values = Values(VALUES)
    assert values.also(stage="/s").words(["${stage}", "${train.seed}"]) == ["/s", "42"]
    assert "train.seed" in values.used
    with pytest.raises(UserError):
        values.fill("${stage}")


@given(st.text(max_size=40))
def test_a_value_is_never_read_again(text: str) -> None:
    assert Values({"a": text}).words(["${a}"]) == [text]
    assert Values({"a": text}).fill("<${a}>") == f"<{text}>"


def test_flatten() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": [2]}}, "e": None}) == {"a.b": 1, "a.c.d": [2], "e": None}
