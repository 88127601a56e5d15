"""Files that are complete or missing: whatever fails, the old content stays, and nothing is left beside it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from conflux.state import whole


class PowerCut(BaseException):
    """The power is gone: no handler of errors sees it."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    path = tmp_path / "some"
    whole.write(path, b"old", 0o600)
    return path


@pytest.mark.parametrize("moment", ["open", "fchmod", "fsync"])
def test_an_error_leaves_the_old_content_and_nothing_beside_it(place, monkeypatch, moment):
    def fails(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, moment, fails)
    with pytest.raises(OSError, match="No space left"):
        whole.write(place, b"new", 0o600)
    monkeypatch.undo()
    assert ([path.name for path in place.parent.iterdir()], place.read_bytes()) == (["some"], b"old")


@pytest.mark.parametrize("moment", range(3))
def test_a_power_cut_leaves_the_old_content_or_the_new_one(place, monkeypatch, moment):
    """At the flush of the file, at its renaming, at the flush of the directory."""
    left = moment
    fsync, replace = os.fsync, Path.replace

    def cut() -> None:
        nonlocal left
        if not left:
            raise PowerCut
        left -= 1

    def flushed(fd: int) -> None:
        cut()
        fsync(fd)

    def replaced(path: Path, target: Path) -> Path:
        cut()
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "replace", replaced)
    with pytest.raises(PowerCut):
        whole.write(place, b"new", 0o600)
    monkeypatch.undo()
    assert place.read_bytes() == (b"old" if moment < 2 else b"new")
    whole.write(place, b"newer", 0o600)  # over what was left beside it
    assert ([path.name for path in place.parent.iterdir()], place.read_bytes()) == (["some"], b"newer")


def test_the_file_is_flushed_before_it_is_renamed_and_its_directory_after(place, monkeypatch):
    did: list[str] = []
    replace = Path.replace
    monkeypatch.setattr(
        os, "fsync", lambda fd: did.append("directory" if os.path.isdir(f"/proc/self/fd/{fd}") else "file")
    )
    monkeypatch.setattr(Path, "replace", lambda path, target: did.append("rename") or replace(path, target))
    whole.write(place, b"new", 0o600)
    assert did == ["file", "rename", "directory"]


def test_what_an_earlier_crash_left_beside_it_gets_the_right_mode(place):
    beside = place.with_name(".some.new")
    beside.write_bytes(b"half, and longer than what comes")
    beside.chmod(0o644)
    whole.write(place, b"new", 0o600)
    assert (place.read_bytes(), place.stat().st_mode & 0o777) == (b"new", 0o600)


def test_a_link_beside_it_is_not_followed(place, tmp_path):
    target = tmp_path / "target"
    target.write_bytes(b"kept")
    place.with_name(".some.new").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        whole.write(place, b"new", 0o600)
    assert (target.read_bytes(), place.read_bytes()) == (b"kept", b"old")


def test_a_file_system_without_modes_takes_a_file_only_where_that_is_known(place, monkeypatch):
    def no_modes(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "fchmod", no_modes)
    whole.write(place, b"new", 0o644, has_modes=False)
    assert place.read_bytes() == b"new"
    with pytest.raises(PermissionError):
        whole.write(place, b"secret", 0o600)
    assert place.read_bytes() == b"new"
