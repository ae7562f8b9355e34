"""The layouts of public data sets: which columns they have, and how a record becomes turns.

Each layout reads a record in two ways with one meaning: `columns` takes a whole table at once, and
says None where anything is out of order; `record` takes one record and says exactly what is wrong.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from common.data.columns import child, is_text, list_of_structs, string
from common.data.records import ASSISTANT, DOCUMENT, ROLES, USER, Batch, documents, integers, pairs
from common.errors import did_you_mean

# Stanford Alpaca's prompts, with and without an input.
_INSTRUCTION = "Write a response that appropriately completes the request.\n\n### Instruction:\n"
ALPACA_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. " + _INSTRUCTION
)
ALPACA_NO_INPUT = "Below is an instruction that describes a task. " + _INSTRUCTION
ALPACA_BEFORE_INPUT = "\n\n### Input:\n"
ALPACA_END = "\n\n### Response:"

# The reading task of the SQuAD retention test.
SQUAD_PROMPT = "Read the passage and answer the question below.\n\n### Instruction:\n"

Turns = list[tuple[int, str]]


class RecordError(ValueError):
    """What is wrong with one record."""

    def __init__(self, problem: str, found: str | None = None, expected: str | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.found = found
        self.expected = expected


class Layout(ABC):
    """One layout. `names` maps the layout's own column names to those of the file, where they differ."""

    name = ""
    required: tuple[str, ...] = ()

    def __init__(self, names: Mapping[str, str] | None = None) -> None:
        self.names = dict(names or {})

    def column(self, name: str) -> str:
        """What the file calls the column `name`."""
        return self.names.get(name, name)

    @abstractmethod
    def schema(self) -> pa.Schema:
        """The columns that are read, as the file calls them."""

    @abstractmethod
    def columns(self, table: pa.RecordBatch) -> Batch | None:
        """All records of a table of this schema, or None when one of them is not as it should be."""

    @abstractmethod
    def record(self, value: Mapping[str, Any]) -> list[Turns]:
        """The conversations of one record (SQuAD has many); raises RecordError."""

    def _text(self, value: Mapping[str, Any], name: str) -> str:
        key = self.column(name)
        if key not in value:
            near = did_you_mean(key, value)
            found = ("fields " + ", ".join(map(str, value)))[:120] + (f" ({near})" if near else "")
            raise RecordError(f"no field {key!r}", found, f"fields {', '.join(map(self.column, self.required))}")
        return text(value[key], key)


def text(value: Any, key: str) -> str:
    """`value` where it is text that can be encoded; raises RecordError."""
    if not isinstance(value, str):
        found = "null" if value is None else f"{type(value).__name__} {str(value)[:60]}"
        raise RecordError(f"{key!r} is not text", found, "a string")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        found = f"{value[error.start]!a} at character {error.start}"
        raise RecordError(f"half a character in {key!r} (a lone surrogate)", found, "valid Unicode") from None
    return value


class Alpaca(Layout):
    """{"instruction", "input", "output"}: the question stands in Alpaca's prompt."""

    name = "alpaca"
    required = ("instruction", "output")
    wrapped = True

    def schema(self) -> pa.Schema:
        return pa.schema([(self.column(name), pa.string()) for name in ("instruction", "input", "output")])

    def columns(self, table: pa.RecordBatch) -> Batch | None:
        instruction = string(table, self.column("instruction"))
        output = string(table, self.column("output"))
        at = table.schema.get_field_index(self.column("input"))
        extra = pa.nulls(len(table), pa.string()) if at < 0 else table.column(at)
        if instruction is None or output is None or (extra.null_count < len(extra) and not is_text(extra.type)):
            return None
        extra = pc.fill_null(extra.cast(pa.string()), "")
        return pairs(self._questions(instruction, extra), output)

    def _questions(self, instruction: pa.StringArray, extra: pa.StringArray) -> pa.StringArray:
        empty = pc.equal(extra, "")
        if not self.wrapped:
            between = pc.if_else(empty, "", "\n")
            return pc.binary_join_element_wise(instruction, between, extra, "")
        start = pc.if_else(empty, ALPACA_NO_INPUT, ALPACA_INPUT)
        between = pc.if_else(empty, "", ALPACA_BEFORE_INPUT)
        return pc.binary_join_element_wise(start, instruction, between, extra, ALPACA_END, "")

    def record(self, value: Mapping[str, Any]) -> list[Turns]:
        instruction = self._text(value, "instruction")
        output = self._text(value, "output")
        key = self.column("input")
        extra = "" if value.get(key) is None else text(value[key], key)
        plain = instruction + ("\n" + extra if extra else "")
        question = alpaca_prompt(instruction, extra) if self.wrapped else plain
        return [[(USER, question), (ASSISTANT, output)]]


