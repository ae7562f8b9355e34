"""The run directory: whose it is, which stages are done, and that a kill at any moment loses nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from core_support import ROOT, tree

from common import plan
from common.errors import UserError
from common.plan import Plan, PlannedStage
from common.request import Request
from common.run import state


class Killed(BaseException):
    """Stands for kill -9: nothing catches it to tidy up on purpose."""


@pytest.fixture
def make(recipe_folder: Path, tmp_path: Path) -> Callable[..., Plan]:
    def made(*assignments: str, **options: Any) -> Plan:
        options.setdefault("output", tmp_path / "run")
        return plan.make(Request(recipe=recipe_folder, assignments=assignments, **options))

    return made


def started(made: Plan) -> Plan:
    made.run.mkdir(parents=True, exist_ok=True)
    state.save_plan(made, {})
    return made


def stage_of(made: Plan, name: str) -> PlannedStage:
    return next(stage for stage in made.stages if stage.name == name)


def write_export(made: Plan, content: str) -> None:
    partial = made.run / "export.partial"
    for name in ("adapter", "model"):
        (partial / name).mkdir(parents=True)
        (partial / name / "weights").write_text(content)
    (partial / "log").write_text(content)


def do_export(made: Plan, content: str) -> None:
    """What the runner does for one stage."""
    state.forget(made, stage_of(made, "export"))
    write_export(made, content)
    state.finish(made, stage_of(made, "export"), 1.0, {})


def refused(made: Plan) -> UserError:
    before = tree(made.run)
    with pytest.raises(UserError) as caught:
        state.check_same_plan(made)
    assert caught.value.status == 2
    assert tree(made.run) == before
    return caught.value


def test_the_same_plan_goes_on(make: Callable[..., Plan]) -> None:
    state.check_same_plan(started(make()))
    state.check_same_plan(make("train.learning_rate=1e-3", "data.max_length=128"))


def test_a_changed_plan_is_named_key_by_key(make: Callable[..., Plan]) -> None:
    started(make())
    message = str(refused(make("train.seed=43", "data.max_length=64", "config.sft.new=1")))
    for line in ("train.seed: 42 -> 43", "data.max_length: 128 -> 64", "config.sft.new: None -> 1"):
        assert line in message
    assert "learning_rate" not in message


def test_only_steps_and_epochs_may_grow(make: Callable[..., Plan]) -> None:
    started(make())
    state.check_same_plan(make("train.max_steps=5"))
    assert "train.max_steps: 4 -> 3" in str(refused(make("train.max_steps=3")))
    assert "train.max_steps: 4 -> None" in str(refused(make("train.max_steps=null")))


def test_epochs_may_grow(make: Callable[..., Plan]) -> None:
    started(make("train.max_steps=null"))
    state.check_same_plan(make("train.max_steps=null", "train.num_train_epochs=1.5"))
    assert "num_train_epochs" in str(refused(make("train.max_steps=null", "train.num_train_epochs=0.5")))


def test_changed_data_stops_the_run(make: Callable[..., Plan], tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text("1")
    started(make(data=str(tmp_path / "mine.jsonl")))
    (tmp_path / "mine.jsonl").write_text("2")
    assert "content of data.train" in str(refused(make(data=str(tmp_path / "mine.jsonl"))))


def test_a_run_that_was_moved_goes_on(make: Callable[..., Plan], tmp_path: Path) -> None:
    made = started(make())
    do_export(made, "x")
    shutil.move(made.run, tmp_path / "moved 跑")
    moved = make(output=tmp_path / "moved 跑")
    state.check_same_plan(moved)
    assert state.is_done(moved, stage_of(moved, "export"))


def test_somebody_elses_directory_is_refused_and_stays_as_it_is(make: Callable[..., Plan]) -> None:
    made = make()
    made.run.mkdir()
    (made.run / "thesis.txt").write_text("years of work")
    error = refused(made)
    assert "thesis.txt" in str(error)
    with pytest.raises(UserError, match=r"thesis\.txt"):
        state.fresh(made.run)
    assert tree(made.run) == {"thesis.txt": "years of work"}


@pytest.mark.parametrize("content", ["", "just text", "identity: 3", "identity:", "recipe: x", "[1", "a: \x00", "- 1"])
def test_a_plan_that_cannot_be_read(make: Callable[..., Plan], content: str) -> None:
    made = make()
    made.run.mkdir()
    (made.run / "plan.yaml").write_text(content)
    assert "is not a plan of a run" in str(refused(made))
    state.fresh(made.run)
    state.check_same_plan(made)


def test_a_plan_that_is_not_utf8(make: Callable[..., Plan]) -> None:
    made = make()
    made.run.mkdir()
    (made.run / "plan.yaml").write_bytes(b"identity: \xff")
    assert "is not a plan of a run" in str(refused(made))


def test_fresh_keeps_the_lock_and_removes_the_plan_last(
    make: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = started(make())
    do_export(made, "x")
    with state.lock(made.run, 0):
        left = []
        monkeypatch.setattr(state, "remove", lambda path: left.append(path.name))
        state.fresh(made.run)
        assert left[-1] == "plan.yaml"  # killed before: it is still known whose the rest is
        monkeypatch.undo()
        state.fresh(made.run)
        assert {path.name for path in made.run.iterdir()} == {".lock-node0", ".lock-node0.owner"}


def test_plan_yaml_says_what_the_run_is(make: Callable[..., Plan]) -> None:
    made = started(make(nproc_per_node=2, nnodes=2))
    read = yaml.safe_load((made.run / "plan.yaml").read_text(encoding="utf-8"))
    assert read["batch"]["global_batch_size"] == 3 * 5 * 4
    assert read["config"]["sft"]["learning_rate"] == 1e-3
    assert list(read["stages"]) == ["weights", "data", "train", "export"]


def test_done_is_done_for_this_plan_only(make: Callable[..., Plan]) -> None:
    made = started(make())
    assert not state.is_done(made, stage_of(made, "export"))
    do_export(made, "x")
    assert state.is_done(made, stage_of(made, "export"))
    other = make("train.max_steps=5")
    assert not state.is_done(other, stage_of(other, "export"))
    (made.run / "export" / "done.json").write_text("{")
    assert not state.is_done(made, stage_of(made, "export"))


def test_forgotten_is_not_done(make: Callable[..., Plan]) -> None:
    made = started(make())
    do_export(made, "x")
    state.forget(made, stage_of(made, "export"))
    assert not state.is_done(made, stage_of(made, "export"))


def test_finished_output_is_published_and_replaces_what_was_there(make: Callable[..., Plan]) -> None:
    made = started(make())
    do_export(made, "old")
    do_export(made, "new")
    files = tree(made.run)
    assert files["adapter/weights"] == files["model/weights"] == files["export/log"] == "new"
    assert not (made.run / "export.partial").exists()


CALLS = ("replace", "unlink", "rmtree", "mkdir")


def test_a_kill_between_any_two_steps_of_finishing_is_put_right_by_repeating(
    make: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every change of the file system is a place to be killed: before it, the n-th time, for all n."""
    made = started(make())
    stage = stage_of(made, "export")
    do_export(made, "old")
    killed_at = 0
    for limit in range(100):
        calls = 0

        def counted(real: Callable[..., Any], limit: int = limit) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls > limit:
                    raise Killed
                return real(*arguments, **options)

            return call

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", counted(os.replace))
            patch.setattr(Path, "unlink", counted(Path.unlink))
            patch.setattr(shutil, "rmtree", counted(shutil.rmtree))
            try:
                do_export(made, f"new {limit}")
                finished = True
            except Killed:
                finished = False
        if finished:
            break
        killed_at += 1
        assert not state.is_done(made, stage) or limit == 0  # nothing happened yet: the old output counts
        do_export(made, f"again {limit}")
        files = tree(made.run)
        assert state.is_done(made, stage)
        assert files["adapter/weights"] == files["model/weights"] == files["export/log"] == f"again {limit}"
        assert not (made.run / "export.partial").exists()
    assert killed_at >= 6


