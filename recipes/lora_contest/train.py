"""LoRA fine-tuning of Llama 3 with MindFormers' own Trainer.

    msrun ... train.py --config RUN/train/config.yaml

The configuration is MindFormers' own YAML. Rows hold seq_length + 1 ids, labels are not shifted: the model shifts
them, once. Resuming is automatic: the newest whole checkpoint is continued.
"""

from __future__ import annotations

from common.process import die_with_parent

die_with_parent()  # first: importing mindspore takes seconds, in which the run may be killed

import argparse
import sys

from setup import read_config

from common.cli import call
from common.frameworks.mindformers import session, training


def main() -> None:
    run, config, _ = read_config(argparse.ArgumentParser(description=__doc__))
    training.train(session.begin(config, run.patches), run)


if __name__ == "__main__":
    sys.exit(call(main))
