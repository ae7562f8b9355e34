"""What this machine does as a platform: the framework's probe, then the recipe's smoke run, then the tier."""

from __future__ import annotations

import datetime
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from common import environment, golden, launchers, plan, platform
from common.errors import RunError, UserError
from common.files import write_json, write_text
from common.plan import Plan, expand
from common.request import Request
from common.run.provenance import commit, machine
from tools.generated.tables import table

Tier = Literal["declared", "smoked", "verified"]
NEEDED = ("dtype", "operator", "collective", "golden", "determinism", "checkpoint")
"""Probes without a bad line for `verified`; rates are figures, not tests."""
PROBE_SECONDS = 1800
SMOKE_SECONDS = 7200


@dataclass
class Result:
    """One machine's proof of a platform, dated."""

    platform: str
    recipe: str
    framework: str
    date: str
    commit: str | None
    machine: dict[str, Any]
    devices: int
    probes: list[dict[str, Any]]
    smoke: dict[str, Any]
    """finished, tokens_per_second (effective, of all devices), first_loss, last_loss, seconds; or problem."""

    @property
    def tier(self) -> Tier:
        """smoked: the recipe ran through. verified: and every needed probe is right, throughput measured."""
        if not self.smoke.get("finished"):
            return "declared"
        there = {each["probe"] for each in self.probes}
        right = all(each["ok"] for each in self.probes if each["probe"] in NEEDED)
        return "verified" if right and there >= set(NEEDED) and self.smoke["tokens_per_second"] else "smoked"


def measure(identifier: str, recipe_folder: Path, say: Callable[[str], None]) -> tuple[Result, str]:
    """Probe and smoke `identifier` with the recipe on this machine; also the smoke run's log.

    Raises UserError when the machine is not that platform, RunError when the environment cannot be made.
    """
    with tempfile.TemporaryDirectory(prefix="onboard-") as scratch:
        run = Path(scratch) / "run"
        planned = plan.make(Request(recipe=recipe_folder, platform=identifier, output=run))
        script = Path(__file__).with_name(f"{planned.recipe.framework}_probe.py")
        if not script.is_file():
            raise UserError(f"there is no probe for {planned.recipe.framework} yet", expected=script.name)
        say(f"probing {planned.recipe.framework} with {planned.cluster.world_size} devices ...")
        probes = _probe(planned, script, Path(scratch))
        say(f"the smoke preset of {recipe_folder.name} ...")
        smoke, log = _smoke(planned)
        if not smoke["finished"] or any(each["probe"] == "probe" for each in probes):
            kept = keep_logs(Path(scratch), environment.ROOT / "runs" / "onboarding" / identifier)
            say(f"not all of it ended well; the logs are in {kept}")
    result = Result(
        platform=identifier,
        recipe=recipe_folder.name,
        framework=planned.recipe.framework,
        date=datetime.date.today().isoformat(),
        commit=commit(),
        machine=machine(),
        devices=planned.cluster.world_size,
        probes=probes,
        smoke=smoke,
    )
    return result, log


def keep_logs(scratch: Path, target: Path) -> Path:
    """Copy the probe's and the smoke run's logs out of the folder that will be removed, in place of older ones."""
    shutil.rmtree(target, ignore_errors=True)
    for name, logs in (("probe", scratch / "logs"), ("smoke", scratch / "run" / "logs")):
        if logs.is_dir():
            shutil.copytree(logs, target / name)
    return target


def _probe(planned: Plan, script: Path, scratch: Path) -> list[dict[str, Any]]:
    golden.prepare(scratch / "golden")
    framework = platform.read(planned.platform_id).frameworks[planned.recipe.framework]
    try:
        python = str(environment.ensure(planned.spec))
    except environment.EnvironmentFailure as error:
        raise RunError(str(error)) from None
    options = ["--device", framework.device, "--backend", framework.backend, "--dtypes", ",".join(framework.dtypes)]
    options += ["--golden", str(scratch / "golden"), "--output", str(scratch / "probes.json")]
    options += ["--plugin", framework.plugin] if framework.plugin else []
    launcher = launchers.launch(planned.recipe.launcher, python, planned.cluster, scratch / "logs")
    variables = {**os.environ, **{name: expand(value) for name, value in planned.environment.items()}}
    # The environment's own programs first, as in a run: launchers look for plain `python`
    variables["PATH"] = os.pathsep.join([str(Path(python).parent), variables.get("PATH", "")])
    ran = _run([*launcher, str(script), *options], PROBE_SECONDS, variables)
    (scratch / "logs").mkdir(exist_ok=True)
    write_text(scratch / "logs" / "probe.log", ran.stdout)
    if (scratch / "probes.json").is_file():
        lines: list[dict[str, Any]] = json.loads((scratch / "probes.json").read_text(encoding="utf-8"))
        return lines
    said = " / ".join(ran.stdout.strip().splitlines()[-3:])
    return [{"probe": "probe", "name": "did not end", "ok": False, "value": None, "detail": said[-500:]}]


