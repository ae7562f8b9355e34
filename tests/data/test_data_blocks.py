"""Blocks: whole records, whatever their form and wherever the reads end."""

from __future__ import annotations

import copy
import gzip
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import zstandard
from data_support import problem
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from common.data import blocks, files, json_array, tables
from common.data.block import TOO_LONG, Block
from common.errors import UserError

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8"), max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
records = st.lists(st.dictionaries(st.text(max_size=5), values, max_size=4), min_size=1, max_size=12)
styles = st.sampled_from([{"indent": 2}, {"indent": None}, {"separators": (",", ":")}, {"indent": 0}])


def elements(data: bytes) -> list[object]:
    ends = json_array.scan(data).ends.tolist()
    return [json.loads(data[a:b]) for a, b in zip([0, *ends[:-1]], ends, strict=True)]


def read(path: Path, size: int) -> list[Block]:
    return list(blocks.read(files.recognise(path), size))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=records, style=styles, ascii=st.booleans(), size=st.integers(1, 300), wrapped=st.booleans())
def test_an_array_is_cut_into_its_elements(
    tmp_path: Path, records: list[object], style: dict, ascii: bool, size: int, wrapped: bool
) -> None:
    whole = {"version": "1.1", "data": records} if wrapped else records
    text = json.dumps(whole, ensure_ascii=ascii, **style)
    path = tmp_path / "a.json"
    path.write_bytes(text.encode())
    found = read(path, size)
    assert [e for block in found for e in elements(block.data)] == records
    for block in found:
        first = len(block.data) - len(block.data.lstrip())
        line = block.first_line + block.data.count(b"\n", 0, first)
        # The line that a block claims is the line where its first record really begins.
        begin = block.data.strip()[:1]
        assert begin in text.encode().split(b"\n")[line - 1]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=records, size=st.integers(1, 200))
def test_lines_stay_whole(tmp_path: Path, records: list[object], size: int) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    found = read(path, size)
    assert [json.loads(line) for block in found for line in block.data.splitlines()] == records
    lines = 1
    for block in found:
        assert block.first_line == lines
        lines += block.data.count(b"\n")


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_archives_read_like_the_file_itself(tmp_path: Path, compression: str) -> None:
    data = b"".join(b'{"text": "line %d"}\n' % i for i in range(5000))
    path = tmp_path / "a.jsonl.x"
    half = len(data) // 2
    pack = gzip.compress if compression == "gzip" else zstandard.ZstdCompressor().compress
    path.write_bytes(pack(data[:half]) + pack(data[half:]))  # two members, as parallel compressors write
    assert b"".join(block.data for block in read(path, 1000)) == data


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor().compress])
@pytest.mark.parametrize("keep", [0.5, 0.99])
def test_a_cut_off_archive_is_refused(tmp_path: Path, pack: object, keep: float) -> None:
    assert callable(pack)
    data = pack(b"".join(b'{"text": "line %d"}\n' % (i * i) for i in range(5000)))
    path = tmp_path / "a.jsonl.x"
    path.write_bytes(data[: int(keep * len(data))])
    error = problem(lambda: read(path, 1000))
    assert "damaged" in str(error) and error.file == path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[{"a": 1}, {"a": 2}', "no end"),
        ('[{"a": 1} {"a": 2}]', "damaged"),
        ('[{"a": 1},, {"a": 2}]', "damaged"),
        ('[{"a": 1}, {"a": 2},]', "damaged"),
        ('[, {"a": 1}]', "damaged"),
        ('[{"a": "x}]', "no end"),
    ],
)
def test_a_damaged_array_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    for size in (5, 1000):
        assert said in str(problem(lambda size=size: read(path, size)))


def test_the_line_of_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for third in ('{"a": 3}', '{\n"a":\n3\n}'):
        path.write_text('[\n{"a": 1},\n{"a": 2}\n' + third + "\n]")
        for size in (5, 1000):
            assert problem(lambda size=size: read(path, size)).line == 4


@pytest.mark.parametrize("content", [b"", b"  \n\t\n"])
def test_an_empty_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    assert "empty" in str(problem(lambda: files.recognise(path)))


