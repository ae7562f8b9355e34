"""Each command of tools on each recipe, as a person types it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from example_project import ROOT
from in_process import call, tools

from common import recipe
from common.run.__main__ import app as run_app

NAMES = [folder.name for folder in recipe.folders()]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("words", "statuses", "says"),
    [
        (["plan", "NAME"], {0}, "host memory of a node"),
        (["plan", "NAME", "--preset", "smoke"], {0}, "global batch"),
        (["plan", "recipes/NAME"], {0}, "Assumptions"),
        (["doctor", "NAME"], {0, 1}, "failed,"),
        (["doctor", "NAME", "--preset", "full"], {1}, "--model"),
        (["lint", "recipes/NAME"], {0}, ""),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_command_says_its_answer(
    name: str, words: list[str], statuses: set[int], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    status, out, err = tools(*[word.replace("NAME", name) for word in words])
    assert status in statuses, out + err
    assert says in out and "Traceback" not in err


@pytest.mark.parametrize("name", NAMES)
def test_json_is_json(name: str, tmp_path: Path) -> None:
    """Where --json is offered, nothing else is on standard output."""
    planned = json.loads(tools("plan", name, "--json")[1])
    assert planned["recipe"] == name and planned["fits"]["fits"] is True
    lines = json.loads(tools("doctor", name, "--output", tmp_path / "run", "--json")[1])
    assert {"state", "name", "found", "to_do"} <= set(lines[0]) and not (tmp_path / "run").exists()
    listed = {each["name"]: each for each in json.loads(tools("list", "recipes", "--json")[1])}
    assert {"smoke", "full"} <= set(listed[name]["presets"])


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["plan", "NAMEx"], "did you mean 'NAME'?"),
        (["doctor", "NAMEx"], "did you mean 'NAME'?"),
        (["report", "NAMEx"], "NAMEx"),
        (["diff", "NAMEx"], "did you mean 'NAME'?"),
        (["new", "mine", "--from", "NAMEx"], "did you mean 'NAME'?"),
        (["onboard", "cpu", "--recipe", "NAMEx", "--only-file"], "did you mean 'NAME'?"),
        (["plan", "NAME", "--preset", "smok"], "did you mean 'smoke'?"),
        (["doctor", "NAME", "--preset", "smok"], "did you mean 'smoke'?"),
        (["plan", "NAME", "--platform", "cpx"], "did you mean 'cpu'?"),
        (["doctor", "NAME", "--platform", "cpx"], "did you mean 'cpu'?"),
        (["plan", "NAME", "--set", "train.learning_rat=1"], "did you mean 'train.learning_rate'?"),
        (["doctor", "NAME", "--set", "train.learning_rat=1"], "did you mean 'train.learning_rate'?"),
        (["diff", "NAME"], "has no parent"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_name_is_one_message_with_the_nearest_right_one(words: list[str], hint: str) -> None:
    name = NAMES[0]
    status, out, err = tools(*[word.replace("NAME", name) for word in words])
    assert (status, out) == (2, "") and hint.replace("NAME", name) in err, out + err
    assert "Traceback" not in err and not (ROOT / "recipes" / "mine").exists()


@pytest.mark.parametrize("name", NAMES)
def test_two_nodes_meet_where_they_are_told(name: str) -> None:
    """The rendezvous of --nnodes reaches the recipe's launcher, on each node with its own rank."""
    where = ("--master-addr", "node-a", "--master-port", "20001")
    for rank in (0, 1):
        asked = (name, "--nnodes", 2, "--nproc-per-node", 2, "--node-rank", rank, *where, "--dry-run")
        status, out, err = call(run_app, *asked)
        assert status == 0, err
        [launch] = [line.replace("_", "-") for line in out.splitlines() if "train.py" in line and "--config" in line]
        assert f"--node-rank={rank}" in launch
        assert "--master-addr=node-a" in launch and "--master-port=20001" in launch
        assert "--nnodes=2" in launch or "--worker-num=4" in launch


def test_a_folder_that_is_no_run_has_no_report(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "recipes" / NAMES[0], tmp_path / "recipe")
    for folder in (tmp_path, tmp_path / "recipe"):
        status, out, err = tools("report", folder)
        assert (status, out) == (2, "") and str(folder) in err and "Traceback" not in err


WITH_COLUMNS = [name for name in NAMES if "columns" in recipe.read(recipe.find(name))[0].data.model_fields_set]


@pytest.mark.parametrize("name", WITH_COLUMNS)
def test_columns_of_other_names_are_read_as_the_setting_says(name: str, tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text(json.dumps({"question": "What is 1 and 1?", "answer": "2"}))
    given = (name, "--output", tmp_path / "run", "--data", file, "--set", "data.source=alpaca")
    told = ("--set", "data.columns=[instruction=question, output=answer]")

    def line(*options: object) -> dict[str, str]:
        lines = json.loads(tools("doctor", *given, *options, "--json")[1])
        [found] = [each for each in lines if each["name"] == "data.train"]
        return found

    assert line(*told)["state"] == "pass"
    assert line()["state"] == "fail" and "question, answer" in line()["found"]
    wrong = line("--set", "data.columns=[instruction]")
    assert wrong["state"] == "fail" and "LAYOUT_COLUMN=COLUMN_OF_THE_FILE" in str(wrong)
    status, out, err = call(run_app, *given, *told, "--dry-run")
    assert status == 0, err
    assert "--column instruction=question --column output=answer" in out
