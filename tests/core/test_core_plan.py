"""The plan: what a command line comes to, before anything is touched."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from core_support import ROOT, edit, tree

from common import hardware, plan, platform, recipe
from common.errors import UserError
from common.launchers import Cluster, launch
from common.plan import Plan
from common.request import Request


@pytest.fixture(autouse=True)
def _no_hardware(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without any of the platforms' tools."""
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    hardware.devices.cache_clear()


def planned(folder: Path, *assignments: str, **options: Any) -> Plan:
    return plan.make(Request(recipe=folder, assignments=assignments, **options))


def refused(folder: Path, *assignments: str, **options: Any) -> str:
    before = tree(folder)
    with pytest.raises(UserError) as caught:
        planned(folder, *assignments, **options)
    assert caught.value.status == 2
    assert tree(folder) == before
    return str(caught.value)


def digests(made: Plan) -> dict[str, str]:
    return {stage.name: stage.digest for stage in made.stages}


def changed(one: Plan, other: Plan) -> list[str]:
    return [name for name, digest in digests(one).items() if digests(other)[name] != digest]


@pytest.mark.parametrize("folder", list(recipe.folders()), ids=lambda folder: folder.name)
def test_every_recipe_plans_its_smoke_preset_on_this_machine(folder: Path) -> None:
    made = planned(folder)
    assert made.platform_id == "cpu"
    assert [stage.name for stage in made.stages] == list(made.recipe.stages)


@pytest.mark.parametrize("folder", list(recipe.folders()), ids=lambda folder: folder.name)
def test_every_preset_of_every_recipe_plans_on_its_platforms(folder: Path) -> None:
    read, _ = recipe.read(folder)
    for name, preset in read.presets.items():
        for identifier in preset.platforms:
            made = planned(folder, preset=name, platform=identifier, model="someone/model", data="someone/data")
            words = [word for stage in made.stages for each in stage.commands for word in each]
            assert not [word for word in words if "${" in word or word == "None"]


def test_the_batch(recipe_folder: Path) -> None:
    made = planned(recipe_folder, "train.micro_batch_size=3", nproc_per_node=4, nnodes=2)
    batch = made.batch
    assert (batch.micro_batch_size, batch.gradient_accumulation_steps, batch.data_parallel) == (3, 5, 8)
    assert batch.global_batch_size == 120


def test_full_names_all_that_is_missing(recipe_folder: Path) -> None:
    message = refused(recipe_folder, preset="full")
    for text in ("--preset full", "--model", "--data", "hardware", "nvidia_24gb: 0 devices"):
        assert text in message
    assert "hardware" not in refused(recipe_folder, preset="full", platform="nvidia_24gb")
    assert "--model" not in refused(recipe_folder, preset="full", model="someone/model")
    assert "--platform" in refused(recipe_folder, preset="full", model="someone/model", data="someone/data")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"preset": "smok"}, ["no preset 'smok'", "did you mean 'smoke'?"]),
        ({"platform": "nvidia_24g"}, ["no platform 'nvidia_24g'", "did you mean 'nvidia_24gb'?"]),
        ({"platform": "nvidia_48gb"}, ["does not declare platform nvidia_48gb", "cpu, nvidia_24gb, nvidia_80gb"]),
        ({"nnodes": 2, "node_rank": 2}, ["--node-rank", "0 to 1"]),
        ({"node_rank": -1}, ["--node-rank", "-1"]),
        ({"model": "a\udcff"}, ["UTF-8", "--model"]),
        ({"output": Path("a\udcff")}, ["UTF-8", "--output"]),
    ],
)
def test_what_cannot_be_planned(recipe_folder: Path, options: dict[str, Any], says: list[str]) -> None:
    message = refused(recipe_folder, **options)
    for text in says:
        assert text in message


def test_a_preset_that_needs_what_the_platform_has_not(recipe_folder: Path) -> None:
    edit(recipe_folder / "recipe.yaml", "requires: [bf16, nf4]", "requires: [bf16, flash_attention, fp8]")
    message = refused(recipe_folder, preset="full", platform="nvidia_24gb", model="a/b", data="c/d")
    assert "fp8" in message and "bf16" not in message and "flash" not in message


def test_a_platform_that_the_preset_is_not_meant_for(recipe_folder: Path) -> None:
    message = refused(recipe_folder, preset="full", platform="nvidia_80gb", model="a/b", data="c/d")
    assert "preset full is not meant for platform nvidia_80gb" in message and "nvidia_24gb" in message


def test_the_presets_own_samples(recipe_folder: Path) -> None:
    data = planned(recipe_folder).settings.data
    assert data.train == str(recipe_folder / "samples" / "train.jsonl")
    assert data.eval == str(recipe_folder / "samples" / "eval.jsonl")
    assert data.eval_fraction is None


