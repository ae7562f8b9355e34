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

BEGIN = """
import patches
import mindspore as ms
ms.set_context(mode=0, device_target="CPU")

def without_and_with(name, call):
    try:
        call()
    except (RuntimeError, TypeError) as error:
        print(f"without {name}:", str(error).replace("\\n", " ")[:300])
    patches.apply(name)
    print(f"with {name}:", call(), flush=True)
"""

ONE_PROCESS = (
    BEGIN
    + """
import numpy as np
from mindformers.generation import text_generator
from mindformers.wrapper import MFTrainOneStepCell
data = ms.Tensor(np.ones((2, 4), np.float32)), ms.Tensor(np.ones((2, 1), np.float32))

def train():
    network = ms.nn.WithLossCell(ms.nn.Dense(4, 1), ms.nn.MSELoss())
    optimizer = ms.nn.SGD(network.trainable_params(), learning_rate=0.05)
    step = MFTrainOneStepCell(network, optimizer, scale_sense=1.0)
    losses = [float(step(*data)[0].asnumpy()) for _ in range(3)]
    found = step(ms.Tensor(np.full((2, 4), np.inf, np.float32)), data[1])[1].asnumpy().reshape(-1)
    return losses[2] < losses[0], bool(found[0])

def argmax():
    return text_generator.mint.argmax(ms.Tensor([[1.0, 3.0, 2.0], [5.0, 3.0, 4.0]]), -1).asnumpy().tolist()

without_and_with("mindformers.overflow_on_cpu", train)
without_and_with("mindformers.argmax_on_cpu", argmax)
"""
)

TWO_PROCESSES = (
    BEGIN
    + """
ms.communication.init()
from mindspore.communication import comm_func
without_and_with("mindformers.barrier_on_cpu", lambda: comm_func.barrier() or "passed")
"""
)


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Python with those words, in a folder where MindFormers may leave what it leaves."""
    command, variables = [sys.executable, *words], {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=variables, timeout=600)


def said(output: str, beginning: str) -> str:
    """The rest of the one line that begins so."""
    found = [line.removeprefix(beginning).strip() for line in output.splitlines() if line.startswith(beginning)]
    assert len(found) == 1, output[-3000:]
    return found[0]


def test_training_and_greedy_search_work_with_the_patch_and_not_without(tmp_path: Path) -> None:
    done = run(tmp_path, "-c", ONE_PROCESS)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "NPUGetFloatStatus" in said(done.stdout, "without mindformers.overflow_on_cpu:")
    assert said(done.stdout, "with mindformers.overflow_on_cpu:") == "(True, True)", "the loss falls, infinity is seen"
    assert "ArgMaxExt" in said(done.stdout, "without mindformers.argmax_on_cpu:")
    assert said(done.stdout, "with mindformers.argmax_on_cpu:") == "[1, 0]"


def test_barrier_on_cpu(tmp_path: Path) -> None:
    script, logs = tmp_path / "script.py", tmp_path / "logs"
    script.write_text(TWO_PROCESSES)
    launch = "common.frameworks.mindformers.launch"
    done = run(tmp_path, "-m", launch, "--worker_num=2", "--local_worker_num=2", f"--log_dir={logs}", str(script))
    assert done.returncode == 0, done.stdout + done.stderr
    for rank in range(2):
        log = (logs / f"worker_{rank}.log").read_text()
        assert "Barrier" in said(log, "without mindformers.barrier_on_cpu:")
        assert said(log, "with mindformers.barrier_on_cpu:") == "passed"


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
