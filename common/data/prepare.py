"""`prepare`: data as they were published to rows of tokens as a trainer reads them."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from common.data import contract, mindrecord, sources, templates
from common.data.arrow_dataset import ArrowWriter, write_split_names
from common.data.holdout import HoldOut
from common.data.lengths import fit, masked
from common.data.options import Options
from common.data.packing import PackedRows, Packer, unpacked
from common.data.pipeline import (
    Chunk,
    TokenWorker,
    is_large,
    number_of_workers,
    read_blocks,
)
from common.data.prompts import PromptWriter
from common.data.rejects import Counts, describe, write_rejects
from common.data.row_writer import JsonlWriter, RowWriter
from common.data.sources import Probe
from common.data.tokens import IGNORE, Renderer, TokenRows
from common.data.workers import in_order
from common.errors import UserError
from common.files import whole_directory, write_json
from common.tokenizer import Tokenizer, load

# A third would wait: packing and writing take this process longer than two workers take for the rest (2.2 s of CPU
# against 3.4 of all workers, for 200,000 conversations). Each holds some 130 MB.
_MOST_WORKERS = 2

Progress = Callable[[int, int], None]  # bytes read, tokens made since the last call


def prepare(options: Options, progress: Progress | None = None) -> dict[str, Any]:
    """Prepare data as `options` say and return what meta.json says of them.

    The output directory appears whole or not at all. Raises UserError for bad input.
    """
    if options.format == "mindrecord" and importlib.util.find_spec("mindspore") is None:
        hint = "prepare as arrow here, then run python -m common.data.mindrecord in the recipe's environment"
        raise UserError("--format mindrecord needs mindspore, which is not installed here", hint=hint)
    source = sources.local(options.input)
    train = sources.probe(source, options.source, options.columns)
    eval_probe = None
    if options.eval_input is not None:
        eval_probe = sources.probe(sources.local(options.eval_input), options.source, options.columns)
    tokenizer = load(options.tokenizer)
    template = templates.get(options.template)
    if is_large(train):
        tokenizer.prepare_large()  # before anything is encoded, so that the small engine is not loaded as well
    renderer = Renderer(template, tokenizer, loss_on=options.loss_on)
    with whole_directory(options.output) as folder:
        run = _Run(options, tokenizer, renderer, folder, progress or (lambda read, tokens: None))
        meta = run.carry_out(train, eval_probe)
        write_json(folder / "meta.json", meta)
        if options.format == "mindrecord":
            for part in ("train", "eval") if options.has_eval else ("",):
                name = folder / f"{part or 'train'}.mindrecord"
                mindrecord.write(folder / part, name, length=options.max_length, pad=tokenizer.special_id(options.pad))
    return meta


class _Run:
    def __init__(
        self, options: Options, tokenizer: Tokenizer, renderer: Renderer, folder: Path, progress: Progress
    ) -> None:
        self.options = options
        self.tokenizer = tokenizer
        self.renderer = renderer
        self.folder = folder
        self.progress = progress
        self.counts = Counts()
        self.eval_counts = Counts()
        self.contract = contract.Contract(renderer.template, tokenizer, options)
        self.rejects: Path = folder / "rejects.jsonl"

    def carry_out(self, train: Probe, eval_probe: Probe | None) -> dict[str, Any]:
        options = self.options
        train_folder = self.folder / "train" if options.has_eval else self.folder
        eval_folder = self.folder / "eval" if options.has_eval else None
        prompts = PromptWriter(self.tokenizer, self.renderer.template, options.prompts)
        hold = None
        if options.eval_fraction is not None or options.eval_count is not None:
            hold = HoldOut(fraction=options.eval_fraction, count=options.eval_count, seed=options.seed)
        eval_writer = self._writer(eval_folder) if eval_folder is not None else None
        with self._writer(train_folder) as writer:
            packer = Packer(options.packing, options.max_length)
            for chunk in self._chunks(train, self.counts):
                rows = chunk.rows
                if hold is not None and eval_writer is not None:
                    rows, held = hold.split(rows)
                    if held is not None:
                        self._write_eval(eval_writer, prompts, held)
                elif eval_writer is None:
                    prompts.add(rows)
                for packed in packer.add(rows):
                    self._write(writer, packed)
                self.progress(chunk.bytes, len(chunk.rows.ids))
            for packed in packer.finish():
                self._write(writer, packed)
        if eval_writer is not None:
            with eval_writer:
                if eval_probe is not None:
                    for chunk in self._chunks(eval_probe, self.eval_counts):
                        self._write_eval(eval_writer, prompts, chunk.rows)
                elif hold is not None and (held := hold.held()) is not None:
                    self._write_eval(eval_writer, prompts, held)
            if options.format != "jsonl":
                write_split_names(self.folder, ["train", "eval"])
        if options.prompts:
            prompts.write((eval_folder or self.folder) / "prompts.jsonl")
        return self._meta(train, writer, eval_writer)

    def _chunks(self, probe: Probe, counts: Counts) -> Iterator[Chunk]:
        options = self.options
        work = TokenWorker(options, probe.make_layout(), self.renderer)
        for chunk in in_order(read_blocks(probe), work, number_of_workers(options.workers, probe, _MOST_WORKERS)):
            counts.add(chunk.counts)
            write_rejects(self.rejects, chunk.rejects)
            yield chunk

    def _writer(self, folder: Path) -> RowWriter:
        return JsonlWriter(folder, self.tokenizer) if self.options.format == "jsonl" else ArrowWriter(folder)

    def _write(self, writer: RowWriter, packed: PackedRows) -> None:
        if self.options.packing == "concat":  # a row cut from long prompts may hold no answer at all
            empty = ~np.logical_or.reduceat(packed.labels != IGNORE, packed.offsets[:-1])
            self.counts.drop("packed row without a trained token", int(empty.sum()))
            packed = packed.select(~empty)
        self.contract.check(packed)
        writer.write(packed)

    def _write_eval(self, writer: RowWriter, prompts: PromptWriter, rows: TokenRows) -> None:
        if self.options.packing == "concat":
            rows, _, cut = fit(rows, self.options.max_length, "cut")
            self.eval_counts.cut += int(cut.sum())
            nothing = masked(rows)
            self.eval_counts.drop("no trained token left", int(nothing.sum()))
            rows = rows.select(~nothing)
        prompts.add(rows)
        packed = unpacked(rows)
        self.contract.check(packed)
        writer.write(packed)

    def _meta(self, train: Probe, writer: RowWriter, eval_writer: RowWriter | None) -> dict[str, Any]:
        options = self.options
        if not writer.rows:
            raise UserError(
                "nothing is left to train on", file=train.files[0], found=describe(self.counts), expected="one row"
            )
        if eval_writer is not None and not eval_writer.rows:
            raise UserError(
                "nothing is left to evaluate on",
                file=options.eval_input or train.files[0],
                found=describe(self.eval_counts),
                expected="one row",
            )
        template = self.renderer.template
        meta: dict[str, Any] = {
            "source": train.layout,
            "files": [path.name for path in train.files],
            "template": template.name,
            "template_source": template.source,
            "system": options.system if options.system is not None else template.default_system,
            "generation_prompt": self.renderer.generation_prompt,
            "end_of_answer": template.end,
            "end_of_answer_id": self.tokenizer.special_id(template.end),
            "loss_on": options.loss_on,
            "labels_shifted": False,
            "ignore_index": IGNORE,
            "max_length": options.max_length,
            "on_long": options.on_long,
            "odd_turns": options.odd_turns,
            "packing": options.packing,
            "seed": options.seed,
            "pad_id": self.tokenizer.special_id(options.pad),
            "tokenizer": self.tokenizer.digest,
            "vocabulary_size": self.tokenizer.vocabulary_size,
            "train": {**writer.summary(), **dataclasses.asdict(self.counts)},
        }
        if eval_writer is not None:
            meta["eval"] = {**eval_writer.summary(), **dataclasses.asdict(self.eval_counts)}
        return meta
