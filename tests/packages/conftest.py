"""A Debian of each suite: fresh, or with the package installed.  Each test has its own, as layers over one."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.debian import PLACE, RELEASES, Debian, package


@pytest.fixture(scope="session", params=sorted(RELEASES))
def fresh(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Return a suite, and the folder of a fresh Debian of it."""
    archive = PLACE / f"root-{request.param}.tar"
    if not archive.exists():
        pytest.skip("sudo make deb-full unpacks fresh Debians")
    place = tmp_path_factory.mktemp(request.param)
    subprocess.run(["tar", "-x", "-C", place, "--exclude=./dev/*", "-f", archive], check=True)
    return request.param, place


@pytest.fixture(scope="session")
def installed(fresh: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of what the installation of the package changes."""
    suite, below = fresh
    debian = Debian(suite, tmp_path_factory.mktemp(f"installed-{suite}"), below)
    try:
        debian.install(package(suite))
    finally:
        debian.close()
    return debian.changed


@pytest.fixture
def debian(fresh: tuple[str, Path], tmp_path: Path) -> Iterator[Debian]:
    """A fresh Debian."""
    suite, below = fresh
    debian = Debian(suite, tmp_path / "debian", below)
    yield debian
    debian.close()


@pytest.fixture
def board(fresh: tuple[str, Path], installed: Path, tmp_path: Path) -> Iterator[Debian]:
    """A Debian that the package was installed in."""
    suite, below = fresh
    board = Debian(suite, tmp_path / "board", installed, below)
    yield board
    board.close()
