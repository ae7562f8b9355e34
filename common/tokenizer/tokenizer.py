"""Text to ids and back. Small inputs go through tiktoken, large ones through gigatoken: the ids are the same."""

from __future__ import annotations

import ctypes
import importlib.util
import itertools
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from common.errors import UserError, did_you_mean
from common.tokenizer import hugging_face, vocabulary
from common.tokenizer.vocabulary import SPLIT_PATTERN, Vocabulary

if TYPE_CHECKING:
    import gigatoken
    import tiktoken

TINY = Path(__file__).with_name("tiny.model")

# gigatoken needs about two seconds to load Llama 3's vocabulary, tiktoken a tenth: below this many
# characters tiktoken has finished before gigatoken has begun.
_CHARACTERS_FOR_GIGATOKEN = 4_000_000

# gigatoken remembers every word it has met, new ones without end: after so many bytes it is loaded anew.
_BYTES_REMEMBERED = 2**30

# tiktoken's regular expressions overflow their stack on a long run of white space in one text.
_LONG_TEXT = 100_000


class Encoded(NamedTuple):
    """Ids of many texts. `ids`: int32 [total]; `offsets`: int64 [texts + 1]; text i is ids[offsets[i]:offsets[i+1]]."""

    ids: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]


class Tokenizer:
    """One tokenizer for all recipes.

    What it encodes is text: "<|eot_id|>" in it becomes the seven tokens of these characters, never the
    control token. Special tokens are added by id (`special`, `special_id`).
    """

    def __init__(self, content: Vocabulary) -> None:
        self.vocabulary = content
        self._encoded = 0  # bytes that gigatoken has met

    @property
    def special(self) -> Mapping[str, int]:
        """The id of every special token by its name."""
        return self.vocabulary.special

    @property
    def vocabulary_size(self) -> int:
        """One more than the largest id (128,256 for Llama 3)."""
        return self.vocabulary.size

    @property
    def digest(self) -> str:
        """What identifies the vocabulary, as "sha256:...", whichever of its files it was read from."""
        return self.vocabulary.digest

    def special_id(self, name: str) -> int:
        """The id of the special token `name`; raises UserError when the vocabulary has none."""
        try:
            return self.vocabulary.special[name]
        except KeyError:
            hint = did_you_mean(name, self.vocabulary.special)
            source = self.vocabulary.source
            raise UserError("the vocabulary has no such special token", file=source, found=name, hint=hint) from None

    def encode(self, text: str) -> npt.NDArray[np.int32]:
        """The ids of `text`, int32 [n]. No special token is added or recognised."""
        return self.encode_batch([text], parallel=False).ids

    def encode_batch(self, texts: Sequence[str], *, parallel: bool | None = None) -> Encoded:
        """The ids of many texts as flat arrays. `parallel` False keeps to the calling thread."""
        lengths = [len(text) for text in texts]
        if self._use_gigatoken(sum(lengths), max(lengths, default=0)):
            return self._encode_gigatoken(list(texts), sum(lengths), parallel)
        return self._encode_tiktoken(texts, parallel)

    def encode_utf8(
        self, data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], *, parallel: bool | None = None
    ) -> Encoded:
        """The same for texts that lie in one buffer of UTF-8: text i is data[offsets[i]:offsets[i+1]].

        data: uint8 [bytes]; offsets: int64 [texts + 1], from 0. No text is copied where gigatoken reads it.
        """
        if not self._use_gigatoken(len(data), int(np.diff(offsets).max(initial=0))):
            whole = data.tobytes()
            bounds = offsets.tolist()
            texts = [whole[a:b].decode() for a, b in itertools.pairwise(bounds)]
            return self._encode_tiktoken(texts, parallel)
        import awkward
        from awkward import contents, index

        characters = contents.NumpyArray(data, parameters={"__array__": "char"})
        strings = contents.ListOffsetArray(index.Index64(offsets), characters, parameters={"__array__": "string"})
        return self._encode_gigatoken(awkward.Array(strings), len(data), parallel)

    def _use_gigatoken(self, total: int, longest: int) -> bool:
        needed = "_gigatoken" in self.__dict__ or total >= _CHARACTERS_FOR_GIGATOKEN or longest >= _LONG_TEXT
        return needed and importlib.util.find_spec("gigatoken") is not None

    def _encode_gigatoken(self, texts: Any, size: int, parallel: bool | None) -> Encoded:
        self._encoded += size
        if self._encoded > _BYTES_REMEMBERED:
            self._encoded = size
            self.__dict__.pop("_gigatoken", None)
        layout = self._gigatoken.encode_batch(texts, parallel=parallel).layout
        offsets = np.asarray(layout.offsets.data, dtype=np.int64)
        # Ids are below 2**31, so the unsigned ids are read as signed ones without a copy.
        return Encoded(np.asarray(layout.content.data).view(np.int32)[: offsets[-1]], offsets)

    def _encode_tiktoken(self, texts: Sequence[str], parallel: bool | None) -> Encoded:
        try:
            if parallel is False:
                lists = [self._tiktoken.encode_ordinary(text) for text in texts]
            else:
                lists = self._tiktoken.encode_ordinary_batch(list(texts), num_threads=2)
        except BaseException as error:
            # A panic of its Rust code is no Exception.
            if type(error).__name__ != "PanicException":
                raise
            longest = max(len(text) for text in texts)
            hint = "install gigatoken, which has no such limit, or split the text"
            raise UserError(
                "tiktoken cannot encode a text",
                found=f"up to {longest:,} characters",
                expected="shorter runs",
                hint=hint,
            ) from None
        offsets = np.zeros(len(lists) + 1, dtype=np.int64)
        np.cumsum([len(ids) for ids in lists], out=offsets[1:])
        ids = np.fromiter((i for ids in lists for i in ids), dtype=np.int32, count=int(offsets[-1]))
        return Encoded(ids, offsets)

    def decode(self, ids: Iterable[int], *, skip_special: bool = False) -> str:
        """The text of `ids`; special tokens appear by name, or not at all with `skip_special`.

        Bytes that are not UTF-8 (half a character) become U+FFFD. Raises UserError for an unknown id.
        """
        return b"".join(self.token_bytes(int(i), skip_special=skip_special) for i in ids).decode("utf-8", "replace")

    def token_bytes(self, token: int, *, skip_special: bool = False) -> bytes:
        """The bytes of one token, the name of a special one; raises UserError for an unknown id."""
        try:
            return self._bytes[token]
        except KeyError:
            name = self._special_names.get(token)
        if name is None:
            expected = f"an id below {self.vocabulary_size}"
            raise UserError("no such token", file=self.vocabulary.source, found=token, expected=expected)
        return b"" if skip_special else name.encode()

    def prepare_large(self) -> None:
        """Load the engine for large inputs now, so that processes forked later share it."""
        if importlib.util.find_spec("gigatoken") is not None:
            _ = self._gigatoken
            if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc's
                trim(0)  # what making its tables took, some 60 MB

    @cached_property
    def _tiktoken(self) -> tiktoken.Encoding:
        import tiktoken

        name = self.vocabulary.source.stem
        return tiktoken.Encoding(name, pat_str=SPLIT_PATTERN, mergeable_ranks=self.vocabulary.ranks, special_tokens={})

    @cached_property
    def _gigatoken(self) -> gigatoken.Tokenizer:
        import gigatoken

        # Built without the special tokens: gigatoken would recognise them in text.
        return gigatoken.Tokenizer.from_json(hugging_face.tokenizer_json(self.vocabulary, special=False))

    @cached_property
    def _bytes(self) -> dict[int, bytes]:
        return {rank: token for token, rank in self.vocabulary.ranks.items()}

    @cached_property
    def _special_names(self) -> dict[int, str]:
        return {number: name for name, number in self.vocabulary.special.items()}


def load(path: str | Path) -> Tokenizer:
    """The tokenizer in `path`: tokenizer.model, tokenizer.json, a folder with one of them, or "tiny".

    "tiny" is the small vocabulary that ships with the project, unless a file of that name exists.
    Raises UserError when it cannot be read as a Llama 3 vocabulary.
    """
    file = Path(path)
    if str(path) == "tiny" and not file.exists():
        file = TINY
    return Tokenizer(vocabulary.read(file))
