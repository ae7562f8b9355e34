"""Whatever the plan, it is the same model: split over devices, merged, and loaded by transformers alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import needs_nnscaler, python, rows, stages
from reference import batch_of_step, next_token_loss
from transformers import AutoModelForCausalLM

MERGE = """
import sys
from pathlib import Path
import yaml
import patches
patches.apply("nnscaler.cpu")
patches.apply("nnscaler.newer_torch")
from checkpoints import Checkpoint
from export import merged_weights, write_model
run, step = Path(sys.argv[1]), int(sys.argv[2])
config = yaml.safe_load((run / "train" / "config.yaml").read_text())
checkpoint = Checkpoint(step, run / "checkpoints" / f"0000-{step:04d}", ranks=2)
Path(sys.argv[3]).mkdir()
write_model(config, merged_weights(checkpoint), Path(sys.argv[3]))
"""

FP32 = ["--set", "model.dtype=float32", "--set", "train.max_steps=2"]
POLICIES = {
    "autodist": ["parallel.tensor_parallel=2"],
    "pp": ["parallel.pipeline_parallel=2", "train.gradient_checkpointing=false"],
    "hybrid": ["parallel.pipeline_parallel=2", "train.gradient_checkpointing=false"],
}


@needs_nnscaler
def test_tensor_parallel_weights_merged_are_transformers_model(tensor_parallel: Path, tmp_path: Path) -> None:
    """After three steps on two processes the merged weights give the fourth step's loss, to 1e-6."""
    done = python(MERGE, tensor_parallel, 3, tmp_path / "model")
    assert done.returncode == 0, done.stderr
    model, info = AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", dtype=torch.float32, output_loading_info=True
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    loss = next_token_loss(model, batch_of_step(tensor_parallel, 4, rows_a_step=4))
    assert rows(tensor_parallel)[3]["loss"] == pytest.approx(loss, abs=1e-6)


@needs_nnscaler
@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_trains_the_same_model(tensor_parallel: Path, tmp_path: Path, policy: str) -> None:
    options = [word for value in POLICIES[policy] for word in ("--set", value)]
    options += [*FP32, "--set", f"parallel.plugin={policy}"]
    found = rows(stages(tmp_path / "run", *options, names=("weights", "data", "train")))
    assert len(found) == 2
    for row, expected in zip(found, rows(tensor_parallel), strict=False):
        assert row["loss"] == pytest.approx(expected["loss"], abs=1e-5)
        assert row["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-4)


@needs_nnscaler
def test_the_tensor_parallel_run_really_split_matrices(tensor_parallel: Path) -> None:
    """The generated code of each rank makes room for a part of the MLP's matrices, not for all of them."""
    texts = [file.read_text() for file in (tensor_parallel / "generated").rglob("gencode*.py")]
    assert len(texts) == 2
    for text in texts:
        assert "torch.empty((384, 64)" in text or "torch.empty((192, 128)" in text
