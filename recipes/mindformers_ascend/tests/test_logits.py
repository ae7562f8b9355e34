"""The exported model computes what MindFormers' own network computes from the checkpoint, in fp32 below 1e-5."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT

from common import environment
from common.weights.logits import logits, prompts
from common.weights.source import open_source

WITHIN = 1e-5

MINDFORMERS = """
import json, sys, tempfile
from pathlib import Path
import numpy as np
from common.frameworks.mindformers import checkpoints, configuration, network, session
run_folder, ids, output = Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
run, config = configuration.read(run_folder / "train" / "config.yaml")
trained = Path(config["output_dir"])
config["output_dir"] = tempfile.mkdtemp()
config["model"]["model_config"]["seq_length"] = len(ids[0])
made = session.begin(config, run.patches, processes=1)
import mindspore as ms
net = network.fill(network.build(made.model.model_config), checkpoints.need_last(trained / "checkpoint").files[0])
scores = net(ms.Tensor(ids, ms.int32))[0].asnumpy()
np.save(output, scores.reshape(len(ids), len(ids[0]), -1).astype(np.float32))
"""

TRANSFORMERS = """
import json, sys
import numpy as np, torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32, local_files_only=True)
with torch.no_grad():
    np.save(sys.argv[3], model(torch.tensor(json.loads(sys.argv[2]))).logits.numpy())
"""


def computed(python: str, code: str, folder: Path, ids: list[list[int]], output: Path) -> Any:
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [python, "-c", code, str(folder), str(ids), str(output)]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return np.load(output)


@pytest.fixture(scope="module")
def ids(run: Path) -> list[list[int]]:
    return [list(row) for row in prompts(open_source(run / "model").config)]


@pytest.fixture(scope="module")
def theirs(run: Path, ids: list[list[int]], tmp_path_factory: pytest.TempPathFactory) -> Any:
    return computed(sys.executable, MINDFORMERS, run, ids, tmp_path_factory.mktemp("logits") / "mindformers.npy")


def test_against_a_forward_pass_in_numpy(run: Path, ids: list[list[int]], theirs: Any) -> None:
    source = open_source(run / "model")
    for row, found in zip(ids, theirs, strict=True):
        assert np.abs(found).max() > 1  # else a tolerance would prove nothing
        assert np.abs(logits(source, row) - found).max() < WITHIN


def test_against_transformers(run: Path, ids: list[list[int]], theirs: Any, tmp_path: Path) -> None:
    """In the environment of a recipe that has torch, where it is there."""
    packages = environment.home().glob("*/lib/python3.*/site-packages")
    with_torch = [folder for folder in sorted(packages) if (folder / "torch").is_dir() and (folder / "peft").is_dir()]
    if not with_torch:
        pytest.skip("no environment with torch: run recipes/fsdp_qlora_70b once")
    python = str(with_torch[0].parents[2] / "bin" / "python")
    found = computed(python, TRANSFORMERS, run / "model", ids, tmp_path / "transformers.npy")
    assert np.abs(found - theirs).max() < WITHIN
