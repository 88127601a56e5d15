"""`make install` from a clone: into a folder, and into a fresh Debian that the clone is mounted in."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from kit.debian import PLACE, Debian
from kit.tree import TREE


def install(*words: str, code: int = 0, **environment: str | Path) -> str:
    """Run packaging/install here; return what it said."""
    wheels = sorted(PLACE.glob("own-*/wheel/*-cp3*-linux_*.whl"))
    ours = [wheel for wheel in wheels if wheel.stem.endswith(os.uname().machine) and f"-{python()}-" in wheel.name]
    given = {**os.environ, "WHEEL": str(ours[-1]) if ours else "", **{k: str(v) for k, v in environment.items()}}
    done = subprocess.run(
        [TREE / "packaging" / "install", *words],
        env=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout
    return done.stdout


def python() -> str:
    """Return this Python's tag, as in a wheel's name."""
    done = subprocess.run(
        ["/usr/bin/python3", "-c", "import sys; print('cp3%d' % sys.version_info[1])"], capture_output=True, text=True
    )
    return done.stdout.strip()


def files(place: Path) -> set[str]:
    return {str(path.relative_to(place)) for path in place.rglob("*") if not path.is_dir() or path.is_symlink()}


def test_configuration_is_outside_the_prefix_and_never_overwritten(tmp_path: Path) -> None:
    install(DESTDIR=tmp_path)
    configuration = tmp_path / "etc/conflux/conflux.toml"
    assert configuration.exists()
    assert not (tmp_path / "usr/local/etc").exists()
    configuration.write_text('[node]\nname = "attic"\n')
    install(DESTDIR=tmp_path)
    assert configuration.read_text() == '[node]\nname = "attic"\n'


@pytest.mark.parametrize("prefix", ["/usr/local", "/opt/conflux"])
def test_folders_that_are_there_stay_what_they_are(tmp_path: Path, prefix: str) -> None:
    (tmp_path / "disk/program").mkdir(parents=True)
    (tmp_path / "disk/etc").mkdir(mode=0o750)
    for link, folder in ((prefix[1:], "program"), ("etc/conflux", "etc")):
        (tmp_path / link).parent.mkdir(mode=0o711)
        (tmp_path / link).symlink_to(Path("../disk") / folder)
    install(DESTDIR=tmp_path, PREFIX=prefix)
    assert (tmp_path / "disk/program/bin/conflux").exists()
    assert (tmp_path / "disk/etc/conflux.toml").exists()
    for link, mode in ((prefix[1:], 0o755), ("etc/conflux", 0o750)):
        assert (tmp_path / link).is_symlink()
        assert (tmp_path / link).stat().st_mode & 0o777 == mode
        assert (tmp_path / link).parent.stat().st_mode & 0o777 == 0o711
    assert (tmp_path / "disk/program/lib/conflux").stat().st_mode & 0o777 == 0o755


def test_update_that_cannot_be_unpacked_leaves_a_program_and_can_be_repeated(tmp_path: Path) -> None:
    install(DESTDIR=tmp_path)
    whole = files(tmp_path)
    place = tmp_path / "usr/local"
    for old in (
        "share/man/man8/conflux-old.8.gz",
        "lib/conflux/lib/old/old.py",
        "lib/conflux/lib/old/__pycache__/old.pyc",
    ):
        (place / old).parent.mkdir(parents=True, exist_ok=True)
        (place / old).write_text("")
    with (place / "lib/conflux/installed").open("a") as written:
        written.write("/usr/local/share/man/man8/conflux-old.8.gz\n")
    (place / "bin/conflux").unlink()
    (place / "bin/conflux/in the way").mkdir(parents=True)
    install(DESTDIR=tmp_path, code=2)
    assert (place / "share/man/man8/conflux-old.8.gz").exists()
    assert (place / "lib/conflux/lib/old/old.py").exists()
    (place / "bin/conflux/in the way").rmdir()
    (place / "bin/conflux").rmdir()
    install(DESTDIR=tmp_path)
    assert files(tmp_path) == whole
    assert not (place / "lib/conflux/lib/old").exists()
    install("--remove", DESTDIR=tmp_path)
    assert files(tmp_path) == {"etc/conflux/conflux.toml"}


def test_uninstall_takes_away_what_install_made_and_nothing_else(tmp_path: Path) -> None:
    own = tmp_path / "usr/local/share/man/man8/other.8"
    own.parent.mkdir(parents=True)
    own.write_text("")
    install(DESTDIR=tmp_path)
    said = install("--remove", DESTDIR=tmp_path)
    assert "keys" in said
    assert files(tmp_path) == {"usr/local/share/man/man8/other.8", "etc/conflux/conflux.toml"}


def test_uninstall_without_an_installation_says_so(tmp_path: Path) -> None:
    said = install("--remove", DESTDIR=tmp_path, code=1)
    assert said == f"conflux: nothing was installed in {tmp_path}/usr/local by make install\n"


def test_another_program_of_the_name_is_not_overwritten(tmp_path: Path) -> None:
    other = tmp_path / "usr/local/bin/conflux"
    other.parent.mkdir(parents=True)
    other.write_text("another program\n")
    said = install(DESTDIR=tmp_path, code=1)
    assert said.startswith(f"conflux: {other} is there already")
    assert other.read_text() == "another program\n"
    assert files(tmp_path) == {"usr/local/bin/conflux"}


@pytest.mark.parametrize("prefix", ["/usr", "usr/local", "/opt/a b", "/opt/$(id)", "/opt/"])
def test_prefix_that_cannot_be_is_refused(tmp_path: Path, prefix: str) -> None:
    assert install(DESTDIR=tmp_path, PREFIX=prefix, code=1).startswith("conflux: ")
    assert files(tmp_path) == set()


@pytest.mark.parametrize("prefix", ["/usr/local", "/opt/conflux"])
def test_installed_program_runs_and_is_found(debian: Debian, prefix: str) -> None:
    if python() != {"bookworm": "cp311", "trixie": "cp313"}[debian.suite]:
        pytest.skip("this clone's wheel is for another Python")
    install(DESTDIR=debian.root, PREFIX=prefix)
    assert debian.run(f"{prefix}/bin/conflux", "--version").startswith("conflux ")
    assert "home" in debian.run(f"{prefix}/bin/conflux", "realm", "create", "home")
    where = debian.run(f"{prefix}/lib/conflux/bin/python3", "-I", "-c", "import conflux; print(conflux.__file__)")
    assert where.startswith(f"{prefix}/lib/conflux/lib/python3")
    unit = debian.file(f"{prefix}/lib/systemd/system/conflux.service").read_text()
    assert f"\nExecStart={prefix}/bin/conflux " in unit
    if prefix == "/usr/local":
        assert debian.run("sh", "-c", "command -v conflux") == "/usr/local/bin/conflux\n"
        debian.run("systemctl", "--root=/", "enable", "conflux.service")
        wanted = debian.file("/etc/systemd/system/multi-user.target.wants/conflux.service")
        assert str(wanted.readlink()) == "/usr/local/lib/systemd/system/conflux.service"
