"""The first hour of a person with two fresh boards: what they type, how long it takes, and what is left afterwards.

    attic   install the package, `realm create`, `realm invite`
    cellar  install the package, `join TOKEN`, `status --wait-ready`, `ping attic`        the four that are counted

Each board is a fresh Debian that its systemd boots: conflux.service runs with all its hardening.  The package is that
of this machine in build/package.  The figures go to build/first-hour.json; a figure beyond its reach fails its test.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from rig.board import Board, package
from rig.enter import add_figures
from rig.quiet import lines_a_day
from rig.topology import Lab, wait_for

pytestmark = pytest.mark.alone

REACH = {
    "commands": 4,
    "seconds_to_ping": 15.0,
    "installed_mb": 45.0,
    "log_lines_day": 50,
    "page_kb": 100.0,
    "lintian_errors": 0,
}
EXCHANGES = 12  # stand for a day's
PAGE = "http://127.0.0.1:7480/"
# Streams and links end a moment after each exchange, as they do in the pause of a minute.
BRISK = "[stream]\nidle_timeout = 1.0\n\n[link]\nlinger = 0.1\n"
# Looks as often as it is told to, and prints what one look took in the middle: seconds, and seconds of a processor.
LOOKS = """
import resource, statistics, subprocess, sys, time
def spent():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic(), used.ru_utime + used.ru_stime
took = []
for _ in range(int(sys.argv[1])):
    before = spent()
    subprocess.run(["conflux", "status"], stdout=subprocess.DEVNULL, check=True)
    took.append([after - at for at, after in zip(before, spent())])
