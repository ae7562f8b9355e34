"""How a conversation becomes text and control tokens, and which of them are trained.

A template is data: for each role, the pieces that a turn is made of. A run of text is encoded in one
go, from one control token to the next, because a tokenizer may join characters across any seam in
between. The one deliberate seam is between prompt and answer: generation starts from the tokens of
the prompt alone, so training must, too.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from common.errors import UserError, did_you_mean
from common.tokenizer.vocabulary import BEGIN_OF_TEXT, END_HEADER, END_OF_TEXT, END_OF_TURN, START_HEADER


@dataclass(frozen=True)
class Special:
    """A control token, by name."""

    name: str
    loss: bool = False


@dataclass(frozen=True)
class Literal:
    """Text that is the same in every conversation, encoded by itself."""

    text: str
    loss: bool = False


@dataclass(frozen=True)
class Content:
    """The turn's text between `before` and `after`, encoded together; `strip` removes white space around the text."""

    before: str = ""
    after: str = ""
    strip: bool = False
    loss: bool = False


Piece = Special | Literal | Content


@dataclass(frozen=True)
class Template:
    """What each role's turn is made of.

    begin: before the first turn. first_user: the first user turn where it differs from the others.
    system_joins: the system's text is not a turn but is encoded together with the first user turn,
    before its `before`. default_system: what stands where a conversation has no system turn.
    wrap: whether a question is put into Alpaca's prompt.
    Pieces of the assistant before its first Content are the generation prompt.
    """

    name: str
    source: str
    end: str
    user: tuple[Piece, ...]
    assistant: tuple[Piece, ...]
    system: tuple[Piece, ...] = ()
    document: tuple[Piece, ...] = ()
    first_user: tuple[Piece, ...] | None = None
    begin: tuple[Piece, ...] = (Special(BEGIN_OF_TEXT),)
    system_joins: bool = False
    default_system: str | None = None
    wrap: bool = False
    bos_per_row: int | None = field(default=1)

    @property
    def generation_prompt(self) -> tuple[Piece, ...]:
        """What stands between the last user turn and the first token that is generated."""
        pieces = []
        for piece in self.assistant:
            if isinstance(piece, Content) or piece.loss:
                break
            pieces.append(piece)
        return tuple(pieces)


def _header(role: str) -> tuple[Piece, ...]:
    return Special(START_HEADER), Literal(role), Special(END_HEADER)


_LLAMA3 = Template(
    name="llama3",
    source="the chat template of Meta-Llama-3-8B-Instruct",
    end=END_OF_TURN,
    system=(*_header("system"), Content("\n\n", strip=True), Special(END_OF_TURN)),
    user=(*_header("user"), Content("\n\n", strip=True), Special(END_OF_TURN)),
    # A stripped text never begins with white space, so "\n\n" ends a token of its own.
    assistant=(
        *_header("assistant"),
        Literal("\n\n"),
        Content(strip=True, loss=True),
        Special(END_OF_TURN, loss=True),
    ),
)

_VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)

_VICUNA = Template(
    name="vicuna",
    source="Vicuna v1.1, as the Llama 3 data scripts of MindFormers 1.1.0 use it",
    end=END_OF_TEXT,
    default_system=_VICUNA_SYSTEM,
    system=(Content(),),
    # A seam before a space and a letter is never inside a token of the split pattern.
    first_user=(Content(" USER: ", " ASSISTANT:"),),
    user=(Content("USER: ", " ASSISTANT:"),),
    assistant=(Content(" ", loss=True), Special(END_OF_TEXT, loss=True)),
)

_ALPACA = Template(
    name="alpaca",
    source="Stanford Alpaca's prompts",
    end=END_OF_TEXT,
    wrap=True,
    system=(Content(after="\n\n"),),
    user=(Content(),),
    assistant=(Content(loss=True), Special(END_OF_TEXT, loss=True)),
)

_COLOSSAL_SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)

_COLOSSAL = Template(
    name="colossal",
    source="Colossal-LLaMA's conversation format for Llama 3",
    end=END_OF_TEXT,
    default_system=_COLOSSAL_SYSTEM,
    system=(Content(after="\n\nHuman: "),),
    first_user=(Special(BEGIN_OF_TEXT), Content(), Special(END_OF_TEXT)),
    user=(Literal("Human: "), Special(BEGIN_OF_TEXT), Content(), Special(END_OF_TEXT)),
    assistant=(
        Literal("Assistant: "),
        Special(BEGIN_OF_TEXT, loss=True),
        Content(loss=True),
        Special(END_OF_TEXT, loss=True),
    ),
    bos_per_row=None,  # this format begins every text with the token
)

_HUMAN_ASSISTANT = Template(
    name="human_assistant",
    source="the no_robots recipe for Llama 3 with FSDP and Q-LoRA, with the begin-of-text token that it lacks",
    end=END_OF_TEXT,
    system_joins=True,
    user=(Content("\n\nHuman: "), Special(END_OF_TEXT)),
    assistant=(Literal("\n\nAssistant: "), Content(loss=True), Special(END_OF_TEXT, loss=True)),
)

_PLAIN = Template(
    name="plain",
    source="one text after the other",
    end=END_OF_TEXT,
    system=(Content(after="\n"),),
    user=(Content(after="\n"),),
    assistant=(Content(loss=True), Special(END_OF_TEXT, loss=True)),
    document=(Content(loss=True), Special(END_OF_TEXT, loss=True)),
)

TEMPLATES = {t.name: t for t in (_LLAMA3, _VICUNA, _ALPACA, _COLOSSAL, _HUMAN_ASSISTANT, _PLAIN)}


def get(name: str) -> Template:
    """The template of that name; raises UserError when there is none."""
    if name not in TEMPLATES:
        known = ", ".join(TEMPLATES)
        raise UserError("no such template", found=name, expected=known, hint=did_you_mean(name, TEMPLATES))
    return TEMPLATES[name]
