"""The daemon's count of bytes: who they are of, days and clocks, the bound, the disk."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import pytest

from conflux.config.settings import parse
from conflux.control.nats.channel import NatsChannel
from conflux.control.presence import Presences
from conflux.daemon.limits import patience_bounds
from conflux.daemon.metering import Stretching, Usage, slow_down
from conflux.errors import StateError
from conflux.ids import LinkId, NodeId
from conflux.node.patience import Bounds
from conflux.realm.clock import RealmClock
from conflux.shell.pump import Pump
from conflux.state.directory import StateDir
from conflux.state.usage_files import ASIDE, USAGE, UsageFiles
from conflux.usage.bound import PACES, Bound, Pace, State
from conflux.usage.tally import Both, Counts, Kind, Other, Tally

ALICE, BOB = NodeId(b"a" * 16), NodeId(b"b" * 16)
NO_BOUND = Bound()
NOON = datetime(2026, 12, 1, 12).timestamp()


class Counted:
    """A daemon's count, with what it is given."""

    def __init__(self, path: Path, bound: Bound = NO_BOUND, *, floor_unix: int = 0) -> None:
        path.mkdir(mode=0o700, exist_ok=True)
        self.at = NOON
        self.links: dict[LinkId, NodeId] = {}
        self.passed: list[tuple[LinkId, Counts]] = []
        self.ended: list[tuple[LinkId, Counts]] = []
        self.paces: list[Pace] = []
        self.told: Callable[[Pace], None] = lambda pace: None
        self.tally = Tally()
        self.state = StateDir(path)
        self.usage = Usage(
            UsageFiles(self.state),
            bound,
            RealmClock(floor_unix, system=lambda: self.at, save=lambda date: None),
            carrier=lambda: self,
            peers=lambda: dict(self.links),
            name_of={ALICE: "alice", BOB: "bob"}.__getitem__,
            slow_down=self.slow_down,
            tally=self.tally,
            system=lambda: self.at,
        )

    def slow_down(self, pace: Pace) -> None:
        """Note a pace, and hand it to who asks for it."""
        self.paces.append(pace)
        self.told(pace)

    def take_ended(self) -> list[tuple[LinkId, Counts]]:
        """As a carrier does."""
        taken, self.ended = self.ended, []
        return taken

    def take_traffic(self) -> list[tuple[LinkId, Counts]]:
        """As a carrier does."""
        taken, self.passed = self.passed, []
        return [*self.take_ended(), *taken]

    def end_link(self, link: int, sent: int) -> None:
        """Let a link end, whose last data was not counted yet."""
        self.ended.append((LinkId(link), {Kind.DATA: Both(sent, 0)}))
        self.usage.link_ends()
        del self.links[LinkId(link)]

    def pass_data(self, link: int, sent: int) -> None:
        """Let data pass on a link."""
        self.passed.append((LinkId(link), {Kind.DATA: Both(sent, 0)}))

    def end(self) -> None:
        """End as a daemon does."""
        self.usage.look()
        self.usage.keep()

    def peers(self) -> dict[str, int]:
        """What each peer had today."""
        return {row.name: row.today_bytes for row in self.usage.shown().peers}


def test_bytes_of_a_link_are_those_of_the_node_at_its_other_end_also_when_it_ends(tmp_path: Path) -> None:
    counted = Counted(tmp_path / "state")
    counted.links = {LinkId(1): ALICE, LinkId(2): BOB}
    counted.pass_data(1, 10)
    counted.end_link(2, 5)
    counted.pass_data(3, 2)
    assert counted.peers() == {"alice": 10, "bob": 5, "unknown": 2}


def test_a_node_that_takes_the_number_of_a_link_that_ended_has_none_of_its_bytes(tmp_path: Path) -> None:
    counted = Counted(tmp_path / "state")
    counted.links = {LinkId(1): ALICE}
    counted.end_link(1, 5)
    counted.links = {LinkId(1): BOB}
    counted.pass_data(1, 10)
    assert counted.peers() == {"alice": 5, "bob": 10}


def test_what_connections_count_themselves_is_in_it_too(tmp_path: Path) -> None:
    counted = Counted(tmp_path / "state")
    counted.tally.add(Other.BROKER, Kind.KEEP_ALIVE, sent=7)
    shown = counted.usage.shown()
    assert shown.today.sent_bytes == 7
    assert {row.kind: row.sent_bytes for row in shown.today.kinds} == {
        "data": 0,
        "control": 0,
        "set-up": 0,
        "keep-alive": 7,
    }


def test_a_clock_behind_what_the_realm_signed_gives_no_date(tmp_path: Path) -> None:
    counted = Counted(tmp_path / "state", floor_unix=int(NOON))
    counted.at = 86_400.0  # 1970
    counted.pass_data(1, 10)
    shown = counted.usage.shown()
    assert (shown.today.date, shown.undated_bytes, shown.today.sent_bytes) == (None, 10, 10)
    counted.at = NOON + 60
    counted.pass_data(1, 1)
    shown = counted.usage.shown()
    assert (shown.today.date, shown.undated_bytes, shown.today.sent_bytes) == ("2026-12-01", 0, 11)


@pytest.mark.parametrize("at", [1e18, float("inf"), -1e18])
def test_a_clock_without_sense_is_no_date_and_no_end(tmp_path: Path, at: float) -> None:
    counted = Counted(tmp_path / "state")
    counted.at = at
    counted.pass_data(1, 10)
    assert counted.usage.shown().undated_bytes == 10


