"""All ranks' parts of a checkpoint as one file: weights, optimizer and progress, for any number of processes.

    python merge.py RUN/checkpoints/last merged.ckpt

`--set config.checkpoint.resume_from=merged.ckpt` begins another run from it. Random states are not in it.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from checkpoints import parts, read
from setup import apply_patches

from common.cli import call
from common.errors import UserError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="the folder of RANK.ckpt files")
    parser.add_argument("output", type=Path, help="the file to write")
    arguments = parser.parse_args()
    if arguments.output.exists():
        raise UserError("the output exists", file=arguments.output, hint="remove it, or choose another output")
    files = parts(arguments.checkpoint)
    for file in files:
        read(file)  # a damaged part is named before anything is written
    apply_patches({"plugin": None, "patches": ["nnscaler.cpu", "nnscaler.newer_torch", "nnscaler.checked_checkpoints"]})
    from nnscaler.cli.trainer import Trainer

    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    partial = arguments.output.with_name(arguments.output.name + ".partial")
    Trainer.merge_checkpoint([str(file) for file in files], str(partial))
    os.replace(partial, arguments.output)
    print(arguments.output)


if __name__ == "__main__":
    sys.exit(call(main))
