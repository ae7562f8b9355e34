"""Each correction to MindFormers does what it says, and the framework fails without it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

import patches
from common.errors import UserError

APPLY = """
import sys
import patches
if sys.argv[1] == "patched":
    patches.apply(sys.argv[2])
import mindspore as ms
ms.set_context(mode=0, device_target="CPU")
"""

OVERFLOW = (
    APPLY
    + """
import numpy as np
from mindformers.wrapper import MFTrainOneStepCell
network = ms.nn.WithLossCell(ms.nn.Dense(4, 1), ms.nn.MSELoss())
optimizer = ms.nn.SGD(network.trainable_params(), learning_rate=0.05)
step = MFTrainOneStepCell(network, optimizer, scale_sense=1.0)
data = ms.Tensor(np.ones((2, 4), np.float32)), ms.Tensor(np.ones((2, 1), np.float32))
losses = [float(step(*data)[0].asnumpy()) for _ in range(3)]
assert losses[2] < losses[0], losses
overflow = bool(step(ms.Tensor(np.full((2, 4), np.inf, np.float32)), data[1])[1].asnumpy().reshape(-1)[0])
print("overflow seen:", overflow)
"""
)

ARGMAX = (
    APPLY
    + """
from mindformers.generation import text_generator
found = text_generator.mint.argmax(ms.Tensor([[1.0, 3.0, 2.0], [5.0, 3.0, 4.0]]), -1)
print(found.asnumpy().tolist())
"""
)

BARRIER = (
    APPLY
    + """
ms.communication.init()
from mindspore.communication import comm_func
comm_func.barrier()
print("passed", flush=True)
"""
)


def run(code: str, *words: str, launch: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *(launch or ("-c", code)), *words]
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=variables, timeout=300)


@pytest.mark.parametrize(
    ("name", "code", "expected"),
    [
        ("mindformers.overflow_on_cpu", OVERFLOW, "overflow seen: True"),
        ("mindformers.argmax_on_cpu", ARGMAX, "[1, 0]"),
    ],
)
def test_it_works_with_the_patch_and_not_without(name: str, code: str, expected: str, tmp_path: Path) -> None:
    patched = run(code, "patched", name)
    assert patched.returncode == 0 and patched.stdout.strip().splitlines()[-1] == expected, patched.stderr
    stock = run(code, "stock", name)
    assert stock.returncode != 0 and "ernel" in stock.stdout + stock.stderr


@pytest.mark.parametrize(("mode", "passes"), [("patched", True), ("stock", False)])
def test_barrier_on_cpu(mode: str, passes: bool, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(BARRIER)
    launch = ("-m", "common.frameworks.mindformers.launch", "--worker_num=2", "--local_worker_num=2")
    done = run("", f"--log_dir={tmp_path / 'logs'}", str(script), mode, "mindformers.barrier_on_cpu", launch=launch)
    assert (done.returncode == 0) is passes, done.stdout + done.stderr
    for rank in range(2):
        assert ("passed" in (tmp_path / "logs" / f"worker_{rank}.log").read_text()) is passes
    if not passes:
        assert "Unsupported op [Barrier]" in done.stdout


def test_applying_twice_is_applying_once() -> None:
    from mindspore.nn.wrap.loss_scale import TrainOneStepWithLossScaleCell

    patches.apply("mindformers.overflow_on_cpu")
    once = TrainOneStepWithLossScaleCell.__init__
    patches.apply("mindformers.overflow_on_cpu")
    assert TrainOneStepWithLossScaleCell.__init__ is once


def test_a_version_that_the_patch_does_not_know_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from patches.mindformers import argmax_on_cpu

    monkeypatch.setattr(argmax_on_cpu, "VERSIONS", "<1")
    with pytest.raises(UserError, match="does not know this version of mindformers"):
        patches.apply("mindformers.argmax_on_cpu")
