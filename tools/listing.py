"""What there is: recipes with their presets and last results, and platforms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from common import environment, platform, recipe
from common.recipe import Recipe
from tools.generated.tables import batch, command, devices

PIPED_WIDTH = 160  # columns, where the output is no terminal and has no width of its own


def recipes() -> list[dict[str, Any]]:
    """Every recipe as plain data. Raises UserError for a recipe.yaml with a mistake."""
    return [_recipe(folder, recipe.read(folder)[0]) for folder in recipe.folders()]


def _recipe(folder: Path, read: Recipe) -> dict[str, Any]:
    return {
        "name": folder.name,
        "summary": read.summary,
        "framework": read.framework,
        "maintainers": read.maintainers,
        "platforms": {name: entry.tier for name, entry in read.platforms.items()},
        "presets": {
            name: {
                "summary": preset.summary,
                "command": command(folder, read, name),
                "platforms": preset.platforms,
                "requires": preset.requires,
                "devices": devices(read, preset),
                "batch": batch(read, preset),
                "memory": preset.memory.model_dump() if preset.memory else None,
                "last_result": last_result(environment.ROOT / "runs" / folder.name / name),
            }
            for name, preset in read.presets.items()
        },
    }


def last_result(run: Path) -> dict[str, Any] | None:
    """What report.json of a run directory says, in short; None where no run has been reported.

    A report that cannot be read is no reason to list nothing: {"problem": ...} says so.
    """
    file = run / "report.json"
    if not file.is_file():
        return None
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
        training = report["training"] or {}
        return {
            "finished": report["finished"],
            "seconds": report["seconds"],
            "platform": report["platform"],
            "first_loss": training.get("first_loss"),
            "last_loss": training.get("last_loss"),
            "evaluation": [
                {key: each[key] for key in ("task", "metric", "before", "after")} for each in report["evaluation"]
            ],
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {"problem": f"{file.relative_to(environment.ROOT)} cannot be read; repeat it with --only report"}


def platforms() -> list[dict[str, Any]]:
    """Every platform as plain data. Raises UserError for a file with a mistake."""
    found = []
    for identifier in platform.identifiers():
        read = platform.read(identifier)
        found.append(
            {
                "id": identifier,
                "summary": read.summary,
                "vendor": read.vendor,
                "memory_gib": read.memory_gib,
                "capabilities": read.capabilities,
                "frameworks": list(read.frameworks),
                "tier": read.tier,
                "recipes": [
                    folder.name for folder in recipe.folders() if identifier in recipe.read(folder)[0].platforms
                ],
            }
        )
    return found


def console() -> Console:
    made = Console(highlight=False)
    return made if made.is_terminal else Console(highlight=False, width=PIPED_WIDTH)


def show_recipes(found: list[dict[str, Any]], out: Console) -> None:
    for each in found:
        out.print(Text(each["name"], style="bold"), Text(each["summary"]))
        tiers = ", ".join(f"{name} ({tier})" for name, tier in each["platforms"].items())
        out.print(Text(f"  {each['framework']}; {tiers}", style="dim"))
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for title in ("  preset", "devices", "memory", "needs", "what", "last result"):
            table.add_column(title, overflow="fold", header_style="dim")
        for name, preset in each["presets"].items():
            needs = ", ".join(preset["requires"])
            table.add_row(
                f"  {name}",
                str(preset["devices"]),
                memory(preset["memory"]),
                needs,
                preset["summary"],
                result(preset["last_result"]),
            )
        out.print(table)
        out.print()


def memory(needed: dict[str, Any] | None) -> str:
    if needed is None:
        return ""
    claimed = "" if needed["measured"] else ", claimed"
    return f"{needed['device_gib']:g} GiB a device, {needed['host_gib']:g} host{claimed}"


def result(last: dict[str, Any] | None) -> str:
    if last is None:
        return ""
    if "problem" in last:
        return str(last["problem"])
    parts = [] if last["finished"] else ["unfinished"]
    if last["last_loss"] is not None:
        parts.append(f"loss {last['first_loss']:.4g} to {last['last_loss']:.4g}")
    for each in last["evaluation"]:
        before = "" if each["before"] is None else f"{each['before']:.4g} to "  # some are measured after training only
        parts.append(f"{each['task']} {each['metric']} {before}{each['after']:.4g}")
    return "; ".join([*parts, f"{last['seconds']:.0f} s on {last['platform']}"])


def show_platforms(found: list[dict[str, Any]], out: Console) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("platform", "vendor", "memory", "tier", "recipes", "what"):
        table.add_column(title, overflow="fold", header_style="dim")
    for each in found:
        size = "the host's" if each["memory_gib"] is None else f"{each['memory_gib']:g} GiB"
        table.add_row(each["id"], each["vendor"], size, each["tier"], ", ".join(each["recipes"]), each["summary"])
    out.print(table)
