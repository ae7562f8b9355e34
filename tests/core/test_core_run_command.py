"""What run.sh starts, with real processes: stages in order, continued, refused, killed."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from pathlib import Path

import pytest
from core_support import ROOT, command, edit, run, tree

pytestmark = pytest.mark.usefixtures("environments")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "a run 跑 [" / "red]"  # which is markup to what writes the terminal


def good(recipe_folder: Path, *arguments: object) -> str:
    done = run(recipe_folder, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def bad(recipe_folder: Path, *arguments: object, status: int = 2, **options: object) -> str:
    done = run(recipe_folder, *arguments, **options)
    assert done.returncode == status, done.stdout + done.stderr
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    return done.stderr


def test_a_run_and_the_same_command_again(recipe_folder: Path, out: Path) -> None:
    assert f"output: {out}" in good(recipe_folder, "--output", out)
    first = tree(out)
    assert first["adapter/weights"] == "adapter"
    said = good(recipe_folder, "--output", out)
    assert said.count("done before") == 4
    assert {name: text for name, text in tree(out).items() if name != "plan.yaml"} == {
        name: text for name, text in first.items() if name != "plan.yaml"
    }


def test_only_what_a_change_touches_runs_again(recipe_folder: Path, out: Path) -> None:
    good(recipe_folder, "--output", out)
    said = good(recipe_folder, "--output", out, "--set", "train.max_steps=6")
    assert said.count("done before") == 2
    assert tree(out)["trained"] == "once\nonce\n"


def test_one_stage_and_those_after_it(recipe_folder: Path, out: Path) -> None:
    assert "needs weights, which is not done" in bad(recipe_folder, "--output", out, "--only", "data", status=1)
    good(recipe_folder, "--output", out)
    good(recipe_folder, "--output", out, "--only", "train")
    assert tree(out)["trained"] == "once\n" * 2
    good(recipe_folder, "--output", out, "--from", "train")
    assert tree(out)["trained"] == "once\n" * 3


def test_fresh_starts_over(recipe_folder: Path, out: Path) -> None:
    good(recipe_folder, "--output", out)
    assert "train.seed: 42 -> 7" in bad(recipe_folder, "--output", out, "--set", "train.seed=7")
    good(recipe_folder, "--output", out, "--set", "train.seed=7", "--fresh")
    assert tree(out)["trained"] == "once\n"


def test_a_stage_that_fails_says_why_and_goes_on_when_repeated(recipe_folder: Path, out: Path) -> None:
    (recipe_folder / "before_data.py").write_text(
        "(pathlib.Path(stage) / 'half').touch()\n"
        "print('error: data.jsonl:3: no answer\\n  to do:    add one')\n"
        "sys.exit(2)\n"
    )
    said = bad(recipe_folder, "--output", out, status=1)
    assert "stage data failed: data.jsonl:3: no answer\n  to do:    add one\n" in said
    assert str(out / "logs" / "data.log") in said
    assert f"bash {recipe_folder}/run.sh --output '{out}'" in said
    assert not (out / "data").exists()
    (recipe_folder / "before_data.py").unlink()
    assert good(recipe_folder, "--output", out).count("done before") == 1
    assert not (out / "data" / "half").exists()


def test_a_stage_that_is_killed(recipe_folder: Path, out: Path) -> None:
    (recipe_folder / "before_data.py").write_text("import os; os.kill(os.getpid(), 9)")
    assert "signal 9" in bad(recipe_folder, "--output", out, status=1)


@pytest.fixture
def waiting(recipe_folder: Path, tmp_path: Path) -> Path:
    """A pipe: the data stage says its process id there, then waits for ever."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (recipe_folder / "before_data.py").write_text(
        f"import os, signal; open({str(pipe)!r}, 'w').write(str(os.getpid())); signal.pause()"
    )
    return pipe


