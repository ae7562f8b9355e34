"""An evaluation that was interrupted goes on where it was, and ends in the same answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from asked_run import Ask
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import RunError, UserError
from common.evaluation import generate
from common.evaluation import subject as subjects
from common.evaluation.resumable import Journal, answer_all, say

PROMPTS = [[1, 2, 3], [4], [5, 6], [4], [7, 8, 9, 10]]


class Backend:
    """Answers each prompt with its sum, and remembers what it was asked; fails at its `fails`-th batch."""

    def __init__(self, fails: int | None = None) -> None:
        self.batches: list[list[list[int]]] = []
        self.fails = fails

    def __call__(self, prompts: list[list[int]]) -> list[list[int]]:
        if len(self.batches) == self.fails:
            raise KeyboardInterrupt
        self.batches.append(prompts)
        return [[sum(prompt), 0] for prompt in prompts]


def test_answers_come_in_the_order_of_the_prompts_and_equal_ones_are_asked_once() -> None:
    backend = Backend()
    assert answer_all(PROMPTS, backend, batch_size=2) == [[sum(prompt), 0] for prompt in PROMPTS]
    assert backend.batches == [[[7, 8, 9, 10], [1, 2, 3]], [[5, 6], [4]]]


def test_an_interruption_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    with pytest.raises(KeyboardInterrupt), Journal(file, "a model") as journal:
        answer_all(PROMPTS, Backend(fails=1), batch_size=2, journal=journal)
    again = Backend()
    with Journal(file, "a model") as journal:
        assert answer_all(PROMPTS, again, batch_size=2, journal=journal) == [[sum(p), 0] for p in PROMPTS]
    assert again.batches == [[[5, 6], [4]]]
    with Journal(file, "a model") as journal:
        answer_all(PROMPTS, nothing := Backend(), batch_size=2, journal=journal)
    assert nothing.batches == []


def test_answers_of_another_model_do_not_count(tmp_path: Path) -> None:
    for identity in ({"model": "a"}, {"model": "b"}):
        backend = Backend()
        with Journal(tmp_path / "answers.jsonl", identity) as journal:
            answer_all(PROMPTS, backend, batch_size=4, journal=journal)
        assert len(backend.batches) == 1


@given(cut=st.integers(0, 400))
@settings(deadline=None)
def test_a_file_that_was_cut_anywhere_is_gone_on_with(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    file = tmp_path_factory.mktemp("cut") / "answers.jsonl"
    with Journal(file, "a model") as journal:
        answer_all(PROMPTS, Backend(), batch_size=1, journal=journal)
    whole = file.read_bytes()
    file.write_bytes(whole[:cut])
    lines = whole[:cut].count(b"\n")
    backend = Backend()
    with Journal(file, "a model") as journal:
        assert answer_all(PROMPTS, backend, batch_size=1, journal=journal) == [[sum(p), 0] for p in PROMPTS]
    assert len(backend.batches) == 4 - lines
    assert file.read_bytes() == whole


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"key": "a"}', '{"key": 1, "tokens": []}', '{"key": "a", "tokens": ["b"]}']
)
def test_a_broken_line_before_the_last_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text(f'{{"key": "x", "tokens": []}}\n{line}\n', encoding="utf-8")
    with pytest.raises(UserError, match="is no answer") as caught:
        Journal(file, "a model")
    assert (caught.value.file, caught.value.line) == (file, 2)


def test_progress_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    answer_all(PROMPTS, Backend(), batch_size=3, progress=say("reading"))
    said = capsys.readouterr().err
    assert said.startswith("reading: 4/4 answers, ") and said.endswith(" samples/s\n")


def rows(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("many") / "prompts.jsonl"
    texts = [f"{'word ' * (number % 7)}number {number}" for number in range(24)]
    lines = [json.dumps({"id": str(i), "prompt": text, "label": "x"}) + "\n" for i, text in enumerate(texts)]
    file.write_text("".join(lines), encoding="utf-8")
    return file


def test_the_command_writes_rows_for_scoring(
    ask: Ask, finished_run: Path, many: Path, torch_python: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    call = ["--model", finished_run / "model", "--raw", "--prompts", many, "--max-new-tokens", 4]
    call += ["--python", torch_python, "--output", out]
    done = ask(*call)
    assert (done.returncode, done.stdout) == (0, f"{out}\n") and "24 answers, " in done.stderr, done.stderr
    whole = rows(out)
    assert [row["id"] for row in whole] == [str(number) for number in range(24)]
    assert whole[0].keys() == {"id", "label", "prompt", "prediction", "ended"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl"]
    assert "the output exists" in ask(*call).stderr and rows(out) == whole


def test_a_real_model_is_asked_for_what_is_left(
    finished_run: Path, many: Path, torch_python: Path, tmp_path: Path
) -> None:
    subject = subjects.find(finished_run / "model")
    tokens = generate.tokenizer(subject)
    asked = generate.questions(subject, tokens, None, [], many)
    journal, sampling = tmp_path / "journal", generate.Sampling(max_new_tokens=8, batch_size=4)

    def answers(python: Path, sampling: generate.Sampling = sampling) -> Iterator[generate.Answer]:
        return generate.answers(subject, tokens, asked, sampling, python=python, journal=journal)

    whole = list(generate.answers(subject, tokens, asked, sampling, python=torch_python))
    begun = answers(torch_python)
    assert [next(begun) for _ in range(9)] == whole[:9]
    begun.close()
    assert journal.read_bytes().count(b"\n") == 9
    with open(journal, "ab") as file:
        file.write(b'{"key": "cut o')
    assert list(answers(torch_python)) == whole
    none = tmp_path / "python"
    none.write_text("#!/bin/sh\nexit 3\n", encoding="utf-8")
    none.chmod(0o755)
    assert list(answers(none)) == whole, "what is answered needs no model"
    with pytest.raises(RunError, match="generating failed"):
        list(answers(none, generate.Sampling(max_new_tokens=9, batch_size=4)))


def test_sampled_answers_are_not_gone_on_with(ask: Ask, finished_run: Path, tmp_path: Path) -> None:
    call = ["--model", finished_run / "model", "--raw", "--prompt", "a", "--output", tmp_path / "out.jsonl"]
    done = ask(*call, "--temperature", 1)
    assert done.returncode == 2 and "sampled answers" in done.stderr
