"""What the presets and the commands of the README come to: --dry-run, which runs nothing."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import RECIPE, Variant, run_sh

FULL = ["--preset", "full", "--platform", "iluvatar_bi_v150", "--model", "tiny", "--data", "samples/train.jsonl"]
TEXTS = [(RECIPE / name).read_text() for name in ("README.md", "README.zh-CN.md")]
SIZES = ("tp_size", "pp_size", "sp_size", "zero_stage")


def planned(*arguments: object) -> dict[str, Any]:
    """The plan.yaml of `bash run.sh ARGUMENTS`."""
    shown = run_sh("--dry-run", *arguments)
    assert shown.returncode == 0, shown.stderr
    found = re.search(r"/plan\.yaml'? <<'END'\n(.*?)\nEND\n", shown.stdout, re.DOTALL)
    assert found, shown.stdout
    plan: dict[str, Any] = yaml.safe_load(found[1])
    return plan


@pytest.fixture(scope="module")
def full() -> dict[str, Any]:
    return planned(*FULL)


@pytest.mark.parametrize(
    ("preset", "variant"),
    [("smoke_pp2", "pp2"), ("smoke_zero1", "zero1"), ("smoke_tp2_pp2", "tp2_pp2"), ("smoke_pp2_zero1", "pp2_zero1")],
)
def test_each_smoke_preset_trains_as_a_variant_that_is_held_to_the_reference(
    preset: str, variant: str, variants: dict[str, Variant]
) -> None:
    mine, tested = (
        planned("--preset", preset)["config"],
        yaml.safe_load((variants[variant].folder / "config.yaml").read_text()),
    )
    assert mine["plugin"] == tested["plugin"]
    assert mine["model"]["dtype"] == tested["model"]["dtype"] == variants[variant].dtype
    same = [*SIZES] if mine["plugin"] == "3d" else []
    assert {key: mine["plugins"]["3d"][key] for key in same} == {key: tested["plugins"]["3d"][key] for key in same}
    assert mine["plugins"]["zero"]["stage"] == tested["plugins"]["zero"]["stage"] or mine["plugin"] == "3d"


def test_the_published_settings_are_those_of_full(full: dict[str, Any]) -> None:
    """16 ranks on one host: 4 stages x 4 data-parallel ranks, 32 rows a step, recomputed layers 7/6/5/6."""
    assert full["batch"] == {
        "micro_batch_size": 1,
        "gradient_accumulation_steps": 8,
        "data_parallel": 4,
        "global_batch_size": 32,
    }
    config = full["config"]
    three_d, schedule, optimizer = config["plugins"]["3d"], config["lr_scheduler"], config["optimizer"]
    assert config["plugin"] == "3d" and [three_d[key] for key in SIZES] == [1, 4, 1, 1]
    assert three_d["max_norm"] == 1.0 and three_d["enable_flash_attention"] is True
    assert schedule["warmup_steps"] == 100 and schedule["eta_min_ratio"] == 0.1
    assert (optimizer["lr"], optimizer["betas"], optimizer["eps"], optimizer["weight_decay"]) == (
        1e-4,
        [0.9, 0.95],
        1e-8,
        0.01,
    )
    assert config["model"]["recomputed_layers"] == [7, 6, 5, 6] and config["model"]["neftune_noise_alpha"] == 0.1
    assert config["model"]["dtype"] == "bfloat16" and config["data"]["max_length"] == 8192
    assert config["platform"]["devices_per_card"] == 2 and config["platform"]["backend"] == "nccl"
    assert {"--nproc-per-node=16", "--standalone"} < set(full["stages"]["train"][0])


def test_the_readmes_commands_of_more_than_one_node(full: dict[str, Any]) -> None:
    words = written(TEXTS[0], "--nnodes")
    given = {"DIR": "tiny", "FILE": "samples/train.jsonl", "/shared/run": "/nowhere/run"}
    command = planned(*(given.get(word, word) for word in words), "--platform", "iluvatar_bi_v150")["stages"]["train"][
        0
    ]
    expected = {"--nproc-per-node=16", "--nnodes=2", "--node-rank=0", "--master-addr=HOST0"}
    assert expected < set(command) and "--standalone" not in command
    assert [Path(word).name for word in command][-3:] == ["train.py", "--config", "config.yaml"]


def test_the_readmes_command_of_gemini() -> None:
    plan = planned(*written(TEXTS[0], "gemini"))
    assert plan["config"]["plugin"] == "gemini" and plan["config"]["train"]["gradient_accumulation_steps"] == 2


def written(text: str, word: str) -> list[str]:
    """The words after run.sh of the README's command with `word` in it."""
    block = next(
        each for each in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) if "run.sh" in each and word in each
    )
    return shlex.split(block.replace("\\\n", " "))[2:]


def test_both_readmes_say_the_same() -> None:
    """Their parts, the commands, and whatever is in code: settings, files, presets, tests."""
    assert [len(re.findall("^## ", text, re.MULTILINE)) for text in TEXTS] == [8, 8]
    blocks, code = (
        [sorted(re.findall(pattern, text)) for text in TEXTS] for pattern in (r"```bash\n([^`]*)```", r"`[^`\n]+`")
    )
    assert blocks[0] == blocks[1]
    assert set(code[0]) ^ set(code[1]) == set()


@pytest.mark.parametrize("text", TEXTS)
def test_every_setting_that_a_readme_names_is_one(text: str, full: dict[str, Any]) -> None:
    names = set(re.findall(r"\b((?:config|data|evaluate|model|parallel|train)\.[a-z0-9_.]*[a-z0-9_])(?=[:=` ])", text))
    names -= {"train.py", "evaluate.py", "data.partial"}
    assert len(names) > 15
    for name in sorted(names):
        section: Any = {**full["settings"], "config": full["config"]}
        for key in name.split("."):
            assert key in section, name
            section = section[key]
