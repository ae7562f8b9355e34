"""Input files: what a path, a glob or a directory names, and their bytes, decompressed as they are read."""

from __future__ import annotations

import glob
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError

BLOCK_BYTES = 2**20

_GZIP = b"\x1f\x8b"
_ZSTANDARD = b"\x28\xb5\x2f\xfd"
_PARQUET = b"PAR1"
_ARROW_FILE = b"ARROW1"
_ARROW_STREAM = b"\xff\xff\xff\xff"

# {"data": [...]}, as SQuAD's files are.
WRAPPED_ARRAY = re.compile(rb'\s*\{\s*(?:"version"\s*:\s*"[^"]*"\s*,\s*)?"data"\s*:\s*\[')

# What a file's name says of its split, as the hub's data sets are named: data/train-00000-of-00001.parquet.
_SPLIT = re.compile(r"(?:^|[/_.-])(train|test|validation|valid|val|dev|eval)(?=[/_.-]|$)")

# Descriptions of a data set that lie beside its data.
_NO_DATA = ("dataset_infos.json", "dataset_info.json", "state.json", "meta.json", "rejects.jsonl", "prompts.jsonl")

SUFFIXES = (".json", ".jsonl", ".parquet", ".arrow", ".txt", ".tokens", ".raw")


@dataclass(frozen=True)
class InputFile:
    """One file: how it is packed ("", "gzip", "zstd") and its form ("parquet", "arrow", "json", "jsonl", "text")."""

    path: Path
    compression: str
    form: str

    def blocks(self, size: int = BLOCK_BYTES) -> Iterator[bytes]:
        """The decompressed bytes, about `size` at a time; raises UserError for a damaged archive."""
        try:
            if self.compression == "zstd":
                yield from _zstandard_blocks(self.path, size)
                return
            with gzip.open(self.path, "rb") if self.compression == "gzip" else open(self.path, "rb") as stream:
                while block := stream.read(size):
                    yield block
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UserError(
                "the archive is damaged",
                file=self.path,
                found=str(error),
                expected=f"a whole {self.compression} file",
                hint="fetch or make the file again",
            ) from None


def _zstandard_blocks(path: Path, size: int) -> Iterator[bytes]:
    """The library's own file reader takes a file that is cut off for a whole one; this does not."""
    import zstandard

    decompressor = zstandard.ZstdDecompressor()
    frame = None
    try:
        with open(path, "rb") as stream:
            while data := stream.read(max(size // 4, 2**16)):
                while data:
                    frame = frame or decompressor.decompressobj()
                    if block := frame.decompress(data):
                        yield block
                    data = frame.unused_data if frame.eof else b""
                    if frame.eof:
                        frame = None
    except zstandard.ZstdError as error:
        raise EOFError(str(error)) from None
    if frame is not None:
        raise EOFError("the file ends within a frame")


def find(location: str | Path) -> list[Path]:
    """The files that a file name, a glob or a directory stands for, sorted; a `datasets` folder gives its Arrow files.

    DIRECTORY@SPLIT takes only the files of one split. Raises UserError when there is none, and for a
    directory of several splits without a choice: test data must not slip into training.
    """
    path = Path(location)
    if path.is_dir():
        return _in_directory(path, None)
    if path.is_file():
        return [path]
    base, at, split = str(location).rpartition("@")
    if at and Path(base).is_dir():
        return _in_directory(Path(base), split)
    if any(character in str(location) for character in "*?["):
        names = glob.glob(str(location), recursive=True)  # noqa: PTH207 (pathlib takes no absolute pattern)
        found = sorted(Path(name) for name in names if Path(name).is_file())
        if found:
            return found
    raise UserError("no such file", file=path, expected="a file, a glob or a directory")


def _in_directory(path: Path, split: str | None) -> list[Path]:
    if (path / "dataset_dict.json").is_file():
        named = json.loads((path / "dataset_dict.json").read_text(encoding="utf-8")).get("splits", [])
        path = path / _choose([str(name) for name in named], split, path)
    if (path / "state.json").is_file():
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        return [path / str(entry["filename"]) for entry in state.get("_data_files", [])]
    found = [
        p
        for p in sorted(path.rglob("*"))
        if p.is_file() and p.name not in _NO_DATA and any(suffix in SUFFIXES for suffix in p.suffixes)
    ]
    if not found:
        raise UserError("the directory holds no data file", file=path, expected="files named " + ", ".join(SUFFIXES))
    split_of = {p: _SPLIT.findall(p.relative_to(path).as_posix()) for p in found}
    splits = sorted({names[-1] for names in split_of.values() if names})
    if split is None and len(splits) < 2:
        return found
    chosen = _choose(splits, split, path)
    return [p for p, names in split_of.items() if names and names[-1] == chosen]


def _choose(splits: list[str], split: str | None, path: Path) -> str:
    if split in splits:
        return str(split)
    if split is None:
        wanted = "train" if "train" in splits else splits[0]
        hint = f"put @{wanted} after the folder or the hub id"
        raise UserError("the directory holds several splits", file=path, found=", ".join(splits), hint=hint)
    raise UserError(
        "the directory has no such split", file=path, found=split, expected=", ".join(splits) or "no splits"
    )


def recognise(path: Path) -> InputFile:
    """How `path` is packed and of which form it is, from its first bytes; raises UserError for an empty file."""
    with open(path, "rb") as stream:
        head = stream.read(16)
    if not head:
        raise UserError("the file is empty", file=path)
    if head.startswith(_PARQUET):
        return InputFile(path, "", "parquet")
    if head.startswith((_ARROW_FILE, _ARROW_STREAM)):
        return InputFile(path, "", "arrow")
    compression = "gzip" if head.startswith(_GZIP) else "zstd" if head.startswith(_ZSTANDARD) else ""
    return InputFile(path, compression, _text_form(InputFile(path, compression, "text")))


def _text_form(file: InputFile) -> str:
    """Whether the content is one JSON array (also one under "data"), one JSON object a line, or text."""
    head = b""
    for block in file.blocks(2**16):
        head = (head + block).lstrip(b"\xef\xbb\xbf \t\r\n")
        if head:
            break
    else:
        raise UserError("the file is empty", file=file.path, found="nothing but white space")
    if head.startswith(b"{"):
        return "json" if WRAPPED_ARRAY.match(head) else "jsonl"
    named = any(suffix in (".json", ".jsonl") for suffix in file.path.suffixes)
    # A text may begin with a bracket, too; in an array of records a brace follows it.
    if head.startswith(b"[") and (named or head[1:].lstrip()[:1] in (b"{", b"]")):
        return "json"
    return "jsonl" if named else "text"
