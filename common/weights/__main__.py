"""python -m common.weights: get, convert, verify and inspect Llama 3 weights."""

from __future__ import annotations

from common.environment import enter_light

if __name__ == "__main__":
    enter_light()

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from common import cli
from common.errors import RunError
from common.weights import convert as converting
from common.weights import get as getting
from common.weights import hub, logits, peft, progress
from common.weights import inspect as inspecting
from common.weights import verify as verifying
from common.weights.convert import FORMATS, Options
from common.weights.source import Source, open_source

LOGITS_TOLERANCE = 1e-5
_SHOWN = 10  # differing tensors that a message names

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)

_FORMATS = " | ".join(FORMATS)
To = Annotated[str, typer.Option(help=_FORMATS)]
DType = Annotated[str | None, typer.Option(help="fp32 | bf16 | fp16; the source's unless given")]
ShardSize = Annotated[str, typer.Option(help="largest safetensors file, such as 2GB or 512MiB")]
QkvConcat = Annotated[bool, typer.Option("--qkv-concat", help="MindSpore: join q, k, v, and gate and up")]
Split = Annotated[str, typer.Option(help="tp=N: one part for each of N tensor-parallel ranks")]
Config = Annotated[Path | None, typer.Option(help="config.json, yaml or params.json to use instead")]
Base = Annotated[str | None, typer.Option(help="the model that a PEFT adapter is merged into, a folder or a hub id")]
Tokenizer = Annotated[Path | None, typer.Option(help="tokenizer file or folder to use instead")]
Kind = Annotated[str | None, typer.Option(help="base | instruct, where the source does not say")]
Revision = Annotated[str | None, typer.Option(help="branch, tag or commit of a hub id")]


@app.command()
def get(
    source: Annotated[str, typer.Argument(metavar="SRC", help='"tiny", a model folder or file, or a hub id')],
    target: Annotated[Path, typer.Argument(metavar="DST", help="the folder to create")],
    to: To = "hf",
    dtype: DType = None,
    shard_size: ShardSize = "2GB",
    qkv_concat: QkvConcat = False,
    split: Split = "tp=1",
    config: Config = None,
    base: Base = None,
    tokenizer: Tokenizer = None,
    kind: Kind = None,
    revision: Revision = None,
    seed: Annotated[int, typer.Option(help="of the tiny model's weights")] = 0,
) -> None:
    """Bring a model to the format a recipe needs: make the tiny one, link what fits, convert the rest."""
    getting.get(
        source,
        target,
        _options(to, dtype, shard_size, qkv_concat, split),
        tokenizer=tokenizer,
        config=config,
        base=_resolve(base),
        kind=kind,
        seed=seed,
        revision=revision,
    )


@app.command()
def convert(
    source: Annotated[str, typer.Argument(metavar="SRC", help="a model folder or file, or a hub id")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="the folder to create")],
    to: To,
    dtype: DType = None,
    shard_size: ShardSize = "2GB",
    qkv_concat: QkvConcat = False,
    split: Split = "tp=1",
    config: Config = None,
    base: Base = None,
    tokenizer: Tokenizer = None,
    kind: Kind = None,
    revision: Revision = None,
) -> None:
    """Convert a model; the format of the source is recognised. An interrupted conversion goes on when repeated."""
    converting.convert(
        hub.resolve(source, "model", revision),
        target,
        _options(to, dtype, shard_size, qkv_concat, split),
        config=config,
        base=_resolve(base),
        tokenizer=tokenizer,
        kind=kind,
    )


@app.command()
def verify(
    first: Annotated[str, typer.Argument(metavar="A", help="the original: a folder, a file or a hub id")],
    second: Annotated[str, typer.Argument(metavar="B", help="what was made of it, in any format")],
    with_logits: Annotated[bool, typer.Option("--logits", help="compare fp32 logits on fixed prompts too")] = False,
    config: Config = None,
    base: Base = None,
) -> None:
    """Prove that two models are the same, bit by bit; exit status 1 when they are not."""
    one, other = (_open(hub.resolve(name), config, _resolve(base)) for name in (first, second))
    with progress.shown("verify", sum(tensor.nbytes for tensor in other.tensors.values())) as report:
        result = verifying.verify(one, other, report)
    problems = list(result.problems)
    shapes = [{name: tensor.shape for name, tensor in model.tensors.items()} for model in (one, other)]
    if with_logits and shapes[0] == shapes[1]:
        difference = logits.largest_difference(one, other)
        print(f"logits: largest difference {difference:.3g}")
        if not result.casts and not difference <= LOGITS_TOLERANCE:
            problems.append(f"logits differ by {difference:.3g}, more than {LOGITS_TOLERANCE:g}")
    if problems:
        named = problems[:_SHOWN] + ([f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else [])
        raise RunError(f"the models differ in {len(problems)} places", found="\n            ".join(named))
    rounded = f", {result.casts} of them after rounding to the second's type" if result.casts else ""
    print(f"the same: {result.tensors} tensors, {result.parameters:,} parameters, bit by bit{rounded}")


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="a folder or file of a model, or an adapter")],
    config: Config = None,
) -> None:
    """Print what a model is, without loading it."""
    content = peft.describe(path) if peft.is_adapter(path) else inspecting.inspect(path, config).as_dict()
    print(json.dumps(content, indent=2))


def _options(to: str, dtype: str | None, shard_size: str, qkv_concat: bool, split: str) -> Options:
    size, count = converting.parse_size(shard_size), converting.parse_split(split)
    return Options(to, dtype, size, qkv_concat, count)


def _resolve(model: str | None) -> Path | None:
    return None if model is None else hub.resolve(model)


def _open(path: Path, config: Path | None, base: Path | None) -> Source:
    return peft.open_merged(path, base) if peft.is_adapter(path) else open_source(path, config)


if __name__ == "__main__":
    sys.exit(cli.call_app(app))
