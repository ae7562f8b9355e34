"""`colossalai run`, from this recipe's environment: on this machine, or on all machines of a hostfile through ssh.

    ENVIRONMENT/bin/python launch.py run --nproc_per_node 16 train.py --config RUN/train/config.yaml
    ENVIRONMENT/bin/python launch.py run --hostfile hosts --nproc_per_node 16 --master_addr HOST train.py --config ...

run.sh uses torchrun, which needs no ssh. ColossalAI's command joins words and variables to one line for a shell: words
are quoted for it here, and variables that a shell would interpret are not passed on.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

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

    launcher = import_module("colossalai.cli.launcher.run")  # its name in the package is the command
    joined = launcher.get_launch_command

    def quoted(*, user_script: str, user_args: list[str], **options: Any) -> str:
        words = [shlex.quote(word) for word in user_args]
        return str(joined(user_script=shlex.quote(user_script), user_args=words, **options))

    launcher.get_launch_command = quoted
    cli()


if __name__ == "__main__":
    main()
