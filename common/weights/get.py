"""Bring a model to the format a recipe needs: make the tiny one, link what fits, convert the rest."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from common import tokenizer as tokenizers
from common.errors import UserError
from common.files import whole_directory
from common.weights import config as configs
from common.weights import hugging_face, tiny, tokenizer_files
from common.weights.inspect import inspect

TINY = "tiny"
_COMPANIONS = ("config.json", "generation_config.json", hugging_face.INDEX)


def get(
    source: str, target: Path, *, to: str = "hf", tokenizer: Path | None = None, seed: int = 0, kind: str | None = None
) -> None:
    """Put the model `source` into the folder `target` in format `to`, whole or not at all.

    `source` is "tiny" or a path. A folder already in the wanted format is checked and its files are
    linked, not copied. `tokenizer` (file or folder) replaces the tokenizer files. Raises UserError
    for broken weights, ids that do not fit, or a target that is not empty. `kind` is base or instruct;
    with `tokenizer` and no `kind`, a model that ends at <|eot_id|> counts as instruct.
    """
    if source == TINY and not Path(TINY).exists():
        tiny.make(target, seed=seed, kind=kind or tokenizer_files.BASE, vocabulary=tokenizer)
        return
    folder = Path(source)
    _refuse_same(folder, target)
    summary = inspect(folder)
    if tokenizer is None:
        tokenizer_files.check(folder, summary.config)
    else:
        _check_fits(tokenizer, summary.config)
    companions = [name for name in _COMPANIONS if (folder / name).is_file()]
    if tokenizer is None:
        companions += [name for name in tokenizer_files.NAMES if (folder / name).is_file()]
    with whole_directory(target) as partial:
        for file in hugging_face.shard_files(folder):
            _link(file, partial / file.name)
        for name in companions:
            # Copied, because someone may edit the result's config: a link would change the source.
            shutil.copyfile(folder / name, partial / name)
        if tokenizer is not None:
            tokenizer_files.write(tokenizer, partial, kind or tokenizer_files.kind_of(summary.config, tokenizer))
            tokenizer_files.check(partial, summary.config)


def _refuse_same(source: Path, target: Path) -> None:
    if target.exists() and source.exists() and target.samefile(source):
        raise UserError("the source and the output are the same", file=source, hint="choose another output")


def _check_fits(tokenizer: Path, config: configs.LlamaConfig) -> None:
    size = tokenizers.load(tokenizer).vocabulary_size
    if size > config.vocab_size:
        expected = f"at most vocab_size, {config.vocab_size}"
        raise UserError("the tokenizer has more ids than the model", file=tokenizer, found=size, expected=expected)


def _link(source: Path, target: Path) -> None:
    """A hard link, a symbolic link across file systems, a copy where neither works."""
    real = source.resolve()  # a hub's cache holds links to blobs
    try:
        os.link(real, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.EACCES):
            raise
        try:
            target.symlink_to(real)
        except OSError:
            shutil.copyfile(real, target)
