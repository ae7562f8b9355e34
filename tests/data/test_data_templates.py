"""Templates: the text that the model sees, and which of its tokens are trained."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import pytest
from data_support import CONVERSATIONS, Conversation, conversations, messages
from hypothesis import given, settings
from hypothesis import strategies as st

from common.data import records, templates
from common.data.tokens import Renderer
from common.errors import UserError
from common.tokenizer import Tokenizer, load

REAL = os.environ.get("LLAMA3_TOKENIZER")
TINY = load("tiny")
CHATS = [name for name in templates.TEMPLATES if name != "plain"]
BOS, EOS, EOT = "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the user's questions."
)
COLOSSAL = VICUNA.replace("curious user", "curious human").replace("user's", "human's")


def batch(many: list[Conversation]) -> records.Batch:
    codes = {name: code for code, name in enumerate(records.ROLE_NAMES)}
    turns = [[(codes[m["role"]], m["content"]) for m in messages(c)] for c in many]
    return records.from_turns(turns, list(range(len(many))))


def rendered(name: str, many: list[Conversation], tokenizer: Tokenizer = TINY, loss_on: str = "answers"):
    """Of each conversation: its ids, which are trained, and the length of its prompt."""
    rows = Renderer(templates.get(name), tokenizer, loss_on=loss_on).render(batch(many))
    made = []
    for row, (a, b) in enumerate(itertools.pairwise(rows.offsets.tolist())):
        made.append((rows.ids[a:b].tolist(), rows.loss[a:b].tolist(), int(rows.prompt[row])))
    return made


def runs(tokenizer: Tokenizer, ids: list[int], trained: list[bool]) -> list[str]:
    """The text of each run of trained tokens; a run ends where the end token of an answer stands."""
    made = []
    for kind, group in itertools.groupby(zip(ids, trained, strict=True), key=lambda pair: pair[1]):
        if kind:
            made.append(tokenizer.decode([token for token, _ in group]))
    return made


def expected_text(name: str, conversation: Conversation) -> str:
    """The text by the public description of each format, written here once more, apart from the product."""
    system, rounds = conversation
    if name == "llama3":
        header = "<|start_header_id|>{}<|end_header_id|>\n\n{}<|eot_id|>"
        return BOS + "".join(header.format(m["role"], m["content"].strip()) for m in messages(conversation))
    if name == "vicuna":
        told = VICUNA if system is None else system
        return BOS + told + " " + "".join(f"USER: {q} ASSISTANT: {a}{EOS}" for q, a in rounds)
    if name == "colossal":
        told = COLOSSAL if system is None else system
        turns = (f"Human: {BOS}{q}{EOS}Assistant: {BOS}{a}{EOS}" for q, a in rounds)
        return f"{BOS}{told}\n\n" + "".join(turns)
    if name == "human_assistant":
        return BOS + (system or "") + "".join(f"\n\nHuman: {q}{EOS}\n\nAssistant: {a}{EOS}" for q, a in rounds)
    assert name == "alpaca"
    return BOS + ("" if system is None else system + "\n\n") + "".join(f"{q}{a}{EOS}" for q, a in rounds)


@settings(max_examples=80, deadline=None)
@given(many=st.lists(conversations, min_size=1, max_size=4), name=st.sampled_from(CHATS))
def test_the_text_is_that_of_the_format(many: list[Conversation], name: str) -> None:
    for conversation, (ids, _, _) in zip(many, rendered(name, many), strict=True):
        assert TINY.decode(ids) == expected_text(name, conversation)


@settings(max_examples=80, deadline=None)
@given(many=st.lists(conversations, min_size=1, max_size=4), name=st.sampled_from(CHATS))
def test_exactly_the_answers_and_their_ends_are_trained(many: list[Conversation], name: str) -> None:
    end = templates.get(name).end
    before = {"vicuna": " ", "colossal": BOS}.get(name, "")
    for (_, rounds), (ids, trained, _) in zip(many, rendered(name, many), strict=True):
        answers = [a.strip() if name == "llama3" else a for _, a in rounds]
        text = "".join(runs(TINY, ids, trained))
        assert text == "".join(before + answer + end for answer in answers)
        ends = [place for place, token in enumerate(ids) if token == TINY.special_id(end) and trained[place]]
        assert len(ends) == len(rounds)


@settings(max_examples=60, deadline=None)
@given(many=st.lists(conversations, min_size=1, max_size=3), name=st.sampled_from(CHATS))
def test_training_begins_with_the_very_tokens_of_the_prompt(many: list[Conversation], name: str) -> None:
    """What generation is given (the conversation up to its last answer) is a prefix of what training saw."""
    renderer = Renderer(templates.get(name), TINY)
    for (system, rounds), (ids, _, prompt) in zip(many, rendered(name, many), strict=True):
        question = rounds[-1][0]
        other = renderer.render(batch([(system, [*rounds[:-1], (question, "quite another answer")])]))
        assert other.ids[: other.prompt[0]].tolist() == ids[:prompt]
        whole = expected_text(name, (system, rounds))
        answer = rounds[-1][1].strip() if name == "llama3" else rounds[-1][1]
        seen = TINY.decode(ids[:prompt])
        rest = {"vicuna": " ", "colossal": BOS}.get(name, "") + answer + templates.get(name).end
        assert seen + rest == whole


def control_free_ids(tokenizer: Tokenizer, text: str, controls: list[str]) -> list[int]:
    """The ids of a text with control tokens, each run between two of them encoded in one go."""
    for name in controls:
        if name in text:
            left, right = text.split(name, 1)
            rest = control_free_ids(tokenizer, right, controls)
            return [*control_free_ids(tokenizer, left, controls), tokenizer.special_id(name), *rest]
    return tokenizer.encode(text).tolist() if text else []


@pytest.mark.parametrize("name", ["llama3", "colossal", "vicuna"])
@settings(max_examples=60, deadline=None)
@given(many=st.lists(conversations, min_size=1, max_size=3))
def test_the_ids_are_those_of_the_whole_text(name: str, many: list[Conversation]) -> None:
    """As a tokenizer that is given the rendered text finds them: no seam shows between prompt and answer."""
    controls = {
        "llama3": ["<|start_header_id|>", "<|end_header_id|>", EOT, BOS],
        "colossal": [BOS, EOS],
        "vicuna": [BOS, EOS],
    }[name]
    for conversation, (ids, _, _) in zip(many, rendered(name, many), strict=True):
        system, rounds = conversation
        if any("<|" in text for text in [system or "", *itertools.chain(*rounds)]):
            continue  # text that names a control token cannot be told from it in rendered text
        if name == "vicuna" and system is not None and not system.endswith("."):
            continue  # a system text of the user's own may join with what follows
        if name == "colossal" and any(a == "" for a in (system,)):
            continue
        assert ids == _in_order(TINY, expected_text(name, conversation), controls)


def _in_order(tokenizer: Tokenizer, text: str, controls: list[str]) -> list[int]:
    import re

    made: list[int] = []
    for part in re.split("(" + "|".join(re.escape(c) for c in controls) + ")", text):
        made += [tokenizer.special_id(part)] if part in controls else tokenizer.encode(part).tolist()
    return made


def test_loss_on_all_trains_everything_but_the_first_token() -> None:
    for name in templates.TEMPLATES:
        for ids, trained, _ in rendered(name, CONVERSATIONS, loss_on="all"):
            assert trained == [False] + [True] * (len(ids) - 1)


def test_documents_need_the_plain_template() -> None:
    import pyarrow as pa

    text = records.documents(pa.array(["one two", "three"]))
    rows = Renderer(templates.get("plain"), TINY).render(text)
    assert TINY.decode(rows.ids) == f"{BOS}one two{EOS}{BOS}three{EOS}"
    first = rows.offsets[:-1]
    assert not rows.loss[first].any() and rows.loss.sum() == len(rows.ids) - 2
    with pytest.raises(UserError, match="documents have no turns"):
        Renderer(templates.get("llama3"), TINY).render(text)


def test_alpacas_answer_begins_a_token_of_its_own() -> None:
    """After "Response:" a joint encoding would join the colon with the answer's first letters."""
    prompt = "### Response:"
    ids, trained, length = rendered("alpaca", [(None, [(prompt, "Output")])])[0]
    assert ids[1:length] == TINY.encode(prompt).tolist()
    assert TINY.decode(ids[length:-1]) == "Output" and trained.index(True) == length


def test_an_unknown_template_names_the_nearest() -> None:
    with pytest.raises(UserError, match="llama3"):
        templates.get("lama3")


@pytest.mark.skipif(REAL is None, reason="set LLAMA3_TOKENIZER to test the real vocabulary")
def test_the_mask_of_the_qa_rule_on_the_real_vocabulary() -> None:
    """The public rule: the round in one go, the prompt measured with a space at its end, less that space."""
    assert REAL is not None
    tokenizer = load(REAL)
    samples = Path(__file__).with_name("alpaca_like.jsonl")
    for line in samples.read_text(encoding="utf-8").splitlines():
        question, answer = json.loads(line)
        ids, trained, _ = rendered("vicuna", [(None, [(question, answer)])], tokenizer)[0]
        whole = f"{VICUNA} USER: {question} ASSISTANT: {answer}"
        assert ids == [128000, *tokenizer.encode(whole).tolist(), 128001]
        prompt = len(tokenizer.encode(f"{VICUNA} USER: {question} ASSISTANT: ")) - 1
        assert trained.index(True) == 1 + prompt and all(trained[1 + prompt :])
