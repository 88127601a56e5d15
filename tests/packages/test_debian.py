"""The Debian package in a fresh Debian, without systemd running: what comes, what stays, what goes, what is in the way.

Links, systemd's part and apt's are in tests/lab/packages.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from kit.debian import Debian, package
from kit.tree import TREE

INSTALLED_BYTES_MAX = 45_000_000
CONFIGURATION = "/etc/conflux/conflux.toml"
STATE = "/var/lib/conflux"


def foreign(debian: Debian, name: str, *files: str) -> str:
    """Build another package in that Debian; return its path there."""
    tree = debian.file("/foreign")
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: 0.0.1\nArchitecture: all\nMaintainer: Other <o@example.org>\nDescription: other\n"
    )
    for file in files:
        (tree / file).parent.mkdir(parents=True, exist_ok=True)
        (tree / file).write_text("#!/bin/sh\necho another program\n")
        (tree / file).chmod(0o755)
    debian.run("dpkg-deb", "--build", "--root-owner-group", "/foreign", "/foreign.deb")
    return "/foreign.deb"


def test_program_runs_whatever_the_callers_environment_is(board: Debian) -> None:
    assert board.run("conflux", "--version").startswith("conflux ")
    board.file("/root/json.py").write_text("raise SystemExit('the json of /root')\n")
    hostile = ("env", "-C", "/root", "PYTHONPATH=/root", "PYTHONHOME=/nowhere", "PYTHONSAFEPATH=")
    assert board.run(*hostile, "conflux", "--version").startswith("conflux ")


def test_everything_that_a_daemon_loads_is_there(board: Debian) -> None:
    load = "import conflux.daemon.run, conflux.carrier.native.carrier; from conflux.carrier import lean; lean.load()"
    code = f"{load}; import conflux.datapath.native._engine, sys; print(sys.executable, *sorted(sys.modules))"
    program, *modules = board.run("/usr/lib/conflux/bin/python3", "-I", "-c", code).split()
    assert program == "/usr/lib/conflux/bin/python3"
    assert "aiortc.rtcdtlstransport" in modules
    assert not {"av", "pylibsrtp", "cffi"} & set(modules)


def test_it_takes_no_more_than_45_mb_bytecode_included(board: Debian, installed: Path) -> None:
    new = [path for path in installed.rglob("*") if path.is_file() and not path.is_symlink() and path.suffix != ".deb"]
    assert sum(path.suffix == ".pyc" for path in new) > 500
    assert sum(path.stat().st_size for path in new) < INSTALLED_BYTES_MAX


def test_group_that_may_look_is_made(board: Debian) -> None:
    assert re.search(r"^conflux:", board.file("/etc/group").read_text(), re.MULTILINE)


def test_unit_starts_the_installed_program_at_boot(board: Debian) -> None:
    unit = board.file("/usr/lib/systemd/system/conflux.service").read_text()
    program = re.search(r"^ExecStart=(\S+)", unit, re.MULTILINE)
    assert program
    assert board.file(program[1]).exists()
    assert board.file("/etc/systemd/system/multi-user.target.wants/conflux.service").is_symlink()


def test_an_upgrade_restarts_what_runs_and_stops_nothing_before_and_a_removal_stops_it(board: Debian) -> None:
    script = {name: board.file(f"/var/lib/dpkg/info/conflux.{name}").read_text() for name in ("postinst", "prerm")}
    for unit in ("conflux.service", "conflux-page.service"):
        assert f"try-restart '{unit}'" in script["postinst"]
        assert unit in script["prerm"].partition("stop ")[2]
    before = board.file("/var/lib/dpkg/info/conflux.preinst").read_text()
    assert "deb-systemd-invoke stop" not in before


def test_page_is_there_and_off(board: Debian) -> None:
    assert board.file("/usr/lib/systemd/system/conflux-page.service").exists()
    assert not board.file("/etc/systemd/system/multi-user.target.wants/conflux-page.service").is_symlink()
    code = "from conflux.web import answer, metrics; print(len(answer.page().body))"
    assert int(board.run("/usr/lib/conflux/bin/python3", "-I", "-c", code)) > 10_000


def test_upgrade_keeps_the_configuration_and_the_keys_and_asks_nothing(board: Debian) -> None:
    board.run("conflux", "realm", "create", "home")
    key = board.file(f"{STATE}/root.key").read_bytes()
    board.file(CONFIGURATION).write_text('[node]\nname = "attic"\n')
    board.install(package(board.suite, "2"))
    assert "+2" in board.run("dpkg-query", "--show", "conflux")
    assert board.file(CONFIGURATION).read_text() == '[node]\nname = "attic"\n'
    assert board.file(f"{STATE}/root.key").read_bytes() == key
    assert not board.file(f"{CONFIGURATION}.dpkg-new").exists()


def test_removed_program_leaves_the_configuration_and_the_keys_alone(board: Debian) -> None:
    board.run("conflux", "realm", "create", "home")
    board.dpkg("--remove", "conflux")
    assert not board.file("/usr/lib/conflux").exists()
    assert board.file(CONFIGURATION).exists()
    assert board.file(f"{STATE}/node.key").exists()


def test_purge_leaves_nothing_of_a_node_without_the_root_key(board: Debian) -> None:
    board.run("conflux", "realm", "create", "home")
    board.file(f"{STATE}/root.key").unlink()  # moved away
    board.dpkg("--purge", "conflux")
    assert not board.file(STATE).exists()
    assert not board.file("/etc/conflux").exists()


def test_purge_keeps_the_root_key_and_says_where(board: Debian) -> None:
    board.run("conflux", "realm", "create", "home")
    said = board.dpkg("--purge", "conflux")
    assert f"conflux: {STATE} is kept: its root.key" in said
    assert board.file(f"{STATE}/root.key").exists()


def test_file_of_another_package_is_not_overwritten(debian: Debian) -> None:
    debian.dpkg("--install", foreign(debian, "flows", "usr/bin/conflux"))
    said = debian.install(package(debian.suite), code=1)
    assert "trying to overwrite '/usr/bin/conflux', which is also in package flows" in said
    assert debian.run("/usr/bin/conflux") == "another program\n"


def test_file_of_no_package_is_not_overwritten(debian: Debian) -> None:
    debian.file("/usr/bin/conflux").write_text("#!/bin/sh\necho another program\n")
    debian.file("/usr/bin/conflux").chmod(0o755)
    said = debian.install(package(debian.suite), code=1)
    assert "conflux: /usr/bin/conflux is there and belongs to no package" in said
    assert debian.run("/usr/bin/conflux") == "another program\n"


def test_other_package_of_the_same_name_is_not_taken_for_an_older_one(debian: Debian) -> None:
    debian.dpkg("--install", foreign(debian, "conflux", "usr/games/conflux"))
    said = debian.install(package(debian.suite), code=1)
    assert "conflux: the installed package conflux (0.0.1) is another program of the same name." in said
    assert debian.run("/usr/games/conflux") == "another program\n"


@pytest.mark.parametrize("left", ["/etc/systemd/system/conflux.service", "/usr/local/bin/conflux"])
def test_what_an_installation_by_hand_left_is_named(debian: Debian, left: str) -> None:
    debian.file(left).parent.mkdir(parents=True, exist_ok=True)
    debian.file(left).write_text("")
    assert f"conflux: {left} comes before the package's" in debian.install(package(debian.suite))


def test_licence_of_every_package_inside_is_there(board: Debian) -> None:
    page = board.file("/usr/share/doc/conflux/copyright").read_text()
    texts = {path.name.partition("-")[0] for path in board.file("/usr/share/doc/conflux/licences").iterdir()}
    inside = set(re.findall(r"^Files: usr/lib/conflux/\*/(\S+)\*$", page, re.MULTILINE))
    assert {"aioice", "aiortc", "cryptography", "pqcrypto", "uvloop", "zeroconf"} <= inside
    assert inside <= texts


def test_nothing_of_the_machine_that_built_it_is_inside(board: Debian) -> None:
    inside = [path for path in board.file("/usr/lib/conflux").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert len(inside) > 500
    assert [path for path in inside if os.fsencode(TREE) in path.read_bytes()] == []
