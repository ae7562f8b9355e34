"""The cause of a failure is the line that a person needs, out of everything that the processes printed."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.run.cause import cause

TORCHRUN = """\
W0101 torch/distributed/elastic/multiprocessing/api.py:1 Sending process 12 closing signal SIGTERM
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
train.py FAILED
  exitcode  : {exit} (pid: 12)
"""


def of(tmp_path: Path, text: str, status: int = 1, before: str = "") -> str:
    log = tmp_path / "log"
    log.write_bytes((before + text).encode("utf-8", "surrogateescape"))
    return cause(log, len(before.encode()), status)


@pytest.mark.parametrize("prefix", ["", "[rank1]: ", "[default0]:"])
def test_our_own_message_with_all_its_lines(tmp_path: Path, prefix: str) -> None:
    lines = ["error: train.jsonl:3: no answer", "  found:    {}", "  to do:    add one"]
    text = "loading\nValueError: something else\n" + "".join(f"{prefix}{line}\n" for line in lines)
    assert of(tmp_path, text + "[rank1]: done\n" + TORCHRUN.format(exit=2)) == "\n".join(
        ["train.jsonl:3: no answer", *lines[1:]]
    )


@pytest.mark.parametrize("prefix", ["", "[rank3]: "])
def test_the_first_exception_not_what_the_launcher_makes_of_it(tmp_path: Path, prefix: str) -> None:
    trace = ["Traceback (most recent call last):", '  File "x.py", line 1, in <module>', "    f()"]
    text = "".join(f"{prefix}{line}\n" for line in [*trace, "torch.OutOfMemoryError: CUDA out of memory."])
    other = "[rank0]: torch.distributed.DistNetworkError: Connection closed by peer\n"
    assert of(tmp_path, other + text + TORCHRUN.format(exit=1)) == "torch.OutOfMemoryError: CUDA out of memory."


def test_an_exception_whose_name_ends_in_another_word(tmp_path: Path) -> None:
    last = "pyarrow.lib.ArrowInvalid: Not an Arrow file"
    assert of(tmp_path, f'Traceback (most recent call last):\n  File "x.py", line 1, in <module>\n{last}\n') == last


def test_a_killed_worker(tmp_path: Path) -> None:
    assert "signal 9" in of(tmp_path, TORCHRUN.format(exit=-9))


@pytest.mark.parametrize("status", [-9, 137])
def test_a_killed_stage(tmp_path: Path, status: int) -> None:
    assert "signal 9" in of(tmp_path, "working\n", status)


def test_nothing_said(tmp_path: Path) -> None:
    assert of(tmp_path, "", 3) == "it ended with exit status 3"
    assert of(tmp_path, "working\nall Errors: 0\n", 3) == "it ended with exit status 3"


def test_only_the_launchers_exception(tmp_path: Path) -> None:
    assert "ChildFailedError" in of(tmp_path, TORCHRUN.format(exit=1))


def test_an_earlier_attempt_in_the_same_log_is_not_asked(tmp_path: Path) -> None:
    assert of(tmp_path, "ValueError: new\n", before="error: old\n") == "ValueError: new"


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    assert of(tmp_path, "\udcff\udcfe\nValueError: x\n") == "ValueError: x"
