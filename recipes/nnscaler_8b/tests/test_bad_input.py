"""Wrong input ends in one clear message, status 2, and nothing half-written. None of this needs nnScaler."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import last_complete, mark_complete, parts, read
from conftest import run_sh
from data import collator
from setup import options, pas_config, plan_devices

from common import environment
from common.errors import UserError


@pytest.fixture
def no_environment(tmp_path: Path) -> dict[str, str]:
    """Environments live in an empty place but for the light one, and git reaches nothing."""
    envs, binaries = tmp_path / "envs", tmp_path / "bin"
    envs.mkdir()
    binaries.mkdir()
    (envs / "tools").symlink_to(environment.light_spec().folder())
    (binaries / "git").write_text("#!/bin/sh\necho 'fatal: unable to access the repository' >&2\nexit 128\n")
    (binaries / "git").chmod(0o755)
    path = f"{binaries}:{os.environ['PATH']}"
    return {"LLAMA3_RECIPES_ENVS": str(envs), "PATH": path, "NNSCALER_SOURCE": ""}


def test_without_nnscaler_it_stops_before_anything_is_built(no_environment: dict[str, str], tmp_path: Path) -> None:
    done = run_sh("--output", tmp_path / "run", **no_environment)
    assert done.returncode == 2
    for text in ("nnscaler is on no package index", "unable to access", "git+https://", "set NNSCALER_SOURCE to a"):
        assert text in done.stderr, done.stderr
    assert not (tmp_path / "run").exists()
    assert [path.name for path in (tmp_path / "envs").iterdir()] == ["tools"]


def test_without_nnscaler_data_can_be_prepared(no_environment: dict[str, str], tmp_path: Path) -> None:
    for stage in ("weights", "data"):
        done = run_sh("--output", tmp_path / "run", "--only", stage, **no_environment)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "data" / "done.json").exists()


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    done = run_sh("--output", tmp_path / "run", NNSCALER_SOURCE=str(tmp_path / "gone"))
    assert done.returncode == 2 and "NNSCALER_SOURCE names what is not there" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("train.learning_rat=1e-4", "did you mean 'train.learning_rate'?"),
        ("config.compute_config.use_zer=1", "did you mean 'use_zero'?"),
        ("parallel.tensor_parallel=3", "a multiple of 3"),
        ("model.layers=0", "model.layers"),
    ],
)
def test_a_typo_in_set(tmp_path: Path, assignment: str, says: str) -> None:
    done = run_sh("--output", tmp_path / "run", "--set", assignment)
    assert done.returncode == 2 and says in done.stderr, done.stderr
    assert not (tmp_path / "run").exists()


def test_full_without_anything_names_all_that_is_missing(tmp_path: Path) -> None:
    done = run_sh("--preset", "full", "--platform", "nvidia_80gb", "--output", tmp_path / "run")
    assert done.returncode == 2
    assert "--model" in done.stderr and "--data" in done.stderr


def config(policy: str, tensor: int = 1, pipeline: int = 1, recompute: bool = False) -> dict[str, Any]:
    return {
        "trainer": {"pas_policy": policy, "grad_accumulation_steps": 4},
        "parallel": {"tensor": tensor, "pipeline": pipeline, "recompute": recompute},
        "pas_config": {"recompute_modules": "LlamaDecoderLayer", "parallel_profile": True},
        "platform": {"device": "cpu"},
        "model": {"dtype": "bfloat16"},
    }


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (config("megatron"), "names no policy"),
        (config("dp", tensor=2), "shares nothing"),
        (config("autodist", pipeline=2), "makes no pipeline"),
        (config("pp", tensor=2, pipeline=2), "splits no matrices"),
        (config("hybrid", tensor=2), "needs parallel.pipeline_parallel"),
        (config("tp", tensor=2, recompute=True), "computes nothing again"),
    ],
)
def test_a_policy_that_cannot_do_as_asked(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        plan_devices(wrong)


def test_what_each_policy_is_told() -> None:
    assert pas_config(config("tp", tensor=2)) == {}
    assert pas_config(config("pp", pipeline=2)) == {"pipeline_nstages": 2, "pipeline_nmicros": 4}
    assert pas_config(config("autodist")) == {"parallel_profile": False}
    assert pas_config(config("autodist", recompute=True))["recompute_modules"] == "LlamaDecoderLayer"


def test_an_option_that_nnscaler_has_not() -> None:
    with pytest.raises(UserError, match=r"config\.data\.lenght.*\n.*did you mean 'length'"):
        options(collator, "data", {"lenght": 1})


def test_checkpoints_count_when_they_are_whole(tmp_path: Path) -> None:
    for step, ranks in ((4, (0, 1)), (8, (0,)), (12, (0, 1))):
        folder = tmp_path / f"0000-{step:04d}"
        folder.mkdir()
        for rank in ranks:
            (folder / f"{rank}.ckpt").touch()
        if step != 12:  # 8 was being removed when it was killed, 12 being written
            mark_complete(folder, step, 2)
    found = last_complete(tmp_path, remove_others=True)
    assert found is not None and (found.step, len(found.files)) == (4, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["0000-0004"]


def test_what_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no checkpoint"):
        parts(tmp_path)
    (tmp_path / "1.ckpt").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(UserError, match=r"no 0\.ckpt"):
        parts(tmp_path)
    with pytest.raises(UserError, match="or is damaged"):
        read(tmp_path / "1.ckpt")
    torch.save({"slice": slice(0, 2), "tensor": torch.ones(2)}, tmp_path / "0.ckpt")
    assert read(parts(tmp_path)[0])["slice"] == slice(0, 2)


def test_a_padded_row_trains_nothing_beyond_its_end() -> None:
    batch = collator(6, 99, isolate=True)([{"input_ids": [0, 5, 1], "labels": [-100, 5, 1], "position_ids": [0, 1, 2]}])
    assert batch["input_ids"].tolist() == [[0, 5, 1, 99, 99, 99]]
    assert batch["labels"].tolist() == [[5, 1, -100, -100, -100, -100]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 2]]
    assert batch["first"].tolist() == [[0, 0, 0, 3, 3, 3]], "the padding is a document of its own"
    joined = collator(6, 99, isolate=False)([{"input_ids": [0, 1], "labels": [-100, 1], "position_ids": [0, 1]}])
    assert joined["position_ids"].tolist() == [[0, 1, 2, 3, 4, 5]] and "first" not in joined