print(*(statistics.median(each) for each in zip(*took)))
"""
# What dpkg, apt, systemd and the journal keep for themselves.
KEPT = ("/var/lib/dpkg", "/var/lib/apt", "/var/cache", "/var/log", "/var/lib/systemd", "/var/tmp")


class Hour(NamedTuple):
    """Two boards whose first hour is over."""

    attic: Board
    cellar: Board
    before: set[str]  # on cellar's disk, before the package
    took_s: dict[str, float]  # cellar's commands, in order


@pytest.fixture(scope="module")
def hour() -> Iterator[Hour]:
    """Type what a person types."""
    lab = Lab()
    lan = lab.lan()
    attic, cellar = (Board(lab.host(name, lan)) for name in ("attic", "cellar"))

    attic.run("apt-get", "install", "--yes", attic.put(package()), within_s=120)
    attic.run("conflux", "realm", "create", "home", "--node", "attic")
    said = attic.run("conflux", "realm", "invite").stdout
    token = next(word for word in said.split() if word.startswith("cfx1"))

    file = cellar.put(package())
    before = cellar.files()
    took_s = {}
    for name, command in {
        "install": ("apt-get", "install", "--yes", file),
        "join": ("conflux", "join", token, "--name", "cellar"),
        "ready": ("conflux", "status", "--wait-ready"),
        "ping": ("conflux", "ping", "attic", "-c", "1"),
    }.items():
        started = time.monotonic()
        cellar.run(*command, within_s=120)
        took_s[name] = time.monotonic() - started
    yield Hour(attic, cellar, before, took_s)
    for board in (attic, cellar):
        board.cut_power()
    lab.close()


def hold(figure: str, value: float) -> None:
    """Write a figure, and fail beyond its reach."""
    add_figures("first-hour.json", {figure: value})
    assert value <= REACH[figure], figure


def test_four_commands_get_an_answer_within_15_s(hour: Hour) -> None:
    add_figures("first-hour.json", {f"{name}_s": round(took, 2) for name, took in hour.took_s.items()})
    hold("commands", len(hour.took_s))
    hold("seconds_to_ping", round(sum(hour.took_s.values()), 1))


def test_systemd_runs_the_daemon_with_what_the_unit_takes_away(hour: Hour) -> None:
    properties = "--property=ActiveState,SubState,ProtectSystem,DevicePolicy"
    shown = hour.cellar.run("systemctl", "show", "conflux", properties)
    assert set(shown.stdout.split()) == {
        "ActiveState=active",
        "SubState=running",
        "ProtectSystem=strict",
        "DevicePolicy=closed",
    }
    # 0 is as safe as can be; what is left is the host's network.
    audit = hour.cellar.run("systemd-analyze", "security", "conflux", "--no-pager", "--threshold=35", check=False)
    assert audit.returncode == 0, audit.stdout[-2000:]


def test_boards_that_lost_power_answer_without_a_command(hour: Hour) -> None:
    for board in (hour.attic, hour.cellar):
        board.cut_power()
    for board in (hour.attic, hour.cellar):
        board.boot()
    hour.cellar.run("conflux", "status", "--wait-ready")
    hour.cellar.run("conflux", "ping", "attic", "-c", "1")


def test_status_names_the_other_board_and_what_a_look_takes_is_on_record(hour: Hour) -> None:
    assert "attic" in hour.cellar.run("conflux", "status").stdout
    took_s, processor_s = map(float, hour.cellar.run("python3", "-c", LOOKS, "21").stdout.split())
    add_figures("first-hour.json", {"status_ms": round(1e3 * took_s, 1), "status_cpu_ms": round(1e3 * processor_s, 1)})


def test_the_package_and_its_bytecode_take_less_than_45_mb(hour: Hour) -> None:
    listed = hour.cellar.run("dpkg-query", "--listfiles", "conflux").stdout.split("\n")
    paths = {hour.cellar.root / name.lstrip("/") for name in listed if name}
    paths |= set((hour.cellar.root / "usr/lib/conflux").rglob("*"))
    assert any(path.suffix == ".pyc" for path in paths)
    sizes = [path.lstat().st_size for path in paths if path.is_symlink() or path.is_file()]
    hold("installed_mb", round(sum(sizes) / 1e6, 1))


def test_the_page_that_a_browser_gets_weighs_less_than_100_kb(hour: Hour) -> None:
    cellar = hour.cellar
    assert cellar.run("systemctl", "is-active", "conflux-page", check=False).stdout.strip() == "inactive"
    cellar.run("systemctl", "start", "conflux-page")
    get = ("curl", "--fail", "--silent", "--output", "/dev/null", "--write-out", "%{size_download} ")
    wait_for(lambda: cellar.run(*get, PAGE, check=False).returncode == 0, "the page", within_s=20)
    sizes = [cellar.run(*get, address).stdout for address in (PAGE, f"{PAGE}state.json")]
    answer = json.loads(cellar.run("curl", "--silent", f"{PAGE}state.json").stdout)
    assert answer["daemon"]["answering"], answer["daemon"]
    hold("page_kb", round(sum(map(int, sizes)) / 1000, 1))
    cellar.run("systemctl", "stop", "conflux-page")


def test_the_page_gets_no_secret_of_the_configuration(hour: Hour) -> None:
    cellar, token = hour.cellar, "cfx1" + "Ab-_9" * 8
    file = cellar.root / "etc" / "conflux" / "conflux.toml"
    before = file.read_text()
    given = before.replace("[page]", "[page]\nport = 7481") + f'\n[realm]\ntoken = "{token}"\n'
    file.write_text(given)
    cellar.run("systemctl", "start", "conflux-page")
    page = PAGE.replace("7480", "7481")  # what is no secret counts
    wait_for(
        lambda: cellar.run("curl", "--fail", "--silent", page, check=False).returncode == 0, "the page", within_s=20
    )
    copy = cellar.run("cat", "/run/conflux-page/conflux.toml").stdout
    assert "page.port = 7481" in copy
    assert token not in copy
    pid = cellar.run("systemctl", "show", "--property=MainPID", "--value", "conflux-page").stdout.strip()
    seen = cellar.run("nsenter", "--target", pid, "--mount", "cat", "/etc/conflux/conflux.toml", check=False)
    assert seen.returncode != 0
    assert token not in seen.stdout
    cellar.run("systemctl", "stop", "conflux-page")
    file.write_text(before)


def test_a_day_with_one_exchange_a_minute_is_less_than_50_lines_of_log(hour: Hour) -> None:
    boards = (hour.attic, hour.cellar)
    for board in boards:
        (board.root / "etc/conflux/conflux.toml").write_text(BRISK)
        board.run("systemctl", "restart", "conflux")
    since = time.time()
    for board in boards:
        board.run("conflux", "status", "--wait-ready")

    def quiet() -> bool:
        return all(not json.loads(board.run("conflux", "links", "--json").stdout)["links"] for board in boards)

    def exchanges(count: int) -> None:
        for _ in range(count):
            hour.cellar.run("conflux", "ping", "attic", "-c", "1")
            wait_for(quiet, "no link is open", within_s=20)

    def log_of(board: Board) -> Callable[[], str]:
        words = ("journalctl", "--unit=conflux", "--output=cat", "--no-pager", f"--since=@{int(since) - 10}")
        return lambda: board.run(*words).stdout

    hold("log_lines_day", lines_a_day([log_of(board) for board in boards], exchanges, EXCHANGES))


def test_lintian_finds_no_error() -> None:
    assert shutil.which("lintian"), "apt-get install lintian"
    command = ["lintian", "--no-tag-display-limit", "--allow-root", str(package())]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    errors = [line for line in said.splitlines() if line.startswith("E:")]
    print(said)
    hold("lintian_errors", len(errors))


def test_removal_leaves_the_keys_and_purge_leaves_nothing(hour: Hour) -> None:
    cellar = hour.cellar
    cellar.run("apt-get", "remove", "--yes", "conflux")
    assert cellar.run("systemctl", "is-active", "conflux", check=False).stdout.strip() == "inactive"
    assert not (cellar.root / "usr/lib/conflux").exists()
    assert list((cellar.root / "var/lib/conflux").iterdir())
    assert (cellar.root / "etc/conflux/conflux.toml").exists()
    cellar.run("apt-get", "purge", "--yes", "conflux")
    left = {path for path in cellar.files() - hour.before if not path.startswith(KEPT)}
    assert {path for path in left if "conflux" in path} == set()
    assert left == set()


def test_purge_keeps_the_root_key_of_a_realm(hour: Hour) -> None:
    said = hour.attic.run("apt-get", "purge", "--yes", "conflux")
    assert (hour.attic.root / "var/lib/conflux/root.key").exists()
    assert "root.key controls the network" in said.stdout + said.stderr
