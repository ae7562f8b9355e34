"""Conversations to token rows: one encoding of all texts of a batch, then arrays only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from common.data.records import ASSISTANT, DOCUMENT, SYSTEM, USER, Batch, arrow, string, string_buffers
from common.data.templates import Content, Piece, Special, Template
from common.errors import UserError
from common.tokenizer import Tokenizer

Scalar = TypeVar("Scalar", bound=np.generic)

IGNORE = -100
FIRST_USER = 4  # a role of its own here: the first user turn of a conversation


@dataclass
class TokenRows:
    """Token rows. Row i is ids[offsets[i]:offsets[i+1]].

    ids: int32 [tokens]; loss: bool [tokens], which tokens are trained; offsets: int64 [rows + 1];
    prompt: int32 [rows], the tokens before the last answer; source: int64 [rows], as in Batch;
    rounds: where each answer ends in ids, int64 [answers], ascending; only as rendered, not after `select`.
    """

    ids: npt.NDArray[np.int32]
    loss: npt.NDArray[np.bool_]
    offsets: npt.NDArray[np.int64]
    prompt: npt.NDArray[np.int32]
    source: npt.NDArray[np.int64]
    rounds: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def select(self, keep: npt.NDArray[np.bool_]) -> TokenRows:
        """The rows where `keep` (bool [rows]) is true."""
        if keep.all():
            return self
        rows = np.flatnonzero(keep)
        ids, offsets = in_another_order(self.ids, self.offsets, rows)
        loss, _ = in_another_order(self.loss, self.offsets, rows)
        return TokenRows(ids, loss, offsets, self.prompt[keep], self.source[keep])


def concatenate(parts: list[TokenRows]) -> TokenRows:
    """All rows of `parts`, in order."""
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0] + [len(part.ids) for part in parts])
    offsets = [part.offsets[:-1] + start for part, start in zip(parts, starts[:-1], strict=True)]
    return TokenRows(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.loss for part in parts]),
        np.concatenate([*offsets, starts[-1:]]),
        np.concatenate([part.prompt for part in parts]),
        np.concatenate([part.source for part in parts]),
    )


def in_another_order(
    array: npt.NDArray[Scalar], offsets: npt.NDArray[np.int64], order: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[Scalar], npt.NDArray[np.int64]]:
    """The slices array[offsets[i]:offsets[i+1]] for every i of `order`, one after the other, and their offsets.

    Arrow copies each in one piece, which takes a third of an index for every element.
    """
    size = array.itemsize
    buffers = [None, pa.py_buffer(offsets * size), pa.py_buffer(np.ascontiguousarray(array))]
    slices = pa.Array.from_buffers(pa.large_binary(), len(offsets) - 1, buffers).take(arrow(order))
    _, ends, data = slices.buffers()
    made = np.frombuffer(ends, dtype=np.int64, count=len(order) + 1) // size
    return np.frombuffer(data or b"", dtype=array.dtype, count=int(made[-1])), made


def ragged(starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The indices starts[0], starts[0] + 1, ... of every slice, one slice after the other."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    index: npt.NDArray[np.int64] = np.repeat(starts - (ends - lengths), lengths)
    index += np.arange(total)
    return index


def positions(offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """Position ids that begin at 0 in every row."""
    lengths = np.diff(offsets)
    places = np.arange(offsets[-1], dtype=np.int32)
    places -= np.repeat(offsets[:-1].astype(np.int32), lengths)
    return places


@dataclass(frozen=True)
class _Slot:
    """One part of a turn: constant ids, or the place of the turn's text."""

    ids: npt.NDArray[np.int32]
    loss: bool
    content: Content | None = None


