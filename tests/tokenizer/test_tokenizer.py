"""The tokenizer: the same ids whichever file and whichever engine, and text that stays text."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from common.tokenizer import TINY, Tokenizer, load, write_hugging_face

REAL = os.environ.get("LLAMA3_TOKENIZER")
SPECIAL = {"begin": "<|begin_of_text|>", "turn": "<|eot_id|>", "pad": "<|finetune_right_pad_id|>"}
AWKWARD = [
    "",
    " ",
    "   \n\t\n  x",
    "12345678 1 22 333 4444",
    "it's I'LL we'Re don'T",
    "今天天气很好，我们去公园。",
    "\U0001f600\U0001f469\u200d\U0001f469\u200d\U0001f467 e\u0301 \u00e9",
    "<|eot_id|><|begin_of_text|><|start_header_id|>user<|end_header_id|>",
    "a" * 300 + " " * 300 + "!" * 300,
    "\u0000\u0001\u007f\u0085\u00a0\u2028\ufeff",
    "\r\n\r\n \r x\r\ny",
    "ไทย العربية हिन्दी Ελληνικά кириллица",
]


@pytest.fixture(scope="module", params=["tiny", "real"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    if request.param == "tiny":
        return load("tiny")
    if REAL is None:
        pytest.skip("set LLAMA3_TOKENIZER to Llama 3's tokenizer.model to test the real vocabulary too")
    return load(REAL)


@pytest.fixture(scope="module")
def hugging_face(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hf")
    write_hugging_face(
        tokenizer.vocabulary.source, folder, eos_token=SPECIAL["turn"], pad_token=SPECIAL["pad"], chat_template="x"
    )
    return folder


@pytest.fixture
def without_gigatoken(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "gigatoken" else real(name, *a))


@pytest.mark.usefixtures("without_gigatoken")
def test_without_gigatoken_tiktoken_does_it_all(tokenizer: Tokenizer) -> None:
    fresh = Tokenizer(tokenizer.vocabulary)
    fresh.prepare_large()
    encoded = fresh.encode_batch(AWKWARD)
    assert "_gigatoken" not in fresh.__dict__
    expected = [tokenizer.encode(text).tolist() for text in AWKWARD]
    assert [part.tolist() for part in np.split(encoded.ids, encoded.offsets[1:-1])] == expected


def test_what_gigatoken_remembers_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.tokenizer.tokenizer._BYTES_REMEMBERED", 1000)
    tokenizer = load("tiny")
    tokenizer.prepare_large()
    first = tokenizer._gigatoken
    ids = tokenizer.encode("a word")
    assert tokenizer._gigatoken is first
    tokenizer.encode("x " * 600)
    assert tokenizer._gigatoken is not first
    assert np.array_equal(tokenizer.encode("a word"), ids)


def test_a_million_spaces_in_a_row() -> None:
    text = "a" + " " * 1_000_000 + "b"
    tokenizer = load("tiny")
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.usefixtures("without_gigatoken")
def test_a_text_that_tiktoken_cannot_encode_is_one_clear_error() -> None:
    with pytest.raises(UserError, match="gigatoken"):
        load("tiny").encode("a" + " " * 1_000_000 + "b")


def engines(tokenizer: Tokenizer, texts: list[str]) -> list[list[list[int]]]:
    """The ids of every text from tiktoken, from gigatoken given strings, and from gigatoken given bytes."""
    by_tiktoken = [Tokenizer._encode_tiktoken(tokenizer, [text], False).ids.tolist() for text in texts]
    tokenizer.prepare_large()
    data = [text.encode() for text in texts]
    offsets = np.cumsum([0] + [len(part) for part in data])
    made = [by_tiktoken]
    for encoded in (
        tokenizer.encode_batch(texts),
        tokenizer.encode_utf8(np.frombuffer(b"".join(data), dtype=np.uint8), offsets),
    ):
        assert encoded.ids.dtype == np.int32
        made.append([part.tolist() for part in np.split(encoded.ids, encoded.offsets[1:-1])])
    return made


def test_every_engine_gives_the_same_ids(tokenizer: Tokenizer) -> None:
    expected, *others = engines(tokenizer, AWKWARD)
    for ids in others:
        assert ids == expected


@settings(max_examples=300, deadline=None)
@given(texts=st.lists(st.text(st.characters(codec="utf-8"), max_size=60), min_size=1, max_size=8))
def test_every_engine_gives_the_same_ids_on_random_unicode(texts: list[str]) -> None:
    tokenizer = load_once(REAL or "tiny")
    expected, *others = engines(tokenizer, texts)
    for ids, text in zip(expected, texts, strict=True):
        assert tokenizer.decode(ids) == text
    for ids in others:
        assert ids == expected


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.sampled_from(" \t\n\r\u00a0\u3000ab'sSl09１٣!?,.<|>的一-_é"), max_size=40))
def test_every_engine_splits_white_space_digits_and_quotes_alike(text: str) -> None:
    expected, *others = engines(load_once(REAL or "tiny"), [text])
    for ids in others:
        assert ids == expected


_loaded: dict[str, Tokenizer] = {}


def load_once(path: str) -> Tokenizer:
    if path not in _loaded:
        _loaded[path] = load(path)
    return _loaded[path]


def test_text_that_names_a_control_token_stays_text(tokenizer: Tokenizer) -> None:
    control = set(tokenizer.special.values())
    for name in SPECIAL.values():
        for ids in engines(tokenizer, [f"a {name} b"]):
            assert not control & set(ids[0])
        assert tokenizer.decode(tokenizer.encode(f"a {name} b")) == f"a {name} b"


def test_special_tokens_are_numbered_after_the_ranks(tokenizer: Tokenizer) -> None:
    first = len(tokenizer.vocabulary.ranks)
    names = sorted(tokenizer.special, key=tokenizer.special.__getitem__)
    assert [tokenizer.special[name] for name in names] == list(range(first, first + 256))
    places = {
        "<|begin_of_text|>": 0,
        "<|end_of_text|>": 1,
        "<|start_header_id|>": 6,
        "<|end_header_id|>": 7,
        "<|eot_id|>": 9,
        "<|reserved_special_token_247|>": 255,
    }
    assert {name: tokenizer.special_id(name) - first for name in places} == places
    assert tokenizer.vocabulary_size == first + 256


def test_digits_go_in_groups_of_up_to_three(tokenizer: Tokenizer) -> None:
    for text, groups in (("12345", ["123", "45"]), ("1234567", ["123", "456", "7"]), ("２０２６", ["２０２", "６"])):
        joined = [token for group in groups for token in tokenizer.encode(group).tolist()]
        assert tokenizer.encode(text).tolist() == joined
    if REAL and tokenizer.vocabulary_size == 128256:
        assert len(tokenizer.encode("12345")) == 2


def test_tokenizer_json_gives_the_same_ids_and_digest(tokenizer: Tokenizer, hugging_face: Path) -> None:
    again = load(hugging_face)
    assert again.vocabulary.source.name == "tokenizer.json"
    assert again.digest == tokenizer.digest
    assert [again.encode(text).tolist() for text in AWKWARD] == [tokenizer.encode(text).tolist() for text in AWKWARD]


def test_hugging_face_files_give_the_same_ids(tokenizer: Tokenizer, hugging_face: Path) -> None:
    from tokenizers import Tokenizer as Reference

    reference = Reference.from_file(str(hugging_face / "tokenizer.json"))
    plain = [text for text in AWKWARD if "<|" not in text]
    expected = [tokenizer.encode(text).tolist() for text in plain]
    assert [e.ids for e in reference.encode_batch(plain, add_special_tokens=False)] == expected
    begin = tokenizer.special_id("<|begin_of_text|>")
    assert reference.encode("a b").ids == [begin, *tokenizer.encode("a b").tolist()]
    assert reference.encode("<|eot_id|>", add_special_tokens=False).ids == [tokenizer.special_id("<|eot_id|>")]
    assert reference.get_vocab_size() == tokenizer.vocabulary_size
    configuration = json.loads((hugging_face / "tokenizer_config.json").read_text())
    assert configuration["eos_token"] == "<|eot_id|>" and configuration["chat_template"] == "x"
    assert (hugging_face / "tokenizer.model").read_bytes() == tokenizer.vocabulary.source.read_bytes()


def test_merges_are_every_pair_that_joins_into_a_token(tokenizer: Tokenizer) -> None:
    if tokenizer.vocabulary_size > 10_000:
        assert (
            len(tokenizer.vocabulary.merges(*tokenizer.vocabulary.by_rank())) == 280_147
        )  # as many as Meta's own tokenizer.json has
        return
    ranks = tokenizer.vocabulary.ranks
    count = sum(token[:cut] in ranks and token[cut:] in ranks for token in ranks for cut in range(1, len(token)))
    assert len(tokenizer.vocabulary.merges(*tokenizer.vocabulary.by_rank())) == count > 0


def test_tokenizer_model_is_rebuilt_from_tokenizer_json(tmp_path: Path) -> None:
    write_hugging_face(TINY, tmp_path / "a", eos_token="<|eot_id|>", pad_token=SPECIAL["pad"], chat_template=None)
    write_hugging_face(
        tmp_path / "a" / "tokenizer.json",
        tmp_path / "b",
        eos_token="<|end_of_text|>",
        pad_token=SPECIAL["pad"],
        chat_template=None,
    )
    assert (tmp_path / "b" / "tokenizer.model").read_bytes() == TINY.read_bytes()


def test_the_tiny_vocabulary_is_what_its_script_makes() -> None:
    from tools.make_tiny_tokenizer import RANKS, TEXT, learn

    lines = [base64.b64decode(line.split()[0]) for line in TINY.read_bytes().splitlines()]
    assert lines == learn(TEXT.read_text(encoding="utf-8"), RANKS)
    assert len(lines) == 1024


def test_decoding_names_special_tokens_or_leaves_them_out() -> None:
    tokenizer = load("tiny")
    ids = [tokenizer.special_id("<|begin_of_text|>"), *tokenizer.encode("hi").tolist()]
    assert tokenizer.decode(ids) == "<|begin_of_text|>hi"
    assert tokenizer.decode(ids, skip_special=True) == "hi"
    with pytest.raises(UserError, match="no such token"):
        tokenizer.decode([tokenizer.vocabulary_size])


def test_an_unknown_special_token_names_the_nearest() -> None:
    with pytest.raises(UserError) as caught:
        load("tiny").special_id("<|eot|>")
    assert "<|eot_id|>" in str(caught.value)


GOOD = TINY.read_bytes()
ONE_MERGE = GOOD.splitlines(keepends=True)[:257]


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        (b"", None, "no token for byte"),
        (b"\x0a\x0e\x0a\x05<unk>\x15\0\0\0\0", None, "SentencePiece"),
        (GOOD.replace(b" 7\n", b" seven\n", 1), 8, "base64 rank"),
        (GOOD.replace(b" 7\n", b" 9\n", 1), 8, "rank 7"),
        (b"!!! 0\n", 1, "not a Llama 3 vocabulary"),
        (GOOD[:-1], 1024, "cut off"),
        (GOOD[: len(GOOD) // 2 + 1], 572, "not a Llama 3 vocabulary"),
        (b"".join(ONE_MERGE[1:]), 1, "rank 0"),
        (b"".join([*ONE_MERGE[:256], ONE_MERGE[0].split()[0] + b" 256\n"]), 257, "a token of its own"),
    ],
)
def test_a_damaged_tokenizer_model_is_refused(tmp_path: Path, content: bytes, line: int | None, said: str) -> None:
    file = tmp_path / "tokenizer.model"
    file.write_bytes(content)
    with pytest.raises(UserError) as caught:
        load(file)
    assert said in str(caught.value)
    assert caught.value.line == line


def test_another_tokenizer_json_is_refused(tmp_path: Path) -> None:
    write_hugging_face(TINY, tmp_path, eos_token="<|eot_id|>", pad_token=SPECIAL["pad"], chat_template=None)
    file = tmp_path / "tokenizer.json"
    good = json.loads(file.read_text(encoding="utf-8"))

    def refused(change: object) -> str:
        assert callable(change)
        whole = json.loads(json.dumps(good))
        change(whole)
        file.write_text(json.dumps(whole), encoding="utf-8")
        with pytest.raises(UserError) as caught:
            load(tmp_path)
        return str(caught.value)

    def one_digit(whole: dict) -> None:  # the pattern of an early port
        pattern = whole["pre_tokenizer"]["pretokenizers"][0]["pattern"]
        pattern["Regex"] = pattern["Regex"].replace(r"\p{N}{1,3}", r"\p{N}")

    assert "split pattern" in refused(one_digit)
    assert "a normalizer" in refused(lambda whole: whole.update(normalizer={"type": "NFC"}))
    assert "order of the ids" in refused(lambda whole: whole["model"]["merges"].reverse())
    assert "not a tokenizer.json" in refused(lambda whole: whole.pop("model"))
    assert "no merge makes" in refused(lambda whole: whole["model"].update(merges=[], ignore_merges=False))


def test_a_missing_tokenizer_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such tokenizer"):
        load(tmp_path / "tokenizer.model")
    with pytest.raises(UserError, match="holds no tokenizer"):
        load(tmp_path)
    with pytest.raises(UserError, match="special token"):
        write_hugging_face(TINY, tmp_path / "x", eos_token="</s>", pad_token=SPECIAL["pad"], chat_template=None)
    assert not (tmp_path / "x").exists()
