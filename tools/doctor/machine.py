"""What the machine has: devices, drivers, memory, disk, ports, and the versions in the recipe's environment."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from packaging.version import InvalidVersion, Version

from common import environment, hardware, platform
from common.environment import Spec
from common.launchers import Cluster
from common.plan import expand
from common.platform import Check
from common.recipe import Memory, Preset, Versions
from tools.doctor import versions
from tools.doctor.line import Line, at_least, passed

MEMINFO = Path("/proc/meminfo")
SECONDS = 30  # of one command of a platform's checks
ASK = "import json, importlib.metadata as m; print(json.dumps({each.name: each.version for each in m.distributions()}))"
GIB = 2**30


def devices(identifier: str, wanted: int) -> Iterator[Line]:
    """Whether the machine has the platform's devices. A platform without `detect` has as many as processes."""
    here = hardware.devices(identifier)
    if here < 0:
        cores = os.cpu_count() or 1
        to_do = f"the processes share the cores and are slow; --nproc-per-node {cores} takes fewer"
        text = f"{wanted} process{'es' if wanted > 1 else ''} on {cores} core{'s' if cores > 1 else ''}"
        state = Line("devices", "warn", text, to_do)
        yield state if wanted > cores else passed("devices", text)
        return
    to_do = "--nproc-per-node takes fewer; the driver's own tool shows whether it sees the devices"
    yield at_least("devices", here, wanted, f"of {identifier}", to_do)


def capabilities(identifier: str, preset: Preset) -> Iterator[Line]:
    lacking = [name for name in preset.requires if name not in platform.read(identifier).capabilities]
    if lacking:
        yield Line("capabilities", "fail", f"{identifier} has no {', '.join(lacking)}", "choose another preset")
    elif preset.requires:
        yield passed("capabilities", ", ".join(preset.requires))


def drivers(identifier: str, table: Versions | None, spec: Spec) -> Iterator[Line]:
    """The platform's own checks and setup scripts; versions are held to the recipe's `table`."""
    for script in platform.read(identifier).setup_scripts:
        file = expand(script)
        if Path(file).is_file():
            yield passed("setup script", file)
        else:
            yield Line(
                "setup script", "fail", f"{file} is not there", "install the vendor's software, or set its place"
            )
    checks = platform.read(identifier).checks
    if table is None or not checks:
        yield from map(driver, checks)
        return
    known = versions.together(table, spec)
    for check in checks:
        line = driver(check)
        yield known.line(line.name, line.found, check.hint) if line.state == "pass" else known.absent(line)


def driver(check: Check) -> Line:
    """One check of a platform: run its command, find its pattern, compare the value."""
    command = [expand(word) for word in check.command]
    shown = " ".join(command)
    if shutil.which(command[0]) is None:
        return Line(check.name, "fail", f"{command[0]} is not on PATH", check.hint)
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, errors="replace")
    except (OSError, subprocess.TimeoutExpired) as error:
        return Line(check.name, "fail", f"{shown}: {error}", check.hint)
    match = re.search(check.pattern, ran.stdout + ran.stderr, re.MULTILINE)
    if ran.returncode or match is None:
        said = (ran.stderr or ran.stdout).strip().splitlines() or ["nothing"]
        return Line(check.name, "fail", f"{shown}: status {ran.returncode}, {said[-1][:120]}", check.hint)
    value = match[1] if match.groups() else match[0]
    try:
        if check.min is not None and Version(value) < Version(check.min):
            return Line(check.name, "fail", f"{value}, must be at least {check.min}", check.hint)
        if check.max is not None and Version(value) > Version(check.max):
            return Line(check.name, "fail", f"{value}, must be at most {check.max}", check.hint)
    except InvalidVersion as error:
        return Line(check.name, "warn", f"cannot be compared: {error}", check.hint)
    return passed(check.name, value)


def memory(identifier: str, needed: Memory | None) -> Iterator[Line]:
    """A device's memory and the host's against what the preset states; a claim that is not met only warns."""
    if needed is None:
        yield Line("memory", "warn", "the preset states no need", "python -m tools plan RECIPE computes one")
        return
    of_device = platform.read(identifier).memory_gib
    to_do = "python -m tools plan RECIPE --preset PRESET names settings that fit"
    if of_device is not None:
        yield at_least("memory of a device", of_device, needed.device_gib, "GiB", to_do, exact=needed.measured)
    if (here := host_gib()) is None:
        yield Line("host memory", "warn", "cannot be read on this system", f"{needed.host_gib:g} GiB are needed")
    else:
        what = "close other programs, or choose a smaller preset"
        yield at_least("host memory, available", here, needed.host_gib, "GiB", what, exact=needed.measured)


