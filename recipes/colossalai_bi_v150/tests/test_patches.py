"""Each patch corrects what it says, and the test shows the defect without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from recipe_runs import free_port

import patches
from common.errors import UserError
from patches.colossalai import zero_on_cpu

# One process for all: importing ColossalAI takes seconds. Each line is printed before and after its patch.
SCRIPT = """
import json, sys, warnings
warnings.filterwarnings("ignore")
import patches

def outcome(work):
    try:
        return str(work())
    except BaseException as error:
        return f"{type(error).__name__}: {error}"

found = {}
def show(name, work, *patched):
    before = outcome(work)
    for each in patched or [name]:
        patches.apply("colossalai." + each)
        patches.apply("colossalai." + each)
    found[name] = [before, outcome(work)]

def imported():
    from colossalai.booster import Booster
    return "made"

show("without_galore", imported)
import torch
from colossalai.accelerator import get_accelerator
show("cpu_accelerator", lambda: len(get_accelerator().get_rng_state()) > 0)

def adam():
    from colossalai.nn.optimizer import HybridAdam
    results = []
    for kind, more in ((HybridAdam, {"adamw_mode": True}), (torch.optim.AdamW, {})):
        torch.manual_seed(0)
        layer = torch.nn.Linear(8, 8)
        optimizer = kind(layer.parameters(), lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1, **more)
        for _ in range(5):
            layer(torch.ones(2, 8)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        results.append(layer.weight)
    return torch.equal(*results)

show("cpu_kernels", adam)

def clipped():
    from colossalai.nn.optimizer import HybridAdam
    parameter = torch.nn.Parameter(torch.zeros(8))
    optimizer = HybridAdam([parameter], betas=(0.5, 0.5))
    parameter.data = torch.ones(8, dtype=torch.bfloat16)
    parameter.grad = torch.ones(8, dtype=torch.bfloat16)
    parameter.data = torch.zeros(8)
    optimizer.step(div_scale=4.0)
    return float(optimizer.state[parameter]["exp_avg"][0])  # half of the gradient that was used

show("clip_on_cpu", clipped)

import torch.distributed as dist
dist.init_process_group("gloo", init_method="tcp://127.0.0.1:" + sys.argv[1], rank=0, world_size=1)

def zero():
    from colossalai.zero.low_level import LowLevelZeroOptimizer
    layer = torch.nn.Linear(8, 8)
    optimizer = LowLevelZeroOptimizer(torch.optim.AdamW(layer.parameters()), overlap_communication=True)
    optimizer.backward(layer(torch.ones(2, 8)).square().sum())
    optimizer.step()
    return "stepped"

show("zero_on_cpu", zero)

def gemini():
    from colossalai.nn.optimizer import HybridAdam
    from colossalai.zero.gemini import GeminiDDP, GeminiOptimizer
    layer = torch.nn.Linear(8, 8)
    optimizer = HybridAdam(layer.parameters())
    model = GeminiDDP(layer, mixed_precision=torch.bfloat16, hidden_dim=8, search_range_m=0, min_chunk_size_m=0)
    optimizer = GeminiOptimizer(optimizer, model, max_norm=1.0)
    for _ in range(2):
        optimizer.backward(model(torch.ones(2, 8)).float().square().sum())
        optimizer.step()
    return "stepped in shards" if not any(chunk.keep_gathered for chunk in optimizer.chunk16_set) else "gathered"

show("gemini_on_cpu", gemini)

from types import SimpleNamespace
def accumulated():
    from colossalai.zero.gemini.chunk import ChunkManager
    gradients = SimpleNamespace(is_gathered=True, cuda_global_chunk=torch.ones(4))
    second_of_two = SimpleNamespace(grad_chunk=gradients, pg_size=2, pg_rank=1)
    manager = SimpleNamespace(init_grad_chunk=lambda chunk: gradients)
    return float(ChunkManager.rearrange_accumulated_grad_chunk(manager, second_of_two).cuda_global_chunk.sum())

show("gemini_accumulation", accumulated)  # the first of two adds 8, which is twice what there is: enough for both

from torch.utils._python_dispatch import TorchDispatchMode
class Dtypes(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = set()
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.seen.add(str(result.dtype))
        return result

def norm():
    from colossalai.booster.plugin.hybrid_parallel_plugin import HybridParallelNaiveOptimizer
    optimizer = HybridParallelNaiveOptimizer.__new__(HybridParallelNaiveOptimizer)
    optimizer.tp_size = optimizer.pp_size = 1
    gradient = torch.full((1000,), 0.1)
    with Dtypes() as dtypes:
        value = optimizer._compute_grad_norm([(gradient, gradient)])
    assert abs(value - 0.1 * 1000**0.5) < 1e-5, value
    return "torch.float64" in dtypes.seen

show("norms_without_fp64", norm)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    script: Path = tmp_path_factory.mktemp("patches") / "script.py"
    script.write_text(SCRIPT)
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script), str(free_port())]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    ("patch", "before", "after"),
    [
        ("colossalai.without_galore", "ModuleNotFoundError: No module named", "made"),
        ("colossalai.cpu_accelerator", "TypeError: get_rng_state() takes 0 positional arguments", "True"),
        ("colossalai.cpu_kernels", "AssertionError", "True"),
        ("colossalai.clip_on_cpu", "0.5", "0.125"),
        ("colossalai.zero_on_cpu", "AssertionError: device is required", "stepped"),
        ("colossalai.gemini_on_cpu", "RuntimeError: torch.cuda.Stream requires CUDA support", "stepped in shards"),
        ("colossalai.gemini_accumulation", "8.0", "0.0"),
        ("colossalai.norms_without_fp64", "True", "False"),
    ],
)
def test_patch(patch: str, before: str, after: str, outcomes: dict[str, Any]) -> None:
    stock, patched = outcomes[patch.removeprefix("colossalai.")]
    assert stock.startswith(before), stock
    assert patched == after


def test_a_version_that_the_patch_does_not_know_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zero_on_cpu, "VERSIONS", "<0.4")
    with pytest.raises(UserError, match="does not know this version of colossalai"):
        patches.apply("colossalai.zero_on_cpu")
