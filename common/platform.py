"""platform.yaml: what a hardware kind is, as data."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field

from common.errors import UserError, did_you_mean
from common.schema import Strict, validate
from common.yaml_file import load

FOLDER = Path(__file__).parent / "platforms"


class Figure(Strict):
    """A number with where it comes from."""

    value: float
    measured: bool
    """False where nobody of this project measured it: then it is claimed by its source."""
    source: str


class Detect(Strict):
    """How a machine of this platform is recognised: each line of the command's output is one device."""

    command: list[str]
    pattern: str
    """A regular expression with a group `mib`: the device's memory in MiB."""
    min_mib: int
    max_mib: int


class Check(Strict):
    """One line of the doctor."""

    name: str
    command: list[str]
    pattern: str
    """A regular expression that the output must contain; its first group is the value."""
    min: str | None = None
    """The least version or number that the value may be."""
    max: str | None = None
    hint: str


class Wheels(Strict):
    """Where a distribution comes from when not from the package index."""

    index: str | None = None
    """A package index that is asked as well, where it can be reached."""
    vendor: bool = False
    """True where the vendor's system packages bring it: it is never installed or replaced."""


class Framework(Strict):
    """How one framework runs on this platform."""

    device: str
    """The framework's name of the device type: cuda, npu, cpu."""
    plugin: str | None = None
    """A module to import before the framework knows the device."""
    launchers: list[str]
    backend: str
    """The communication backend: nccl, hccl, gloo."""
    rank_table_variables: list[str] = []
    """Environment variables that may name a file with every device's address (HCCL's rank table)."""
    dtypes: list[str]
    wheels: dict[str, Wheels] = {}
    system_packages: bool = False
    """True where the environment builds on the system's Python packages (a vendor's builds)."""


class Schedulers(Strict):
    """What cluster schedulers call this platform's devices; a site may call them otherwise."""

    slurm_gres: str
    """The generic resource of Slurm: --gres=NAME:COUNT."""
    kubernetes_resource: str
    """The resource that the vendor's device plugin offers."""
    kubernetes_devices: int = Field(default=1, ge=1)
    """Devices that one of it is."""


class Platform(Strict):
    summary: str
    vendor: str
    maintainers: list[str]
    devices_per_card: int = Field(ge=1)
    memory_gib: float | None = None
    """Memory of one device. None: the host's memory."""
    capabilities: list[str]
    """What presets may require: bf16, nf4, flash_attention, fp64, ..."""
    frameworks: dict[str, Framework]
    detect: Detect | None = None
    """None for the platform that every machine is: its devices are processes."""
    visible_devices: str | None = None
    """The environment variable that limits the devices a process sees."""
    device_order: str | None = None
    """NAME=VALUE: the variable that makes the order of devices that of the bus."""
    setup_scripts: list[str] = []
    """Shell scripts to source before anything else; ${NAME:-default} is the variable NAME, or the default."""
    environment: dict[str, str] = {}
    peak_bf16_tflops: Figure | None = None
    """Dense bf16 peak of one device."""
    sdk: dict[str, str] = {}
    """Versions of the vendor's software that this was written against."""
    checks: list[Check] = []
    schedulers: Schedulers | None = None
    """None: nothing is asked for but processors and memory."""
    monitor: list[list[str]] = []
    """Commands that show what the devices are doing."""
    tier: Literal["declared", "smoked", "verified"] = "declared"


def identifiers() -> list[str]:
    """The ids of all platforms: the names of the files in common/platforms/."""
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


@cache
def read(identifier: str) -> Platform:
    """The platform of that id. Raises UserError for an unknown one and for a file with a mistake."""
    if identifier not in identifiers():
        hint = did_you_mean(identifier, identifiers())
        raise UserError(f"there is no platform {identifier!r}", expected=", ".join(identifiers()), hint=hint)
    return validate(Platform, load(FOLDER / f"{identifier}.yaml"))
