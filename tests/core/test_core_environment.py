"""Environments: the right interpreter, made once and whole, and a vendor's packages left alone. No network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from core_support import ROOT, wrapper

from common import environment
from common.environment import EnvironmentFailure, Spec

REAL = sys.executable
HERE = (sys.version_info[0], sys.version_info[1])
DEBIAN = Path("/usr/bin/python3")


def stub(folder: Path, name: str, says: str = "", status: int = 0) -> Path:
    """An interpreter by that name which answers every question with `says`."""
    return wrapper(folder / name, f"echo '{says}'; exit {status}")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH of stubs alone; the interpreter of the tests has gone, too."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "gone"))
    (folder / "sh").symlink_to("/bin/sh")
    return folder


def spec_of(file: Path, text: str = "", **options: object) -> Spec:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return Spec(file, *options.pop("between", ((3, 10), (3, 13))), **options)  # type: ignore[misc,arg-type]


def chosen(tmp_path: Path, prefer: tuple[int, int] | None = None) -> str:
    return Path(environment.choose(spec_of(tmp_path / "r.txt", prefer=prefer))).name


def test_the_preferred_version_wins_else_the_newest_in_range(path: Path, tmp_path: Path) -> None:
    for name, version in (("python3.10", "3.10"), ("python3.11", "3.11"), ("python3.12", "3.12"), ("python3", "3.14")):
        stub(path, name, version)
    assert chosen(tmp_path, (3, 11)) == "python3.11"
    assert chosen(tmp_path, (3, 13)) == "python3.12"
    assert chosen(tmp_path) == "python3.12"


def test_only_what_runs_counts(path: Path, tmp_path: Path) -> None:
    stub(path, "python3.13", "pyenv: python3.13: command not found", 127)
    stub(path, "python3.12", "3.12", 1)
    stub(path, "python3.11", "Welcome! 3.11")
    (path / "python3.10").write_text("#!/nowhere/at/all\n")
    (path / "python3.10").chmod(0o755)
    stub(path, "python", "3.10")
    assert chosen(tmp_path, (3, 12)) == "python"


def test_none_that_fits_names_the_range_and_what_was_found(path: Path, tmp_path: Path) -> None:
    stub(path, "python3", "3.9")
    stub(path, "python3.11", "pyenv: python3.11: command not found", 127)
    with pytest.raises(EnvironmentFailure) as caught:
        chosen(tmp_path)
    for text in ("between 3.10 and 3.13", f"3.9 ({path}/python3)", "python3.11: pyenv: python3.11: command not found"):
        assert text in str(caught.value)


def test_no_python_at_all(path: Path, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailure, match="none"):
        chosen(tmp_path)


def test_requirement_lines(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "base.txt").write_text("-r more.txt\na==1  # why\n")
    (tmp_path / "sub" / "more.txt").write_text("b==2 ; python_version < '4'\n")
    for including in ("-r sub/base.txt", "--requirement sub/base.txt", "-rsub/base.txt", "--requirement=sub/base.txt"):
        (tmp_path / "r.txt").write_text(f"# all\n{including}\n\nc @ https://x/y#egg=c\nd==4 \\\n    --hash=sha256:0\n")
        lines = environment.requirement_lines(tmp_path / "r.txt")
        assert lines[:3] == ["b==2 ; python_version < '4'", "a==1", "c @ https://x/y#egg=c"]
        assert lines[3].split() == ["d==4", "--hash=sha256:0"]


def test_what_an_environment_is_known_by(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("b==2\n")
    one = spec_of(tmp_path / "1.txt", "a==1  # first\n-r b.txt\n")
    assert one.digest() == spec_of(tmp_path / "2.txt", "# other words\n-r b.txt\n\na==1\n").digest()
    others = [
        spec_of(tmp_path / "3.txt", "a==1\nb==3\n"),
        spec_of(tmp_path / "4.txt", "a==1\nb==2\n", between=((3, 11), (3, 13))),
        spec_of(tmp_path / "5.txt", "a==1\nb==2\n", prefer=(3, 11)),
        spec_of(tmp_path / "6.txt", "a==1\nb==2\n", system_packages=True),
        spec_of(tmp_path / "7.txt", "a==1\nb==2\n", vendor=("a",)),
        spec_of(tmp_path / "8.txt", "a==1\nb==2\n", indexes=("https://x",)),
    ]
    assert len({one.digest(), *(each.digest() for each in others)}) == 1 + len(others)


def test_where_environments_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for value, home in (("", ROOT / ".envs"), ("here", tmp_path / "here"), ("/x", Path("/x"))):
        monkeypatch.setenv("LLAMA3_RECIPES_ENVS", value)
        assert environment.home() == home


# From here on with real virtual environments and wheels that the test makes.


def wheel(folder: Path, name: str, version: str = "1.0", requires: str = "") -> None:
    folder.mkdir(exist_ok=True)
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
        file.writestr(f"{name}.py", f"version = {version!r}\n")
        file.writestr(f"{info}/METADATA", metadata + (f"Requires-Dist: {requires}\n" if requires else ""))
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/RECORD", "")


# As Debian ships it: venv cannot install pip, so this one's own pip does, from outside. In a tenth of the time.
WITHOUT_ENSUREPIP = 'case "$*" in *--without-pip*) ;; *"-m venv"*) exit 1 ;; esac; exec "{python}" "$@"'


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels is the only place to install from; environments live in a path of any kind."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", (tmp_path / "wheels").as_uri())
    monkeypatch.setenv("LLAMA3_RECIPES_ENVS", str(tmp_path / "environments 环境"))
    wrapper(tmp_path / "bin" / "python3", WITHOUT_ENSUREPIP.format(python=sys.executable))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python3"))
    wheel(tmp_path / "wheels", "alpha")
    wheel(tmp_path / "wheels", "alpha", "2.0")
    return tmp_path


def ask(python: Path, code: str) -> str:
    done = subprocess.run([str(python), "-I", "-c", code], capture_output=True, text=True)
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


VERSION = "import alpha; print(alpha.version)"


def here(file: Path, text: str, **options: object) -> Spec:
    return spec_of(file, text, between=(HERE, HERE), **options)


def test_an_environment_is_made_once_and_again_when_it_is_not_whole(
    offline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = here(offline / "r.txt", "alpha==1.0\n")
    python = environment.ensure(spec, say=["making"])
    assert ask(python, VERSION) == "1.0"
    assert "No module named 'pytest'" in ask(python, "import pytest")  # nothing of the interpreter's own
    assert capsys.readouterr().err == "making\n"
    before = python.lstat().st_ctime_ns

    assert environment.ensure(spec, say=["making"]) == python
    assert (capsys.readouterr().err, python.lstat().st_ctime_ns) == ("", before)

    (spec.folder() / environment.COMPLETE).unlink()  # killed half-way
    (spec.folder() / "stale").touch()
    environment.ensure(spec, say=["making"])
    assert capsys.readouterr().err == "making\n"
    assert not (spec.folder() / "stale").exists()

    (offline / "r.txt").write_text("alpha==2.0\n")
    other = environment.ensure(spec)
    assert other != python and ask(other, VERSION) == "2.0"


def test_an_environment_by_name_is_made_again_when_the_pins_change(offline: Path) -> None:
    spec = here(offline / "r.txt", "alpha==1.0\n", name="tools")
    python = environment.ensure(spec)
    (offline / "r.txt").write_text("alpha==2.0\n")
    assert environment.ensure(spec) == python
    assert ask(python, VERSION) == "2.0"


def test_what_cannot_be_installed_is_said_and_does_not_count(offline: Path) -> None:
    spec = here(offline / "r.txt", "nowhere==1.0\n")
    with pytest.raises(EnvironmentFailure, match=r"(?s)could not install .*r\.txt.*nowhere==1\.0"):
        environment.ensure(spec)
    assert not spec.complete()


MAKE = """
import sys
from pathlib import Path
from common import environment
here = sys.version_info[:2]
print(environment.ensure(environment.Spec(Path(sys.argv[1]), here, here), say=["making"]))
"""


def test_two_processes_at_once_make_it_once(offline: Path) -> None:
    (offline / "r.txt").write_text("alpha==1.0\n")
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [REAL, "-c", MAKE, str(offline / "r.txt")]
    both = [subprocess.Popen(words, stdout=-1, stderr=-1, text=True, env=variables) for _ in range(2)]
    said = [child.communicate() for child in both]
    assert said[0][0] == said[1][0] != ""
    assert sorted(error for _, error in said) == ["", "making\n"]


def test_a_package_whose_own_pins_are_wrong_is_installed_without_them(offline: Path) -> None:
    wheel(offline / "wheels", "gamma", requires="alpha==1.0")
    (offline / "gamma.txt").write_text("--no-deps gamma==1.0  # asks for an old alpha\n")
    spec = here(offline / "r.txt", "-r gamma.txt\nalpha==2.0\n")
    python = environment.ensure(spec)
    ask = [str(python), "-c", "import alpha, gamma; print(alpha.version, gamma.version)"]
    assert subprocess.run(ask, capture_output=True, text=True, check=True).stdout == "2.0 1.0\n"
    assert spec.digest() != here(offline / "s.txt", "gamma==1.0\nalpha==2.0\n").digest()


ALPHA = environment.Source("alpha", "git+https://nowhere.invalid/alpha@1.0", "ALPHA_SOURCE")
SETUP = "from setuptools import setup; setup(name='alpha', version='1.0', py_modules=['alpha'])\n"


def test_a_source_is_taken_from_where_its_variable_says(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = here(offline / "r.txt", "", sources=(ALPHA,))
    from_its_repository = spec.digest()
    wheel(offline / "given", "alpha", "1.5")
    monkeypatch.setenv("ALPHA_SOURCE", str(offline / "given" / "alpha-1.5-py3-none-any.whl"))
    python = environment.ensure(spec)
    assert ask(python, VERSION) == "1.5"
    wheel(offline / "given", "alpha", "1.5", requires="nothing")
    assert len({from_its_repository, python.parents[1].name, spec.digest()}) == 3, (
        "another content, another environment"
    )


def test_a_checkout_is_known_by_what_is_written_and_not_by_what_is_built(
    offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = offline / "checkout"
    monkeypatch.setenv("ALPHA_SOURCE", str(checkout))
    (checkout / "build").mkdir(parents=True)
    (checkout / "setup.py").write_text(SETUP)
    (checkout / "alpha.py").write_text("version = 'mine'\n")
    before = ALPHA.content()
    (checkout / "build" / "alpha.py").write_text("version = 'built'\n")
    assert ALPHA.content() == before
    (checkout / "alpha.py").write_text("version = 'changed'\n")
    assert ALPHA.content() != before
    with ALPHA.place() as place:
        assert {path.name for path in Path(place).iterdir()} == {"setup.py", "alpha.py"}
        assert Path(place) != checkout, "building would write into it"


@pytest.mark.parametrize("git", ["missing", "no answer"])
def test_a_source_that_cannot_be_had_is_said_before_anything_is_made(
    offline: Path, monkeypatch: pytest.MonkeyPatch, git: str
) -> None:
    if git == "no answer":
        wrapper(offline / "bin" / "git", "echo 'fatal: unable to access' >&2; exit 128")
    spec = here(offline / "r.txt", "alpha==1.0\n", sources=(ALPHA,))
    with pytest.raises(EnvironmentFailure, match=r"(?s)repository cannot be reached.*ALPHA_SOURCE=PATH"):
        environment.ensure(spec)
    assert not spec.folder().exists()
    monkeypatch.setenv("ALPHA_SOURCE", str(offline / "gone.whl"))
    with pytest.raises(EnvironmentFailure, match=r"(?s)ALPHA_SOURCE names what is not there.*gone\.whl"):
        environment.ensure(spec)


@pytest.fixture
def vendors(offline: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Python that a vendor brought, with a torch of its own; it is the one on PATH."""
    wheel(offline / "wheels", "torch", "2.9")
    wheel(offline / "vendor", "torch", "1.7+vendor")
    wheel(offline / "wheels", "beta", requires="torch>=2.9")
    base = offline / "vendor python"
    subprocess.run([REAL, "-m", "venv", "--without-pip", str(base)], check=True)
    (packages,) = base.glob("lib/python3.*/site-packages")
    with zipfile.ZipFile(next((offline / "vendor").glob("*.whl"))) as file:
        file.extractall(packages)
    monkeypatch.setenv("PATH", f"{base / 'bin'}")
    return base