class Renderer:
    """A template and a tokenizer, made ready to turn batches into token rows."""

    def __init__(self, template: Template, tokenizer: Tokenizer, *, loss_on: str = "answers") -> None:
        self.template = template
        self.tokenizer = tokenizer
        self.loss_on_all = loss_on == "all"
        first = template.first_user if template.first_user is not None else template.user
        self._roles = {
            SYSTEM: self._slots(() if template.system_joins else template.system),
            USER: self._slots(template.user),
            ASSISTANT: self._slots(template.assistant),
            DOCUMENT: self._slots(template.document),
            FIRST_USER: self._slots(first),
        }
        begin = self._slots(template.begin)
        self._begin = begin[0].ids if begin else np.zeros(0, dtype=np.int32)
        self._prompt_slots = len(self._slots(template.generation_prompt))

    def _slots(self, pieces: tuple[Piece, ...]) -> list[_Slot]:
        """What a turn is put together from; constants that follow each other and train alike are one."""
        made: list[_Slot] = []
        for piece in pieces:
            if isinstance(piece, Content):
                made.append(_Slot(np.zeros(0, dtype=np.int32), piece.loss, piece))
                continue
            if isinstance(piece, Special):
                ids = np.array([self.tokenizer.special_id(piece.name)], dtype=np.int32)
            else:
                ids = self.tokenizer.encode(piece.text)
            if made and made[-1].content is None and made[-1].loss == piece.loss:
                ids = np.concatenate((made.pop().ids, ids))
            made.append(_Slot(ids, piece.loss))
        return made

    @property
    def generation_prompt(self) -> str:
        """The generation prompt as text."""
        pieces = self.template.generation_prompt
        return "".join(p.name if isinstance(p, Special) else p.text for p in pieces if not isinstance(p, Content))

    def render(self, batch: Batch) -> TokenRows:
        """The token rows of `batch`, whose rows have passed `records.check`. Nothing is cut here."""
        if self.template.default_system is not None:
            batch = batch.with_system(self.template.default_system)
        roles = self._turn_roles(batch)
        self._refuse_unknown(roles)
        leads = self._leads(batch, roles)
        # One array of all texts of the batch, in any order: `slot` says where each belongs.
        texts: list[pa.StringArray] = []
        widths = np.array([len(self._roles[role]) for role in range(5)])
        slots = np.concatenate(([0], np.cumsum(widths[roles])))
        kind = np.zeros(slots[-1], dtype=np.bool_)  # a text of the batch, or a constant
        number = np.zeros(slots[-1], dtype=np.int64)  # which one
        trained = np.zeros(slots[-1], dtype=np.bool_)
        constants: list[npt.NDArray[np.int32]] = [self._begin]
        count = 0
        for role, pieces in self._roles.items():
            turns = np.flatnonzero(roles == role)
            if not len(turns) or not pieces:
                continue
            content = batch.texts if len(turns) == len(roles) else batch.texts.take(arrow(turns))
            for place, slot in enumerate(pieces):
                at = slots[turns] + place
                trained[at] = slot.loss
                if slot.content is not None:
                    lead = leads.take(arrow(turns)) if leads is not None and role == FIRST_USER else None
                    texts.append(_text(slot.content, content, lead))
                    kind[at] = True
                    number[at] = np.arange(count, count + len(turns))
                    count += len(turns)
                else:
                    number[at] = len(constants)
                    constants.append(slot.ids)
        return self._assemble(batch, roles, slots, kind, number, trained, constants, texts)

    def _assemble(
        self,
        batch: Batch,
        roles: npt.NDArray[np.uint8],
        slots: npt.NDArray[np.int64],
        kind: npt.NDArray[np.bool_],
        number: npt.NDArray[np.int64],
        trained: npt.NDArray[np.bool_],
        constants: list[npt.NDArray[np.int32]],
        texts: list[pa.StringArray],
    ) -> TokenRows:
        _, text_offsets, data = string_buffers(pa.concat_arrays(texts) if texts else pa.nulls(0, pa.string()))
        encoded = self.tokenizer.encode_utf8(data, text_offsets, parallel=False)
        pool = np.concatenate([*constants, encoded.ids])
        constant_offsets = np.cumsum([0] + [len(c) for c in constants])
        pool_offsets = np.concatenate((constant_offsets, encoded.offsets[1:] + constant_offsets[-1]))
        number[kind] += len(constants)
        # The begin piece, the first constant, stands before the first slot of every row.
        row_slots = slots[batch.offsets[:-1]]
        trained = np.insert(trained, row_slots, False)
        ids, slot_ends = in_another_order(pool, pool_offsets, np.insert(number, row_slots, 0))
        rows = np.arange(len(batch) + 1)
        offsets = slot_ends[np.append(row_slots, len(kind)) + rows]
        loss = np.ones(len(ids), dtype=np.bool_) if self.loss_on_all else np.repeat(trained, np.diff(slot_ends))
        # What predicts the first token of a row is the end of another one: it is never trained.
        loss[offsets[:-1]] = False
        last = batch.offsets[1:] - 1
        lead_pieces = np.where(roles[last] == ASSISTANT, self._prompt_slots, 0)
        prompt = (slot_ends[slots[last] + rows[1:] + lead_pieces] - offsets[:-1]).astype(np.int32)
        answers = np.flatnonzero(roles == ASSISTANT)
        row_of = np.searchsorted(batch.offsets, answers, side="right")
        return TokenRows(ids, loss, offsets, prompt, batch.source, slot_ends[slots[answers + 1] + row_of])

    def _turn_roles(self, batch: Batch) -> npt.NDArray[np.uint8]:
        roles = batch.roles.copy()
        if self.template.first_user is not None or self.template.system_joins:
            starts = batch.offsets[:-1]
            first = starts + (roles[starts] == SYSTEM)
            roles[first[roles[first] == USER]] = FIRST_USER
        return roles

    def _refuse_unknown(self, roles: npt.NDArray[np.uint8]) -> None:
        if not self.template.document and (roles == DOCUMENT).any():
            hint = "use the template plain, or a source of conversations"
            raise UserError("documents have no turns", found=f"template {self.template.name}", hint=hint)

    def _leads(self, batch: Batch, roles: npt.NDArray[np.uint8]) -> pa.StringArray | None:
        """For every turn the text of the system turn before it, or nothing."""
        if not self.template.system_joins or not (roles == SYSTEM).any():
            return None
        after = np.zeros(len(roles), dtype=np.bool_)
        after[1:] = roles[:-1] == SYSTEM
        index = pa.array(np.arange(len(roles)) - 1, mask=~after)
        return pc.fill_null(batch.texts.take(index), "")


def _text(piece: Content, content: pa.StringArray, lead: pa.StringArray | None) -> pa.StringArray:
    if piece.strip:
        content = pc.utf8_trim_whitespace(content)
    before, after, nothing = string(piece.before)[0], string(piece.after)[0], string("")[0]
    if lead is not None:
        return pc.binary_join_element_wise(lead, before, content, after, nothing)
    if piece.before or piece.after:
        return pc.binary_join_element_wise(before, content, after, nothing)
    return content
