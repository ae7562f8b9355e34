"""Held-out loss, perplexity and greedy answers, of the base and of the exported model, with MindFormers.

    python evaluate.py --config RUN/train/config.yaml --model RUN/model --output FOLDER

One network on one device, filled with the one set of weights and then with the other.
"""

from __future__ import annotations

from common.process import die_with_parent

die_with_parent()  # first: importing MindSpore takes seconds, in which the run may be killed

import argparse
import sys
from pathlib import Path

from common.cli import call
from common.evaluation.result import write
from common.frameworks.mindformers import configuration, evaluation, network, session


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    run, config = configuration.read(arguments.config)
    config = session.begin(config, run.patches, processes=1)
    net = network.build(config.model.model_config)
    before = evaluation.measure(network.fill(net, run.weights / configuration.WEIGHTS), run)
    after = evaluation.measure(network.fill(net, arguments.model), run)
    arguments.output.mkdir(parents=True, exist_ok=True)
    write(arguments.output, evaluation.results(before, after, run))


if __name__ == "__main__":
    sys.exit(call(main))
