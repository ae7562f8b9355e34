"""A run that is killed at any moment and repeated ends as one that was never interrupted."""

from __future__ import annotations

import shutil
from pathlib import Path

from conftest import rows, run_sh
from recipe_runs import kill, wait_until

from common.frameworks.mindformers import checkpoints
from common.weights import mindspore_ckpt


def curve(output: Path) -> list[tuple[float, ...]]:
    return [(row["step"], row["loss"], row["learning_rate"], row["grad_norm"]) for row in rows(output)]


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_killed_and_repeated_it_ends_in_the_same_bytes(run: Path, tmp_path: Path) -> None:
    """kill -9 while training, once past a checkpoint and once in a later epoch; then its newest file is cut short."""
    output = tmp_path / "run"
    for name in ("weights", "data"):
        shutil.copytree(run / name, output / name)
    shutil.copyfile(run / "plan.yaml", output / "plan.yaml")
    folder = output / "mindformers" / "checkpoint"
    for reached in (10, 17):  # checkpoints at 8 and 16; an epoch is 9 steps
        process = run_sh.start(output)
        wait_until(process, lambda reached=reached: len(rows(output)) >= reached)
        kill(process, output)
    last = checkpoints.last_whole(folder, 2)
    assert last is not None and last.step == 16
    cut_after_the_last_tensor(last.files[1])
    assert (earlier := checkpoints.last_whole(folder, 2)) is not None and earlier.step == 8
    for stage in ("train", "export"):
        done = run_sh("--output", output, "--only", stage)
        assert done.returncode == 0, done.stdout + done.stderr
    assert curve(output) == curve(run)
    assert bytes_of(output / "model") == bytes_of(run / "model")


def cut_after_the_last_tensor(file: Path) -> None:
    """What MindSpore would load without a word: the file ends where a value ends, before MindFormers' counters."""
    tensors = mindspore_ckpt.read(file)
    last = [raw for name, raw in tensors.items() if name not in checkpoints.AT_THE_END][-1]
    end = last.extents[-1].offset + last.extents[-1].length
    file.chmod(0o600)
    with open(file, "r+b") as stream:
        stream.truncate(end)
    assert set(mindspore_ckpt.read(file)) == set(tensors) - checkpoints.AT_THE_END
