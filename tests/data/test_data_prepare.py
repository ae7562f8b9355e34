"""`prepare` from end to end: what is written, what is refused, and that nothing goes in silence."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from data_support import CONVERSATIONS, IGNORE, as_messages, command, problem, rows, run, write_jsonl

from common.data import pipeline
from common.errors import UserError
from common.tokenizer import load

GOOD = [as_messages(conversation) for conversation in CONVERSATIONS]
TINY = load("tiny")


def numbered(count: int) -> list[dict[str, Any]]:
    """Conversations of many lengths, no two alike."""
    return [
        as_messages((None, [(f"Question {i}? " + "x " * (i % 37), f"Answer {i * i}. " + "y " * (i % 11))]))
        for i in range(count)
    ]


@pytest.fixture
def many(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "many.jsonl", numbered(700))


def test_rows_keep_the_token_contract(tmp_path: Path) -> None:
    meta = run(write_jsonl(tmp_path / "a.jsonl", GOOD), tmp_path / "out")
    made = rows(tmp_path / "out")
    assert len(made) == len(GOOD) == meta["train"]["rows"]
    begin = TINY.special_id("<|begin_of_text|>")
    for row in made:
        assert [place for place, token in enumerate(row["input_ids"]) if token == begin] == [0]
        assert row["position_ids"] == list(range(len(row["input_ids"])))
        trained = [(token, label) for token, label in zip(row["input_ids"], row["labels"], strict=True)]
        assert all(label in (IGNORE, token) for token, label in trained)
        assert row["labels"][-1] == TINY.special_id("<|eot_id|>")
    assert meta["tokenizer"] == TINY.digest and meta["train"]["records"] == len(GOOD)
    assert meta["train"]["trained_tokens"] == sum(label != IGNORE for row in made for label in row["labels"])


def test_datasets_loads_both_parts(many: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    run(many, tmp_path / "out", eval_count=9)
    loaded = datasets.load_from_disk(str(tmp_path / "out"))
    assert {name: len(part) for name, part in loaded.items()} == {"train": 691, "eval": 9}
    assert loaded["train"].to_list() == rows(tmp_path / "out" / "train")
    assert set(loaded["train"].features) == {"input_ids", "labels", "position_ids"}


@pytest.mark.parametrize("packing", ["none", "bfd", "concat"])
def test_the_output_is_the_same_for_any_number_of_workers(
    many: Path, tmp_path: Path, packing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from common.data import blocks

    monkeypatch.setattr(blocks.read, "__defaults__", (3000, None))  # many blocks from a small file
    for workers in (1, 2, 5):
        run(many, tmp_path / f"out{workers}", packing=packing, max_length=128, workers=workers, eval_fraction=0.1)
    for other in (2, 5):
        for part in ("train", "eval"):
            assert rows(tmp_path / f"out{other}" / part) == rows(tmp_path / "out1" / part)
    assert sum(1 for _ in pipeline.read_blocks(_probe(many))) > 5


def _probe(path: Path) -> Any:
    from common.data import sources

    return sources.probe(path)


def test_blocks_leave_no_trace(many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from common.data import blocks

    run(many, tmp_path / "whole", packing="bfd", max_length=200)
    monkeypatch.setattr(blocks.read, "__defaults__", (777, None))
    run(many, tmp_path / "parts", packing="bfd", max_length=200)
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")


def test_evaluation_data_are_never_packed(many: Path, tmp_path: Path) -> None:
    meta = run(many, tmp_path / "out", packing="bfd", max_length=256, eval_count=20, prompts=5)
    train, held = rows(tmp_path / "out" / "train"), rows(tmp_path / "out" / "eval")
    assert len(held) == 20 and all(row["position_ids"].count(0) == 1 for row in held)
    assert len(train) < 400 and sum(row["position_ids"].count(0) for row in train) == 680
    assert meta["eval"]["rows"] == 20
    prompts = [json.loads(line) for line in (tmp_path / "out/eval/prompts.jsonl").read_text().splitlines()]
    assert len(prompts) == 5
    for prompt, row in zip(prompts, held, strict=False):
        ids = prompt["prompt_ids"]
        assert row["input_ids"][: len(ids)] == ids
        assert prompt["prompt"] == TINY.decode(ids)
        assert prompt["prompt"].endswith("<|start_header_id|>assistant<|end_header_id|>\n\n")
        answer = [*TINY.encode(prompt["reference"]).tolist(), TINY.special_id("<|eot_id|>")]
        assert row["input_ids"][len(ids) :] == answer


@pytest.mark.parametrize("template", ["vicuna", "human_assistant", "colossal", "alpaca", "llama3"])
def test_prompts_come_from_the_training_template(tmp_path: Path, template: str) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", GOOD)
    run(path, tmp_path / "out", template=template, prompts=9)
    prompts = [json.loads(line) for line in (tmp_path / "out/prompts.jsonl").read_text().splitlines()]
    answers = [rounds[-1][1] for _, rounds in CONVERSATIONS]
    expected = [a.strip() for a in answers] if template == "llama3" else answers
    assert [prompt["reference"].removeprefix("<|begin_of_text|>") for prompt in prompts] == expected
    for prompt, row in zip(prompts, rows(tmp_path / "out"), strict=True):
        assert row["input_ids"][: len(prompt["prompt_ids"])] == prompt["prompt_ids"]


def test_evaluation_data_from_another_input(many: Path, tmp_path: Path) -> None:
    other = tmp_path / "eval.json"
    other.write_text(json.dumps(GOOD, ensure_ascii=False), encoding="utf-8")
    meta = run(many, tmp_path / "out", eval_input=str(other))
    assert meta["eval"]["records"] == len(GOOD) and meta["train"]["records"] == 700


def test_a_system_message_is_put_where_there_is_none(tmp_path: Path) -> None:
    run(write_jsonl(tmp_path / "a.jsonl", GOOD), tmp_path / "out", template="human_assistant", system="Be kind.")
    made = [TINY.decode(row["input_ids"]) for row in rows(tmp_path / "out")]
    assert made[0].startswith("<|begin_of_text|>Be kind.\n\nHuman: What")
    assert made[1].startswith("<|begin_of_text|>Answer in one word.\n\nHuman: The")


ODD = {"messages": [*GOOD[1]["messages"], {"role": "user", "content": "Wait"}]}
LONELY = {"messages": [{"role": "user", "content": "Hello?"}]}


@pytest.mark.parametrize(("policy", "left", "dropped", "cut"), [("drop", 4, 2, 0), ("cut", 5, 1, 1)])
def test_odd_turns(tmp_path: Path, policy: str, left: int, dropped: int, cut: int) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [*GOOD, ODD, LONELY])
    meta = run(path, tmp_path / "out", odd_turns=policy)
    assert meta["train"]["rows"] == left
    assert meta["train"]["dropped"] == {"odd number of turns": dropped} and meta["train"]["cut"] == cut
    listed = [json.loads(line) for line in (tmp_path / "out/rejects.jsonl").read_text().splitlines()]
    assert [entry["line"] for entry in listed] == ([5, 6] if policy == "drop" else [6])
    if policy == "cut":
        assert rows(tmp_path / "out")[4] == rows(tmp_path / "out")[1]


def test_odd_turns_stop_by_default(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [*GOOD, ODD])
    error = problem(lambda: run(path, tmp_path / "out"))
    assert error.line == 5 and "--odd-turns" in str(error)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("policy", ["drop", "cut", "turns", "split", "stop"])
def test_long_records(tmp_path: Path, policy: str) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", GOOD)
    run(path, tmp_path / "all")
    whole = rows(tmp_path / "all")
    limit = len(whole[0]["input_ids"]) + 8
    if policy == "stop":
        error = problem(lambda: run(path, tmp_path / "out", max_length=limit, on_long=policy))
        assert error.line == 2 and f"at most {limit}" in str(error)
        return
    meta = run(path, tmp_path / "out", max_length=limit, on_long=policy)
    made = rows(tmp_path / "out")
    assert all(len(row["input_ids"]) <= limit for row in made)
    assert made[0] == whole[0]
    assert all(any(label != IGNORE for label in row["labels"]) for row in made)
    assert meta["train"]["rows"] == len(made)
    long = [row for row in whole if len(row["input_ids"]) > limit]
    train = meta["train"]
    if policy == "drop":
        assert train["dropped"] == {"too long": len(long)} and len(made) == len(whole) - len(long)
    if policy == "cut":
        starts = [row["input_ids"] for row in whole]
        assert all(any(start[: len(row["input_ids"])] == row["input_ids"] for start in starts) for row in made)
        assert train["cut"] == len(long)
    if policy == "turns":
        assert all(row["labels"][-1] == TINY.special_id("<|eot_id|>") for row in made)
    if policy == "split":
        assert train["cut"] == len(long) and len(made) > len(whole) - train["dropped"].get("no trained token left", 0)


def test_turns_that_fit_are_kept(tmp_path: Path) -> None:
    long = as_messages((None, [("a", "b"), ("c", "d"), ("e", "word " * 200)]))
    run(write_jsonl(tmp_path / "a.jsonl", [long]), tmp_path / "out", max_length=100, on_long="turns")
    run(write_jsonl(tmp_path / "b.jsonl", [as_messages((None, [("a", "b"), ("c", "d")]))]), tmp_path / "short")
    assert rows(tmp_path / "out") == rows(tmp_path / "short")


def test_a_round_that_just_fits_is_kept(tmp_path: Path) -> None:
    two = write_jsonl(tmp_path / "two.jsonl", [as_messages((None, [("a", "b"), ("c", "d")]))])
    one = write_jsonl(tmp_path / "one.jsonl", [as_messages((None, [("a", "b")]))])
    run(one, tmp_path / "one")
    size = len(rows(tmp_path / "one")[0]["input_ids"])
    run(two, tmp_path / "exact", max_length=size, on_long="turns")
    assert rows(tmp_path / "exact") == rows(tmp_path / "one")
    said = str(problem(lambda: run(two, tmp_path / "less", max_length=size - 1, on_long="turns")))
    assert "1 too long" in said


def line(record: Any) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode() + b"\n"


def message(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "q", **fields}, {"role": "assistant", "content": "a"}]}


USER = {"role": "user", "content": "q"}
ANSWER = {"role": "assistant", "content": "a"}
BAD = {
    "cut off": (line(GOOD[0])[:-5] + b"\n", "not JSON"),
    "not an object": (b"[1, 2]\n", "not an object"),
    "a number": (b"17\n", "not an object"),
    "NUL bytes": (b"\0\0\0\0\n", "NUL byte"),
    "a NUL character": (line(message(content="a\0b")), "NUL character"),
    "a lone surrogate": (b'{"messages": [{"role": "user", "content": "\\ud83d"}]}\n', "surrogate"),
    "not UTF-8": (line(message(content="x")).replace(b'"x"', b'"\xff"'), "not UTF-8"),
    "a raw control character": (line(message(content="x")).replace(b'"x"', b'"a\tb"'), "not JSON"),
    "a field twice": (b'{"messages": [], "messages": []}\n', "stands twice"),
    "a role twice": (line(message()).replace(b'"role"', b'"role": "user", "role"', 1), "stands twice"),
    "two on a line": (line(GOOD[0]).strip() + line(GOOD[1]), "not JSON"),
    "an unknown role": (line(message(role="tool")), "unknown role"),
    "no role": (b'{"messages": [{"content": "q"}]}\n', "no field 'role'"),
    "no content": (b'{"messages": [{"role": "user"}]}\n', "no field 'content'"),
    "null content": (line(message(content=None)), "not text"),
    "a number as content": (line(message(content=5)), "not text"),
    "parts as content": (line(message(content=[{"type": "text", "text": "a"}])), "not text"),
    "no messages": (b'{"message": []}\n', "no field 'messages'"),
    "null messages": (b'{"messages": null}\n', "not a list"),
    "empty messages": (b'{"messages": []}\n', "is empty"),
    "another layout": (b'{"instruction": "a", "output": "b"}\n', "no field 'messages'"),
    "two users": (line({"messages": [USER, USER, ANSWER]}), "out of order"),
    "the assistant first": (line({"messages": [ANSWER, USER]}), "out of order"),
    "a late system": (line({"messages": [USER, {"role": "system", "content": "s"}]}), "out of order"),
    "a system alone": (line({"messages": [{"role": "system", "content": "s"}]}), "no turn of a user"),
    "nested too deeply": (b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", ""),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_record_stops_with_its_line(tmp_path: Path, kind: str) -> None:
    bad, said = BAD[kind]
    path = tmp_path / "a.jsonl"
    path.write_bytes(line(GOOD[0]) + b"\n" + line(GOOD[1]) + bad + line(GOOD[2]))
    error = problem(lambda: run(path, tmp_path / "out"))
    assert error.file == path and error.line == 4 and said in str(error)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jsonl"]


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_record_is_skipped_and_listed(tmp_path: Path, kind: str) -> None:
    bad, said = BAD[kind]
    path = tmp_path / "a.jsonl"
    path.write_bytes(line(GOOD[0]) + b"\n" + line(GOOD[1]) + bad + line(GOOD[2]))
    meta = run(path, tmp_path / "out", on_error="skip")
    assert meta["train"]["rows"] == 3 and meta["train"]["records"] == 4
    assert meta["train"]["dropped"] == {"malformed": 1}
    listed = [json.loads(entry) for entry in (tmp_path / "out/rejects.jsonl").read_text().splitlines()]
    assert [(entry["line"], said in entry["reason"] + str(entry["found"])) for entry in listed] == [(4, True)]


def test_the_line_of_a_record_in_an_array(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([*GOOD, {"messages": []}], indent=1, ensure_ascii=False), encoding="utf-8")
    error = problem(lambda: run(path, tmp_path / "out"))
    assert path.read_text(encoding="utf-8").splitlines()[(error.line or 0) :][0].strip() == '"messages": []'


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "empty"), (b"[]", "no record"), (b" \n ", "empty"), (b"{}\n", "layout is not known"), (b"[{}]", "layout")],
)
def test_an_input_without_records(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    assert said in str(problem(lambda: run(path, tmp_path / "out")))
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


def test_a_cut_off_archive_leaves_nothing_behind(tmp_path: Path) -> None:
    data = gzip.compress(b"".join(line(record) for record in numbered(500)))
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(data[:-20])
    assert "damaged" in str(problem(lambda: run(path, tmp_path / "out")))
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl.gz"]


def test_nothing_left_is_an_error_that_says_why(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", GOOD)
    said = str(problem(lambda: run(path, tmp_path / "out", max_length=3)))
    assert "nothing is left" in said and "4 too long" in said


def test_rows_that_train_nothing_are_counted(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [GOOD[0], as_messages((None, [("word " * 100, "answer")]))])
    meta = run(path, tmp_path / "out", max_length=60, on_long="cut")
    assert meta["train"]["dropped"] == {"no trained token left": 1} and meta["train"]["rows"] == 1


def test_a_column_of_a_hundred_thousand_lines_in_one_record(tmp_path: Path) -> None:
    big = as_messages((None, [("q", "word\n" * 1_200_000)]))  # 7 MB in one line, more than a block
    path = write_jsonl(tmp_path / "a.jsonl", [GOOD[0], big, GOOD[1]])
    meta = run(path, tmp_path / "out", packing="concat", max_length=8192)
    assert meta["train"]["tokens"] > 1_200_000 and meta["train"]["documents"] == 3


def test_bad_options_are_refused(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", GOOD)
    for options, said in (
        ({"packing": "bdf"}, "did you mean 'bfd'"),
        ({"template": "vicunna"}, "did you mean 'vicuna'"),
        ({"eval_fraction": 1.5}, "between 0 and 1"),
        ({"eval_fraction": 0.1, "eval_count": 5}, "one --eval-... option"),
        ({"max_length": 0}, "2 or more"),
        ({"pad": "<|eot_id|>"}, "pad token is what ends an answer"),
        ({"pad": "<|pad|>"}, "no such special token"),
        ({"tokenizer": str(tmp_path / "none")}, "no such tokenizer"),
    ):
        assert said in str(problem(lambda options=options: run(path, tmp_path / "out", **options)))
        assert not (tmp_path / "out").exists()


def test_an_existing_output_is_never_overwritten(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", GOOD)
    run(path, tmp_path / "out")
    before = {p: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    with pytest.raises(UserError, match="exists"):
        run(path, tmp_path / "out")
    assert {p: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before


def test_the_command_line_ends_with_the_right_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", GOOD)
    common = ["prepare", "--tokenizer", "tiny", "--template", "vicuna", "--output"]
    assert command(*common, tmp_path / "out", "--input", path) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out'}\n"
    assert command(*common, tmp_path / "no", "--input", tmp_path / "none.jsonl") == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("error: ") and "Traceback" not in captured.err
    assert command("inspect", tmp_path / "out", "--tokenizer", "tiny") == 0
    assert "« Four.<|end_of_text|>»" in capsys.readouterr().out.replace("\n", "")


def test_rows_for_people_say_what_is_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(write_jsonl(tmp_path / "a.jsonl", GOOD), tmp_path / "out", format="jsonl", packing="bfd")
    made = [json.loads(entry) for entry in (tmp_path / "out/rows.jsonl").read_text(encoding="utf-8").splitlines()]
    parts = [part for row in made for part in row["parts"]]
    assert sum(part.get("begins_document", False) for part in parts) == len(GOOD)
    assert next(part["text"] for part in parts if part["trained"]) == "Four.<|eot_id|>"
    assert command("inspect", tmp_path / "out") == 2
    assert "read rows.jsonl as it is" in capsys.readouterr().err


def test_an_empty_message_is_malformed(tmp_path: Path) -> None:
    empty = {"messages": [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": ""}]}
    source = write_jsonl(tmp_path / "a.jsonl", [GOOD[0], empty])
    with pytest.raises(UserError, match=r"a\.jsonl:2: an empty message of the assistant"):
        run(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


BAD_FIRST = [b"not JSON\n", b'{"messages": []}\n', b"5\n", b'{"messages": [{"role": "user", "content": "' + b"x" * 2000]


@pytest.mark.parametrize("first", BAD_FIRST, ids=["text", "empty", "number", "long"])
def test_a_malformed_first_record_is_one_like_the_others(
    tmp_path: Path, first: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    from common.data import blocks

    monkeypatch.setattr(blocks, "RECORD_BYTES", 1000)
    path = tmp_path / "a.jsonl"
    path.write_bytes(first.rstrip() + b"\n" + line(GOOD[0]))
    error = problem(lambda: run(path, tmp_path / "out"))
    assert error.line == 1 and "--on-error skip" in str(error)
    meta = run(path, tmp_path / "out", on_error="skip")
    assert meta["train"]["records"] == 2 and meta["train"]["dropped"] == {"malformed": 1}
    assert json.loads((tmp_path / "out/rejects.jsonl").read_text())["line"] == 1
