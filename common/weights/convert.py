"""Convert a model from any format that is read to any that is written, a few megabytes at a time."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from common.errors import RunError, UserError, did_you_mean
from common.files import alone, remove, write_json
from common.weights import companions, dtypes, hugging_face, layouts, mindspore_ckpt, parts, peft, progress, torch_files
from common.weights import config as configs
from common.weights.config import LlamaConfig, read_json
from common.weights.source import Source, open_source
from common.weights.tensors import Tensor, in_dtype
from common.weights.writing import WORKERS, OutputFile, Report, write_file

FORMATS = ("hf", "mindspore", "mindspore-safetensors", "meta")
MANIFEST = "conversion.json"
NAME_MAP = "param_name_map.json"  # what MindSpore calls the index of its safetensors
CKPT_NAME = "llama3.ckpt"
_SIZE = re.compile(r"^(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?$", re.IGNORECASE)
_COMPANION_ROOM = 64 * 2**20  # bytes for configs and tokenizer


@dataclass(frozen=True)
class Options:
    """What a conversion does. `dtype` None keeps each tensor's type; `split` counts tensor-parallel parts."""

    to: str
    dtype: str | None = None
    shard_size: int = hugging_face.DEFAULT_SHARD_SIZE
    qkv_concat: bool = False
    split: int = 1

    def check(self) -> None:
        """Raise UserError for an unknown format or dtype, and for options the format does not have."""
        if self.to not in FORMATS:
            expected, hint = ", ".join(FORMATS), did_you_mean(self.to, FORMATS)
            raise UserError("unknown format", found=self.to, expected=expected, hint=hint)
        if self.dtype is not None:
            dtypes.by_name(self.dtype)
        if self.qkv_concat and not self.to.startswith("mindspore"):
            raise UserError("--qkv-concat is MindSpore's", found=f"--to {self.to}")
        if self.split < 1 or (self.split > 1 and self.to == "hf"):
            hint = "Hugging Face's files are not split by rank"
            raise UserError("the model cannot be split so", found=f"tp={self.split} --to {self.to}", hint=hint)

    @property
    def layout(self) -> str:
        """The names and row order of the target."""
        return layouts.MINDSPORE if self.to.startswith("mindspore") else self.to


def parse_size(text: str) -> int:
    """Bytes of "2GB" (10^9), "512MiB" (2^20) or "1000". Raises UserError for anything else."""
    match = _SIZE.match(text.strip())
    if match is None or float(match[1]) <= 0:
        raise UserError("not a size", found=text, expected="such as 2GB, 512MiB")
    base = 1024 if match[3] else 1000
    return int(float(match[1]) * base ** " KMGT".index(match[2].upper() or " "))


def parse_split(text: str) -> int:
    """N of "tp=N". Raises UserError for anything else."""
    match = re.match(r"^tp=(\d+)$", text)
    if match is None or int(match[1]) < 1:
        raise UserError("not a split", found=text, expected="tp=N")
    return int(match[1])


def convert(
    path: Path,
    target: Path,
    options: Options,
    *,
    config: Path | None = None,
    base: Path | None = None,
    tokenizer: Path | None = None,
    kind: str | None = None,
    workers: int = WORKERS,
) -> None:
    """Convert the model in `path` into the folder `target`, which appears whole or not at all.

    `config` replaces the config beside the weights, `tokenizer` the tokenizer; `base` is the model
    that a PEFT adapter in `path` is merged into; `kind` (base, instruct) settles the special ids of
    a source that does not say. An interrupted conversion leaves `target.partial` and goes on there,
    file by file, when it is repeated. Raises UserError for wrong input before anything is written,
    RunError when the space does not suffice.
    """
    options.check()
    check_places(path, target)
    target = target.resolve()  # "." has no name to add ".partial" to
    source = peft.open_merged(path, base) if peft.is_adapter(path) else open_source(path, config)
    model = companions.resolve(source, tokenizer, kind)
    tensors = source.tensors
    if options.dtype is not None:
        dtype = dtypes.by_name(options.dtype)
        tensors = {name: in_dtype(tensor, dtype) for name, tensor in tensors.items()}
        model = model.with_dtype(dtype.name)
    files, extras = _plan(tensors, model, options)
    partial = target.with_name(target.name + ".partial")
    with alone(partial):
        done = _begin(partial, _identity(path, source, model, options))
        left = [file for file in files if not (done and _is_written(partial, file))]
        _check_space(partial, left)
        try:
            for name, content in extras.items():
                write_json(partial / name, content)
            companions.write(
                source,
                partial,
                model,
                options.layout,
                tokenizer=tokenizer,
                kind=kind,
                qkv_concat=options.qkv_concat,
            )
            with progress.shown(f"{path.name} → {options.to}", sum(file.size for file in left)) as report:
                for file in left:
                    _write(partial, file, report, workers, path)
            (partial / MANIFEST).unlink()
            if target.is_dir():
                target.rmdir()
            os.rename(partial, target)
        except UserError as error:
            if not isinstance(error, RunError):
                remove(partial)  # wrong input: going on would end in the same error
            raise


