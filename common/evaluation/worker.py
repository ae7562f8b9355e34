"""The process that has the model: which interpreter runs it, what it is told, what it answers."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import platform, recipe
from common.environment import ROOT
from common.errors import RunError, UserError
from common.evaluation.subject import Subject
from common.evaluation.transformers_backend import CALLER_VARIABLE
from common.overrides import laid_over
from common.plan import expand
from common.yaml_file import load

# Which module has the model, by the framework of the run; transformers where there is no run
WORKERS = {
    "torch": "common.evaluation.transformers_worker",
    "mindspore": "common.frameworks.mindformers.worker",
}
# Nothing is fetched, and what libraries have to say of themselves is not the answer's business
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
    "PYTHONWARNINGS": "ignore::FutureWarning",
    "TOKENIZERS_PARALLELISM": "false",
}


def interpreter(subject: Subject, given: Path | None = None) -> str:
    """The Python that answers: `given`, the one that the run was made with, this one, or the one that was called."""
    if given is not None:
        if not os.access(given, os.X_OK) or given.is_dir():
            raise UserError("is no interpreter", file=given)
        return str(given)
    own, caller = subject.plan.get("python"), os.environ.get(CALLER_VARIABLE)
    if isinstance(own, str) and os.access(own, os.X_OK):
        return own
    needed = ["torch", "transformers", *(["peft"] if subject.adapter else [])]
    lacking = [name for name in needed if importlib.util.find_spec(name) is None]
    if not lacking:
        return sys.executable
    if caller is not None and os.access(caller, os.X_OK):
        return caller
    name = subject.plan.get("recipe")
    hint = (
        f"bash recipes/{name}/run.sh makes the environment that has them"
        if name
        else "name an interpreter that has them with --python"
    )
    raise UserError(f"this Python has no {' and no '.join(lacking)}", file=sys.executable, expected=own, hint=hint)


def device(subject: Subject) -> dict[str, str | None]:
    """Where the run's platform puts a model, and the plugin that makes torch know its devices."""
    name = subject.plan.get("platform")
    known = platform.read(name) if name in platform.identifiers() else None
    framework = known.frameworks.get("torch") if known else None
    if known is None or framework is None:
        return {"device_map": "auto", "plugin": None}
    # Over all devices where one is too small; a platform without devices of its own is one place
    return {"device_map": "auto" if known.detect else framework.device, "plugin": framework.plugin}


def loading(subject: Subject) -> dict[str, Any]:
    """What the worker needs to know to load `subject`."""
    return {
        "model": str(subject.model),
        "adapter": str(subject.adapter) if subject.adapter else None,
        "quantization": subject.quantization,
        "dtype": subject.dtype,
        **device(subject),
        "run": str(subject.run) if subject.run else None,
        "config": prediction(subject),
    }


def prediction(subject: Subject) -> dict[str, Any]:
    """The configuration of the run's training; over it, where the recipe has them, predict.yaml and the platform's."""
    config = dict(subject.plan.get("config") or {})
    folder = ROOT / "recipes" / str(subject.plan.get("recipe"))
    predict = folder / "configs" / "predict.yaml"
    if not predict.is_file():
        return config
    config = laid_over(config, load(predict).value)
    entry = recipe.read(folder)[0].platforms.get(str(subject.plan.get("platform")))
    return laid_over(config, load(folder / entry.config).value) if entry and entry.config else config


def work(python: str, request: dict[str, Any], subject: Subject) -> Iterator[list[Any]]:
    """What the worker answers to `request`, as it comes. Raises RunError where it fails."""
    variables = {
        **os.environ,
        **{name: expand(str(value)) for name, value in subject.plan.get("environment", {}).items()},
        **QUIET,
    }
    variables["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    with subprocess.Popen(
        [python, "-m", WORKERS.get(str(subject.plan.get("framework")), WORKERS["torch"])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=variables,
        text=True,
        encoding="utf-8",
    ) as worker:
        assert worker.stdin is not None and worker.stdout is not None
        try:
            with worker.stdin as pipe:
                json.dump(request, pipe)
        except BrokenPipeError:
            pass  # it has ended, and said why
        try:
            for line in worker.stdout:
                value = json.loads(line)
                if isinstance(value, dict):
                    raise RunError("the model could not be asked", file=subject.model, found=value["error"])
                yield value
        except BaseException:
            worker.kill()
            raise
    if worker.returncode == -signal.SIGKILL:
        raise RunError("the model's process was killed from outside (signal 9), most likely because the memory ran out")
    if worker.returncode:
        raise RunError(
            "generating failed; its messages are above", found=f"exit status {worker.returncode} of {python}"
        )