def test_near_the_bound_things_stretch_and_over_it_there_is_a_warning_too(tmp_path: Path) -> None:
    counted = Counted(tmp_path / "state", Bound(day_bytes=1000))
    seen = []
    for sent in (700, 200, 200, 0):
        counted.pass_data(1, sent)
        counted.usage.look()
        seen.append((counted.usage.state, counted.paces[-1], len(counted.usage.warnings())))
    under, near, over = ((state, PACES[state]) for state in State)
    assert seen == [(*under, 0), (*near, 0), (*over, 1), (*over, 1)]
    assert counted.usage.warnings()[0].startswith("budget-over: 110% of the bytes allowed are used")
    counted.at += 86_400
    counted.usage.look()
    assert (counted.usage.state, counted.paces[-1], counted.usage.warnings()) == (*under, [])


class Stretched:
    """A control channel that remembers by how much its pings are rarer."""

    def __init__(self) -> None:
        self.factors: list[float] = []

    def stretch(self, factor: float) -> None:
        """Take the factor."""
        self.factors.append(factor)


class Node:
    """What slow_down() sees of a daemon: its pump, and the node in it."""

    def __init__(self) -> None:
        self.node = self.plane = self
        self.presences = Presences(rng=random.Random(1), now=0.0)
        self.patience: list[Bounds] = []
        self.touched = 0

    def set_patience(self, bounds: Bounds) -> None:
        """As a node does."""
        self.patience.append(bounds)

    def touch(self) -> None:
        """As a pump does."""
        self.touched += 1


def test_over_the_bound_presence_pings_and_idle_timeouts_stretch_and_all_is_as_before_the_day_after(
    tmp_path: Path,
) -> None:
    config, node, first, late = parse(""), Node(), Stretched(), Stretched()
    channels: list[object] = [object(), first]
    counted = Counted(tmp_path / "state", Bound(day_bytes=1000))
    counted.told = lambda pace: slow_down(pace, config, cast(Pump, node), channels)
    for sent, factor in ((0, 1.0), (800, 2.0), (200, 4.0), (0, 4.0)):
        counted.pass_data(1, sent)
        counted.usage.look()
        assert (node.presences.stretch, first.factors[-1]) == (factor, factor)
    channels.append(late)
    counted.usage.look()
    assert late.factors == [4.0]
    assert [bounds.weight for bounds in node.patience] == [2.0, 4.0]
    assert node.touched == 2  # once for each change: the others cost nothing
    counted.at += 86_400
    counted.usage.look()
    assert (node.presences.stretch, late.factors[-1], node.patience[-1]) == (1.0, 1.0, patience_bounds(config))


def test_the_channel_over_a_broker_is_one_that_stretches() -> None:
    assert issubclass(NatsChannel, Stretching)


def test_another_bound_counts_at_once(tmp_path: Path) -> None:
    counted = Counted(tmp_path / "state", Bound(day_bytes=1000))
    counted.pass_data(1, 2000)
    counted.usage.look()
    counted.usage.set_bound(Bound(month_bytes=100_000, month_starts=15))
    assert counted.usage.state is State.UNDER
    assert counted.usage.shown().month.date == "2026-11-15"
    assert counted.usage.budget().month_limit_bytes == 100_000


def test_the_book_is_kept_at_the_end_and_written_only_if_something_passed(tmp_path: Path) -> None:
    counted = Counted(tmp_path / "state")
    counted.end()
    assert not (tmp_path / "state" / USAGE).exists()
    counted.links = {LinkId(1): ALICE}
    counted.pass_data(1, 10)
    counted.end()
    written = (tmp_path / "state" / USAGE).stat().st_mtime_ns
    counted.end()
    assert (tmp_path / "state" / USAGE).stat().st_mtime_ns == written
    assert (tmp_path / "state" / USAGE).stat().st_mode & 0o777 == 0o600
    assert Counted(tmp_path / "state").peers() == {"alice": 10}


@pytest.mark.parametrize("data", [b"", b"x", b"\xff" * 40_000, b"\0" * 70_000, b"\x9f" * 100])
def test_a_damaged_file_is_set_aside_said_and_counting_goes_on(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    file = tmp_path / "state" / USAGE
    file.write_bytes(data)
    file.chmod(0o600)
    counted = Counted(tmp_path / "state")
    (warning,) = counted.usage.warnings()
    assert warning.startswith(f"usage-lost: {file}")
    assert str(tmp_path / "state" / ASIDE) in warning
    assert (tmp_path / "state" / ASIDE).read_bytes() == data
    counted.pass_data(1, 10)
    counted.end()
    assert Counted(tmp_path / "state").usage.warnings() == []


def test_a_file_in_place_of_which_something_else_lies_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "state" / USAGE).mkdir(parents=True)
    (tmp_path / "state").chmod(0o700)
    assert Counted(tmp_path / "state").usage.warnings()[0].startswith("usage-lost")


def test_a_disk_that_takes_nothing_is_a_warning_until_it_does(tmp_path: Path, monkeypatch: Any) -> None:
    counted = Counted(tmp_path / "state")
    counted.pass_data(1, 10)

    def full(self: StateDir, name: str, record: object) -> None:
        raise StateError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(StateDir, "save_record", full)
        counted.end()
        assert counted.usage.warnings() == ["usage-not-kept: the disk is full"]
    counted.end()
    assert counted.usage.warnings() == []
    assert (tmp_path / "state" / USAGE).exists()


def test_the_date_is_of_this_hosts_clock(tmp_path: Path) -> None:
    counted = Counted(tmp_path / "state")
    counted.at = time.time()
    counted.pass_data(1, 1)
    assert counted.usage.shown().today.date == datetime.fromtimestamp(counted.at).date().isoformat()