def test_a_vendors_distribution_is_used_and_never_replaced(vendors: Path, offline: Path) -> None:
    spec = here(offline / "r.txt", "Torch==2.9\nalpha==1.0\nbeta==1.0\n", system_packages=True, vendor=("torch",))
    assert spec.pins() == ["alpha==1.0", "beta==1.0"]
    python = environment.ensure(spec)
    assert ask(python, "import torch, alpha, beta; print(torch.version)") == "1.7+vendor"
    assert not list(spec.folder().glob("lib/python3.*/site-packages/torch*"))
    assert ask(vendors / "bin" / "python", "import alpha") == "ModuleNotFoundError: No module named 'alpha'"


def test_without_the_vendors_distribution_it_says_so_at_once(offline: Path) -> None:
    spec = here(offline / "r.txt", "not_here==2.9\n", system_packages=True, vendor=("not-here",))
    with pytest.raises(EnvironmentFailure, match="lack what the vendor brings") as caught:
        environment.ensure(spec)
    assert "no not_here" in str(caught.value)
    assert not spec.complete()


@pytest.mark.skipif(not DEBIAN.exists(), reason="this machine has no Debian Python")
@pytest.mark.parametrize("system_packages", [False, True])
def test_debians_python_without_ensurepip(
    offline: Path, monkeypatch: pytest.MonkeyPatch, system_packages: bool
) -> None:
    seen = subprocess.run([str(DEBIAN), "-c", environment.PROBE], capture_output=True, text=True).stdout.strip()
    if subprocess.run([str(DEBIAN), "-c", "import pip"], capture_output=True).returncode:
        pytest.skip("this machine's Debian Python has no pip")
    version = environment.parse_version(seen)
    (offline / "bin" / "python3").unlink()
    (offline / "bin" / "python3").symlink_to(DEBIAN)
    monkeypatch.setattr(sys, "executable", str(DEBIAN))
    spec = spec_of(offline / "r.txt", "alpha==1.0\n", between=(version, version), system_packages=system_packages)
    python = environment.ensure(spec)
    assert ask(python, VERSION) == "1.0"
    assert json.loads((spec.folder() / environment.COMPLETE).read_text())["python"] == seen