def alpaca_prompt(instruction: str, extra: str = "") -> str:
    """Alpaca's prompt; an input counts as empty only when it is exactly ""."""
    if extra == "":
        return ALPACA_NO_INPUT + instruction + ALPACA_END
    return ALPACA_INPUT + instruction + ALPACA_BEFORE_INPUT + extra + ALPACA_END


class Belle(Alpaca):
    """BELLE: Alpaca's columns without its prompt; an input follows the instruction on a line of its own."""

    name = "belle"
    wrapped = False


class Contest(Layout):
    """{"problem", "solution"}: the problem stands in Alpaca's prompt without an input, as the contest does it."""

    name = "contest"
    required = ("problem", "solution")

    def schema(self) -> pa.Schema:
        return pa.schema([(self.column(name), pa.string()) for name in self.required])

    def columns(self, table: pa.RecordBatch) -> Batch | None:
        problem = string(table, self.column("problem"))
        solution = string(table, self.column("solution"))
        if problem is None or solution is None:
            return None
        return pairs(pc.binary_join_element_wise(ALPACA_NO_INPUT, problem, ALPACA_END, ""), solution)

    def record(self, value: Mapping[str, Any]) -> list[Turns]:
        problem = self._text(value, "problem")
        return [[(USER, alpaca_prompt(problem)), (ASSISTANT, self._text(value, "solution"))]]


class Messages(Layout):
    """A list of messages, each with a role and a content, under "messages"."""

    name = "messages"
    required = ("messages",)
    role_names = ("role", "from")
    content_names = ("content", "value")

    def schema(self) -> pa.Schema:
        message = pa.struct([(self._role, pa.string()), (self._content, pa.string())])
        return pa.schema([(self.column(self.required[0]), pa.list_(message))])

    @property
    def _role(self) -> str:
        return self.column(self.role_names[0])

    @property
    def _content(self) -> str:
        return self.column(self.content_names[0])

    def columns(self, table: pa.RecordBatch) -> Batch | None:
        messages = list_of_structs(table, self.column(self.required[0]))
        if messages is None:
            return None
        offsets, values = messages
        role, content = (child(values, name) for name in (self._role, self._content))
        if role is None or content is None or (np.diff(offsets) == 0).any():
            return None
        coded = role.dictionary_encode()
        names = coded.dictionary.to_pylist()
        if any(name not in ROLES for name in names):
            return None
        codes = np.array([ROLES[name] for name in names], dtype=np.uint8)
        roles = codes[integers(coded.indices)] if len(coded) else np.zeros(0, dtype=np.uint8)
        return Batch(content, roles, offsets, np.arange(len(table)))

    def record(self, value: Mapping[str, Any]) -> list[Turns]:
        key = self.column(self.required[0])
        turns: Turns = []
        for place, message in enumerate(_list(value, key, self.required)):
            where = f"{key}[{place}]"
            if not isinstance(message, dict):
                raise RecordError(f"{where} is not a message", type(message).__name__, "an object")
            for name in (self._role, self._content):
                if name not in message:
                    raise RecordError(
                        f"{where} has no field {name!r}",
                        "fields " + ", ".join(message),
                        f"{self._role} and {self._content}",
                    )
            role = text(message[self._role], f"{where}.{self._role}")
            if role not in ROLES:
                raise RecordError(f"unknown role in {where}", repr(role), ", ".join(ROLES))
            turns.append((ROLES[role], text(message[self._content], f"{where}.{self._content}")))
        return [turns]


class ShareGPT(Messages):
    """A list of turns, each with from and value, under "conversations"."""

    name = "sharegpt"
    required = ("conversations",)
    role_names = ("from", "role")
    content_names = ("value", "content")


class Firefly(Layout):
    """A list of rounds, each with human and assistant, under "conversation"."""

    name = "firefly"
    required = ("conversation",)

    def schema(self) -> pa.Schema:
        turn = pa.struct([(self.column("human"), pa.string()), (self.column("assistant"), pa.string())])
        return pa.schema([(self.column("conversation"), pa.list_(turn))])

    def columns(self, table: pa.RecordBatch) -> Batch | None:
        rounds = list_of_structs(table, self.column("conversation"))
        if rounds is None:
            return None
        offsets, values = rounds
        human, assistant = (child(values, self.column(name)) for name in ("human", "assistant"))
        if human is None or assistant is None or (np.diff(offsets) == 0).any():
            return None
        flat = pairs(human, assistant)
        return Batch(flat.texts, flat.roles, 2 * offsets, np.arange(len(table)))

    def record(self, value: Mapping[str, Any]) -> list[Turns]:
        key = self.column("conversation")
        turns: Turns = []
        for place, entry in enumerate(_list(value, key, self.required)):
            where = f"{key}[{place}]"
            if not isinstance(entry, dict):
                raise RecordError(f"{where} is not a round", type(entry).__name__, "an object")
            for role, name in ((USER, self.column("human")), (ASSISTANT, self.column("assistant"))):
                if name not in entry:
                    fields = "fields " + ", ".join(entry)
                    raise RecordError(f"{where} has no field {name!r}", fields, "human and assistant")
                turns.append((role, text(entry[name], f"{where}.{name}")))
        return [turns]


