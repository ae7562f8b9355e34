"""python -m common.evaluation: what a model answers, and how good that is.

python -m common.evaluation generate --model RUN/model --prompt "What is the capital of France?"
python -m common.evaluation squad --metric official --predictions FILE.jsonl --references dev-v1.1.json
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Annotated

from common.environment import enter_light
from common.evaluation.transformers_backend import CALLER_VARIABLE

if importlib.util.find_spec("torch") and importlib.util.find_spec("transformers"):
    os.environ.setdefault(CALLER_VARIABLE, sys.executable)
enter_light()  # prompts are rendered there, as training data are; the framework's part runs elsewhere

import typer  # noqa: E402

from common import cli  # noqa: E402
from common.errors import UserError  # noqa: E402
from common.evaluation import scoring  # noqa: E402

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="What a model answers, and how good that is.",
)


@app.callback()
def _main() -> None:
    """What a model answers, and how good that is."""


@app.command()
def generate(
    model: Annotated[Path, typer.Option(help="A model folder (RUN/model), or an adapter folder (RUN/adapter).")],
    adapter: Annotated[Path | None, typer.Option(help="A PEFT adapter folder to put on the model.")] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", "--predict-data", metavar="TEXT", help="What to ask; repeatable."),
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON lines: texts, prompts, messages or prompt_ids.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(metavar="N", help="Tokens of an answer at most.")] = 256,
    batch_size: Annotated[int, typer.Option(metavar="N", help="Prompts that are answered at once.")] = 8,
    temperature: Annotated[float, typer.Option(metavar="T", help="0: the likeliest token, always.")] = 0.0,
    top_p: Annotated[
        float, typer.Option(metavar="P", help="Sample from the likeliest tokens that make up this probability.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(metavar="S", help="Of the sampling.")] = 0,
    template: Annotated[
        str | None, typer.Option(help="The prompt template.", show_default="the one it was trained with")
    ] = None,
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The system message.", show_default="that of the training data")
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Send the text as it is, without a template.")] = False,
    json_: Annotated[
        bool, typer.Option("--json", help="One JSON object a line: prompt, answer, tokens, ended.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write JSON lines there: the prompts' rows with prediction. Interrupted, the same call goes on.",
        ),
    ] = None,
    python: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="An interpreter with torch and transformers.", show_default="the run's own"),
    ] = None,
) -> None:
    """Ask a fine-tuned model. Answers go to standard output, everything else to standard error."""
    import dataclasses
    import json
    import time

    from rich.console import Console

    from common.evaluation import generate as generating
    from common.evaluation import subject as subjects

    if raw and (template is not None or system is not None):
        raise UserError("--raw sends the text as it is: it takes neither --template nor --system")
    if output is not None and output.exists():
        raise UserError("the output exists", file=output, hint="remove it, or choose another output")
    sampling = generating.Sampling(max_new_tokens, batch_size, temperature, top_p, seed)
    sampling.check()
    subject = subjects.find(model, adapter)
    tokens = generating.tokenizer(subject)
    render = None if raw else generating.asker(subject, tokens, template, system)
    asked = generating.questions(subject, tokens, render, prompt or [], prompts)
    console = Console(stderr=True, highlight=False)
    journal = output.with_name(output.name + ".answers") if output else None
    made, started = [], time.monotonic()
    with console.status(f"asking {subject.adapter or subject.model} ...") as status:
        found = generating.answers(
            subject, tokens, asked, sampling, end_id=render.end_id if render else None, python=python, journal=journal
        )
        for number, each in enumerate(found, 1):
            rate = number / max(time.monotonic() - started, 1e-9)
            status.update(f"{number}/{len(asked)} answers, {rate:.2f} samples/s")
            if output is not None:
                made.append(each)
                continue
            if json_:
                print(json.dumps(dataclasses.asdict(each), ensure_ascii=False), flush=True)
                continue
            if len(asked) > 1:
                console.print(f"{number}/{len(asked)} {each.prompt}", style="dim", markup=False)
            print(each.answer, flush=True)
            if not each.ended:
                console.print(f"(cut at {each.tokens} tokens: --max-new-tokens)", style="dim", markup=False)
    if output is not None and journal is not None:
        generating.write_answers(output, asked, made)
        journal.unlink()
        console.print(f"{len(made)} answers, {len(made) / (time.monotonic() - started):.2f} samples/s", markup=False)
        print(output)


@app.command()
def perplexity(
    model: Annotated[Path, typer.Option(help="A model folder (RUN/model), or an adapter folder (RUN/adapter).")],
    data: Annotated[str, typer.Option(help="Prepared data (RUN/data), or a file, a glob, a folder or a hub id.")],
    adapter: Annotated[Path | None, typer.Option(help="A PEFT adapter folder to put on the model.")] = None,
    template: Annotated[
        str | None, typer.Option(help="The prompt template of raw data.", show_default="the one it was trained with")
    ] = None,
    max_length: Annotated[int, typer.Option(min=2, metavar="N", help="Tokens of a raw document at most.")] = 2048,
    batch_size: Annotated[int, typer.Option(min=1, metavar="N", help="Documents that are measured at once.")] = 1,
    json_: Annotated[
        bool, typer.Option("--json", help="One JSON object: loss, perplexity, tokens, documents.")
    ] = False,
    python: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="An interpreter with torch and transformers.", show_default="the run's own"),
    ] = None,
) -> None:
    """Loss (nats a token) and perplexity on held-out data, over the tokens that training would train."""
    import json

    from rich.console import Console

    from common.evaluation import generate as generating
    from common.evaluation import held_out
    from common.evaluation import subject as subjects

    subject = subjects.find(model, adapter)
    tokens = generating.tokenizer(subject)
    found = held_out.documents(subject, tokens, data, template, max_length)
    with Console(stderr=True, highlight=False).status("measuring ...") as status:
        loss = held_out.measure(
            subject,
            tokens,
            found,
            batch_size=batch_size,
            python=python,
            progress=lambda done: status.update(f"{done}/{len(found)} documents"),
        )
    shown = {"loss": loss.mean, "perplexity": loss.perplexity, "tokens": loss.tokens, "documents": len(found)}
    text = f"loss {loss.mean:.4f}, perplexity {loss.perplexity:.4f}, {loss.tokens:,} tokens of {len(found):,} documents"
    print(json.dumps(shown) if json_ else text)


app.command("squad")(scoring.score_squad)
app.command("math")(scoring.score_math)
app.command("contest")(scoring.score_contest)
app.command("retention")(scoring.score_retention)

if __name__ == "__main__":
    sys.exit(cli.call_app(app))
