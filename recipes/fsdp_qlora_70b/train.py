"""Q-LoRA (or LoRA) fine-tuning of Llama 3 with PyTorch FSDP2 and trl's SFTTrainer.

    torchrun --nproc-per-node N train.py --config RUN/train/config.yaml

The configuration's sections are the arguments of transformers' BitsAndBytesConfig, peft's LoraConfig and
trl's SFTConfig. Labels in the prepared data are not shifted; the model's loss shifts them, once.
Resuming is automatic: the newest complete checkpoint under the output directory is continued.
"""

from __future__ import annotations

from common.process import die_with_parent

die_with_parent()  # first: importing torch takes seconds, in which the run may be killed

import argparse
import os
import sys
from pathlib import Path

import torch.distributed as dist
from checkpoints import last_complete
from data import Collator
from datasets import load_from_disk
from setup import begin, end, load, options, read_config
from trainer import SftTrainer
from transformers import AutoTokenizer
from trl import SFTConfig

from common.cli import call


def main() -> None:
    config, _ = read_config(argparse.ArgumentParser(description=__doc__))
    device = begin(config["platform"])
    args = options(SFTConfig, "sft", config["sft"], use_cpu=device.type == "cpu")
    os.environ["TENSORBOARD_LOGGING_DIR"] = config["tensorboard"]  # where transformers' callback looks
    output = Path(args.output_dir)
    resume = last_complete(output, remove_others=args.process_index == 0)
    dist.barrier()  # nobody writes before the half-written checkpoints are gone
    tokenizer = AutoTokenizer.from_pretrained(config["model"]["path"])
    begin_with = config["model"]["adapter"]
    trainer = SftTrainer(
        model=load(config, device, Path(begin_with) if begin_with else None),
        args=args,
        metrics_path=Path(config["metrics"]),
        resume_step=resume.step if resume else 0,
        train_dataset=load_from_disk(str(Path(config["data"]["path"]) / "train")),
        data_collator=Collator(tokenizer.pad_token_id),
        processing_class=tokenizer,
    )
    trainer.train(resume_from_checkpoint=str(resume.folder) if resume else None)
    end()


if __name__ == "__main__":
    sys.exit(call(main))