@dataclass(frozen=True)
class Question:
    """A question of SQuAD with its passage, as it is asked."""

    id: str | None
    prompt: str
    answers: list[str]
    """All reference answers, at least one."""
    first: bool
    """Of its paragraph."""


class Squad(Layout):
    """SQuAD v1.1: articles of paragraphs with questions; one conversation a question, its first answer."""

    name = "squad"
    required = ("paragraphs",)

    def schema(self) -> pa.Schema:
        answer = pa.struct([("text", pa.string())])
        question = pa.struct([("question", pa.string()), ("answers", pa.list_(answer))])
        paragraph = pa.struct([("context", pa.string()), ("qas", pa.list_(question))])
        return pa.schema([(self.column("paragraphs"), pa.list_(paragraph))])

    def columns(self, table: pa.RecordBatch) -> Batch | None:
        return None  # an article makes many rows; there are few articles

    def record(self, value: Mapping[str, Any]) -> list[Turns]:
        return [[(USER, each.prompt), (ASSISTANT, each.answers[0])] for each in self.questions(value)]

    def questions(self, value: Mapping[str, Any]) -> list[Question]:
        """All questions of an article; raises RecordError."""
        made: list[Question] = []
        key = self.column("paragraphs")
        for place, paragraph in enumerate(_list(value, key, self.required)):
            where = f"{key}[{place}]"
            try:
                passage = text(paragraph["context"], f"{where}.context")
                for number, entry in enumerate(paragraph["qas"]):
                    at = f"{where}.qas[{number}]"
                    prompt = squad_prompt(passage, text(entry["question"], f"{at}.question"))
                    if not entry["answers"]:
                        raise RecordError(f"{at} has no answer", expected="SQuAD v1.1, where every question has one")
                    answers = [text(each["text"], f"{at}.answers[].text") for each in entry["answers"]]
                    name = text(entry["id"], f"{at}.id") if "id" in entry else None
                    made.append(Question(name, prompt, answers, number == 0))
            except (KeyError, TypeError) as error:
                expected = "context and qas, each with question and answers"
                raise RecordError(f"{where} is not a paragraph of SQuAD", str(error), expected) from None
        return made


def squad_prompt(passage: str, question: str) -> str:
    """The prompt of the SQuAD retention test: the passage and one question."""
    return SQUAD_PROMPT + passage + ALPACA_BEFORE_INPUT + question + ALPACA_END


class Text(Layout):
    """{"text"}: one document a record."""

    name = "text"
    required = ("text",)

    def schema(self) -> pa.Schema:
        return pa.schema([(self.column("text"), pa.string())])

    def columns(self, table: pa.RecordBatch) -> Batch | None:
        texts = string(table, self.column("text"))
        return None if texts is None else documents(texts)

    def record(self, value: Mapping[str, Any]) -> list[Turns]:
        return [[(DOCUMENT, self._text(value, "text"))]]


class Wikitext(Text):
    """Articles as text: one document a paragraph; headings (` = Title = `) are left out."""

    name = "wikitext"


class Lines(Text):
    """Plain text, one document a line, as bookcorpus is."""

    name = "lines"


LAYOUTS: dict[str, type[Layout]] = {
    layout.name: layout
    for layout in (Alpaca, Belle, ShareGPT, Messages, Firefly, Contest, Squad, Text, Wikitext, Lines)
}


def _list(value: Mapping[str, Any], key: str, required: tuple[str, ...]) -> list[Any]:
    if key not in value:
        near = did_you_mean(key, value)
        found = ("fields " + ", ".join(map(str, value)))[:120] + (f" ({near})" if near else "")
        raise RecordError(f"no field {key!r}", found, f"field {key}")
    entries = value[key]
    if not isinstance(entries, list):
        raise RecordError(f"{key!r} is not a list", type(entries).__name__ if entries is not None else "null", "a list")
    if not entries:
        raise RecordError(f"{key!r} is empty", "[]", "at least one entry")
    return entries
