"""A Llama 3 vocabulary: the bytes of every token, read from `tokenizer.model` or `tokenizer.json`.

Both files say the same thing in two ways. `tokenizer.model` holds `base64 rank` lines; the 256
special tokens are numbered after the ranks and their names stand in Llama's code, not in the file.
`tokenizer.json` holds the vocabulary, every merge and the special tokens.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import itertools
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from common.errors import UserError

# Llama 3's split pattern (tokenizer.py of meta-llama/llama3). Digits go in groups of up to three:
# an early port split them one by one and gave other ids for every number.
SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

BEGIN_OF_TEXT = "<|begin_of_text|>"
END_OF_TEXT = "<|end_of_text|>"
START_HEADER = "<|start_header_id|>"
END_HEADER = "<|end_header_id|>"
END_OF_TURN = "<|eot_id|>"
RIGHT_PAD = "<|finetune_right_pad_id|>"

SPECIAL_TOKENS = 256


def special_token_names() -> list[str]:
    """The names of the 256 special tokens in the order of their ids.

    These are the names of Llama 3.1 and later. Llama 3 has the same file and the same ids, and calls
    three of them (the pad, `<|eom_id|>` and `<|python_tag|>`) reserved.
    """
    reserved = [f"<|reserved_special_token_{i}|>" for i in range(248)]
    return [
        BEGIN_OF_TEXT,
        END_OF_TEXT,
        *reserved[0:2],
        RIGHT_PAD,
        reserved[2],
        START_HEADER,
        END_HEADER,
        "<|eom_id|>",
        END_OF_TURN,
        "<|python_tag|>",
        *reserved[3:],
    ]


def _byte_characters() -> dict[int, str]:
    """The printable character that stands for each byte in tokenizer.json (GPT-2's byte-level table)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


BYTE_CHARACTERS = _byte_characters()
_FROM_CHARACTERS = str.maketrans({character: chr(byte) for byte, character in BYTE_CHARACTERS.items()})


def as_characters(token: bytes) -> str:
    """The token as tokenizer.json writes it, one printable character a byte."""
    return token.decode("latin-1").translate(BYTE_CHARACTERS)


@dataclass(frozen=True)
class Vocabulary:
    """`ranks`: the id of every ordinary token by its bytes; `special`: the id of every special token by its name."""

    ranks: dict[bytes, int]
    special: dict[str, int]
    source: Path

    @cached_property
    def size(self) -> int:
        """One more than the largest id."""
        return 1 + max(max(self.ranks.values()), max(self.special.values(), default=-1))

    @cached_property
    def digest(self) -> str:
        """What identifies the vocabulary, as "sha256:...": the same for tokenizer.model and tokenizer.json."""
        sha = hashlib.sha256()
        for token, rank in sorted(self.ranks.items(), key=lambda item: item[1]):
            sha.update(b"%d %s\n" % (rank, token.hex().encode()))
        for name, number in sorted(self.special.items(), key=lambda item: item[1]):
            sha.update(f"{number} {name}\n".encode())
        return "sha256:" + sha.hexdigest()

    def by_rank(self) -> tuple[list[bytes], list[str]]:
        """All ordinary tokens in the order of their ranks, and each as tokenizer.json writes it."""
        tokens = sorted(self.ranks, key=self.ranks.__getitem__)
        # One translation of all bytes: a byte is one character, so the tokens' borders stay where they are
        whole = as_characters(b"".join(tokens))
        ends = list(itertools.accumulate(map(len, tokens)))
        return tokens, [whole[end - len(token) : end] for token, end in zip(tokens, ends, strict=True)]

    def merges(self, tokens: list[bytes], names: list[str]) -> list[str]:
        """Every pair of tokens that joins into a token, as "left right", in the order of the joined token.

        The ranks are the order in which merges apply, so the pairs follow from them alone. `tokens` and
        `names` are those of `by_rank`.
        """
        left, right, joined = _splits(tokens)
        pairs = []
        for a, b, whole in zip(left.tolist(), right.tolist(), joined.tolist(), strict=True):
            # Splits are found by hash; what is written is compared in full.
            if names[a] + names[b] == names[whole]:
                pairs.append(f"{names[a]} {names[b]}")
        return pairs


def _splits(tokens: list[bytes]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Every way to cut a token into two tokens: the numbers of the left part, the right part and the whole.

    A Python loop over a million cuts takes over a second, which every start would pay; polynomial
    hashes modulo 2**64 of all prefixes and suffixes take a tenth of that.
    """
    lengths = np.array([len(token) for token in tokens])
    data = np.frombuffer(b"".join(tokens), dtype=np.uint8).astype(np.uint64) + np.uint64(1)
    starts = np.cumsum(lengths) - lengths
    base = np.uint64(0x9E3779B97F4A7C15)
    powers = np.ones(int(lengths.max()) + 1, dtype=np.uint64)
    prefix = data.copy()  # of every byte: the hash of its token up to and with it
    with np.errstate(over="ignore"):
        for place in range(1, len(powers)):
            powers[place] = powers[place - 1] * base
            at = starts[lengths > place] + place
            prefix[at] += prefix[at - 1] * base
        whole = prefix[starts + lengths - 1]
        token = np.repeat(np.arange(len(tokens)), lengths - 1)
        ends = np.cumsum(lengths - 1)
        cut = np.arange(len(token)) - np.repeat(ends - (lengths - 1), lengths - 1) + 1
        lefts = _numbers(prefix[starts[token] + cut - 1], whole)
        some = lefts >= 0
        token, cut, lefts = token[some], cut[some], lefts[some]
        rights = _numbers(whole[token] - whole[lefts] * powers[lengths[token] - cut], whole)
    both = rights >= 0
    token, lefts, rights = token[both], lefts[both], rights[both]
    order = np.argsort(token * len(tokens) + lefts)
    return lefts[order], rights[order], token[order]


def _numbers(wanted: npt.NDArray[np.uint64], known: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """The place in `known` of each of `wanted` (int64 [wanted]), -1 where it is none of them."""
    order = np.argsort(known)
    ordered = known[order]
    ascending = np.argsort(wanted)  # in order they are found four times as fast
    at = np.empty(len(wanted), dtype=np.int64)
    at[ascending] = np.minimum(np.searchsorted(ordered, wanted[ascending]), len(known) - 1)
    return np.where(ordered[at] == wanted, order[at], -1)


def read(path: Path) -> Vocabulary:
    """The vocabulary in `path`: a tokenizer.model, a tokenizer.json, or a folder that holds one of them.

    A folder's tokenizer.json comes first: it is what transformers reads, and it names the special tokens.
    Raises UserError when there is none, or when it is not a Llama 3 vocabulary.
    """
    file = find(path)
    return _read_json(file) if file.suffix == ".json" else _read_model(file)


def find(path: Path) -> Path:
    """The vocabulary file that `path` is or holds; raises UserError when there is none."""
    if path.is_dir():
        for name in ("tokenizer.json", "tokenizer.model", "original/tokenizer.model"):
            if (path / name).is_file():
                return path / name
        raise UserError("the folder holds no tokenizer", file=path, expected="tokenizer.json or tokenizer.model")
    if not path.is_file():
        raise UserError("no such tokenizer", file=path, expected="tokenizer.model, tokenizer.json or their folder")
    return path


def _read_model(file: Path) -> Vocabulary:
    expected = "lines of `base64 rank`, as in Llama 3's tokenizer.model"
    ranks: dict[bytes, int] = {}
    with open(file, "rb") as lines:
        if b"\0" in lines.read(4096):
            hint = "this is a SentencePiece model, as of Llama 2; Llama 3's file is text"
            raise UserError("not a Llama 3 vocabulary", file=file, expected=expected, hint=hint)
        lines.seek(0)
        line = b"\n"
        for number, line in enumerate(lines, 1):
            try:
                text, rank = line.split()
                token = base64.b64decode(text, validate=True)
                value = int(rank)
            except (ValueError, binascii.Error):
                found = repr(line[:60])
                raise UserError(
                    "not a Llama 3 vocabulary", file=file, line=number, found=found, expected=expected
                ) from None
            if token in ranks or value != len(ranks):
                found = f"rank {value} for {token!r}"
                expectation = f"rank {len(ranks)} and a token of its own"
                raise UserError("the vocabulary is damaged", file=file, line=number, found=found, expected=expectation)
            ranks[token] = value
    if not line.endswith(b"\n"):
        # A shorter vocabulary would number every special token anew.
        hint = "the file was cut off: fetch it again"
        raise UserError("the vocabulary has no end", file=file, line=number, expected="a whole last line", hint=hint)
    _check_bytes(ranks, file)
    special = {name: len(ranks) + i for i, name in enumerate(special_token_names())}
    return Vocabulary(ranks, special, file)


def _read_json(file: Path) -> Vocabulary:
    try:
        whole = json.loads(file.read_bytes())
        model = whole["model"]
        vocabulary: dict[str, int] = model["vocab"]
        added = {str(token["content"]): int(token["id"]) for token in whole.get("added_tokens") or []}
        pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        found = f"{type(error).__name__}: {error}"
        raise UserError("not a tokenizer.json", file=file, found=found, expected="a BPE tokenizer of Llama 3") from None
    pattern = _split_pattern(whole.get("pre_tokenizer"))
    if whole.get("normalizer") is not None or pattern != SPLIT_PATTERN:
        found = "a normalizer" if pattern == SPLIT_PATTERN else f"split pattern {pattern!r}"
        raise UserError("not a Llama 3 tokenizer", file=file, found=found, expected=f"split pattern {SPLIT_PATTERN!r}")
    try:
        ranks = {
            token.translate(_FROM_CHARACTERS).encode("latin-1"): rank
            for token, rank in vocabulary.items()
            if token not in added
        }
    except UnicodeEncodeError:
        raise UserError("not a byte-level vocabulary", file=file, expected="a BPE tokenizer of Llama 3") from None
    _check_bytes(ranks, file)
    _check_merges(pairs, vocabulary, bool(model.get("ignore_merges")), file)
    return Vocabulary(ranks, added, file)


def _split_pattern(pre_tokenizer: Any) -> str | None:
    parts = (pre_tokenizer or {}).get("pretokenizers", [pre_tokenizer or {}])
    for part in parts:
        if part.get("type") == "Split":
            pattern = part.get("pattern", {}).get("Regex")
            return pattern if isinstance(pattern, str) else None
    return None


def _check_bytes(ranks: dict[bytes, int], file: Path) -> None:
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing:
        found = f"no token for byte {missing[0]:#04x}" + (f" and {len(missing) - 1} more" if missing[1:] else "")
        raise UserError("the vocabulary is damaged", file=file, found=found, expected="a token for each of 256 bytes")


def _check_merges(pairs: list[list[str]], vocabulary: dict[str, int], ignore_merges: bool, file: Path) -> None:
    """Merges must follow the ids: only then do the ids alone say what joins first, as in tokenizer.model."""
    last = -1
    reached = set()
    for left, right in pairs:
        joined = vocabulary.get(left + right, -1)
        if joined < last:
            raise UserError(
                "merges are not in the order of the ids",
                file=file,
                found=f"{left!r} + {right!r}",
                expected="a Llama 3 tokenizer",
            )
        last = joined
        reached.add(joined)
    unreachable = sum(len(token) > 1 and number not in reached for token, number in vocabulary.items())
    if unreachable and not ignore_merges:
        raise UserError(
            "tokens that no merge makes", file=file, found=f"{unreachable} tokens", expected='"ignore_merges": true'
        )
