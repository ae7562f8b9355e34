"""Environments: the light one that plans, and one per set of pins that trains. Made once, reused.

Standard library only, as what it imports of the project: this runs in whatever Python there is.

    python -m common.environment light        prints the light environment's interpreter, making it first
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from common.environment_source import EnvironmentFailure, Source

__all__ = ["EnvironmentFailure", "Source"]

ROOT = Path(__file__).resolve().parent.parent
LIGHT_PYTHON = ((3, 10), (3, 13))
COMPLETE = "complete.json"
LIGHT_IMPORTS = ("pydantic", "typer", "rich", "datasets", "jinja2", "matplotlib", "filelock")
NO_DEPS = re.compile(r"--no-deps\s+(?=\w)")
"""Before a requirement: install it without its dependencies, because its own pins contradict what it works with."""
PROBE = "import sys; print('%d.%d' % sys.version_info[:2])"

Version = tuple[int, int]


def home() -> Path:
    """Where environments live: .envs in the project, or LLAMA3_RECIPES_ENVS."""
    return Path(os.environ.get("LLAMA3_RECIPES_ENVS") or ROOT / ".envs").absolute()


@dataclass(frozen=True)
class Spec:
    """What an environment is made of. Two specs with the same content share one environment."""

    requirements: Path
    minimum: Version
    maximum: Version
    prefer: Version | None = None
    system_packages: bool = False
    """Build on the interpreter's own packages, and install the pins without their dependencies."""
    vendor: tuple[str, ...] = ()
    """Distributions that the vendor brings: never installed."""
    indexes: tuple[str, ...] = ()
    """Package indexes to ask as well, where they can be reached."""
    name: str | None = None
    """The folder's name; by default a hash of the pins."""
    sources: tuple[Source, ...] = ()
    """Installed last, without their dependencies: the pins are complete."""

    def pins(self) -> list[str]:
        """The requirement lines, in order, without comments and without the vendor's distributions."""
        return [line for line in requirement_lines(self.requirements) if not self._is_vendors(line)]

    def brought(self) -> list[str]:
        """The distributions that the requirements name and the vendor brings."""
        return [distribution(line) for line in requirement_lines(self.requirements) if self._is_vendors(line)]

    def _is_vendors(self, line: str) -> bool:
        return canonical(distribution(line)) in {canonical(name) for name in self.vendor}

    def digest(self) -> str:
        # With the interpreters: the same pins for another Python are another environment
        interpreters = [self.minimum, self.maximum, self.prefer]
        options = [self.system_packages, sorted(self.vendor), sorted(self.indexes)]
        sources = [[source.name, source.content()] for source in self.sources]
        content = json.dumps([sorted(self.pins()), interpreters, *options, *sources])
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    def folder(self) -> Path:
        return home() / (self.name or self.digest())

    def python(self) -> Path:
        return self.folder() / "bin" / "python"

    def complete(self) -> bool:
        """Whether the environment is there, whole, and made of these pins."""
        try:
            state = json.loads((self.folder() / COMPLETE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return bool(state.get("digest") == self.digest()) and os.access(self.python(), os.X_OK)


@dataclass
class Search:
    """The outcome of looking for interpreters: those that ran, and what the others answered."""

    found: list[tuple[Version, str]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def light_spec() -> Spec:
    return Spec(ROOT / "requirements.txt", *LIGHT_PYTHON, prefer=None, name="tools")


def requirement_lines(file: Path) -> list[str]:
    """The lines of a requirements file and of those it includes with -r, without comments.

    Beside pip's own format a line may be `--no-deps REQUIREMENT`.
    """
    lines = []
    for raw in file.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        line = re.sub(r"(^|\s)#.*$", "", raw).strip()
        if included := re.match(r"(?:-r|--requirement)[\s=]*(.+)", line):
            lines += requirement_lines(file.parent / included[1])
        elif line:
            lines.append(line)
    return lines


def distribution(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", NO_DEPS.sub("", requirement))
    return match.group() if match else requirement


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def search(minimum: Version, maximum: Version) -> Search:
    """Run every Python that PATH has by name, and this one; a shim that answers with an error does not count."""
    names = [f"python3.{minor}" for minor in range(maximum[1], minimum[1] - 1, -1)] + ["python3", "python"]
    outcome = Search()
    for command in [*names, sys.executable]:
        path = shutil.which(command)
        if path is None:
            continue
        try:
            ran = subprocess.run([path, "-c", PROBE], capture_output=True, text=True, timeout=30)
        except (OSError, subprocess.TimeoutExpired) as error:
            outcome.failed.append(f"{command}: {error}")
            continue
        match = re.fullmatch(r"(\d+)\.(\d+)", ran.stdout.strip())
        if ran.returncode or not match:
            answer = (ran.stderr or ran.stdout).strip().splitlines() or [f"exit status {ran.returncode}"]
            outcome.failed.append(f"{command}: {answer[-1]}")
        else:
            outcome.found.append(((int(match[1]), int(match[2])), path))
    return outcome


def choose(spec: Spec) -> str:
    """The best interpreter for `spec`: the preferred version, else the newest in range.

    Raises EnvironmentFailure that names the range and what was found when none fits.
    """
    outcome = search(spec.minimum, spec.maximum)
    fitting = [(version, path) for version, path in outcome.found if spec.minimum <= version <= spec.maximum]
    for version, path in fitting:
        if version == spec.prefer:
            return path
    if fitting:
        return max(fitting, key=lambda item: item[0])[1]
    seen = [f"{dotted(version)} ({path})" for version, path in outcome.found] + outcome.failed
    raise EnvironmentFailure(
        f"no Python between {dotted(spec.minimum)} and {dotted(spec.maximum)} was found\n"
        f"  found:    {'; '.join(dict.fromkeys(seen)) or 'none'}\n"
        f"  to do:    install one of them and put it on PATH"
    )


def dotted(version: Version) -> str:
    return f"{version[0]}.{version[1]}"


def parse_version(text: str) -> Version:
    major, minor = text.split(".")
    return int(major), int(minor)


def ensure(spec: Spec, say: Sequence[str] = ()) -> Path:
    """The interpreter of the environment for `spec`; the environment is made when it is not there.

    `say` names on standard error what is being made. Two processes that ask at once make it once.
    Raises EnvironmentFailure.
    """
    if spec.complete():
        return spec.python()
    with locked(spec.folder()):
        if not spec.complete():
            for line in say:
                print(line, file=sys.stderr, flush=True)
            make(spec)
    return spec.python()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(folder.name + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def make(spec: Spec) -> None:
    """Make the environment from nothing. It counts as there only when COMPLETE is written, last."""
    folder = spec.folder()
    need_sources(spec)
    interpreter = choose(spec)
    (folder / COMPLETE).unlink(missing_ok=True)  # first: killed half-way, what is left does not count
    shutil.rmtree(folder, ignore_errors=True)
    pip = create(interpreter, folder, spec.system_packages)
    arguments = ["install", "--quiet", "--disable-pip-version-check"]
    for index in spec.indexes:
        if reachable(index):
            arguments += ["--extra-index-url", index]
    if spec.system_packages:
        arguments.append("--no-deps")  # the pins are complete, and what the vendor brings must stay
    alone = [line for line in spec.pins() if NO_DEPS.match(line)]
    pins = folder / "requirements.txt"
    pins.write_text("\n".join(line for line in spec.pins() if line not in alone) + "\n", encoding="utf-8")
    run([*pip, *arguments, "-r", str(pins)], f"pip could not install {spec.requirements}")
    if alone:
        wanted = [NO_DEPS.sub("", line) for line in alone]
        run([*pip, *arguments, "--no-deps", *wanted], f"pip could not install {' '.join(wanted)}")
    need_brought(spec, interpreter)
    for source in spec.sources:
        install(source, pip)
    shutil.copyfile(spec.requirements, folder / "source.txt")
    version = subprocess.run(
        [str(spec.python()), "-c", PROBE], capture_output=True, text=True, check=True
    ).stdout.strip()
    state = {"digest": spec.digest(), "requirements": str(spec.requirements), "python": version}
    (folder / COMPLETE).write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")


def need_sources(spec: Spec) -> None:
    """Raise EnvironmentFailure where the environment is not there and a source of it cannot be had."""
    if not spec.complete():
        for source in spec.sources:
            source.need()


def install(source: Source, pip: list[str]) -> None:
    with source.place() as place:
        run([*pip, "install", "--quiet", "--no-deps", place], f"pip could not install {source.name} from {place}")


def create(interpreter: str, folder: Path, system_packages: bool) -> list[str]:
    """A virtual environment, and the pip command that installs into it.

    Debian ships venv without ensurepip; its own pip then installs into the environment from outside.
    """
    options = ["--system-site-packages"] if system_packages else []
    inside = str(folder / "bin" / "python")
    made = subprocess.run([interpreter, "-m", "venv", *options, str(folder)], capture_output=True, text=True)
    if made.returncode == 0:
        if system_packages:
            add_packages_of(interpreter, folder)
        return [inside, "-m", "pip"]
    shutil.rmtree(folder, ignore_errors=True)
    hint = "install the python3-venv package, or pip for this interpreter"
    run([interpreter, "-m", "venv", "--without-pip", *options, str(folder)], f"{interpreter} has no venv; {hint}")
    if system_packages:
        add_packages_of(interpreter, folder)
    outside = [interpreter, "-m", "pip", "--python", inside]
    run([*outside, "--version"], f"{interpreter} has neither ensurepip nor a pip of version 22.3 or newer; {hint}")
    return outside


def add_packages_of(interpreter: str, folder: Path) -> None:
    """Where the vendor's packages are in a virtual environment: venv itself would build on that one's base."""
    ask = "import json, site, sys; print(json.dumps(sys.prefix != sys.base_prefix and site.getsitepackages()))"
    ran = subprocess.run([interpreter, "-c", ask], capture_output=True, text=True, check=True)
    lines = [f"import site; site.addsitedir({path!r})\n" for path in json.loads(ran.stdout) or []]
    for packages in folder.glob("lib/python3.*/site-packages"):
        (packages / "vendor.pth").write_text("".join(lines), encoding="utf-8")


def need_brought(spec: Spec, interpreter: str) -> None:
    """Raise EnvironmentFailure when the vendor's packages lack what the requirements leave to them."""
    ask = "from importlib.metadata import distributions; print(*(each.metadata['Name'] for each in distributions()))"
    ran = subprocess.run([str(spec.python()), "-c", ask], capture_output=True, text=True, check=True)
    here = {canonical(name) for name in ran.stdout.split()}
    if missing := [name for name in spec.brought() if canonical(name) not in here]:
        raise EnvironmentFailure(
            f"the packages of {interpreter} lack what the vendor brings\n"
            f"  found:    no {', no '.join(missing)}\n"
            f"  to do:    put the Python with the vendor's packages first on PATH"
        )


def reachable(index: str) -> bool:
    """Whether a package index answers. Offline, the ordinary index or a folder of wheels must do."""
    if os.environ.get("PIP_NO_INDEX"):
        return False
    try:
        with urllib.request.urlopen(index.rstrip("/") + "/", timeout=10):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except (OSError, ValueError):
        print(f"note: {index} cannot be reached; the configured package index is used alone", file=sys.stderr)
        return False


def run(command: list[str], problem: str) -> None:
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        lines = [line for line in (ran.stderr + ran.stdout).splitlines() if line.strip() and "WARNING" not in line]
        raise EnvironmentFailure(f"{problem}\n" + "\n".join("  " + line for line in lines[-8:]))


def enter_light() -> None:
    """Go on in the light environment: `python -m tools ...` works with any Python on the machine."""
    spec = light_spec()
    if Path(sys.prefix).resolve() == spec.folder().resolve():
        return
    if all(importlib.util.find_spec(name) for name in LIGHT_IMPORTS):
        return  # an environment of the person's own that has what is needed
    try:
        python = ensure(spec, say=["making the light environment (once, in seconds) ..."])
    except EnvironmentFailure as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    arguments = sys.orig_argv[1:]
    os.execv(python, [str(python), *arguments])


def main(arguments: list[str]) -> int:
    if arguments != ["light"]:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        print(ensure(light_spec(), say=["making the light environment (once, in seconds) ..."]))
    except EnvironmentFailure as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
