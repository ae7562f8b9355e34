"""Worker processes: the order of the input, one message for whatever goes wrong, and nothing left behind."""

from __future__ import annotations

import contextlib
import itertools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from data_support import CONVERSATIONS, as_messages, command, run, write_jsonl

from common.data import workers
from common.data.prepare import Options, prepare
from common.data.workers import in_order
from common.environment import ROOT
from common.errors import RunError, UserError

GOOD = json.dumps(as_messages(CONVERSATIONS[0])) + "\n"


def uneven(item: int) -> tuple[int, int]:
    if item % 3 == 0:
        sum(range(200_000))  # later than its neighbours
    return item, os.getpid()


def refuse_seven(item: int) -> int:
    if item == 7:
        raise UserError("seven", file="a.jsonl", line=7, found="7")
    return item


def die_at_seven(item: int) -> int:
    if item == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_results_come_in_the_order_of_the_items() -> None:
    made = list(in_order(range(50), uneven, 3))
    assert [item for item, _ in made] == list(range(50))
    processes = {process for _, process in made[1:]}
    assert os.getpid() not in processes and len(processes) > 1


def test_workers_are_renewed_so_that_what_they_remember_does_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "ITEMS_A_WORKER", 10)
    made = list(in_order(range(31), uneven, 1))
    assert [item for item, _ in made] == list(range(31))
    groups = [{process for _, process in made[start : start + 10]} for start in (1, 11, 21)]
    assert all(len(group) == 1 for group in groups) and len(set.union(*groups)) == 3
    assert [process for _, process in in_order(range(3), uneven, 0)] == [os.getpid()] * 3


def test_within_a_worker_of_another_pool() -> None:
    """As torch's and multiprocessing's: a daemonic process may have no children."""
    with multiprocessing.Pool(1) as pool:
        assert pool.apply(within, (8,)) == list(range(8))


def within(count: int) -> list[int]:
    return [item for item, _ in in_order(range(count), uneven, 2)]


def test_what_stands_first_is_told_first() -> None:
    """An error of the reading is known before the work on what stands before it is done."""

    def items() -> Iterator[int]:
        yield from range(8)
        raise error

    for count, error in itertools.product((1, 2), (UserError("damaged"), PermissionError("damaged"))):
        with pytest.raises(UserError, match="seven") as raised:
            list(in_order(items(), refuse_seven, count))
        assert (raised.value.file, raised.value.line, raised.value.found) == (Path("a.jsonl"), 7, "7")
        taken = []
        with pytest.raises(type(error), match="damaged"):
            taken.extend(in_order(items(), uneven, count))
        assert [item for item, _ in taken] == list(range(8))


def length(item: np.ndarray) -> int:
    return len(item)


@pytest.mark.parametrize(("size", "ahead"), [(10, 13), (4 * 2**20, 5)])
def test_few_items_are_under_way_where_they_are_large(size: int, ahead: int) -> None:
    taken = 0

    def items() -> Iterator[np.ndarray]:
        nonlocal taken
        for _ in range(30):
            taken += 1
            yield np.zeros(size, dtype=np.uint8)

    made = in_order(items(), length, 2)
    assert [next(made), next(made)] == [size, size] and taken <= ahead
    made.close()


def divide(item: int) -> float:
    return 1 / (item - 5)


def test_a_defect_says_where_it_is() -> None:
    with pytest.raises(ZeroDivisionError) as raised:
        list(in_order(range(20), divide, 2))
    assert "in divide" in str(raised.value.__cause__)


def test_a_killed_worker_is_one_message() -> None:
    with pytest.raises(RunError, match="a worker process was killed"):
        list(in_order(range(20), die_at_seven, 2))


