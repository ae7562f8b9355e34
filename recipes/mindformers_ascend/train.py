"""Full fine-tuning of Llama 3 with MindFormers' own Trainer.

    msrun ... train.py --config RUN/train/config.yaml         (one process: python train.py ...)

The configuration is MindFormers' own YAML with a section `run` of ours. Records hold seq_length + 1 ids and
labels that are not shifted; the model shifts them, once. Resuming is automatic: the newest checkpoint of which
every rank has a whole file is continued.
"""

from __future__ import annotations

from common.process import die_with_parent

die_with_parent()  # first: importing MindSpore takes seconds, in which the run may be killed

import argparse
import sys
from pathlib import Path

from common.cli import call
from common.frameworks.mindformers import configuration, session
from common.frameworks.mindformers.training import train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    arguments = parser.parse_args()
    run, config = configuration.read(arguments.config)
    train(session.begin(config, run.patches), run)


if __name__ == "__main__":
    sys.exit(call(main))
