"""Starts a script on several processes through MindSpore's launcher, msrun.

    python -m common.frameworks.mindformers.launch --worker_num=2 --local_worker_num=2 --log_dir=LOGS SCRIPT ARGS

The options are msrun's. On one node (no --master_port) a free port is chosen, so that two runs on one machine
do not meet. msrun starts plain `python`: this interpreter's folder comes first on PATH. The first local
worker's output is shown as it is written; when a worker fails, so are the last lines of the others.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from pathlib import Path
from types import FrameType

POLL_SECONDS = 0.2
LAST_LINES = 30  # of each worker, when one has failed
NO_WORKER = "1000000"  # msrun would follow every log with a `tail -f` that outlives it


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Follower(threading.Thread):
    """Copies a log file to standard output while it grows."""

    def __init__(self, file: Path) -> None:
        super().__init__(daemon=True)
        self.file = file
        self.position = 0
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(POLL_SECONDS):
            self.copy()

    def copy(self) -> None:
        """Write what has been added since the last call."""
        if not self.file.exists():
            return
        with open(self.file, "rb") as log:
            log.seek(self.position)
            added = log.read()
        self.position += len(added)
        sys.stdout.buffer.write(added)
        sys.stdout.buffer.flush()

    def end(self) -> None:
        self.ended.set()
        self.join()
        self.copy()


def last_lines(logs: list[Path]) -> None:
    """Show how the workers' logs end: one of them says why the launch failed."""
    for log in logs:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
        print(f"--- {log}", *lines, sep="\n", flush=True)


def option(arguments: list[str], name: str, default: str = "") -> str:
    """The value of --NAME=VALUE, before the script."""
    return next((word.partition("=")[2] for word in arguments if word.startswith(f"--{name}=")), default)


def main(arguments: list[str]) -> int:
    logs = Path(option(arguments, "log_dir")).resolve()
    logs.mkdir(parents=True, exist_ok=True)
    first = int(option(arguments, "node_rank", "0")) * int(option(arguments, "local_worker_num"))
    local = [logs / f"worker_{first + index}.log" for index in range(int(option(arguments, "local_worker_num")))]
    for log in local:
        log.unlink(missing_ok=True)  # of an earlier launch
    if not option(arguments, "master_port"):
        arguments = [f"--master_port={free_port()}", *arguments]
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    signal.signal(signal.SIGTERM, _terminate)
    from mindspore.parallel.cluster import run as msrun
    from mindspore.parallel.cluster.process_entity._api import _ProcessManager

    class Manager(_ProcessManager):
        """msrun's own, which does not wait half a minute for the scheduler when a worker has failed."""

        def kill_worker_processes(self) -> None:
            super().kill_worker_processes()
            if self.msn_process is not None:
                self.msn_process.kill()

        def _analyze_sched_log(self) -> None:
            """The workers' logs say more; msrun would hand a path to a shell here."""

    follower = Follower(local[0])
    follower.start()
    sys.argv = ["msrun", "--join=True", f"--tail_worker_log={NO_WORKER}", *arguments]
    try:
        Manager(msrun.get_args()).run()
    except RuntimeError as error:  # a worker has failed
        follower.end()
        last_lines(local[1:])
        print(f"error: {error}", flush=True)
        return 1
    follower.end()
    return 0


def _terminate(number: int, frame: FrameType | None) -> None:
    """The workers ask to end with this process (common.process)."""
    os._exit(128 + number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