def test_workers_that_are_started_anew_do_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where processes cannot be forked."""
    from common.data import blocks

    monkeypatch.setattr(blocks.read, "__defaults__", (1000, None))
    path = write_jsonl(tmp_path / "a.jsonl", [as_messages(conversation) for conversation in CONVERSATIONS] * 4)
    run(path, tmp_path / "one", workers=1)
    monkeypatch.setattr(workers, "START_METHOD", "spawn")
    run(path, tmp_path / "two", workers=2)
    assert {p.name: p.read_bytes() for p in (tmp_path / "one").iterdir()} == {
        p.name: p.read_bytes() for p in (tmp_path / "two").iterdir()
    }


@pytest.mark.parametrize("form", ["conversation", "messages", "text"])
def test_convert_writes_the_same_with_any_number_of_workers(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from common.data import blocks

    source = write_jsonl(tmp_path / "a.jsonl", [as_messages(c) for c in CONVERSATIONS] * 50)
    monkeypatch.setattr(blocks.read, "__defaults__", (3000, None))
    for count in (1, 3):
        given = ("--input", source, "--format", form, "--workers", count, "--output", tmp_path / f"out{count}")
        assert command("convert", *given) == 0
    assert (tmp_path / "out1").read_bytes() == (tmp_path / "out3").read_bytes()
    if form == "conversation":
        made = json.loads((tmp_path / "out1").read_text(encoding="utf-8"))
        assert [record["id"] for record in made] == [str(number) for number in range(1, 201)]


def children(process: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{process}/task").iterdir():
        with contextlib.suppress(OSError):  # the thread has ended
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def until(condition: object, what: str, seconds: int = 120) -> None:
    assert callable(condition)
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, what
        time.sleep(0.01)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large.jsonl"
    path.write_text(GOOD * (200_000_000 // len(GOOD)), encoding="utf-8")
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("how", ["interrupt", "worker", "kill"])
def test_a_command_that_is_ended_leaves_nothing(large: Path, tmp_path: Path, how: str) -> None:
    out = tmp_path / "out"
    words = ["prepare", "--input", str(large), "--tokenizer", "tiny", "--template", "llama3", "--workers", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "common.data", *words, "--output", str(out)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until(lambda: len(children(process.pid)) == 2 or process.poll() is not None, "no workers")
    workers = children(process.pid)
    assert len(workers) == 2 and list((tmp_path / "out.partial").iterdir())
    if how == "interrupt":
        os.killpg(process.pid, signal.SIGINT)
    else:
        os.kill(workers[0] if how == "worker" else process.pid, signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    until(lambda: not any(running(worker) for worker in workers), "a worker lives on")
    if how != "kill":
        assert process.returncode == (130 if how == "interrupt" else 1)
        message = "error: interrupted\n" if how == "interrupt" else "error: a worker process was killed\n"
        assert said.startswith(message) and "Traceback" not in said
        assert [path.name for path in tmp_path.iterdir()] == ["large.jsonl"]
    assert not out.exists()


EARLY = """
import os, signal
from common.data.workers import in_order

def orphan():
    print(os.getpid(), flush=True)
    os.kill(parent, signal.SIGKILL)
    while os.getppid() == parent:
        pass

parent = os.getpid()
os.register_at_fork(after_in_child=orphan)
list(in_order(range(5), abs, 1))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forks on Linux")
def test_a_worker_whose_parent_is_killed_before_it_begins_ends_too() -> None:
    process = subprocess.Popen([sys.executable, "-c", EARLY], stdout=subprocess.PIPE, cwd=ROOT, text=True)
    assert process.stdout is not None
    with process.stdout as said:
        worker = int(said.readline())
    assert process.wait() == -signal.SIGKILL
    try:
        until(lambda: not running(worker), "the worker lives on", seconds=30)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files in /proc")
def test_too_few_files_may_be_open(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [as_messages(CONVERSATIONS[0])] * 20_000)
    words = ["prepare", "--input", path, "--tokenizer", "tiny", "--template", "llama3", "--output", tmp_path / "out"]
    limited = ["sh", "-c", 'ulimit -n 60; "$@"', "sh", sys.executable, "-m", "common.data", *map(str, words)]
    done = subprocess.run([*limited, "--workers", "20"], stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr.splitlines()[0]) == (1, "error: too many open files")
    assert [left.name for left in tmp_path.iterdir()] == ["a.jsonl"]


def test_an_error_in_a_worker_is_told_as_it_is(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [as_messages(CONVERSATIONS[0]), {"messages": []}])
    for count in (1, 2):
        options = Options(str(path), tmp_path / "out", "tiny", "llama3", workers=count)
        with pytest.raises(UserError, match=r"a\.jsonl:2: 'messages' is empty"):
            prepare(options)
    assert not (tmp_path / "out").exists()