def _smoke(planned: Plan) -> tuple[dict[str, Any], str]:
    command = ["bash", str(planned.recipe_folder / "run.sh"), "--platform", planned.platform_id]
    ran = _run([*command, "--output", str(planned.run)], SMOKE_SECONDS, dict(os.environ))
    log = _without_places(ran.stdout, planned.run)
    report = planned.run / "report.json"
    if ran.returncode or not report.is_file():
        return {"finished": False, "problem": " / ".join(log.strip().splitlines()[-3:])}, log
    found = json.loads(report.read_text(encoding="utf-8"))
    training = found["training"] or {}
    speed = training.get("throughput") or {}
    return {
        "finished": found["finished"],
        "seconds": found["seconds"],
        "first_loss": training.get("first_loss"),
        "last_loss": training.get("last_loss"),
        "tokens_per_second": (speed.get("tokens_per_second") or {}).get("total"),
    }, log


def _run(command: list[str], seconds: int, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=seconds,
            env=variables,
            cwd=environment.ROOT,
        )
    except subprocess.TimeoutExpired as error:
        said = error.stdout or b""
        text = said if isinstance(said, str) else said.decode(errors="replace")
        return subprocess.CompletedProcess(command, 124, f"{text}\nended after {seconds} s\n")


def _without_places(text: str, run: Path) -> str:
    """The log without escape codes and without this machine's folders."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "\n")
    return plan.movable(plain, run)


def write(result: Result, log: str) -> list[Path]:
    """docs/logs/RECIPE_PLATFORM.txt, docs/onboarding/PLATFORM_DATE.json and .md; returns them."""
    docs = environment.ROOT / "docs"
    stem = docs / "onboarding" / f"{result.platform}_{result.framework}_{result.date}"
    files = [
        docs / "logs" / f"{result.recipe}_{result.platform}.txt",
        stem.with_suffix(".json"),
        stem.with_suffix(".md"),
    ]
    write_text(files[0], log)
    write_json(files[1], {**asdict(result), "tier": result.tier})
    write_text(files[2], as_markdown(result))
    return files


def as_markdown(result: Result) -> str:
    """The table for a pull request."""
    read = platform.read(result.platform)
    peak = read.peak_bf16_tflops
    rows = []
    for each in result.probes:
        value = "" if each["value"] is None else f"{each['value']:.3g}"
        detail = each["detail"]
        if peak and each["probe"] == "matmul" and each["name"] == "bfloat16":
            detail += (
                f"; {each['value'] / peak.value:.0%} of {peak.value:g} ({'measured' if peak.measured else 'claimed'})"
            )
        rows.append([each["probe"], each["name"], "right" if each["ok"] else "WRONG", value, detail])
    words = ", ".join(f"{key}: {value}" for key, value in result.machine.items())
    return "\n".join(
        [
            f"# {result.platform}, {result.framework}: {result.tier}",
            "",
            f"{result.date}, commit {result.commit or 'unknown'}, {result.devices} devices; {words}.",
            "",
            f"Smoke of {result.recipe}: {_told(result.smoke)}.",
            "",
            table(["Probe", "What", "", "Value", ""], rows),
            "",
        ]
    )


def _told(smoke: dict[str, Any]) -> str:
    """What came of the smoke run, in words."""
    if not smoke["finished"]:
        return f"not finished: {smoke.get('problem', 'its report says so')}"
    words = ["finished"]
    if (seconds := smoke.get("seconds")) is not None:
        words.append(f"{seconds:.0f} s")
    if smoke.get("first_loss") is not None and smoke.get("last_loss") is not None:
        words.append(f"loss {smoke['first_loss']:.4f} → {smoke['last_loss']:.4f}")
    if (speed := smoke.get("tokens_per_second")) is not None:
        words.append(f"{speed:,.0f} tokens/s")
    return ", ".join(words)
