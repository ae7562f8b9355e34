"""Each patch corrects what it says, and the test shows the defect without it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from bitsandbytes.nn import Linear4bit
from conftest import ROOT

import patches
from common.errors import UserError

DISTRIBUTED_TYPE = """
import sys
import patches
if sys.argv[1] == "patched":
    patches.apply("accelerate.fsdp_on_cpu")
from accelerate import Accelerator, FullyShardedDataParallelPlugin
accelerator = Accelerator(cpu=True, fsdp_plugin=FullyShardedDataParallelPlugin(fsdp_version=2, cpu_offload=True))
import torch
model = torch.nn.Sequential(torch.nn.Linear(8, 8))
model, _ = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
if accelerator.is_main_process:
    print(accelerator.distributed_type.value, type(next(model.parameters())).__name__)
torch.distributed.destroy_process_group()
"""


@pytest.mark.parametrize(("mode", "expected"), [("patched", "FSDP DTensor"), ("stock", "MULTI_CPU Parameter")])
def test_fsdp_on_cpu(tmp_path: Path, mode: str, expected: str) -> None:
    """Without the patch accelerate runs DDP on CPU processes when asked for FSDP, and says nothing."""
    script = tmp_path / "script.py"
    script.write_text(DISTRIBUTED_TYPE)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script), mode]
    done = subprocess.run(launch, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == expected


EVAL_FORWARD = """
import sys
import bitsandbytes.nn.modules as modules
modules.has_avx512bf16 = lambda: True
import torch
import patches
if sys.argv[1] == "patched":
    patches.apply("bitsandbytes.keep_4bit_layout")
layer = modules.Linear4bit(64, 64, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4").to("cpu")
before = layer.weight.data.clone()
layer.eval()
try:
    with torch.no_grad():
        layer(torch.ones(1, 64, dtype=torch.bfloat16))
except RuntimeError:
    pass  # a CPU without the instructions may not have the kernel that the new layout is for
same = layer.weight.data.shape == before.shape and torch.equal(layer.weight.data, before)
print("kept" if same else "repacked")
"""


@pytest.mark.parametrize(("mode", "expected"), [("patched", "kept"), ("stock", "repacked")])
def test_keep_4bit_layout(mode: str, expected: str) -> None:
    """On a CPU that says it has AVX512-BF16, an eval forward repacks the weights that training reads."""
    done = subprocess.run(
        [sys.executable, "-c", EVAL_FORWARD, mode],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.strip().splitlines()[-1:] == [expected], done.stderr


def test_applying_twice_is_applying_once() -> None:
    patches.apply("bitsandbytes.keep_4bit_layout")
    once = Linear4bit.__init__
    patches.apply("bitsandbytes.keep_4bit_layout")
    assert Linear4bit.__init__ is once
    assert Linear4bit(8, 8, quant_type="nf4").support_avx512bf16_for_cpu is False


def test_a_version_that_the_patch_does_not_know_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from patches.accelerate import fsdp_on_cpu

    monkeypatch.setattr(fsdp_on_cpu, "VERSIONS", "<1")
    with pytest.raises(UserError, match="does not know this version of accelerate"):
        patches.apply("accelerate.fsdp_on_cpu")