def host_gib() -> float | None:
    """Memory that new programs can take, GiB: the kernel's MemAvailable, or less where a container's limit is."""
    try:
        match = re.search(r"^MemAvailable:\s+(\d+) kB", MEMINFO.read_text(), re.MULTILINE)
    except OSError:
        return None
    if match is None:
        return None
    available = int(match[1]) / 2**20
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    try:
        return min(available, (int(limit.read_text()) - int(used.read_text())) / GIB)
    except (OSError, ValueError):  # no container, or "max"
        return available


def disk(run: Path, needed_gib: float | None) -> Iterator[Line]:
    """Room where the run will be, and whether it can be written."""
    folder = next(path for path in (run, *run.parents) if path.is_dir())
    if not os.access(folder, os.W_OK):
        yield Line("disk", "fail", f"{folder} cannot be written", "give another --output")
        return
    free = shutil.disk_usage(folder).free / GIB
    to_do = f"free some space on the file system of {folder}, or give another --output"
    if needed_gib is None:
        yield passed("disk", f"{free:,.1f} GiB free")
    else:
        yield at_least("disk, free", free, needed_gib, "GiB", to_do, exact=False)


def port(cluster: Cluster) -> Iterator[Line]:
    """Whether node 0's port is free, where the nodes meet at one; a single node takes any that is free."""
    if cluster.nnodes == 1:
        return
    if cluster.node_rank:
        try:
            socket.getaddrinfo(cluster.master_addr, cluster.master_port)
            yield passed("node 0", f"{cluster.master_addr} is known")
        except OSError as error:
            yield Line("node 0", "fail", f"{cluster.master_addr}: {error}", "give --master-addr as this node knows it")
        return
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("", cluster.master_port))
            yield passed("port", f"{cluster.master_port} is free")
        except OSError as error:
            yield Line("port", "fail", f"{cluster.master_port}: {error.strerror}", "give another --master-port")


def interpreter(spec: Spec) -> Iterator[Line]:
    """Whether the recipe's environment is there with its pins, or can be made."""
    if not spec.complete():
        try:
            python = environment.choose(spec)
        except environment.EnvironmentFailure as error:
            yield Line("Python", "fail", *_split(str(error)))
        else:
            yield passed("Python", python)
            yield Line("versions", "warn", "the recipe's environment is not made yet", "run.sh makes it, once")
            yield from vendors(spec, distributions(python) or {})
        yield from sources(spec)
        return
    installed = distributions(str(spec.python()))
    if installed is None:
        yield Line("versions", "fail", f"{spec.python()} does not run", f"remove {spec.folder()}: run.sh makes it anew")
        return
    if wrong := list(differing(spec.pins(), installed)):
        yield Line("versions", "fail", "; ".join(wrong), f"remove {spec.folder()}: run.sh makes it anew")
    else:
        yield passed("versions", f"{len(spec.pins())} pins, as in {spec.requirements.name}")
    yield from vendors(spec, installed)


def distributions(python: str) -> dict[str, str] | None:
    """The version of each distribution that `python` sees; None where it does not run."""
    ran = subprocess.run([python, "-c", ASK], capture_output=True, text=True)
    if ran.returncode:
        return None
    return {environment.canonical(name): version for name, version in json.loads(ran.stdout).items()}


def vendors(spec: Spec, installed: dict[str, str]) -> Iterator[Line]:
    """Which of the vendor's distributions are there: those that the pins leave to the vendor must be."""
    here = {name: installed.get(environment.canonical(name)) for name in spec.vendor}
    found = "; ".join(f"{name} {version}" if version else f"no {name}" for name, version in here.items())
    needed = {environment.canonical(name) for name in spec.brought()}
    if any(version is None and environment.canonical(name) in needed for name, version in here.items()):
        hint = "put the Python with the vendor's packages first on PATH, and remove the environment that was made"
        yield Line("vendor's packages", "fail", found, hint)
    elif spec.vendor:
        yield passed("vendor's packages", found)


def sources(spec: Spec) -> Iterator[Line]:
    """Whether what is on no package index can be had: from its repository, or from where its variable says."""
    for source in spec.sources:
        try:
            source.need()
        except environment.EnvironmentFailure as error:
            yield Line(source.name, "fail", *_split(str(error)))
        else:
            yield passed(source.name, str(source.given() or source.url))


def differing(pins: list[str], installed: dict[str, str]) -> Iterator[str]:
    """The pinned distributions that are missing or of another version here."""
    for requirement in versions.requirements(pins):
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        version = installed.get(environment.canonical(requirement.name))
        if version is None:
            yield f"no {requirement.name}"
        elif not requirement.specifier.contains(version, prereleases=True):
            yield f"{requirement.name} {version}, pinned {requirement.specifier}"


def _split(message: str) -> tuple[str, str]:
    what, _, to_do = message.partition("to do:")
    return "\n".join(line.strip() for line in what.strip().splitlines()), to_do.strip()
