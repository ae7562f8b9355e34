"""The newest checkpoint as model/ in Hugging Face layout.

    python export.py --config RUN/train/config.yaml --output FOLDER

Where each rank holds a part (semi-automatic parallel on several devices), MindSpore puts the parts together
first. The weights keep their values: names and files change, and the dtype where export.dtype says so.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from common.cli import call
from common.files import remove
from common.frameworks.mindformers import checkpoints, configuration, export


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    run, config = configuration.read(arguments.config)
    trained = Path(config["output_dir"])
    checkpoint = checkpoints.need_last(trained / "checkpoint")
    base = run.weights / configuration.WEIGHTS
    whole = export.whole(checkpoint, base, trained / "strategy", arguments.output / "merged")
    model = arguments.output / "model"
    export.to_hugging_face(whole, run, model)
    remove(arguments.output / "merged")
    schedule = config["lr_schedule"]
    export.write_card(
        model,
        run,
        f"Trained for {checkpoint.step} optimizer steps with MindFormers: all weights, learning rate "
        f"{schedule['learning_rate']}, seed {config['seed']}.",
        "mindformers_ascend",
    )


if __name__ == "__main__":
    sys.exit(call(main))
