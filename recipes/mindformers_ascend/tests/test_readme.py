"""Each command of "Coming from MindFormers" does what it says, as it stands in both READMEs."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import RECIPE, ROOT, run_sh
from mindspore import dataset

from common import environment
from common import tokenizer as tokenizers

READMES = [RECIPE / "README.md", RECIPE / "README.zh-CN.md"]
UPSTREAM = """\
learning_rate: 1.0e-05
lr_end: 0.0
warmup_ratio: 0.03
type: CosineWithWarmUpLR
num_train_epochs: 2.0
batch_size: 1
eps: 1.0e-08
- 0.9
- 0.95
max_grad_norm: 1.0
use_clip_grad: true
seed: 0
seq_length: 8192
compute_dtype: bfloat16
param_init_type: bfloat16
layernorm_compute_type: float32
softmax_compute_type: float32
rotary_dtype: float32
use_flash_attention: true
recompute: true
parallel_mode: 1
model_parallel: 1
pipeline_stage: 1
micro_batch_num: 1
vocab_emb_dp: true
gradient_aggregation_group: 4
enable_parallel_optimizer: true
max_device_memory: 58GB
auto_trans_ckpt: true
""".splitlines()
LENGTH = "256"  # in place of 8192: the tiny vocabulary's rows fit


@pytest.fixture(scope="module")
def folder(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the commands name; `hf` is the model of the smoke run."""
    made = tmp_path_factory.mktemp("commands")
    (made / "alpaca_data.json").write_bytes((RECIPE / "samples" / "train.json").read_bytes())
    (made / "tokenizer.model").write_bytes(tokenizers.TINY.read_bytes())
    paragraphs = ["A river runs to the sea. " * 80, " = Rivers = ", "A lamp gives light to a room at night. " * 80]
    (made / "wiki.txt").write_text("\n\n".join(paragraphs) + "\n")
    (made / "hf").symlink_to(run / "model")
    return made


def command(beginning: str, *, recipe: bool = False, folder: Path) -> str:
    """Run the one command of the READMEs that begins so; returns what it printed."""
    found = set()
    for readme in READMES:
        spans = [span for span in readme.read_text(encoding="utf-8").split("`") if span.startswith(beginning)]
        assert len(spans) == 1, f"{readme.name} has {len(spans)} commands that begin with {beginning!r}"
        found |= set(spans)
    assert len(found) == 1, "the READMEs differ"
    words = [LENGTH if word == "8192" else word for word in shlex.split(found.pop())]
    python = sys.executable if recipe else str(environment.light_spec().python())
    assert words[0] == "python"
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([python, *words[1:]], capture_output=True, text=True, cwd=folder, env=variables, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def records(file: Path) -> list[dict[str, Any]]:
    return list(dataset.MindDataset(str(file), shuffle=False).create_dict_iterator(output_numpy=True, num_epochs=1))


def test_alpaca_to_conversations_to_mindrecord(folder: Path) -> None:
    command("python -m common.data convert", folder=folder)
    rows = json.loads((folder / "alpaca-conversation.json").read_text(encoding="utf-8"))
    alpaca = json.loads((folder / "alpaca_data.json").read_text(encoding="utf-8"))
    assert [row["id"] for row in rows] == [str(number) for number in range(1, len(alpaca) + 1)]
    assert [turn["from"] for turn in rows[0]["conversations"]] == ["human", "gpt"]
    assert rows[0]["conversations"][1]["value"] == alpaca[0]["output"]
    command("python -m common.data prepare --input alpaca-conversation.json", folder=folder)
    command("python -m common.data.mindrecord", recipe=True, folder=folder)
    found = records(folder / "alpaca.mindrecord")
    assert len(found) == len(alpaca) and all(len(row["input_ids"]) == int(LENGTH) + 1 for row in found)
    text = tokenizers.load(folder / "tokenizer.model").decode(found[0]["input_ids"].tolist(), skip_special=True)
    assert text.startswith("A chat between") and text.endswith(f"ASSISTANT: {alpaca[0]['output']}")


def test_wiki_becomes_rows_of_one_length(folder: Path) -> None:
    command("python -m common.data prepare --input wiki.txt", folder=folder)
    meta = json.loads((folder / "wiki" / "meta.json").read_text())
    assert meta["packing"] == "concat" and meta["train"]["longest_row"] == int(LENGTH)
    assert meta["train"]["rows"] > 1


def test_weights_there_and_back_and_in_parts(folder: Path) -> None:
    command("python -m common.weights convert hf ms", folder=folder)
    assert (folder / "ms" / "llama3.ckpt").is_file() and (folder / "ms" / "model_config.yaml").is_file()
    command("python -m common.weights convert ms/llama3.ckpt back", folder=folder)
    # bf16, as the README's command has it: equal after rounding
    assert "the same" in command("python -m common.weights verify hf back", folder=folder)
    command("python -m common.weights convert ms parts", folder=folder)
    assert sorted(path.name for path in (folder / "parts").glob("rank_*/*.ckpt")) == [
        "checkpoint_0.ckpt",
        "checkpoint_1.ckpt",
    ]
    command("python -m common.weights convert parts whole", folder=folder)
    assert (folder / "whole" / "llama3.ckpt").read_bytes() == (folder / "ms" / "llama3.ckpt").read_bytes()


@pytest.mark.parametrize(("nodes", "rank"), [(1, 0), (2, 0), (2, 1)])
def test_the_launch_of_the_full_preset(run: Path, tmp_path: Path, nodes: int, rank: int) -> None:
    """MindFormers' own YAML with the upstream's values, and msrun on each node as its launcher script called it."""
    options = ["--preset", "full", "--platform", "ascend_800t_a2", "--dry-run", "--output", tmp_path / "run"]
    options += ["--model", run / "model", "--data", RECIPE / "samples" / "train.json"]
    if nodes > 1:
        options += ["--nnodes", 2, "--node-rank", rank, "--master-addr", "10.0.0.1", "--master-port", 8118]
    done = run_sh(*options)
    assert done.returncode == 0, done.stderr
    launch = next(line for line in done.stdout.splitlines() if " --worker_num=" in line and "train.py" in line)
    assert f"--worker_num={8 * nodes} --local_worker_num=8" in launch
    assert (f"--master_addr=10.0.0.1 --master_port=8118 --node_rank={rank}" in launch) is (nodes == 2)
    assert set(UPSTREAM) <= {line.strip() for line in done.stdout.splitlines()}
    assert not (tmp_path / "run").exists()
