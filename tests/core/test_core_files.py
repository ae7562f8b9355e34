"""Files appear whole or not at all, and their fingerprint follows their content."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import files
from common.errors import UserError


def names(folder: str | Path) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def test_a_directory_appears_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "new" / "target"
    with files.whole_directory(target) as folder:
        (folder / "a").write_text("a")
        assert not target.exists()
    assert (target / "a").read_text() == "a"
    assert names(target.parent) == ["target"]


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_directory_that_fails_leaves_nothing(tmp_path: Path, exists: bool, error: type[BaseException]) -> None:
    target = tmp_path / "target"
    if exists:
        target.mkdir()
    with pytest.raises(error), files.whole_directory(target) as folder:
        (folder / "a").write_text("a")
        raise error
    assert names(tmp_path) == (["target"] if exists else [])
    assert not exists or not names(target)


def test_what_a_killed_attempt_left_is_not_in_the_next(tmp_path: Path) -> None:
    (tmp_path / "target.partial").mkdir()
    (tmp_path / "target.partial" / "stale").touch()
    with files.whole_directory(tmp_path / "target"):
        pass
    assert names(tmp_path / "target") == []


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("full", "file"):
        with pytest.raises(UserError, match="the output exists"), files.whole_directory(tmp_path / name):
            raise AssertionError
    assert (tmp_path / "full" / "a").read_text() == (tmp_path / "file").read_text() == "mine"


def test_two_at_once_do_not_mix(tmp_path: Path) -> None:
    target = tmp_path / "target"
    with files.whole_directory(target) as folder:
        (folder / "a").write_text("first")
        with pytest.raises(UserError, match="another command is writing this output"), files.whole_directory(target):
            raise AssertionError
        assert names(folder) == ["a"]
    assert (target / "a").read_text() == "first" and names(tmp_path) == ["target"]


@pytest.mark.parametrize("name", [".", "../here", "link"])
def test_a_target_by_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    if name == "link":
        (tmp_path / "real").mkdir()
        (tmp_path / "here" / "link").symlink_to(tmp_path / "real")
    with files.whole_directory(Path(name)) as folder:
        (folder / "a").write_text("a")
    assert (tmp_path / ("real" if name == "link" else "here") / "a").read_text() == "a"
    assert not list(tmp_path.rglob("*.partial"))


def test_a_mount_point_is_refused_before_the_work_is_done() -> None:
    empty = [
        Path(words[1])
        for words in map(str.split, Path("/proc/mounts").read_text().splitlines())
        if os.access(words[1], os.R_OK) and Path(words[1]).is_dir() and not names(words[1])
    ]
    if not empty:
        pytest.skip("this machine has no empty mount point")
    with pytest.raises(UserError, match="mount point"), files.whole_directory(empty[0]):
        raise AssertionError


def test_text_is_replaced_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "file"
    files.write_text(path, "old 字\n")
    seen = []
    real = os.replace

    def replace(source: Path, target: Path) -> None:
        seen.append((Path(source).read_text(encoding="utf-8"), path.read_text(encoding="utf-8")))
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    files.write_text(path, "new")
    assert seen == [("new", "old 字\n")]
    assert path.read_text() == "new"
    assert names(path.parent) == ["file"]


def test_text_that_cannot_be_written_leaves_the_old(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        files.write_text(path, "new \udcff")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_remove(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "keep").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "keep")
    for name in ("a", "link", "not there"):
        files.remove(tmp_path / name)
    assert names(tmp_path) == ["keep"]


TREES = st.dictionaries(st.sampled_from(["a", "b", "ab", "s/a", "s/b"]), st.binary(max_size=4), max_size=4)


def write(folder: Path, content: dict[str, bytes]) -> Path:
    for name, value in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(value)
    return folder


@given(TREES, TREES)
def test_a_fingerprint_is_that_of_names_and_content(
    tmp_path_factory: pytest.TempPathFactory, one: dict[str, bytes], other: dict[str, bytes]
) -> None:
    first, second = (write(tmp_path_factory.mktemp("t"), content) for content in (one, other))
    assert (files.fingerprint(first) == files.fingerprint(second)) == (one == other)


def test_a_large_file_is_known_by_its_ends_and_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "HASH_WHOLE_UP_TO", 2 * 2**20)
    path = tmp_path / "large"
    content = bytearray(3 * 2**20)

    def fingerprint(seconds: int) -> str:
        path.write_bytes(content)
        os.utime(path, (seconds, seconds))
        return files.fingerprint(path)

    before = fingerprint(1)
    assert fingerprint(1) == before
    assert fingerprint(2) != before
    for place in (0, len(content) - 1):
        content[place] ^= 1
        assert fingerprint(1) != before
        content[place] ^= 1


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "a\udcff").write_text("x")
    assert files.fingerprint(tmp_path).startswith("sha256:")
