"""recipe.yaml and platform.yaml: every mistake is named with its file, its line and the nearest right key."""

from __future__ import annotations

from pathlib import Path

import pytest
from core_support import edit
from hypothesis import given
from hypothesis import strategies as st

from common import platform, recipe, yaml_file
from common.errors import UserError


def refused(folder: Path, old: str, new: str) -> tuple[UserError, int]:
    line = edit(folder / "recipe.yaml", old, new)
    with pytest.raises(UserError) as caught:
        recipe.read(folder)
    assert caught.value.status == 2
    assert caught.value.file == folder / "recipe.yaml"
    return caught.value, line


@pytest.mark.parametrize("folder", list(recipe.folders()), ids=lambda folder: folder.name)
def test_every_recipe_of_the_project_is_valid(folder: Path) -> None:
    read, document = recipe.read(folder)
    assert document.line(("summary",)) is not None
    for identifier, entry in read.platforms.items():
        assert platform.read(identifier).frameworks
        assert (folder / entry.requirements).is_file()


@pytest.mark.parametrize("identifier", platform.identifiers())
def test_every_platform_of_the_project_is_valid(identifier: str) -> None:
    assert platform.read(identifier).frameworks


@pytest.mark.parametrize(
    ("old", "new", "key", "hint"),
    [
        ("data: {train: null, eval: null", "data: {trian: null, eval: null", "data.trian", "'train'"),
        ("launcher: torchrun", "launchr: torchrun", "launchr", "'launcher'"),
        ("train: {max_steps: 4}", "train: {max_step: 4}", "presets.smoke.train.max_step", "'max_steps'"),
        (
            '{environment: light, run: [python, "${recipe}/stage.py", weights',
            '{enviroment: light, run: [python, "${recipe}/stage.py", weights',
            "stages.weights.commands.0.enviroment",
            "'environment'",
        ),
        ("cpu: {tier: declared", "cpu: {teir: declared", "platforms.cpu.teir", "'tier'"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_right_one(
    recipe_folder: Path, old: str, new: str, key: str, hint: str
) -> None:
    error, line = refused(recipe_folder, old, new)
    assert error.line == line
    assert error.problem == f"unknown key {key}"
    assert f"did you mean {hint}?" in str(error)


def test_an_unknown_key_like_no_other_lists_what_there_is(recipe_folder: Path) -> None:
    error, _ = refused(recipe_folder, "parallel: {processes: 4}", "parallel: {processes: 4, zzz: 1}")
    assert "cpu_offload" in str(error.expected)
    assert error.hint is None


def test_a_missing_key(recipe_folder: Path) -> None:
    error, _ = refused(recipe_folder, "framework: torch\n", "")
    assert "the key framework is missing" in str(error)


def test_a_missing_key_inside_a_section_names_the_line_of_the_section(recipe_folder: Path) -> None:
    error, line = refused(recipe_folder, "  nvidia_80gb: {tier: declared, ", "  nvidia_80gb: {")
    assert "platforms.nvidia_80gb.tier is missing" in str(error)
    assert error.line == line


@pytest.mark.parametrize("value", ["'42'", "true", "4.5", "[1]", "many", "-1", "{a: 1}"], ids=str)
def test_a_value_of_the_wrong_type_is_not_converted(recipe_folder: Path, value: str) -> None:
    error, line = refused(recipe_folder, "seed: 42", f"seed: {value}")
    assert error.line == line
    assert str(error).split(": ")[1] == "train.seed"
    assert error.found is not None


@pytest.mark.parametrize("value", [".inf", ".nan", "0", "'1e-4'", "true"])
def test_a_learning_rate_is_a_finite_number_above_zero(recipe_folder: Path, value: str) -> None:
    error, _ = refused(recipe_folder, "learning_rate: 1e-3", f"learning_rate: {value}")
    assert "train.learning_rate" in str(error)


def test_the_key_of_a_wrong_value_has_no_words_of_the_validator(recipe_folder: Path) -> None:
    error, line = refused(recipe_folder, "parallel: {processes: 4}", "parallel: {processes: 4}\nlora: {targets: 5}")
    assert error.problem.startswith("lora.targets: ")
    assert error.line == line + 1


def test_a_duplicate_key_names_both_lines(recipe_folder: Path) -> None:
    error, line = refused(recipe_folder, "launcher: torchrun\n", "launcher: torchrun\nlauncher: other\n")
    assert "'launcher' stands twice" in str(error)
    assert error.line == line + 1
    assert f"line {line}" in str(error.hint)


def test_a_duplicate_key_in_a_section(recipe_folder: Path) -> None:
    error, line = refused(recipe_folder, "seed: 42", "seed: 42, seed: 43")
    assert "'seed' stands twice" in str(error)
    assert error.line == line


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"summary: caf\xe9\n", "is not UTF-8"),
        (b"- a\n- b\n", "holds no mapping"),
        (b"", "holds no mapping"),
        (b"just text\n", "holds no mapping"),
        (b"a: [1\nb: 2\n", "is not YAML"),
        (b"a: !!python/name:os.system x\n", "is not YAML"),
        (b"a: \x00\n", "is not YAML"),
    ],
)
def test_a_file_that_is_no_mapping(recipe_folder: Path, content: bytes, says: str) -> None:
    (recipe_folder / "recipe.yaml").write_bytes(content)
    with pytest.raises(UserError, match=says) as caught:
        recipe.read(recipe_folder)
    assert caught.value.file == recipe_folder / "recipe.yaml"


def test_a_preset_that_overrides_what_the_recipe_does_not_state(recipe_folder: Path) -> None:
    error, _ = refused(recipe_folder, "train: {max_steps: 4}", "train: {max_steps: 4, save_steps: 2}")
    assert "presets.smoke.train.save_steps overrides a key that train does not state" in str(error)


def test_a_preset_on_a_platform_that_the_recipe_does_not_name(recipe_folder: Path) -> None:
    error, _ = refused(recipe_folder, "platforms: [nvidia_24gb]", "platforms: [nvidia_48gb]")
    assert "presets.full.platforms: nvidia_48gb" in str(error)


def test_a_python_version_is_two_numbers(recipe_folder: Path) -> None:
    error, line = refused(recipe_folder, 'min: "3.10"', 'min: "3"')
    assert "python.min" in str(error)
    assert error.line == line


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("-2e3", -2000.0),
        ("2.0e-4", 2e-4),
        ("3", 3),
        ("true", True),
        ("null", None),
        ("", None),
        ("[a, 1]", ["a", 1]),
        ("2024-01-01", "2024-01-01"),
        ("1e", "1e"),
        ("e5", "e5"),
    ],
)
def test_what_a_scalar_is(text: str, value: object) -> None:
    parsed = yaml_file.parse_scalar(text)
    assert parsed == value
    assert type(parsed) is type(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_as_python_prints_it_is_that_number(number: float) -> None:
    assert yaml_file.parse_scalar(repr(number)) == number


def test_an_unknown_platform_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'nvidia_24gb'") as caught:
        platform.read("nvidia_24g")
    assert caught.value.status == 2


def test_an_unknown_recipe_names_the_nearest() -> None:
    name = next(recipe.folders()).name
    with pytest.raises(UserError, match=f"did you mean '{name}'"):
        recipe.find(name[:-1])
    assert recipe.find(name) == recipe.find(next(recipe.folders()))
