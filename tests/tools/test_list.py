"""`tools list`: recipes, presets, last results and platforms."""

from __future__ import annotations

import json
from pathlib import Path

from example_project import tools, write

REPORT = {
    "version": 1,
    "finished": True,
    "seconds": 61.7,
    "platform": "cpu",
    "training": {"first_loss": 7.25, "last_loss": 5.5},
    "evaluation": [
        {"task": "held-out", "metric": "perplexity", "before": 900.0, "after": 250.0, "samples": []},
        {"task": "math", "metric": "accuracy", "before": None, "after": 0.5, "samples": []},
    ],
}


def test_recipes_and_platforms_as_json(pristine: Path) -> None:
    ran = tools(pristine, "list", "--json")
    assert ran.returncode == 0, ran.stderr
    listed = json.loads(ran.stdout)
    [recipe] = listed["recipes"]
    assert recipe["platforms"] == {"cpu": "smoked", "nvidia_24gb": "declared"}
    assert recipe["presets"]["full"]["memory"]["host_gib"] == 127
    assert recipe["presets"]["full"]["devices"] == 4
    assert recipe["presets"]["full"]["requires"] == ["nf4"]
    assert recipe["presets"]["full"]["last_result"] is None
    platforms = {each["id"]: each for each in listed["platforms"]}
    assert set(platforms) == {file.stem for file in (pristine / "common" / "platforms").glob("*.yaml")}
    assert platforms["nvidia_24gb"]["memory_gib"] == 24
    assert platforms["nvidia_24gb"]["recipes"] == ["example"]


def test_the_last_result_of_a_preset(project: Path) -> None:
    write(project / "runs" / "example" / "smoke" / "report.json", json.dumps(REPORT))
    result = json.loads(tools(project, "list", "recipes", "--json").stdout)[0]["presets"]["smoke"]["last_result"]
    assert (result["first_loss"], result["last_loss"], result["seconds"]) == (7.25, 5.5, 61.7)
    assert result["evaluation"][0] == {"task": "held-out", "metric": "perplexity", "before": 900.0, "after": 250.0}
    assert (
        "loss 7.25 to 5.5; held-out perplexity 900 to 250; math accuracy 0.5; 62 s on cpu"
        in tools(project, "list").stdout
    )


def test_a_broken_report_is_named_and_the_rest_is_listed(project: Path) -> None:
    write(project / "runs" / "example" / "smoke" / "report.json", "{")
    ran = tools(project, "list", "recipes", "--json")
    assert ran.returncode == 0
    presets = json.loads(ran.stdout)[0]["presets"]
    assert "runs/example/smoke/report.json cannot be read" in presets["smoke"]["last_result"]["problem"]
    assert presets["full"]["last_result"] is None


def test_a_recipe_with_a_mistake_ends_in_one_message(project: Path) -> None:
    file = project / "recipes" / "example" / "recipe.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("length: 128", "length: long"), encoding="utf-8")
    ran = tools(project, "list")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert f"{file}:22: data.max_length" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_an_unknown_kind_is_refused(pristine: Path) -> None:
    ran = tools(pristine, "list", "recipe")
    assert ran.returncode == 2
    assert "did you mean 'recipes'?" in ran.stderr
