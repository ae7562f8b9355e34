"""`colossalai run`, from this recipe's environment: on this machine, or on all machines of a hostfile through ssh.

    ENVIRONMENT/bin/python launch.py run --nproc_per_node 16 train.py --config RUN/train/config.yaml
    ENVIRONMENT/bin/python launch.py run --hostfile hosts --nproc_per_node 16 --master_addr HOST train.py --config ...

run.sh uses torchrun, which needs no ssh. ColossalAI's command joins words and variables to one line for a shell: words
with spaces do not survive it, and variables that a shell would interpret are not passed on.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import patches

UNSAFE = re.compile(r'["`$\\]')
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def main() -> None:
    patches.apply("colossalai.without_galore")
    for name, value in list(os.environ.items()):
        if UNSAFE.search(value) or not NAME.fullmatch(name):
            del os.environ[name]
    # It calls torchrun by name, and the workers import common and patches
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    os.environ["PYTHONPATH"] = os.pathsep.join([sys.path[0], os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    from colossalai.cli import cli

    cli()


if __name__ == "__main__":
    main()
