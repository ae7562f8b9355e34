"""The command line of the data wing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from common.data.options import ODD_TURNS, ON_ERROR, Options, check_choice
from common.data.rejects import rejects_of
from common.data.sources import column_names
from common.errors import UserError
from common.tokenizer.vocabulary import RIGHT_PAD

app = typer.Typer(
    help="Training data: prepare them for a trainer, convert them between formats, look at them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Workers = Annotated[
    int, typer.Option(help="processes; 1: this one alone; 0: one a core, up to what pays, if the input is large", min=0)
]


@app.callback()
def _main() -> None:
    """Training data: prepare them for a trainer, convert them between formats, look at them."""


@app.command()
def prepare(
    input: Annotated[str, typer.Option(help="a file, a glob, a directory, a `datasets` folder or a hub id")],
    output: Annotated[Path, typer.Option(help="the directory to write; it must not exist or be empty")],
    tokenizer: Annotated[str, typer.Option(help="tokenizer.model, tokenizer.json, their folder, or tiny")],
    template: Annotated[str, typer.Option(help="llama3, vicuna, alpaca, colossal, human_assistant or plain")],
    source: Annotated[str, typer.Option(help="the layout of the input; auto recognises it")] = "auto",
    column: Annotated[list[str] | None, typer.Option(help="LAYOUT_COLUMN=COLUMN_OF_THE_FILE, repeatable")] = None,
    loss_on: Annotated[str, typer.Option(help="answers, or all tokens")] = "answers",
    max_length: Annotated[int, typer.Option(help="tokens a row at most")] = 2048,
    on_long: Annotated[str, typer.Option(help="a longer record: drop, cut, turns, split or stop")] = "drop",
    packing: Annotated[str, typer.Option(help="none, bfd (best-fit decreasing) or concat")] = "none",
    format: Annotated[str, typer.Option(help="arrow, jsonl (to read) or mindrecord (needs mindspore)")] = "arrow",
    eval_input: Annotated[str | None, typer.Option(help="evaluation data from another input")] = None,
    eval_fraction: Annotated[float | None, typer.Option(help="hold out this part of the rows")] = None,
    eval_count: Annotated[int | None, typer.Option(help="hold out this many rows")] = None,
    system: Annotated[str | None, typer.Option(help="the system message where a conversation has none")] = None,
    prompts: Annotated[int, typer.Option(help="write the first N held-out prompts to prompts.jsonl")] = 0,
    on_error: Annotated[str, typer.Option(help="a malformed record: stop, or skip and list it")] = "stop",
    odd_turns: Annotated[str, typer.Option(help="a conversation without last answer: stop, drop or cut")] = "stop",
    seed: Annotated[int, typer.Option(help="chooses the held-out rows")] = 0,
    workers: Workers = 0,
    pad: Annotated[str, typer.Option(help="the special token that will fill short rows")] = RIGHT_PAD,
) -> None:
    """Read, check, template, tokenize, pack and write training data."""
    from common.data.prepare import prepare as run
    from common.data.progress import token_progress

    options = Options(
        input=input,
        output=output,
        tokenizer=tokenizer,
        template=template,
        source=source,
        columns=column_names(column),
        loss_on=loss_on,
        max_length=max_length,
        on_long=on_long,
        packing=packing,
        format=format,
        eval_input=eval_input,
        eval_fraction=eval_fraction,
        eval_count=eval_count,
        system=system,
        prompts=prompts,
        on_error=on_error,
        odd_turns=odd_turns,
        seed=seed,
        workers=workers,
        pad=pad,
    )
    with token_progress(input) as progress:
        meta = run(options, progress)
    _print_summary(meta, output)


@app.command()
def convert(
    input: Annotated[str, typer.Option(help="a file, a glob, a directory, a `datasets` folder or a hub id")],
    output: Annotated[Path | None, typer.Option(help="the file to write; --select also to standard output")] = None,
    format: Annotated[str | None, typer.Option(help="conversation, messages or text")] = None,
    select: Annotated[
        str | None,
        typer.Option(help="prompts for evaluation from SQuAD: the first question of each paragraph, or all"),
    ] = None,
    source: Annotated[str, typer.Option(help="the layout of the input; auto recognises it")] = "auto",
    column: Annotated[list[str] | None, typer.Option(help="LAYOUT_COLUMN=COLUMN_OF_THE_FILE, repeatable")] = None,
    system: Annotated[str | None, typer.Option(help="the system message where a conversation has none")] = None,
    on_error: Annotated[str, typer.Option(help="a malformed record: stop, or skip and list it")] = "stop",
    odd_turns: Annotated[str, typer.Option(help="a conversation without last answer: stop, drop or cut")] = "stop",
    workers: Workers = 0,
) -> None:
    """Records from one layout to another, as text."""
    from common.data.convert import convert as run
    from common.data.progress import token_progress

    if select is not None:
        _write_questions(input, output, select, format, source)
        return
    if format is None or output is None:
        raise UserError("--output and --format are missing", expected="--format conversation, messages or text")
    check_choice("--on-error", on_error, ON_ERROR)
    check_choice("--odd-turns", odd_turns, ODD_TURNS)
    with token_progress(input) as progress:
        counts = run(
            input,
            output,
            format,
            source=source,
            columns=column_names(column),
            system=system,
            on_error=on_error,
            odd_turns=odd_turns,
            workers=workers,
            progress=progress,
        )
    console = _console(stderr=True)
    console.print(f"{counts.records:,} records")
    for reason, count in counts.dropped.items():
        console.print(f"  dropped: {count:,} {reason}")
    if (rejects := rejects_of(output)).is_file():
        console.print(f"  each by file and line: {rejects}")
    print(output)


@app.command()
def inspect(
    data: Annotated[str, typer.Argument(help="prepared data, or a raw input")],
    tokenizer: Annotated[str | None, typer.Option(help="shows samples token by token")] = None,
    samples: Annotated[int, typer.Option(help="how many rows to show", min=0)] = 2,
    bins: Annotated[int, typer.Option(help="bars of the histogram", min=1)] = 12,
) -> None:
    """Look at prepared data: coloured tokens with the loss mask, lengths, what was dropped."""
    from common.data.inspect import show

    show(data, _console(), tokenizer=tokenizer, samples=samples, bins=bins)


def _console(*, stderr: bool = False) -> Console:
    """Where paths and the names of columns stand as they are, be there brackets in them, and on one line."""
    return _Console(stderr=stderr, markup=False, soft_wrap=True)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to `common.cli.call`, for which a reader that has gone is no error; rich would end with status 1."""
        raise


def _write_questions(input: str, output: Path | None, select: str, format: str | None, source: str) -> None:
    from common.data import questions

    check_choice("--select", select, questions.SELECT)
    if source not in ("squad", "auto") or format is not None:
        raise UserError("--select is for questions of SQuAD as prompts", expected="--source squad, and no --format")
    count = questions.write(input, select, output)
    _console(stderr=True).print(f"{count:,} prompts")
    if output is not None:
        print(output)


def _print_summary(meta: dict[str, Any], output: Path) -> None:
    console = _console(stderr=True)
    for part in ("train", "eval"):
        if part not in meta:
            continue
        counts = meta[part]
        console.print(
            f"{part}: {counts['records']:,} records, {counts['documents']:,} documents in {counts['rows']:,} rows, "
            f"{counts['tokens']:,} tokens, {counts['trained_tokens']:,} trained"
        )
        for reason, count in counts["dropped"].items():
            console.print(f"  dropped: {count:,} {reason}")
        if counts["cut"]:
            console.print(f"  cut:     {counts['cut']:,}")
    print(output)
