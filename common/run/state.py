"""What a run directory knows: its plan, which stages are done, and who is at work in it."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import yaml

from common.errors import UserError
from common.files import remove, write_json, write_text
from common.plan import Plan, PlannedStage, movable

PLAN = "plan.yaml"
DONE = "done.json"
MAY_GROW = ("train.max_steps", "train.num_train_epochs")


@contextmanager
def lock(run: Path, node_rank: int, hint: str = "wait for it, or give another --output") -> Iterator[None]:
    """Hold the run directory for this node. Raises UserError, with `hint`, when another run does."""
    if run.exists() and not run.is_dir():
        raise UserError("the output exists and is a file", file=run, hint="give another --output")
    run.mkdir(parents=True, exist_ok=True)
    file = run / f".lock-node{node_rank}"
    owner = run / f".lock-node{node_rank}.owner"
    held = filelock.FileLock(file)
    try:
        held.acquire(timeout=0)
    except filelock.Timeout:
        who = owner.read_text(encoding="utf-8").strip() if owner.exists() else "another process"
        raise UserError(
            "another run is at work in this directory",
            file=run,
            found=who,
            hint=hint,
        ) from None
    try:
        owner.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
        yield
    finally:
        owner.unlink(missing_ok=True)
        held.release()


def refuse_foreign(run: Path) -> None:
    """Raise UserError when somebody else made the directory: nothing in it is taken for ours, or removed."""
    if not run.is_dir() or (run / PLAN).exists():
        return
    ours = (".lock", f"{PLAN}.partial")  # the latter is left when a run is killed at its very beginning
    foreign = [path.name for path in run.iterdir() if not path.name.startswith(ours)]
    if foreign:
        raise UserError(
            "the directory is not empty and was not made by this command",
            file=run,
            found=", ".join(sorted(foreign)[:5]),
            hint="give another --output",
        )


def fresh(run: Path) -> None:
    """Remove what an earlier run left, except the lock that we hold; the plan, which says whose it is, last."""
    refuse_foreign(run)
    for path in sorted(run.iterdir(), key=lambda path: path.name == PLAN):
        if not path.name.startswith(".lock"):
            remove(path)


def check_same_plan(plan: Plan) -> None:
    """Raise UserError when the run directory holds a run of another plan, naming the changed keys."""
    refuse_foreign(plan.run)
    file = plan.run / PLAN
    if not file.exists():
        return
    try:
        before = dict(yaml.safe_load(file.read_text(encoding="utf-8"))["identity"])
    except (yaml.YAMLError, KeyError, TypeError, ValueError):
        raise UserError(
            "is not a plan of a run", file=file, hint="give another --output, or --fresh to start over"
        ) from None
    now = identity(plan)
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key) and not _grown(key, before, now)]
    if changed:
        shown = "\n            ".join(f"{key}: {before.get(key)} -> {now.get(key)}" for key in sorted(changed))
        raise UserError(
            "this run was started with another plan",
            file=plan.run,
            found=shown,
            hint="repeat it as it was, give another --output, or start over with --fresh; only its steps may grow",
        )


def _grown(key: str, before: dict[str, Any], now: dict[str, Any]) -> bool:
    old, new = before.get(key), now.get(key)
    return key in MAY_GROW and isinstance(old, int | float) and isinstance(new, int | float) and new >= old


def identity(plan: Plan) -> dict[str, Any]:
    """The plan's identity with the run directory's and the project's places taken out."""
    loaded: dict[str, Any] = json.loads(movable(json.dumps(plan.identity, ensure_ascii=False), plan.run))
    return loaded


def save_plan(plan: Plan, facts: dict[str, Any]) -> None:
    """Write plan.yaml, with `facts` on what the run is made with."""
    write_text(plan.run / PLAN, plan_text(plan, facts))


def plan_text(plan: Plan, facts: dict[str, Any]) -> str:
    """plan.yaml: the identity, and everything resolved, for people and for the report."""
    content = {
        "recipe": plan.recipe_folder.name,
        "preset": plan.preset_name,
        "platform": plan.platform_id,
        "framework": plan.recipe.framework,
        "identity": identity(plan),
        "devices": {"per_node": plan.cluster.nproc_per_node, "nodes": plan.cluster.nnodes},
        "batch": {
            "micro_batch_size": plan.batch.micro_batch_size,
            "gradient_accumulation_steps": plan.batch.gradient_accumulation_steps,
            "data_parallel": plan.batch.data_parallel,
            "global_batch_size": plan.batch.global_batch_size,
        },
        "settings": plan.settings.model_dump(exclude_unset=True),
        "config": plan.config,
        "environment": plan.environment,
        "python": str(plan.spec.python()),
        "stages": {stage.name: [list(command) for command in stage.commands] for stage in plan.stages},
        **facts,
    }
    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
    return text


def is_done(plan: Plan, stage: PlannedStage) -> bool:
    """Whether the stage's output is there, whole, and of this plan."""
    try:
        done = json.loads((plan.run / stage.name / DONE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(done.get("digest") == stage.digest)


def finish(plan: Plan, stage: PlannedStage, seconds: float, versions: dict[str, str]) -> None:
    """Give the stage's output its final name; done.json, written last, is what makes it count."""
    folder, partial = plan.run / stage.name, plan.run / f"{stage.name}.partial"
    if partial.exists():
        for name in stage.publishes:
            remove(plan.run / name)
            if (partial / name).exists():
                os.replace(partial / name, plan.run / name)
        remove(folder)
        os.replace(partial, folder)
    write_json(folder / DONE, {"digest": stage.digest, "seconds": round(seconds, 3), "versions": versions})


def forget(plan: Plan, stage: PlannedStage) -> None:
    """Make the stage count as not done."""
    (plan.run / stage.name / DONE).unlink(missing_ok=True)
    remove(plan.run / f"{stage.name}.partial")
