"""Bring a model to the format a recipe needs: make the tiny one, link what fits, convert the rest."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from common.files import remove, whole_directory, write_json
from common.weights import companions, convert, hub, hugging_face, peft, tiny, tokenizer_files
from common.weights.convert import Options
from common.weights.source import Source, open_source, weight_map

TINY = "tiny"
_NO_LINK = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.EACCES}


def get(
    source: str,
    target: Path,
    options: Options,
    *,
    tokenizer: Path | None = None,
    config: Path | None = None,
    base: Path | None = None,
    kind: str | None = None,
    seed: int = 0,
    revision: str | None = None,
) -> None:
    """Put the model `source` into the folder `target`, whole or not at all.

    `source` is "tiny", a path or a hub id. A model already in the wanted format is checked and its
    files are linked, not copied; another one is converted. The other arguments are those of
    `common.weights.convert.convert`; `seed` is the tiny model's. Raises UserError for broken weights,
    ids that do not fit, or a target that is not empty.
    """
    options.check()
    target = target.resolve()  # "." has no name to add ".partial" to
    if source == TINY and not Path(TINY).exists():
        _make_tiny(target, options, tokenizer, kind or tokenizer_files.BASE, seed)
        return
    path = hub.resolve(source, "model", revision)
    convert.check_places(path, target)
    if not peft.is_adapter(path):
        opened = open_source(path, config)
        if _fits(opened, options):
            _link(opened, target, options, tokenizer, kind)
            return
    convert.convert(path, target, options, config=config, base=base, tokenizer=tokenizer, kind=kind)


def _make_tiny(target: Path, options: Options, tokenizer: Path | None, kind: str, seed: int) -> None:
    dtype = options.dtype or "bf16"
    if options.to == "hf":
        tiny.make(target, seed=seed, kind=kind, dtype=dtype, vocabulary=tokenizer)
        return
    between = target.with_name(target.name + ".hf")
    remove(between)
    try:
        tiny.make(between, seed=seed, kind=kind, dtype=dtype, vocabulary=tokenizer)
        convert.convert(between, target, options)
    finally:
        remove(between)


def _fits(source: Source, options: Options) -> bool:
    if source.format != options.to or options.split > 1 or options.qkv_concat or len(_names(source)) == 0:
        return False
    return options.dtype is None or all(tensor.dtype.name == options.dtype for tensor in source.tensors.values())


def _names(source: Source) -> list[str]:
    """The names that the source's files have in a folder of this format; empty when they cannot be linked."""
    names = [file.name for file in source.files]
    if source.format == "meta":
        return names
    if len(names) == 1:
        return [convert.CKPT_NAME if source.format == "mindspore" else hugging_face.SINGLE]
    return names if (source.folder / hugging_face.INDEX).is_file() else []


def _link(source: Source, target: Path, options: Options, tokenizer: Path | None, kind: str | None) -> None:
    model = companions.resolve(source, tokenizer, kind)
    with whole_directory(target) as partial:
        for file, name in zip(source.files, _names(source), strict=True):
            _link_file(file, partial / name)
        # Small files are copied, because someone may edit the result's config: a link would change the source.
        if len(source.files) > 1 and source.format != "meta":
            index = source.folder / hugging_face.INDEX
            shutil.copyfile(index, partial / index.name)
            if source.format == "mindspore-safetensors":
                write_json(partial / convert.NAME_MAP, weight_map(index))
        companions.write(source, partial, model, options.layout, tokenizer=tokenizer, kind=kind, qkv_concat=False)


def _link_file(source: Path, target: Path) -> None:
    """A hard link, a symbolic link across file systems, a copy where neither works."""
    real = source.resolve()  # a hub's cache holds links to blobs
    try:
        os.link(real, target)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        try:
            target.symlink_to(real)
        except OSError:
            shutil.copyfile(real, target)