@pytest.mark.parametrize("how", ["option", "set"])
def test_other_data_is_not_evaluated_on_the_presets_samples(recipe_folder: Path, how: str) -> None:
    if how == "option":
        data = planned(recipe_folder, data="someone/data").settings.data
    else:
        data = planned(recipe_folder, "data.train=someone/data").settings.data
    assert (data.train, data.eval, data.eval_fraction) == ("someone/data", None, 0.05)


def test_other_data_with_held_out_data_of_its_own(recipe_folder: Path) -> None:
    data = planned(recipe_folder, "data.eval=someone/held-out", data="someone/data").settings.data
    assert (data.eval, data.eval_fraction) == ("someone/held-out", None)
    fraction = planned(recipe_folder, "data.eval_fraction=0.5", data="someone/data").settings.data
    assert (fraction.eval, fraction.eval_fraction) == (None, 0.5)


def test_set_wins_over_the_preset_even_when_equal_to_the_recipes_value(recipe_folder: Path) -> None:
    assert planned(recipe_folder).settings.train.max_steps == 4
    made = planned(recipe_folder, "train.max_steps=null", "data.max_length=128")
    assert made.settings.train.max_steps is None
    assert made.config["sft"]["max_steps"] == -1
    assert made.settings.data.max_length == 128


