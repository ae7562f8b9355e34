"""The newest checkpoint's LoRA weights as adapter/ in PEFT layout.

    python export.py --config RUN/train/config.yaml --output FOLDER

Where each rank holds a part, MindSpore puts the parts together first. That the base model's weights are what they
were is checked here: an adapter to other weights would be worth nothing.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from setup import read_config

from common.cli import call
from common.errors import RunError
from common.files import remove
from common.frameworks.mindformers import checkpoints, export, lora
from common.frameworks.mindformers.configuration import WEIGHTS
from common.weights import mindspore_ckpt


def check_base(checkpoint: Path, base: Path) -> None:
    """Raise RunError where a tensor of the base model is not bit for bit what it was before training."""
    held = mindspore_ckpt.read(checkpoint)
    for name, before in mindspore_ckpt.read(base).items():
        after = held.get(name)
        if after is None or _bytes(after) != _bytes(before):
            raise RunError("training has changed the base model", file=checkpoint, found=name)


def _bytes(raw: mindspore_ckpt.RawTensor) -> bytes:
    return raw.open().read(0, raw.shape[0]).tobytes()


def main() -> None:
    run, config, arguments = read_config(_parser())
    trained = Path(config["output_dir"])
    checkpoint = checkpoints.need_last(trained / "checkpoint")
    base = run.weights / WEIGHTS
    whole = export.whole(checkpoint, base, trained / "strategy", arguments.output / "merged")
    check_base(whole, base)
    settings = config["model"]["model_config"]["pet_config"]
    lora.write_adapter(
        whole,
        arguments.output / "adapter",
        rank=settings["lora_rank"],
        alpha=settings["lora_alpha"],
        dropout=settings["lora_dropout"],
        base=str(run.weights),
    )
    remove(arguments.output / "merged")
    schedule = config["lr_schedule"]
    export.write_card(
        arguments.output / "adapter",
        run,
        f"Trained for {checkpoint.step} optimizer steps with MindFormers: LoRA of rank {settings['lora_rank']} on "
        f"{settings['target_modules']}, learning rate {schedule['learning_rate']}, seed {config['seed']}.",
        "lora_contest",
        kind="lora",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    return parser


if __name__ == "__main__":
    sys.exit(call(main))