def _write(folder: Path, file: OutputFile, report: Report, workers: int, source: Path) -> None:
    try:
        write_file(folder, file, report, workers)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "free some space and repeat the command: finished files are kept"
            raise RunError("no space left on the device", file=folder / file.name, hint=hint) from None
        raise RunError(f"converting failed: {error}", file=error.filename or source) from None


def check_places(source: Path, target: Path) -> None:
    """Raise UserError unless `target` can become a folder that is neither `source` nor inside of it."""
    if target.exists() and not target.is_dir():
        raise UserError("the output exists and is a file", file=target, hint="name a folder")
    if target.resolve().is_mount():
        raise UserError(
            "the output is a mount point, which cannot be replaced", file=target, hint="name a folder in it"
        )
    if target.suffix in (".ckpt", ".pth", ".safetensors", ".bin"):
        hint = "the model's config and tokenizer go there too"
        raise UserError("the output is a folder, not a file", file=target, expected="a folder", hint=hint)
    if source.exists() and target.resolve() == source.resolve():
        raise UserError("the source and the output are the same", file=source, hint="choose another output")
    if source.is_dir() and source.resolve() in target.resolve().parents:
        raise UserError("the output lies inside the source", file=target, hint="choose another output")
    if target.is_dir() and any(target.iterdir()):
        raise UserError("the output exists and is not empty", file=target, hint="remove it, or choose another output")


def _plan(
    tensors: Mapping[str, Tensor], config: LlamaConfig, options: Options
) -> tuple[list[OutputFile], dict[str, object]]:
    """The files to write, and small JSON files beside them, name → content."""
    if config.num_key_value_heads % options.split:
        expected = f"a divisor of {config.num_key_value_heads}: each part has whole key heads"
        raise UserError("the model cannot be split so", found=f"tp={options.split}", expected=expected)
    laid = layouts.from_hugging_face(tensors, options.layout, config, qkv_concat=options.qkv_concat)
    count = options.split
    ranks = [{name: parts.take(name, laid[name], rank, count) for name in laid} for rank in range(count)]
    if options.to == "meta":
        return [torch_files.plan(f"consolidated.{rank:02}.pth", part) for rank, part in enumerate(ranks)], {}
    if count > 1:
        plan: Callable[[str, Mapping[str, Tensor]], OutputFile] = mindspore_ckpt.plan
        suffix = "ckpt"
        if options.to == "mindspore-safetensors":
            plan, suffix = _one_safetensors, "safetensors"
        return [plan(f"rank_{rank}/checkpoint_{rank}.{suffix}", part) for rank, part in enumerate(ranks)], {}
    if options.to == "mindspore":
        return [mindspore_ckpt.plan(CKPT_NAME, laid)], {}
    framework = "ms" if options.to == "mindspore-safetensors" else "pt"
    files, index = hugging_face.plan(laid, options.shard_size, framework=framework)
    if index is None:
        return files, {}
    extras: dict[str, object] = {hugging_face.INDEX: index}
    if framework == "ms":
        extras[NAME_MAP] = index["weight_map"]
    return files, extras


def _one_safetensors(name: str, tensors: Mapping[str, Tensor]) -> OutputFile:
    return hugging_face.output(name, tensors, "ms")


def _identity(path: Path, source: Source, model: LlamaConfig, options: Options) -> dict[str, object]:
    """What must be equal for a conversion to go on where an interrupted one stopped."""
    stats = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in source.files]
    return {
        "source": str(path.resolve()),
        "files": [list(stat) for stat in stats],
        "config": configs.to_hugging_face(model),  # rows are permuted by its sizes
        "options": {key: getattr(options, key) for key in ("to", "dtype", "shard_size", "qkv_concat", "split")},
    }


def _begin(partial: Path, identity: dict[str, object]) -> bool:
    """Make `partial` ready; True when it holds the finished files of the same conversion."""
    manifest = partial / MANIFEST
    if manifest.is_file():
        try:
            if read_json(manifest) == identity:
                return True
        except UserError:
            pass  # cut short while it was written: nothing can be trusted
    for child in partial.iterdir():
        remove(child)
    write_json(manifest, identity)
    return False


def _is_written(folder: Path, file: OutputFile) -> bool:
    written = folder / file.name  # appears under this name only when whole and on the disk
    return written.is_file() and written.stat().st_size == file.size


def _check_space(folder: Path, files: list[OutputFile]) -> None:
    needed = sum(file.size for file in files) + _COMPANION_ROOM
    free = shutil.disk_usage(folder).free
    if free < needed:
        remove(folder)
        found, expected = f"{free / 1e9:.2f} GB free", f"at least {needed / 1e9:.2f} GB"
        raise RunError("not enough space for the output", file=folder.parent, found=found, expected=expected)
