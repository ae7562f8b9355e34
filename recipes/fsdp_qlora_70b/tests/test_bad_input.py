"""Wrong input ends in one clear message, status 2, and nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import RECIPE, ROOT, run_sh

GOOD = {"messages": [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello."}]}


def fails(*arguments: object, output: Path, says: list[str], status: int = 2) -> None:
    done = run_sh("--output", output, *arguments)
    assert done.returncode == status, done.stdout + done.stderr
    for text in says:
        assert text in done.stderr, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    for stage in ("data", "weights"):
        assert not (output / stage).exists() or (output / stage / "done.json").exists()


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("train.learning_rat=1e-4", ["train.learning_rat", "did you mean 'train.learning_rate'?"]),
        ("train.learning_rate=fast", ["train.learning_rate", "fast"]),
        ("trane.seed=1", ["trane", "did you mean 'train'?"]),
        ("config.sft.learning_rat=1", ["learning_rat", "did you mean 'learning_rate'?"]),
        ("config.sfd.seed=1", ["config.sfd", "did you mean 'sft'?"]),
        ("train.seed", ["SECTION.KEY=VALUE"]),
    ],
)
def test_a_typo_in_set(tmp_path: Path, assignment: str, says: list[str]) -> None:
    fails("--set", assignment, output=tmp_path / "run", says=says)
    assert not (tmp_path / "run").exists()


def test_a_typo_in_recipe_yaml(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(RECIPE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    text = (copy / "recipe.yaml").read_text()
    line = text[: text.index("  max_length: 3072")].count("\n") + 1
    (copy / "recipe.yaml").write_text(text.replace("  max_length: 3072", "  max_len: 3072"))
    bash = 'source "$1"; "$light_python" -m common.run "$2"'
    command = ["bash", "-c", bash, "bash", str(ROOT / "tools" / "light.sh"), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert f"recipe.yaml:{line}: unknown key data.max_len" in done.stderr
    assert "did you mean 'max_length'?" in done.stderr


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"text": "no conversation"}\n', ["data.jsonl", "messages"]),
        (json.dumps({"messages": [{"role": "wizard", "content": "x"}]}).encode(), ["data.jsonl", "wizard"]),
        (json.dumps({"messages": [{"role": "user", "content": ""}, GOOD["messages"][1]]}).encode(), ["data.jsonl:1"]),
        (json.dumps(GOOD).encode() + b"\n{broken\n", ["data.jsonl:2"]),
        (json.dumps(GOOD).encode() + b'\n{"messages": "\xff"}\n', ["data.jsonl", "UTF-8"]),
        (b"", ["data.jsonl", "empty"]),
    ],
)
def test_a_bad_row_names_file_and_line(tmp_path: Path, content: bytes, says: list[str]) -> None:
    data = tmp_path / "data.jsonl"
    data.write_bytes(content)
    done = run_sh("--output", tmp_path / "run", "--data", data)
    assert done.returncode in (1, 2)
    for text in says:
        assert text in done.stderr, done.stderr
    assert not (tmp_path / "run" / "data").exists()


def test_missing_data(tmp_path: Path) -> None:
    fails("--data", "nowhere.jsonl", output=tmp_path / "run", says=["data.train", "nowhere.jsonl"])


def test_long_conversations_follow_the_policy_and_are_counted(tmp_path: Path) -> None:
    long = {"messages": [GOOD["messages"][0], {"role": "assistant", "content": "word " * 600}]}
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in [GOOD] * 30 + [long] * 10))
    for policy in ("cut", "drop"):
        output = tmp_path / policy
        for stage in ("weights", "data"):
            done = run_sh("--output", output, "--data", data, "--set", f"data.on_long={policy}", "--only", stage)
            assert done.returncode == 0, done.stderr
        meta = json.loads((output / "data" / "meta.json").read_text())["train"]
        assert (meta["cut"] if policy == "cut" else sum(meta["dropped"].values())) > 0
    done = run_sh("--output", tmp_path / "stop", "--data", data, "--set", "data.on_long=stop")
    assert done.returncode == 1 and "stage data failed" in done.stderr and "data.jsonl:" in done.stderr


def model_copy(run: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "model"
    shutil.copytree(run / "model", copy)
    return copy


def test_weights_without_config(run: Path, tmp_path: Path) -> None:
    model = model_copy(run, tmp_path)
    (model / "config.json").unlink()
    fails("--model", model, output=tmp_path / "run", says=["config.json"])


def test_a_missing_shard(run: Path, tmp_path: Path) -> None:
    model = model_copy(run, tmp_path)
    (model / "model-00002-of-00003.safetensors").unlink()
    fails("--model", model, output=tmp_path / "run", says=["model-00002-of-00003.safetensors"])


def test_a_truncated_shard(run: Path, tmp_path: Path) -> None:
    model = model_copy(run, tmp_path)
    os.truncate(model / "model-00002-of-00003.safetensors", 100_000)
    fails("--model", model, output=tmp_path / "run", says=["model-00002-of-00003.safetensors"])


def test_a_wrong_shape(run: Path, tmp_path: Path) -> None:
    model = model_copy(run, tmp_path)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "intermediate_size": 400}))
    fails("--model", model, output=tmp_path / "run", says=["mlp"])


def test_a_tokenizer_that_does_not_fit_the_config(run: Path, tmp_path: Path) -> None:
    model = model_copy(run, tmp_path)
    lines = (model / "tokenizer.model").read_text().splitlines()
    (tmp_path / "tokenizer.model").write_text("\n".join(lines[:300]) + "\n")
    done = run_sh(
        "--model", model, "--set", f"model.tokenizer={tmp_path / 'tokenizer.model'}", "--output", tmp_path / "run"
    )
    assert done.returncode in (1, 2)
    assert "tokenizer" in done.stderr and "Traceback" not in done.stderr


def test_the_chat_template_on_base_weights(tmp_path: Path) -> None:
    fails(
        "--set", "data.template=llama3", output=tmp_path / "run", says=["Instruct", "<|eot_id|>", "train_chat_tokens"]
    )


def test_too_few_devices(tmp_path: Path) -> None:
    if shutil.which("nvidia-smi"):
        pytest.skip("this machine has NVIDIA GPUs")
    fails("--platform", "nvidia_24gb", output=tmp_path / "run", says=["too few devices", "nvidia_24gb"])


def test_full_without_anything_names_all_that_is_missing(tmp_path: Path) -> None:
    fails("--preset", "full", "--platform", "nvidia_24gb", output=tmp_path / "run", says=["--model", "--data"])
    assert not (tmp_path / "run").exists()


def test_full_without_the_hardware(run: Path, tmp_path: Path) -> None:
    if shutil.which("nvidia-smi"):
        pytest.skip("this machine has NVIDIA GPUs")
    data = RECIPE / "samples" / "train.jsonl"
    fails(
        "--preset",
        "full",
        "--model",
        run / "model",
        "--data",
        data,
        output=tmp_path / "run",
        says=["nvidia_24gb: 0 devices"],
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system is not permitted here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_no_space_left(small_disk: Path, tmp_path: Path) -> None:
    (small_disk / "filler").write_bytes(b"x" * (3 * 2**20))
    done = run_sh("--output", small_disk / "run")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "no space left" in done.stderr.lower()
    assert not (small_disk / "run" / "weights").exists()


def test_read_only_output(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    done = run_sh("--output", small_disk / "run")
    assert done.returncode == 2
    assert "read-only" in done.stderr
