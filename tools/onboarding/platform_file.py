"""A new platform's file and its line in a recipe, made from those of a platform that is like it."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from common import platform, recipe
from common.errors import UserError
from common.files import write_text
from common.schema import validate
from common.yaml_file import load

NAME = re.compile(r"[a-z][a-z0-9_]*")
HEADER = """\
# {name}: made from {like}.yaml by `python -m tools onboard {name} --like {like}`.
# Put right, from the vendor's documents: summary, vendor, maintainers; memory_gib of one device as the framework
# sees it; capabilities (leave out what does not work); per framework the device's name, plugin, launchers, backend
# and dtypes; detect, visible_devices, setup_scripts and environment; peak_bf16_tflops with its source; checks.
# docs/platform_yaml.md says what each key is. The tier is raised by what `tools onboard` finds, not by hand.
"""


def add(name: str, like: str) -> list[Path]:
    """Write common/platforms/`name`.yaml from `like`'s, tier declared; [] where it is there already.

    Raises UserError for an impossible name and an unknown platform.
    """
    file = platform.FOLDER / f"{name}.yaml"
    if file.exists():
        platform.read(name)
        return []
    if not NAME.fullmatch(name):
        raise UserError("is no id of a platform", found=name, expected="small letters, digits and _, a letter first")
    model = platform.read(like)
    text = (platform.FOLDER / f"{like}.yaml").read_text(encoding="utf-8")
    text = re.sub(r"\A(?:#.*\n)+", "", text)
    text = re.sub(r"^tier: .*$", "tier: declared", text, flags=re.MULTILINE)
    text = re.sub(r"^summary: .*$", f"summary: {name}, like {like}", text, flags=re.MULTILINE)
    text = re.sub(r"\bmeasured: true\b", "measured: false", text)
    if model.tier == "declared" and "tier:" not in text:
        text += "tier: declared\n"
    write_text(file, HEADER.format(name=name, like=like) + text)
    validate(platform.Platform, load(file))
    return [file]


def declare(folder: Path, name: str, like: str) -> list[Path]:
    """Name the platform in a recipe, as `like` is named there, and in its smoke preset; [] where it is already.

    Raises UserError for a recipe that does not run on `like`.
    """
    file = folder / "recipe.yaml"
    read, document = recipe.read(folder)
    if name in read.platforms and name in read.presets["smoke"].platforms:
        return []
    if like not in read.platforms or like not in read.presets["smoke"].platforms:
        raise UserError(f"the recipe's smoke preset does not run on {like}", file=file, hint="choose another --recipe")
    entry = read.platforms[like].model_dump(mode="json", exclude_unset=True, exclude={"tier", "log"})
    flow = yaml.safe_dump({"tier": "declared", **entry}, default_flow_style=True, sort_keys=False, width=10**6)
    line = f"  {name}: {flow}"
    text = document.file.read_text(encoding="utf-8")
    if name not in read.platforms:
        text = re.sub(r"^platforms:\n", lambda found: found[0] + line, text, count=1, flags=re.MULTILINE)
    smoke = re.compile(
        rf"(^presets:\n(?:.*\n)*?  smoke:\n(?:    .*\n)*?    platforms: \[[^\]]*\b{like})\b", re.MULTILINE
    )
    text = smoke.sub(lambda found: f"{found[1]}, {name}", text, count=1)
    before = file.read_text(encoding="utf-8")
    write_text(file, text)
    try:
        now, _ = recipe.read(folder)
        done = name in now.platforms and name in now.presets["smoke"].platforms
    except UserError:
        done = False
    if not done:
        write_text(file, before)
        raise UserError(
            f"{name} could not be added to the recipe",
            file=file,
            hint=f"add it to platforms and to smoke: {line.strip()}",
        )
    return [file]
