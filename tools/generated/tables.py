"""Tables and commands in Markdown, from recipes and platforms."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from common import golden
from common.platform import Platform
from common.recipe import Memory, Preset, Recipe

TIERS = ("verified", "smoked", "declared")


def table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table; a cell's line breaks and bars are made harmless."""
    titles = list(header)
    lines = [_row(titles), _row(["---"] * len(titles)), *(_row(row) for row in rows)]
    return "\n".join(lines)


def _row(cells: Iterable[object]) -> str:
    return "| " + " | ".join(" ".join(str(cell).split()).replace("|", "\\|") for cell in cells) + " |"


def code(text: str) -> str:
    return f"`{text}`"


def setting(recipe: Recipe, preset: Preset, section: str, key: str) -> Any:
    """A setting as the preset has it."""
    holder = getattr(preset, section)
    return getattr(holder if key in holder.model_fields_set else getattr(recipe, section), key)


def recipes(found: Iterable[tuple[Path, Recipe]]) -> str:
    """The project's recipes: what, in which framework, at which sizes, on what."""
    return table(
        ["Recipe", "What", "Framework", "Presets", "Platforms"],
        (
            [
                f"[{folder.name}](recipes/{folder.name}/README.md)",
                recipe.summary,
                recipe.framework,
                ", ".join(map(code, recipe.presets)),
                by_tier(recipe),
            ]
            for folder, recipe in found
        ),
    )


def by_tier(recipe: Recipe) -> str:
    """The recipe's platforms, those with the best proof first."""
    groups = []
    for tier in TIERS:
        names = [code(name) for name, entry in recipe.platforms.items() if entry.tier == tier]
        if names:
            groups.append(f"{tier}: {', '.join(names)}")
    return "; ".join(groups)


def platforms(found: Iterable[tuple[str, Platform]]) -> str:
    """The declared hardware kinds."""
    return table(
        ["Platform", "What", "Memory of a device", "Capabilities", "Frameworks", "Tier"],
        (
            [
                code(identifier),
                platform.summary,
                "the host's" if platform.memory_gib is None else f"{platform.memory_gib:g} GiB",
                ", ".join(platform.capabilities),
                ", ".join(platform.frameworks),
                platform.tier,
            ]
            for identifier, platform in found
        ),
    )


def presets(recipe: Recipe) -> str:
    """What each preset is and needs."""
    return table(
        [
            "Preset",
            "What",
            "Platforms",
            "Devices",
            "Rows of an optimizer step",
            "Memory of a device",
            "Host memory",
            "Figures from",
        ],
        (
            [
                code(name),
                preset.summary,
                ", ".join(map(code, preset.platforms)),
                devices(recipe, preset),
                batch(recipe, preset),
                *memory(preset.memory),
            ]
            for name, preset in recipe.presets.items()
        ),
    )


def devices(recipe: Recipe, preset: Preset) -> int:
    return setting(recipe, preset, "parallel", "processes") or 1


def batch(recipe: Recipe, preset: Preset) -> str:
    """The arithmetic of a global batch."""
    micro = setting(recipe, preset, "train", "micro_batch_size") or 1
    accumulation = setting(recipe, preset, "train", "gradient_accumulation_steps") or 1
    ways = ("tensor_parallel", "pipeline_parallel", "sequence_parallel")
    ranks = devices(recipe, preset) // math.prod(setting(recipe, preset, "parallel", way) or 1 for way in ways)
    length = setting(recipe, preset, "data", "max_length")
    tokens = f" of up to {length:,} tokens" if length else ""
    return f"{micro} × {accumulation} × {ranks} = {micro * accumulation * ranks}{tokens}"


def memory(needed: Memory | None) -> tuple[str, str, str]:
    """A device's memory, the host's, and where the figures come from."""
    if needed is None:
        return ("not known", "not known", "")
    how = "measured" if needed.measured else "not measured here"
    return (f"{needed.device_gib:g} GiB", f"{needed.host_gib:g} GiB", f"{how}: {needed.source}")


def command(folder: Path, recipe: Recipe, name: str) -> str:
    """The command that runs a preset; capitals stand for what the person gives."""
    preset = recipe.presets[name]
    words = ["bash", f"recipes/{folder.name}/run.sh"]
    if name != "smoke":
        words += ["--preset", name]
    if setting(recipe, preset, "model", "path") is None:
        words += ["--model", "DIR_OR_HUB_ID"]
    if setting(recipe, preset, "data", "train") is None:
        words += ["--data", "PATH_OR_HUB_ID"]
    return " ".join(words)


def commands(folder: Path, recipe: Recipe) -> str:
    """The command of every preset, each under what it does."""
    lines = [f"# {preset.summary}\n{command(folder, recipe, name)}" for name, preset in recipe.presets.items()]
    return "```bash\n" + "\n\n".join(lines) + "\n```"


def recipe_platforms(recipe: Recipe, known: dict[str, Platform]) -> str:
    """The recipe's platforms with tier, pins, patches and log."""
    return table(
        ["Platform", "What", "Tier", "Pins", "Patches", "Log"],
        (
            [
                code(name),
                known[name].summary if name in known else "",
                entry.tier,
                code(entry.requirements),
                ", ".join(map(code, entry.patches)) or "none",
                code(entry.log) if entry.log else "",
            ]
            for name, entry in recipe.platforms.items()
        ),
    )


def versions(recipe: Recipe) -> str:
    """What of a vendor's software goes with what of the framework, the pins first, and who says so."""
    if recipe.versions is None:
        return "Nothing is said of versions."
    names = list(recipe.versions.sets[0])
    rows = ([each.get(name, "") for name in names] for each in recipe.versions.sets)
    return f"{table(names, rows)}\n\nSource: {recipe.versions.source}."


def defects(recipe: Recipe) -> str:
    """What is wrong in the original, what happens here, and the test that holds it."""
    rows = ([defect.defect, defect.correction, code(defect.test)] for defect in recipe.reproduces.corrected)
    return table(["In the original", "Here", "Test"], rows)


def corrected(found: Iterable[tuple[Path, Recipe]]) -> str:
    """The defects of all originals, with the test that holds each correction; what a copy shares with others, once."""
    rows, told = [], set()
    for folder, recipe in sorted(found, key=lambda each: each[1].parent is not None):
        for each in recipe.reproduces.corrected:
            if recipe.parent is None or each.defect not in told:
                rows.append([folder.name, each.defect, each.correction, code(f"recipes/{folder.name}/{each.test}")])
            told.add(each.defect)
    return table(["Recipe", "In the original", "Here", "Test"], rows)


def golden_curves(folders: Iterable[Path]) -> str:
    """What each recipe's golden.json says of its losses beside the reference."""
    rows = []
    for folder in folders:
        file = folder / golden.FILE
        if not file.is_file():
            rows.append([folder.name, "not recorded yet", "", "", ""])
            continue
        made = json.loads(file.read_text(encoding="utf-8"))
        versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
        apart = [f"{made[key]:.1e}" for key in ("first_difference", "largest_difference")]
        rows.append([folder.name, {"full": "all weights", "lora": "LoRA"}[made["kind"]], *apart, versions])
    return table(["Recipe", "Curve", "Step 1, apart", "20 steps, at most", "Made with"], rows)


def results(recipe: Recipe) -> str:
    """Measured and published results, each with its source."""
    if not recipe.results:
        return "None yet."
    return table(
        ["What", "Metric", "Value", "Hardware", "Source"],
        (
            [each.what, each.metric, f"{each.value:g} {each.unit}", each.hardware, each.source]
            for each in recipe.results
        ),
    )