def start(recipe_folder: Path, out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(recipe_folder, "--output", out),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_the_stage_too(recipe_folder: Path, out: Path, waiting: Path, number: signal.Signals) -> None:
    child = start(recipe_folder, out)
    stage = int(waiting.read_text())
    child.send_signal(number)
    _, said = child.communicate(timeout=40)
    assert child.returncode == 130
    assert said.startswith("error: interrupted; this goes on from the last checkpoint:\n  bash ")
    assert not Path(f"/proc/{stage}").exists()


def test_after_kill_9_no_stage_is_left_at_work_and_the_same_command_goes_on(
    recipe_folder: Path, out: Path, waiting: Path
) -> None:
    child = start(recipe_folder, out)
    stage = int(waiting.read_text())
    watched = os.pidfd_open(stage)
    child.kill()
    child.communicate()
    ready, _, _ = select.select([watched], [], [], 20)
    if not ready:
        os.kill(stage, 9)
    assert ready, "the stage goes on writing beside the run that replaces this one"
    (recipe_folder / "before_data.py").unlink()
    assert good(recipe_folder, "--output", out).count("done before") == 1


def test_a_second_run_in_the_same_directory(recipe_folder: Path, out: Path, waiting: Path) -> None:
    child = start(recipe_folder, out)
    waiting.read_text()
    before = tree(out)
    assert f"process {child.pid} on" in bad(recipe_folder, "--output", out)
    assert tree(out) == before
    child.terminate()
    child.communicate()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--only", "trian"], "--only names no stage"),
        (["--from", "trian"], "--from names no stage"),
        (["--only", "train", "--from", "data"], "--only and --from"),
        (["--presett", "smoke"], "No such option"),
        (["--nproc-per-node", "0"], "--nproc-per-node"),
        (["--node-rank", "1"], "--node-rank"),
        (["--master-port", "99999"], "--master-port"),
        (["--preset", "full"], "--data"),
        (["--platform", "nvidia_80gb"], "too few devices"),
        (["--data", "nowhere.jsonl"], "data.train: there is no such file or folder"),
        (["--model", "./nowhere"], "model.path: there is no such file or folder"),
        (["--set", "train.seed=1", "--set", "train.sed=1"], "did you mean 'train.seed'?"),
    ],
)
def test_a_wrong_call_writes_nothing(recipe_folder: Path, out: Path, arguments: list[str], says: str) -> None:
    assert says in bad(recipe_folder, "--output", out, *arguments)
    assert not out.exists()


@pytest.mark.parametrize("fresh", [[], ["--fresh"]])
def test_somebody_elses_directory_stays_as_it_is(recipe_folder: Path, out: Path, fresh: list[str]) -> None:
    out.mkdir(parents=True)
    (out / "thesis.txt").write_text("years of work")
    assert "thesis.txt" in bad(recipe_folder, "--output", out, *fresh)
    assert tree(out) == {"thesis.txt": "years of work"}


def test_an_output_that_cannot_be_written(recipe_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert "is a file" in bad(recipe_folder, "--output", tmp_path / "file")
    bad(recipe_folder, "--output", tmp_path / "file" / "below")
    bad(recipe_folder, "--output", "/sys/nothing-can-be-made-here")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_dry_run_writes_nothing_and_needs_no_hardware(recipe_folder: Path, tmp_path: Path, out: Path) -> None:
    before = tree(tmp_path)
    said = good(recipe_folder, "--preset", "full", "--platform", "nvidia_24gb", "--model", "a/b", "--data", "c/d",
                "--output", out, "--dry-run")  # fmt: skip
    assert "# platform: nvidia_24gb" in said
    assert tree(tmp_path) == before


def test_the_recipe_itself_is_wrong(recipe_folder: Path, out: Path) -> None:
    line = edit(recipe_folder / "recipe.yaml", "max_length: 128", "max_len: 128")
    assert f"recipe.yaml:{line}: unknown key data.max_len" in bad(recipe_folder, "--output", out)
    assert not out.exists()


def test_two_nodes_that_share_the_directory(recipe_folder: Path, out: Path) -> None:
    nodes = [
        subprocess.Popen(
            command(recipe_folder, "--output", out, "--nnodes", 2, "--node-rank", rank, "--master-addr", "127.0.0.1"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for rank in (1, 0)
    ]
    try:
        for node in nodes:
            said, _ = node.communicate(timeout=40)
            assert node.returncode == 0, said
    finally:
        for node in nodes:
            node.kill()
    assert tree(out)["trained"] == "once\nonce\n"  # the script ran on both
    assert (out / "logs" / "train-node1.log").is_file()


JUDGED = """\
import json
results = [{"task": "SQuAD", "metric": "F1", "split": "eval", "count": 9, "before": 60.0, "after": AFTER,
            "higher_is_better": True, "limit": 54.0}]
(out / "evaluation.json").write_text(json.dumps(results))
"""


def test_a_model_that_lost_too_much_ends_the_finished_run_with_status_1(recipe_folder: Path, out: Path) -> None:
    edit(recipe_folder / "recipe.yaml", "publishes: [adapter, model]", "publishes: [adapter, model, evaluation.json]")
    stage = (recipe_folder / "stage.py").read_text("utf-8")
    judged = "".join(f"    {line}\n" for line in JUDGED.replace("AFTER", "50.0").splitlines())
    (recipe_folder / "stage.py").write_text(stage + judged, encoding="utf-8")
    said = bad(recipe_folder, "--output", out, status=1)
    assert said == (
        "error: the run is finished, and its model lost too much: SQuAD F1 is 50.00, at least 54.00 is asked\n"
    )
    assert tree(out)["adapter/weights"] == "adapter" and (out / "export" / "done.json").exists()
    assert bad(recipe_folder, "--output", out, status=1) == said, "the same again"
    assert tree(out)["trained"] == "once\n"
    judgement = (out / "evaluation.json").read_text("utf-8").replace("50.0", "54.0")
    (out / "evaluation.json").write_text(judgement, encoding="utf-8")
    good(recipe_folder, "--output", out)
