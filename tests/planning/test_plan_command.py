"""`tools plan`: what a person asks before paying for a machine, and what is said."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from plan_support import RECIPE, ROOT, answer, plan

from common import recipe

PARTS = ("weights", "gradients", "optimizer", "activations", "loss", "communication", "quantization")


def test_the_upstreams_row_without_weights_data_or_gpu() -> None:
    """70B Q-LoRA with offload on 4×24 GB: published as fitting."""
    said = answer(RECIPE)
    assert (said["platform"], said["devices"]["all"]) == ("nvidia_24gb", 4)
    assert said["model"]["parameters"] == 70_553_706_496
    assert said["model"]["trained"] == 207_093_760
    assert said["work"]["global_batch_size"] == 8
    assert said["work"]["tokens_of_a_step"] == 8 * 3072
    for moment in ("load", "step", "save"):
        parts = said["memory"][moment]
        assert parts["total"] == pytest.approx(sum(parts[part] for part in PARTS), abs=0.05)
    assert said["memory"]["peak"] < 22
    assert said["host"]["peak"] > 36  # the 4-bit model is in the host's memory


@pytest.mark.parametrize("preset", ["full", "qlora_70b_2x40gb", "lora_70b_8x80gb", "qlora_8b_1gpu"])
def test_every_preset_fits_where_it_is_meant_to(preset: str) -> None:
    for platform in recipe.read(recipe.find(RECIPE))[0].presets[preset].platforms:
        answer(RECIPE, "--preset", preset, "--platform", platform)


@pytest.mark.parametrize("name", [folder.name for folder in recipe.folders()])
def test_every_preset_fits_the_hardware_that_it_names_first_and_no_claim_is_below_the_estimate(name: str) -> None:
    for preset in recipe.read(recipe.find(name))[0].presets:
        said = answer(name, "--preset", preset)
        if (stated := said["stated"]) is not None and not stated["measured"]:
            assert said["memory"]["peak"] <= stated["device_gib"], preset
            assert said["host"]["peak"] <= stated["host_gib"], preset


def test_rows_that_must_not_fit_and_what_fits_instead() -> None:
    lora = answer(RECIPE, "--preset", "lora_70b_8x80gb", "--devices", 2, fits=False)
    assert lora["fits"]["free"] < 0
    offload = ["--devices", 2, "--set", "parallel.cpu_offload=false", "--set", "data.max_length=8192"]
    qlora = answer(RECIPE, *offload, fits=False)
    for said, asked in ((lora, ["--preset", "lora_70b_8x80gb", "--devices", 2]), (qlora, offload)):
        assert said["fits"]["instead"]
        for change in said["fits"]["instead"]:
            options = [word for option in change["options"] for word in option.split(" ", 1)]
            again = answer(RECIPE, *asked, *options)  # typed as it is printed, it does fit
            assert again["memory"]["peak"] == change["peak"]


def test_what_is_printed_says_the_same() -> None:
    ran = plan(RECIPE, "--devices", 2, "--set", "parallel.cpu_offload=false", "--set", "data.max_length=8192")
    assert ran.returncode == 1
    said = answer(
        RECIPE, "--devices", 2, "--set", "parallel.cpu_offload=false", "--set", "data.max_length=8192", fits=False
    )
    assert f"It does not fit: {said['memory']['peak']:g} GiB" in ran.stdout
    assert said["fits"]["instead"][0]["options"][0] in ran.stdout
    for line in said["assumptions"]:
        assert line.split(";")[0] in ran.stdout.replace("\n", " ")


def test_neither_torch_nor_a_plotting_library_is_imported() -> None:
    code = (
        "import sys; sys.argv = ['tools', 'plan', 'fsdp_qlora_70b']; from tools.__main__ import app;"
        " app(standalone_mode=False);"
        " print({'torch', 'transformers', 'datasets', 'matplotlib', 'mindspore'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "set()"


def test_steps_time_and_cost() -> None:
    said = answer(RECIPE, "--rows", 1000, "--price-per-hour", 0.5, "--mfu", 0.3)
    assert said["work"]["steps"] == 125
    assert said["work"]["tokens"] == 1000 * 3072
    assert said["time"]["training"] == pytest.approx(125 * said["time"]["step"])
    assert said["time"]["cost"] == pytest.approx(said["time"]["training"] / 3600 * 4 * 0.5, abs=0.01)
    slower = answer(RECIPE, "--rows", 1000, "--mfu", 0.15)
    assert slower["time"]["computing"] == pytest.approx(2 * said["time"]["computing"])
    assert answer(RECIPE, "--set", "train.max_steps=7", "--rows", 1000)["work"]["steps"] == 7


def test_rows_are_estimated_from_local_data_and_counted_in_prepared_data(tmp_path: Path) -> None:
    data = tmp_path / "train.jsonl"
    data.write_text("x" * 4 * 3072 * 80)
    assert answer(RECIPE, "--data", data)["work"]["rows"] == 80
    (tmp_path / "run" / "data").mkdir(parents=True)
    (tmp_path / "run" / "data" / "meta.json").write_text(json.dumps({"train": {"rows": 24}}))
    said = answer(RECIPE, "--data", data, "--output", tmp_path / "run")
    assert (said["work"]["rows"], said["work"]["steps"]) == (24, 3)


def test_sizes_come_from_a_folders_config(tmp_path: Path) -> None:
    config = {
        "model_type": "llama", "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 3,
        "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 32000,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    matrices = 3 * (2 * 1024 * 1024 + 2 * 512 * 1024 + 3 * 2816 * 1024)
    expected = matrices + 2 * 32000 * 1024 + 7 * 1024
    assert answer(RECIPE, "--model", tmp_path)["model"]["parameters"] == expected


def test_several_nodes() -> None:
    said = answer(RECIPE, "--nnodes", 2)
    assert (said["devices"]["all"], said["devices"]["nodes"], said["work"]["global_batch_size"]) == (8, 2, 16)
    assert said["host"]["step"] < answer(RECIPE)["host"]["step"]


def test_a_sweep_as_a_table_as_json_and_as_a_picture(tmp_path: Path) -> None:
    axes = ["--sweep", "devices=2,4", "--sweep", "length=1024,4096,16384", "--sweep", "batch=1,2"]
    found = json.loads(plan(RECIPE, "--set", "parallel.cpu_offload=false", *axes, "--json").stdout)
    assert len(found) == 12
    at = {(point["devices"], point["length"], point["batch"]): point for point in found}
    assert at[2, 1024, 1]["peak"] > at[4, 1024, 1]["peak"]
    assert at[4, 1024, 2]["peak"] > at[4, 1024, 1]["peak"]
    assert at[4, 1024, 1]["fits"] is True and at[4, 16384, 2]["fits"] is False
    single = answer(
        RECIPE, "--devices", 4, "--set", "data.max_length=4096", "--set", "train.micro_batch_size=2",
        "--set", "parallel.cpu_offload=false", fits=False,
    )  # fmt: skip
    assert at[4, 4096, 2]["peak"] == single["memory"]["peak"]
    picture = tmp_path / "new" / "sweep.png"
    ran = plan(RECIPE, *axes, "--plot", picture)
    assert ran.returncode == 0, ran.stderr
    assert "16,384" in ran.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")


WRONG = [
    (["nowhere"], "there is no recipe"),
    ([RECIPE, "--preset", "fulll"], "there is no preset"),
    ([RECIPE, "--model", "gpt2"], "the sizes of this model are not known"),
    ([RECIPE, "--platform", "nvidia_24g"], "there is no platform"),
    ([RECIPE, "--set", "train.batch=4"], "this recipe has no such key"),
    ([RECIPE, "--sweep", "width=4"], "--sweep knows no such axis"),
    ([RECIPE, "--sweep", "devices=4;8"], "takes whole numbers above 0"),
    ([RECIPE, "--sweep", "devices=0"], "takes whole numbers above 0"),
    ([RECIPE, "--slurm", "--kubernetes"], "contradict each other"),
    ([RECIPE, "--plot", "x.png"], "--plot draws a sweep"),
    ([RECIPE, "--sweep", "devices=2", "--plot", "x.doc"], "no such kind of picture"),
    ([RECIPE, "--verify"], "does not tell the host's memory"),
    ([RECIPE, "--rows", "0"], "rows"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_a_wrong_call_ends_in_one_message(arguments: list[str], message: str) -> None:
    ran = plan(*arguments)
    assert ran.returncode == 2
    assert message in ran.stderr
    assert "Traceback" not in ran.stderr
    assert ran.stdout == ""


def test_verify_compares_with_torch_on_the_recipes_own_settings() -> None:
    """On a tiny model, so that it is quick; tests/memory has the sizes that matter."""
    from common.plan import environment_spec

    folder = recipe.find(RECIPE)
    if not environment_spec(folder, recipe.read(folder)[0], "cpu").complete():
        pytest.skip("the recipe's environment is not there: run recipes/fsdp_qlora_70b once")
    said = answer(RECIPE, "--preset", "smoke", "--verify")
    assert said["verified"]["seconds"] > 0
    assert set(said["verified"]["tracker_parts"]) >= {"Sharded Param", "OptState"}


def test_a_recipe_that_is_not_fsdp_cannot_be_verified() -> None:
    other = [folder.name for folder in recipe.folders() if _sharding(folder) == "zero"]
    if not other:
        pytest.skip("every recipe is FSDP's")
    ran = plan(other[0], "--verify")
    assert ran.returncode == 2
    assert "this recipe shards otherwise" in ran.stderr


def _sharding(folder: Path) -> str | None:
    stated = recipe.read(folder)[0].memory_model
    return stated.sharding if stated else None
