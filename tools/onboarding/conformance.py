"""What this machine does as a platform: the framework's probe, then the recipe's smoke run, then the tier."""

from __future__ import annotations

import datetime
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from common import environment, golden, launchers, plan, platform
from common.errors import RunError, UserError
from common.files import write_json, write_text
from common.plan import Plan
from common.request import Request
from common.run import child
from common.run.provenance import commit, machine
from common.run.state import lock
from tools.generated.tables import table
from tools.onboarding import probing
from tools.onboarding.probing import Line

Tier = Literal["declared", "smoked", "verified"]
NEEDED = ("dtype", "operator", "collective", "golden", "determinism", "checkpoint")
"""Probes without a bad line for `verified`; rates are figures, not tests."""
PROBE_SECONDS = 900
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
    probes: list[Line]
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

    What each probe found, and all logs, stay in runs/onboarding/PLATFORM/RECIPE. Raises UserError when the
    machine is not that platform or is being measured already, RunError when the environment cannot be made.
    """
    place = environment.ROOT / "runs" / "onboarding" / identifier / recipe_folder.name
    with lock(place.parent, 0, hint="wait for it: two would measure the same devices"):
        return _measure(identifier, recipe_folder, place, say)


def _measure(identifier: str, recipe_folder: Path, place: Path, say: Callable[[str], None]) -> tuple[Result, str]:
    planned = plan.make(Request(recipe=recipe_folder, platform=identifier, output=place / "run"))
    script = Path(__file__).with_name(f"{planned.recipe.framework}_probe.py")
    if not script.is_file():
        raise UserError(f"there is no probe for {planned.recipe.framework} yet", expected=script.name)
    try:
        python = str(environment.ensure(planned.spec))
    except environment.EnvironmentFailure as error:
        raise RunError(str(error)) from None
    shutil.rmtree(place, ignore_errors=True)  # an earlier onboarding's
    golden.prepare(place / "golden")
    say(f"{planned.recipe.framework} on {planned.cluster.world_size} devices; logs are kept in {place}")
    probes = []
    for name in probing.PROBES:
        started = time.monotonic()
        lines = _probe(name, planned, python, script, place)
        say(f"{name}, {time.monotonic() - started:.0f} s")
        for each in lines:
            say(f"  {'right' if each['ok'] else 'WRONG'}  {each['name']}  {_value(each)} {each['detail']}".rstrip())
        probes += lines
    say(f"the smoke preset of {recipe_folder.name} ...")
    smoke, log = _smoke(planned, place / "smoke.log")
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


def _probe(name: str, planned: Plan, python: str, script: Path, place: Path) -> list[Line]:
    framework = planned.platform.frameworks[planned.recipe.framework]
    found, log = place / f"{name}.json", place / f"{name}.log"
    options = ["--probe", name, "--golden", str(place / "golden"), "--output", str(found)]
    options += ["--device", framework.device, "--backend", framework.backend, "--dtypes", ",".join(framework.dtypes)]
    options += ["--plugin", framework.plugin] if framework.plugin else []
    launcher = launchers.launch(planned.recipe.launcher, python, planned.cluster, place / f"{name}_workers")
    with open(log, "wb") as output:
        status = _ended(child.start(planned, [*launcher, str(script), *options], output), PROBE_SECONDS)
    if found.is_file():
        lines: list[Line] = json.loads(found.read_text(encoding="utf-8"))
        return lines
    why = f"ended after {PROBE_SECONDS} s" if status is None else f"status {status}: {_last_lines(log)[-500:]}"
    return [probing.line(name, "did not end", False, None, why)]


def _smoke(planned: Plan, file: Path) -> tuple[dict[str, Any], str]:
    command = ["bash", str(planned.recipe_folder / "run.sh"), "--platform", planned.platform_id]
    with open(file, "wb") as output:
        run = subprocess.Popen([*command, "--output", str(planned.run)], stdout=output, stderr=subprocess.STDOUT)
        status = _ended(run, SMOKE_SECONDS)
    log = _without_places(file.read_text(encoding="utf-8", errors="replace"), planned.run)
    report = planned.run / "report.json"
    if status is None:
        return {"finished": False, "problem": f"ended after {SMOKE_SECONDS} s"}, log
    if status or not report.is_file():
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


def _ended(running: subprocess.Popen[bytes], seconds: int) -> int | None:
    """The exit status; None when it was ended because it took longer than `seconds`."""
    try:
        return running.wait(seconds)
    except subprocess.TimeoutExpired:
        child.end(running)
        return None
    except BaseException:
        child.end(running)
        raise


def _last_lines(log: Path) -> str:
    return " / ".join(log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:])


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
        detail = each["detail"]
        if peak and each["probe"] == "matmul" and each["name"] == "bfloat16":
            detail += (
                f"; {each['value'] / peak.value:.0%} of {peak.value:g} ({'measured' if peak.measured else 'claimed'})"
            )
        rows.append([each["probe"], each["name"], "right" if each["ok"] else "WRONG", _value(each), detail])
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


def _value(line: Line) -> str:
    return "" if line["value"] is None else f"{line['value']:.3g}"


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