def test_a_kill_while_the_first_plan_is_written(make: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    made = make()
    made.run.mkdir()
    (made.run / "plan.yaml.partial").write_text("identity:\n  tra")
    state.check_same_plan(made)
    started(made)
    state.check_same_plan(made)


HOLD = """
import sys
from pathlib import Path
from common.run import state
with state.lock(Path(sys.argv[1]), int(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(run: Path, node: int = 0) -> subprocess.Popen[str]:
    """Another process that holds the run, until its standard input is closed."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run), str(node)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert child.stdout is not None and child.stdout.readline() == "held\n"
    return child


def test_a_second_run_is_refused_while_the_first_is_at_work(tmp_path: Path) -> None:
    first = hold(tmp_path / "run")
    try:
        with pytest.raises(UserError, match="another run is at work") as caught, state.lock(tmp_path / "run", 0):
            raise AssertionError("two at once")
        assert f"process {first.pid} on" in str(caught.value)
        with state.lock(tmp_path / "run", 1):  # another node shares the directory
            pass
    finally:
        first.communicate()
    with state.lock(tmp_path / "run", 0):
        pass


def test_a_run_that_was_killed_holds_nothing(tmp_path: Path) -> None:
    first = hold(tmp_path / "run")
    first.kill()
    first.communicate()
    with state.lock(tmp_path / "run", 0):
        pass


def test_an_output_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="is a file"), state.lock(tmp_path / "file", 0):
        raise AssertionError
    assert (tmp_path / "file").read_text() == "mine"
