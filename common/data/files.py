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

BLOCK_BYTES = 4 * 2**20

_GZIP = b"\x1f\x8b"
_ZSTANDARD = b"\x28\xb5\x2f\xfd"
_PARQUET = b"PAR1"
_ARROW_FILE = b"ARROW1"
_ARROW_STREAM = b"\xff\xff\xff\xff"

# {"data": [...]}, as SQuAD's files are.
WRAPPED_ARRAY = re.compile(rb'\s*\{\s*(?:"version"\s*:\s*"[^"]*"\s*,\s*)?"data"\s*:\s*\[')

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

    Raises UserError when there is none.
    """
    path = Path(location)
    if path.is_dir():
        return _in_directory(path)
    if path.is_file():
        return [path]
    if any(character in str(location) for character in "*?["):
        names = glob.glob(str(location), recursive=True)  # noqa: PTH207 (pathlib takes no absolute pattern)
        found = sorted(Path(name) for name in names if Path(name).is_file())
        if found:
            return found
    raise UserError("no such file", file=path, expected="a file, a glob or a directory")


def _in_directory(path: Path) -> list[Path]:
    if (path / "dataset_dict.json").is_file():
        splits = json.loads((path / "dataset_dict.json").read_text(encoding="utf-8")).get("splits", [])
        if "train" not in splits:
            names = ", ".join(str(path / str(split)) for split in splits)
            raise UserError("the folder holds several datasets", file=path, found=names, hint="name one of them")
        path = path / "train"
    if (path / "state.json").is_file():
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        return [path / str(entry["filename"]) for entry in state.get("_data_files", [])]
    found = sorted(p for p in path.rglob("*") if p.is_file() and any(suffix in SUFFIXES for suffix in p.suffixes))
    if not found:
        raise UserError("the directory holds no data file", file=path, expected="files named " + ", ".join(SUFFIXES))
    return found


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
