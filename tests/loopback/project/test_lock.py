"""What is installed: versions that pyproject.toml allows, each with hashes, and none with a known hole."""

from __future__ import annotations

import re
import subprocess
import tomllib

import pytest
from kit.tree import TREE
from packaging.requirements import Requirement
from packaging.version import Version

PROJECT = tomllib.loads((TREE / "pyproject.toml").read_text())
GROUPS = PROJECT["dependency-groups"]
WANTED = [
    *PROJECT["build-system"]["requires"],
    *PROJECT["project"]["dependencies"],
    *(each for group in ("test", "bench", "package") for each in GROUPS[group]),
]
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def entries() -> dict[str, tuple[Version, list[str]]]:
    """Return every package of constraints.txt: its version, and the words that follow."""
    lines = (TREE / "constraints.txt").read_text().replace("\\\n", " ").splitlines()
    found = {}
    for line in lines:
        if line and not line.startswith("#"):
            pinned, *words = line.split()
            name, version = pinned.split("==")
            found[name] = Version(version), words
    return found


def test_every_package_has_hashes_and_nothing_else() -> None:
    for name, (_, words) in entries().items():
        assert words, name
        assert all(HASH.fullmatch(word) for word in words), name


@pytest.mark.parametrize("wanted", WANTED)
def test_every_requirement_is_pinned_within_its_range(wanted: str) -> None:
    requirement = Requirement(wanted)
    version, _ = entries()[requirement.name]
    assert version in requirement.specifier


def test_packages_are_installed_by_their_hashes_alone() -> None:
    prepare = (TREE / ".ci" / "prepare").read_text()
    assert "--require-hashes --only-binary :all: -r" in prepare
    pinned = subprocess.run([TREE / ".ci" / "pinned", "runtime"], capture_output=True, text=True, check=True).stdout
    assert "aioice==" in pinned
    assert "pytest==" not in pinned


@pytest.mark.parametrize(
    ("name", "version", "why"),
    [
        ("aioice", "0.12.99", "takes STUN without integrity"),
        ("zeroconf", "0.149.99", "its cache has no bound"),
    ],
)
def test_version_with_a_known_hole_is_not_allowed(name: str, version: str, why: str) -> None:
    allowed = [Requirement(each) for each in PROJECT["project"]["dependencies"] if Requirement(each).name == name]
    assert allowed, name
    assert not any(Version(version) in each.specifier for each in allowed), why
