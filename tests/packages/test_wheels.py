"""The wheels of build/wheels: `make wheels` builds them, then runs this, with the index that pip is set up for."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile
from kit.tree import TREE

import conflux

WHEELS = sorted((TREE / "build" / "wheels").glob("*.whl"))
# Of glibc, and of OpenSSL 3, which stays the system's: packaging/manylinux says why.
NEEDED = {"libc.so.6", "libcrypto.so.3", "libm.so.6", "libpthread.so.0", "ld-linux-aarch64.so.1"}
SIZE_BYTES_MAX = 1_500_000
MACHINES = {"x86_64": "EM_X86_64", "aarch64": "EM_AARCH64"}

if not WHEELS:
    pytest.skip("there is no build/wheels: make wheels", allow_module_level=True)


@pytest.mark.parametrize("wheel", WHEELS, ids=lambda wheel: wheel.stem)
def test_a_wheel_says_what_it_runs_on_and_has_no_library_of_others(wheel: Path) -> None:
    assert "-manylinux_2_" in wheel.name
    assert wheel.stat().st_size < SIZE_BYTES_MAX
    machine = next(name for name in MACHINES if wheel.stem.endswith(name))
    with zipfile.ZipFile(wheel) as archive:
        libraries = [name for name in archive.namelist() if ".so" in name]
        assert len(libraries) == 2
        for name in libraries:
            elf = ELFFile(BytesIO(archive.read(name)))
            assert elf["e_machine"] == MACHINES[machine]
            assert elf.get_section_by_name(".debug_info") is None
            dynamic: Any = elf.get_section_by_name(".dynamic")
            assert {tag.needed for tag in dynamic.iter_tags("DT_NEEDED")} <= NEEDED
            assert list(dynamic.iter_tags("DT_RUNPATH")) == []


def ours() -> Path:
    """Return the wheel of this Python and machine.  Skips if it was not asked for."""
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    found = [wheel for wheel in WHEELS if f"-{tag}-{tag}-" in wheel.name and wheel.stem.endswith(os.uname().machine)]
    if not found:
        pytest.skip(f"build/wheels has none for {tag} and {os.uname().machine}")
    return found[0]


def test_a_wheel_installs_into_a_clean_environment_and_runs(tmp_path: Path) -> None:
    pinned = subprocess.run([TREE / ".ci" / "pinned", "runtime"], capture_output=True, text=True, check=True)
    (tmp_path / "pinned.txt").write_text(pinned.stdout)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "clean"], check=True)
    python = tmp_path / "clean" / "bin" / "python"
    pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--require-hashes", "--no-deps", "-r", str(tmp_path / "pinned.txt")], check=True)
    subprocess.run([*pip, "install", "--no-index", str(ours())], check=True)
    subprocess.run([*pip, "check"], check=True)
    said = subprocess.run(
        [tmp_path / "clean" / "bin" / "conflux", "--version"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert said.stdout == f"conflux {conflux.__version__}\n"
    loaded = "from conflux.anchor import _codec; from conflux.datapath.native import _engine; print(_engine.__file__)"
    place = subprocess.run([python, "-c", loaded], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert place.startswith(str(tmp_path))


def test_two_builds_of_one_tree_are_the_same_bytes() -> None:
    suite = {"cp311": "bookworm", "cp313": "trixie"}[ours().name.split("-")[2]]
    before = {wheel.name: hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in WHEELS}
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    environment = {**os.environ, "SUITE": suite, "ARCH": machine, "WHEELS": "build/wheels-again"}
    subprocess.run([TREE / "packaging" / "manylinux"], env=environment, check=True, capture_output=True)
    again = sorted((TREE / "build" / "wheels-again").glob("*.whl"))
    assert [hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in again] == [before[ours().name]]
