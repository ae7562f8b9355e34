"""Q-LoRA (or LoRA) fine-tuning of Llama 3 with PyTorch FSDP2 and trl's SFTTrainer.

    torchrun --nproc-per-node N train.py --config RUN/train/config.yaml

The configuration's sections are the arguments of transformers' BitsAndBytesConfig, peft's LoraConfig and
trl's SFTConfig. Labels in the prepared data are not shifted; the model's loss shifts them, once.
Resuming is automatic: the newest complete checkpoint under the output directory is continued.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from checkpoints import SftTrainer, last_complete
from datasets import load_from_disk
from setup import begin, end, load, read_config
from transformers import AutoTokenizer

from common.cli import call


class Collator:
    """Rows of any length as one batch, padded on the right. Shapes (rows, longest row), int64.

    There is no attention mask: attention is limited by position_ids, which restart at 0 with every
    document; transformers derives the block-diagonal causal mask from them. The padding is one more
    document. Its labels are -100.
    """

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        longest = max(len(row["input_ids"]) for row in rows)
        batch: dict[str, list[list[int]]] = {"input_ids": [], "labels": [], "position_ids": []}
        for row in rows:
            missing = longest - len(row["input_ids"])
            batch["input_ids"].append(row["input_ids"] + [self.pad_id] * missing)
            batch["labels"].append(row["labels"] + [-100] * missing)
            batch["position_ids"].append(row["position_ids"] + list(range(missing)))
        return {name: torch.tensor(values, dtype=torch.long) for name, values in batch.items()}


def main() -> None:
    config, _ = read_config(argparse.ArgumentParser(description=__doc__))
    args = begin(config)
    output = Path(args.output_dir)
    resume = last_complete(output, remove_others=args.process_index == 0)
    dist.barrier()  # nobody writes before the half-written checkpoints are gone
    tokenizer = AutoTokenizer.from_pretrained(config["model"]["path"])
    trainer = SftTrainer(
        model=load(config, args),
        args=args,
        metrics_path=Path(config["metrics"]),
        resume_step=resume.step if resume else 0,
        train_dataset=load_from_disk(str(Path(config["data"]["path"]) / "train")),
        data_collator=Collator(tokenizer.pad_token_id),
        processing_class=tokenizer,
    )
    trainer.train(resume_from_checkpoint=str(resume.folder) if resume else None)
    trainer.save_last_checkpoint()
    end()


if __name__ == "__main__":
    sys.exit(call(main))
