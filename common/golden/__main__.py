"""python -m common.golden FOLDER: the golden model, adapter and data, for a recipe's test or a platform's."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from common import cli


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m common.golden", description=__doc__)
    parser.add_argument("folder", type=Path, help="where model/, adapter/ and data/ go; not there yet")
    arguments = parser.parse_args()
    from common.golden import folder

    folder.write(arguments.folder)


if __name__ == "__main__":
    sys.exit(cli.call(main))