def test_paragraphs_are_never_cut_in_two(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\n \nthree\n\nfour\nfive\n", encoding="utf-8")
    for size in (3, 8, 12, 1000):
        joined = b"".join(block.data for block in read(path, size))
        assert joined == path.read_bytes()
        for block in read(path, size)[:-1]:
            assert block.data.endswith((b"\n \n", b"\n\n"))


def test_what_a_name_stands_for(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "c.json.gz", "notes.md"):
        (tmp_path / name).write_text("{}")
    assert [p.name for p in files.find(tmp_path)] == ["a.jsonl", "b.jsonl", "c.json.gz"]
    assert [p.name for p in files.find(f"{tmp_path}/*.jsonl")] == ["a.jsonl", "b.jsonl"]
    (tmp_path / "dataset_infos.json").write_text("{}")
    assert len(files.find(tmp_path)) == 3
    with pytest.raises(UserError, match="no such file"):
        files.find(tmp_path / "d.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no data file"):
        files.find(tmp_path / "empty")


def test_splits_are_never_mixed(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("train_sft-00000-of-00002", "train_sft-00001-of-00002", "test_sft-00000-of-00001"):
        (tmp_path / "data" / f"{name}.jsonl").write_text("{}")
    with pytest.raises(UserError, match="several splits"):
        files.find(tmp_path)
    assert [p.name[:15] for p in files.find(f"{tmp_path}@train")] == ["train_sft-00000", "train_sft-00001"]
    assert [p.name[:8] for p in files.find(f"{tmp_path}@test")] == ["test_sft"]
    with pytest.raises(UserError, match="test, train"):
        files.find(f"{tmp_path}@dev")


def test_a_saved_dataset_gives_one_split(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    part = datasets.Dataset.from_list([{"text": "a"}, {"text": "b"}])
    datasets.DatasetDict(train=part, test=part.select([0])).save_to_disk(str(tmp_path / "d"))
    with pytest.raises(UserError, match="several splits"):
        files.find(tmp_path / "d")
    (only,) = files.find(f"{tmp_path / 'd'}@test")
    assert [len(block.table or []) for block in read(only, 100)] == [1]


@pytest.fixture
def short_records(monkeypatch: pytest.MonkeyPatch) -> int:
    """The longest record that is read, in bytes."""
    for module in (blocks, json_array):
        monkeypatch.setattr(module, "RECORD_BYTES", 40)
    return 40


@pytest.mark.parametrize("form", ["a.jsonl", "a.json", "b.json", "a.txt", "lines.txt"])
@pytest.mark.parametrize("size", [1, 7, 40])
def test_of_a_record_that_is_too_long_only_its_place_is_kept(
    tmp_path: Path, short_records: int, form: str, size: int
) -> None:
    """One more byte than the limit is too much, wherever the reads end; what stands around it stays."""
    path = tmp_path / form
    texts = ["one", "x" * (short_records - 8), "y" * (short_records + 1), "two", "z" * 500, "three"]
    if form.endswith(".txt"):
        content, lines = ("\n" if form == "lines.txt" else "\n\n").join(texts), [3, 5]
        if form == "a.txt":
            lines = [5, 9]
    else:
        records = [json.dumps({"t": text}, separators=(",", ":")) for text in texts]
        assert len(records[1]) == short_records  # the longest that is read
        content, lines = "\n".join(records) + "\n", [3, 5]
        if form == "a.json":
            content = "[" + ",\n".join(records) + "]"
        elif form == "b.json":
            content, lines = "[" + ", ".join(records) + "]", [1, 1]  # an array on one line
    path.write_text(content, encoding="utf-8")
    found = list(blocks.read(files.recognise(path), size, by_line=form == "lines.txt"))
    assert [block.first_line for block in found if block.kind == TOO_LONG] == lines
    kept = b"".join(block.data for block in found).decode()
    left = [text for text in ("one", "x" * 9, "yy", "two", "zz", "three") if text in kept]
    assert left == ["one", "x" * 9, "two", "three"]
    assert max(len(block.data) for block in found) <= 2 * short_records


@pytest.mark.parametrize("form", ["jsonl", "json", "text"])
def test_a_record_without_end_is_given_up_at_once(form: str, short_records: int) -> None:
    """Not when it has been read: its reads are let go as they come."""
    taken = 0

    class Endless(files.InputFile):
        def blocks(self, size: int = 0) -> Iterator[bytes]:
            nonlocal taken
            begin = {"json": b'[{"a": "', "jsonl": b'{"a": "', "text": b""}[form]
            for block in itertools.chain([begin], itertools.repeat(b"x" * 10, 1000)):
                taken += 1
                yield block

    found = next(blocks.read(Endless(Path("a"), "", form)))
    assert found.kind == TOO_LONG and taken <= short_records // 10 + 2


def test_plain_text_without_blank_lines_is_read_by_line(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a line\n" * 5000, encoding="utf-8")
    found = list(blocks.read(files.recognise(path), 1000, by_line=True))
    assert len(found) > 30 and b"".join(block.data for block in found) == path.read_bytes()
    for block in found:
        assert block.data.endswith(b"a line\n")


@pytest.mark.parametrize("after", ["\n[{}]", " x", "\n{}"])
def test_what_follows_an_array_is_refused(tmp_path: Path, after: str) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"a": 1},\n{"a": 2}]' + after, encoding="utf-8")
    for size in (3, 1000):
        error = problem(lambda size=size: read(path, size))
        assert "more follows" in str(error) and error.line == 2


@pytest.mark.parametrize("text", ['[{"a": 1} 5]', '[{"a": 1}, 5]', '["a", "b"]', "[1, 2]"])
def test_what_is_no_object_in_an_array_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    for size in (2, 1000):
        problem(lambda size=size: read(path, size))


@pytest.mark.parametrize("form", ["parquet", "stream", "file"])
def test_tables_come_in_small_pieces(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    table = pa.table({"text": [f"row {i} " + "x" * 1000 for i in range(3000)], "other": range(3000)})
    if form == "parquet":
        parquet.write_table(table, path)
    else:
        with (pa.ipc.new_stream if form == "stream" else pa.ipc.new_file)(str(path), table.schema) as writer:
            writer.write_table(table)
    monkeypatch.setattr(tables, "TABLE_BYTES", 100_000)
    found = list(blocks.read(files.recognise(path), columns=["text"]))
    assert len(found) > 20 and max(block.size for block in found) < 200_000
    assert [text for block in found for text in block.table.column(0).to_pylist()] == table.column(0).to_pylist()
    assert [block.first_row for block in found] == [0, *np.cumsum([len(block.table) for block in found])[:-1]]
    piece = found[3]
    assert len(piece.__getstate__()["table"]) < piece.size + 10_000  # not all of what it is a slice of
    assert copy.copy(piece).table.equals(piece.table)  # by the same two methods as for another process