def test_paths_are_those_of_the_callers_directory(
    recipe_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    for name in ("a.jsonl", "b.jsonl", "held.jsonl", "model"):
        (tmp_path / "here" / name).write_text(name)
    monkeypatch.chdir(tmp_path / "here")
    made = planned(recipe_folder, "data.eval=held.jsonl", data="a.jsonl", model="./model", output=Path("out"))
    here = tmp_path / "here"
    assert made.run == here / "out"
    assert made.settings.data.train == str(here / "a.jsonl")
    assert made.settings.data.eval == str(here / "held.jsonl")
    assert made.settings.model.path == str(here / "model")
    assert planned(recipe_folder, data="*.jsonl").settings.data.train == str(here / "*.jsonl")
    assert planned(recipe_folder, data="someone/data").settings.data.train == "someone/data"
    assert planned(recipe_folder).settings.model.path == "tiny"


def test_a_changed_file_is_another_plan_also_behind_a_glob(recipe_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("1")
    for place in ("a.jsonl", "*.jsonl"):
        before = planned(recipe_folder, data=str(tmp_path / place))
        (tmp_path / "a.jsonl").write_text(place)
        after = planned(recipe_folder, data=str(tmp_path / place))
        assert before.identity != after.identity
        assert changed(before, after) == ["weights", "data", "train", "export"]


@pytest.mark.parametrize("key", ["export: {merge: true}", "lora: {rank: 8}"])
def test_a_setting_that_nothing_uses_is_an_error(recipe_folder: Path, key: str) -> None:
    edit(recipe_folder / "recipe.yaml", "presets:\n", f"{key}\npresets:\n")
    message = refused(recipe_folder)
    assert "is stated, but no command and no configuration refers to" in message
    assert f"${{{key.split(':')[0]}.{key.split('{')[1].split(':')[0]}}}" in message


def test_a_setting_in_an_inner_list_that_is_left_out_counts_as_used(recipe_folder: Path) -> None:
    edit(recipe_folder / "recipe.yaml", 'data, "${data.train}", "${stage}", --length, "${data.max_length}"',
         'data, "${data.train}", "${stage}", [--length, "${data.max_length}", "${data.eval}"]')  # fmt: skip
    planned(recipe_folder)


def test_an_unknown_reference_in_a_command_and_in_the_configuration(recipe_folder: Path) -> None:
    edit(recipe_folder / "config.yaml", "${train.seed}", "${train.sed}")
    assert "did you mean 'train.seed'?" in refused(recipe_folder)


def test_a_requirements_file_that_is_not_there(recipe_folder: Path) -> None:
    (recipe_folder / "requirements.txt").unlink()
    with pytest.raises(UserError, match="requirements file is missing"):
        planned(recipe_folder)


@pytest.mark.parametrize(
    ("assignment", "stages"),
    [
        ("train.learning_rate=1e-3", []),
        ("train.learning_rate=5e-4", ["train", "export"]),
        ("config.sft.new=1", ["train", "export"]),
        ("data.max_length=64", ["data", "train", "export"]),
        ("model.path=someone/model", ["weights", "data", "train", "export"]),
        ("train.max_steps=5", ["train", "export"]),
        ("parallel.processes=1", ["train", "export"]),
    ],
)
def test_a_stages_digest_changes_with_what_it_depends_on(
    recipe_folder: Path, assignment: str, stages: list[str]
) -> None:
    assert changed(planned(recipe_folder), planned(recipe_folder, assignment)) == stages


def test_pins_and_platform_are_in_every_digest(recipe_folder: Path) -> None:
    before = planned(recipe_folder)
    assert changed(before, planned(recipe_folder, platform="nvidia_80gb")) == list(before.recipe.stages)
    (recipe_folder / "requirements.txt").write_text("nothing==1.1\n")
    assert changed(before, planned(recipe_folder)) == list(before.recipe.stages)


def test_digests_do_not_depend_on_where_the_run_or_the_environments_are(
    recipe_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = planned(recipe_folder, output=tmp_path / "one")
    monkeypatch.setenv("LLAMA3_RECIPES_ENVS", str(tmp_path / "envs"))
    after = planned(recipe_folder, output=tmp_path / "two 跑")
    assert changed(before, after) == []
    assert before.stages[0].commands != after.stages[0].commands


def test_every_node_finds_the_same_digests_wherever_node_0_is(recipe_folder: Path) -> None:
    first = planned(recipe_folder, nnodes=2, node_rank=0, master_addr="10.0.0.1")
    second = planned(recipe_folder, nnodes=2, node_rank=1, master_addr="10.0.0.1")
    elsewhere = planned(recipe_folder, nnodes=2, node_rank=1, master_addr="10.0.0.2", master_port=1234)
    assert changed(first, second) == changed(first, elsewhere) == []
    assert first.identity == elsewhere.identity
    assert changed(first, planned(recipe_folder, nnodes=3, master_addr="10.0.0.1")) == ["train", "export"]


def test_launcher_words(recipe_folder: Path) -> None:
    made = planned(recipe_folder, nnodes=2, node_rank=1, master_addr="10.0.0.1", master_port=1234, nproc_per_node=8)
    (words,) = next(stage.commands for stage in made.stages if stage.name == "train")
    assert words[:3] == (str(made.spec.python()), "-m", "torch.distributed.run")
    assert words[3:8] == (
        "--nproc-per-node=8", "--nnodes=2", "--node-rank=1", "--master-addr=10.0.0.1", "--master-port=1234",
    )  # fmt: skip
    assert words[8:] == (str(recipe_folder / "train.py"), "--config", str(made.config_file))


def test_one_node_chooses_a_free_port(recipe_folder: Path) -> None:
    assert launch("torchrun", "py", Cluster(2), Path("logs"))[3:] == ["--nproc-per-node=2", "--standalone"]
    with pytest.raises(UserError, match="no launcher 'mpirun'"):
        launch("mpirun", "py", Cluster(2), Path("logs"))


def test_a_variable_is_expanded_by_name_and_nothing_else_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "a$b")
    monkeypatch.delenv("NOWHERE", raising=False)
    assert plan.expand("x:${HERE}:${NOWHERE}:$HERE:$$") == "x:a$b::$HERE:$$"


def test_platforms_device_order_and_environment(recipe_folder: Path) -> None:
    made = planned(recipe_folder, preset="full", platform="nvidia_24gb", model="a/b", data="c/d")
    assert made.environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert made.environment["PYTHONPATH"].split(os.pathsep)[0] == str(ROOT)
    assert set(platform.read("nvidia_24gb").environment) <= set(made.environment)


def test_the_machine_is_recognised_by_its_devices(
    recipe_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}/usr/bin:/bin")
    for sizes, here in ((["24564", "24564"], 2), (["81559"], 0), (["24564", "81559"], 1), (["[N/A]"], 0)):
        tool.write_text("#!/bin/sh\n" + "".join(f"echo '{size}'\n" for size in sizes))
        tool.chmod(0o755)
        hardware.devices.cache_clear()
        assert hardware.devices("nvidia_24gb") == here
    tool.write_text("#!/bin/sh\necho 24564\necho 24564\n")
    hardware.devices.cache_clear()
    made = planned(recipe_folder, preset="full", model="a/b", data="c/d")
    assert made.platform_id == "nvidia_24gb"
    hardware.need("nvidia_24gb", 2)
    with pytest.raises(UserError, match="too few devices"):
        hardware.need("nvidia_24gb", 3)
    hardware.devices.cache_clear()


def test_a_platform_lays_its_own_configuration_over_the_recipes(recipe_folder: Path) -> None:
    (recipe_folder / "cpu.yaml").write_text("sft:\n  seed: null\n  use_cpu: true\n  again: ${train.seed}\n")
    edit(recipe_folder / "recipe.yaml", "cpu: {tier: declared,", "cpu: {tier: declared, config: cpu.yaml,")
    on_cpu, elsewhere = planned(recipe_folder).config, planned(recipe_folder, platform="nvidia_80gb").config
    assert on_cpu["optim"] == elsewhere["optim"] == "adamw_torch"
    assert (on_cpu["sft"]["use_cpu"], on_cpu["sft"]["again"]) == (True, 42)
    assert "seed" not in on_cpu["sft"] and elsewhere["sft"]["seed"] == 42
    assert planned(recipe_folder, "config.sft.use_cpu=false").config["sft"]["use_cpu"] is False
