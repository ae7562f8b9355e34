"""--set: it wins, it is typed, and a key that is not there is named with the nearest right one."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import overrides
from common.errors import UserError

STATED: dict[str, dict[str, Any]] = {
    "train": {"learning_rate": 2e-4, "seed": 42, "max_steps": None},
    "data": {"max_length": 128, "system": None},
    "lora": {"targets": "all-linear"},
}


def applied(*assignments: str) -> Any:
    changes, _ = overrides.parse(assignments)
    return overrides.apply_settings(STATED, changes)


def refused(*assignments: str) -> UserError:
    with pytest.raises(UserError) as caught:
        applied(*assignments)
    assert caught.value.status == 2
    return caught.value


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("train.learning_rate=2e-4", 2e-4),  # equal to what is stated
        ("train.learning_rate=1e-4", 1e-4),
        ("train.seed=0", 0),
        ("train.max_steps=3", 3),
        ("train.max_steps=null", None),
        ("data.system=a=b: c?", None),
        ("data.system='a: b'", "a: b"),
        ("data.system=2024-01-01", "2024-01-01"),
        ("data.system=你好 = $HOME", "你好 = $HOME"),
        ("lora.targets=[q_proj, v_proj]", ["q_proj", "v_proj"]),
    ],
)
def test_set_gives_the_value(assignment: str, value: object) -> None:
    if assignment == "data.system=a=b: c?":
        assert "data.system" in str(refused(assignment))  # a mapping in YAML: refused, not taken for another text
        return
    key = assignment.partition("=")[0]
    section, name = key.split(".")
    settings = applied(assignment)
    assert getattr(getattr(settings, section), name) == value
    assert name in getattr(settings, section).model_fields_set


def test_the_last_one_wins_and_what_is_not_named_stays() -> None:
    settings = applied("train.seed=1", "train.seed=2")
    assert (settings.train.seed, settings.train.learning_rate) == (2, 2e-4)


def test_what_is_stated_is_not_changed_in_place() -> None:
    applied("train.seed=1")
    assert STATED["train"]["seed"] == 42


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("trane.seed=1", ["there is no section 'trane'", "did you mean 'train'?"]),
        ("train.sed=1", ["--set train.sed", "did you mean 'train.seed'?"]),
        ("data.learning_rate=1", ["--set data.learning_rate", "did you mean 'train.learning_rate'?"]),
        ("train.save_steps=3", ["this recipe has no such key"]),
        ("train.seed", ["SECTION.KEY=VALUE"]),
        ("seed=1", ["SECTION.KEY=VALUE"]),
        ("train.=1", ["SECTION.KEY=VALUE"]),
        ("", ["SECTION.KEY=VALUE"]),
        ("train.seed=one", ["--set train.seed", "one"]),
        ("train.seed=1.5", ["--set train.seed", "1.5"]),
        ("train.seed=true", ["--set train.seed", "True"]),
        ("train.learning_rate=.inf", ["--set train.learning_rate", "inf"]),
        ("train.learning_rate=-1", ["--set train.learning_rate", "-1"]),
        ("lora.targets=5", ["--set lora.targets: ", "5"]),
        ("train.seed=[1", ["--set train.seed", "is not YAML", "[1"]),
        ("data.system=@home", ["--set data.system", "is not YAML", "quote it"]),
        ("data.system=a\x07b", ["--set data.system", "is not YAML"]),
        ("train.seed=!!python/name:os.system x", ["--set train.seed", "is not YAML"]),
    ],
)
def test_what_cannot_be_set(assignment: str, says: list[str]) -> None:
    for text in says:
        assert text in str(refused(assignment))


@given(st.text(max_size=30), st.sampled_from(["train.seed", "data.system", "config.a.b"]))
def test_any_value_is_taken_or_refused_in_our_words(text: str, key: str) -> None:
    try:
        changes, config = overrides.parse([f"{key}={text}"])
    except UserError as error:
        assert f"--set {key}" in str(error)
    else:
        assert list(changes) + [f"config.{name}" for name in config] == [key]


CONFIG: dict[str, Any] = {"optim": "adamw", "sft": {"seed": 1, "fsdp_config": {"version": 2}, "learning_rate": 1e-3}}


def test_two_new_keys_with_almost_the_same_name() -> None:
    """The first is not what the second may be a mistake of."""
    asked = {"sft.adam_beta1": 0.9, "sft.adam_beta2": 0.95}
    changed = overrides.apply_config(copy.deepcopy(CONFIG), asked, Path("sft.yaml"))
    assert (changed["sft"]["adam_beta1"], changed["sft"]["adam_beta2"]) == (0.9, 0.95)


def configured(*assignments: str) -> dict[str, Any]:
    _, changes = overrides.parse(assignments)
    copy = {**CONFIG, "sft": {**CONFIG["sft"], "fsdp_config": dict(CONFIG["sft"]["fsdp_config"])}}
    return overrides.apply_config(copy, changes, Path("/recipe/config.yaml"))


def test_config_reaches_the_frameworks_own_keys() -> None:
    config = configured("config.sft.fsdp_config.version=1", "config.optim=sgd", "config.sft.learning_rate=1e-3")
    assert config == {
        "optim": "sgd",
        "sft": {"seed": 1, "fsdp_config": {"version": 1}, "learning_rate": 1e-3},
    }


def test_config_takes_a_new_key_within_a_section() -> None:
    assert configured("config.sft.neftune_noise_alpha=5")["sft"]["neftune_noise_alpha"] == 5


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("config.sfd.seed=1", ["has no section config.sfd", "did you mean 'sft'?"]),
        ("config.sft.fsdp_confg.version=1", ["has no section config.sft.fsdp_confg", "did you mean 'fsdp_config'?"]),
        ("config.sft.learning_rat=1", ["has no such key", "did you mean 'learning_rate'?"]),
        ("config.optm=sgd", ["has no such key", "did you mean 'optim'?"]),
        ("config.zzz=1", ["has no such key", "optim, sft"]),
        ("config.sft.seed.deeper=1", ["has no section config.sft.seed"]),
    ],
)
def test_a_config_key_that_is_not_there(assignment: str, says: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        configured(assignment)
    assert caught.value.file == Path("/recipe/config.yaml")
    for text in says:
        assert text in str(caught.value)