# tools/light.sh, in a copy of the project whose light environment needs only what the test brings.


@pytest.fixture
def project(offline: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy = offline / "a project 项目"
    (copy / "common").mkdir(parents=True)
    (copy / "tools").mkdir()
    for name in ("common/__init__.py", "common/environment.py", "common/environment_source.py", "tools/light.sh"):
        shutil.copy(ROOT / name, copy / name)
    (copy / "requirements.txt").write_text("alpha==1.0\n")
    (copy / "run.sh").write_text(
        'set -euo pipefail\nsource "$(dirname -- "$0")/tools/light.sh"\necho "$light_python"\n'
    )
    monkeypatch.delenv("LLAMA3_RECIPES_ENVS")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    for name in ("dirname", "cmp", "bash"):
        (offline / "bin" / name).symlink_to(str(shutil.which(name, path=os.defpath)))
    return copy


def light(project: Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    script = os.path.relpath(project / "run.sh", cwd)
    return subprocess.run(
        ["bash", script], cwd=cwd, capture_output=True, text=True, env={**os.environ, **variables}
    )  # fmt: skip


def test_light_sh_from_any_directory_and_again(project: Path, offline: Path) -> None:
    stub(offline / "bin", "python3.12", "pyenv: python3.12: command not found", 127)
    for cwd in (project, project / "tools", offline):
        done = light(project, cwd)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{project}/.envs/tools/bin/python\n"
        assert bool(done.stderr) == (cwd == project)  # made the first time, and then no more
    assert ask(project / ".envs/tools/bin/python", VERSION) == "1.0"

    # A wrong CDPATH, and a relative folder for environments that are there
    assert light(project, offline, CDPATH=str(project.parent)).stdout == f"{project}/.envs/tools/bin/python\n"
    assert light(project, project, LLAMA3_RECIPES_ENVS=".envs").stdout == f"{project}/.envs/tools/bin/python\n"

    # Its interpreter is uninstalled
    for name in ("python", "python3", f"python3.{HERE[1]}"):
        (project / ".envs/tools/bin" / name).unlink()
    assert light(project, offline).returncode == 0
    assert ask(project / ".envs/tools/bin/python", VERSION) == "1.0"


def test_light_sh_without_python(project: Path, offline: Path) -> None:
    (offline / "bin" / "python3").unlink()
    done = light(project, project)
    assert (done.returncode, done.stderr) == (2, "error: no Python of version 3.10 or newer was found on PATH\n")


def test_light_sh_where_another_package_would_be_taken_for_ours(project: Path, offline: Path) -> None:
    (offline / "other" / "common").mkdir(parents=True)
    (offline / "other" / "common" / "__init__.py").touch()
    done = light(project, offline / "other")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {offline}/other holds a Python package named common")
    assert not (project / ".envs").exists()
