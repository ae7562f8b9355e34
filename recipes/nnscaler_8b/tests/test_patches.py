"""Each patch corrects what it says, and the test shows the defect without it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import needs_nnscaler, python

pytestmark = needs_nnscaler

APPLY = """
import sys
import patches
for name in sys.argv[1].split():
    patches.apply("nnscaler." + name)
"""

TRACE = (
    APPLY
    + """
import torch
from model import SummedLoss
from nnscaler.flags import CompileFlag
from nnscaler.graph.parser import to_fx_graph
from data import collator
CompileFlag.trace_strategy = "cpu"
SummedLoss.folder = sys.argv[2]
model = SummedLoss(from_scratch=False, layers=None, loss_chunk=64, documents=sys.argv[3])
rows = [{"input_ids": [0, 5, 6, 1, 0, 7], "labels": [-100, 5, 6, 1, -100, 7], "position_ids": [0, 1, 2, 3, 0, 1]}]
batch = collator(16, 2, sys.argv[3] == "isolated")(rows)
expected = model(batch)
traced = to_fx_graph(model, {"data": batch})
print("traced", len(traced.graph.nodes) > 100, torch.equal(traced(batch), expected))
"""
)


@pytest.mark.parametrize("documents", ["isolated", "joined"])
def test_the_model_is_traced_and_computes_the_same(prepared: Path, documents: str) -> None:
    done = python(TRACE, "cpu newer_torch newer_transformers", prepared / "weights", documents)
    assert done.stdout.split()[-3:] == ["traced", "True", "True"], done.stderr


@pytest.mark.parametrize(
    ("without", "says"), [("newer_torch", "pybind11_detail"), ("newer_transformers", "could not get source code")]
)
def test_without_the_patch_the_model_cannot_be_traced(prepared: Path, without: str, says: str) -> None:
    """patches nnscaler.newer_torch, nnscaler.newer_transformers."""
    names = [name for name in ("cpu", "newer_torch", "newer_transformers") if name != without]
    done = python(TRACE, " ".join(names), prepared / "weights", "isolated")
    assert done.returncode != 0 and says in done.stderr.splitlines()[-1]


DEVICE = (
    APPLY
    + """
import torch
import nnscaler
from nnscaler.cli.trainer_args import fix_input
print(torch.cuda.current_device(), fix_input({"a": torch.ones(2)})["a"].device)
print(torch.cuda.mem_get_info()[1] > 2**28, torch.nn.Linear(2, 2).cuda().weight.device)
"""
)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here: nnscaler.cpu does nothing")
def test_on_a_cpu_nnscaler_finds_its_device() -> None:
    """patch nnscaler.cpu."""
    assert python(DEVICE, "cpu").stdout.split() == ["cpu", "cpu", "True", "cpu"]
    stock = python(DEVICE, "newer_torch")
    assert stock.returncode != 0 and ("CUDA" in stock.stderr or "NVIDIA" in stock.stderr)


PLACE = (
    APPLY
    + """
from nnscaler.autodist.autodist_config import AutoDistConfig
config = AutoDistConfig(save_plan_path=None)
print(config.profile_dir, config.save_plan_path)
"""
)


def test_autodist_writes_into_the_run(tmp_path: Path) -> None:
    """patch nnscaler.autodist_in_run."""
    home = tmp_path / "home"
    folder = tmp_path / "autodist"
    ours = python(PLACE, "cpu autodist_in_run", HOME=str(home), NNSCALER_AUTODIST=str(folder))
    assert ours.stdout.split() == [str(folder), str(folder / "plan.json")], ours.stderr
    assert not (home / ".cache").exists()
    theirs = python(PLACE, "cpu", HOME=str(home), NNSCALER_AUTODIST=str(folder))
    assert theirs.stdout.split() == [str(home / ".cache/nnscaler/autodist/1.0/cpu"), "None"]


LOAD = (
    APPLY
    + """
from nnscaler.cli.trainer import Trainer
Trainer.merge_checkpoint([sys.argv[2]], sys.argv[3])
"""
)


class Attack:
    """Writes a file when it is unpickled without care."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.file), "w")


@pytest.mark.parametrize("patched", [True, False])
def test_nothing_in_a_checkpoint_runs(tmp_path: Path, patched: bool) -> None:
    """patch nnscaler.checked_checkpoints."""
    torch.save({"model": Attack(tmp_path / "it ran")}, tmp_path / "0.ckpt")
    names = "cpu newer_torch" + " checked_checkpoints" * patched
    done = python(LOAD, names, tmp_path / "0.ckpt", tmp_path / "merged.ckpt")
    assert done.returncode != 0
    assert (tmp_path / "it ran").exists() != patched, done.stderr
    assert ("Weights only load failed" in done.stderr) == patched


def test_a_version_that_the_patch_does_not_know_is_an_error() -> None:
    code = "import patches\nfrom patches.nnscaler import cpu\ncpu.VERSIONS = '<0.8'\npatches.apply('nnscaler.cpu')"
    assert "does not know this version of nnscaler" in python(code).stderr
