"""The realm's newest signed date is a floor under the clock."""

import dataclasses

import pytest
from kit.builders import NOW_UNIX, make_credential, make_grant, make_realm, signing_key

from conflux.errors import RemoteProtocolError, StateError
from conflux.realm.clock import RealmClock
from conflux.realm.credential import Chain
from conflux.state.clock import realm_clock
from conflux.state.directory import StateDir

REALM = make_realm()


class System:
    """A clock that a test sets, and the dates that were saved."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.kept: list[int] = []

    def clock(self, floor_unix: int = 0) -> RealmClock:
        return RealmClock(floor_unix, system=lambda: self.now, save=self.kept.append)


def test_time_is_the_systems_unless_the_realm_signed_later():
    system = System(1000.9)
    clock = system.clock()
    assert clock.now_unix() == 1000
    clock.observe(2000)
    assert clock.now_unix() == clock.floor_unix == 2000
    system.now = 3000
    assert clock.now_unix() == 3000


def test_clock_turned_back_changes_nothing():
    system = System(NOW_UNIX)
    clock = system.clock(floor_unix=NOW_UNIX)
    system.now = 0
    assert clock.now_unix() == NOW_UNIX


def test_floor_is_kept_when_it_rises_and_only_then():
    system = System(0)
    clock = system.clock(floor_unix=50)
    for date in (40, 50, 60, 55, 60):
        clock.observe(date)
    assert system.kept == [60]


def test_floor_that_could_not_be_kept_does_not_rise():
    def fail(date: int) -> None:
        raise OSError

    clock = RealmClock(0, system=lambda: 0, save=fail)
    with pytest.raises(OSError):  # noqa: PT011
        clock.observe(5)
    assert clock.now_unix() == 0


def test_clock_behind_the_realm_is_warned_of():
    system = System(NOW_UNIX - 30)
    clock = system.clock(floor_unix=NOW_UNIX)
    assert clock.warning() is None
    system.now = NOW_UNIX - 3600
    warning = clock.warning()
    assert warning is not None
    assert warning.startswith("clock-behind: this device's clock is behind 20")
    system.now = NOW_UNIX
    assert clock.warning() is None, "it ends with the clock"


def test_a_floor_beyond_every_calendar_has_words():
    assert "which the realm has signed" in str(System(NOW_UNIX).clock(floor_unix=2**40).warning())


def test_board_in_1970_believes_the_dates_of_a_verified_chain():
    chain = Chain(make_credential(REALM, "alpha"), None)
    system = System(0)
    clock = system.clock()
    with pytest.raises(RemoteProtocolError, match="not-yet-valid"):
        chain.verify(REALM.anchor, now_unix=clock.now_unix())
    clock.judge(chain, REALM.anchor)
    assert system.kept == [NOW_UNIX]


def test_forged_chain_moves_no_clock():
    credential = make_credential(REALM, "alpha")
    forged = Chain(dataclasses.replace(credential, not_before=credential.not_before + 10**6), None)
    system = System(0)
    with pytest.raises(RemoteProtocolError, match="bad-signature"):
        system.clock().judge(forged, REALM.anchor)
    assert system.kept == []


def test_expired_chain_is_expired_also_to_a_board_without_a_clock():
    old = Chain(make_credential(REALM, "alpha", not_after=NOW_UNIX + 10), None)
    clock = System(0).clock(floor_unix=NOW_UNIX + 10)
    with pytest.raises(RemoteProtocolError, match="expired"):
        clock.judge(old, REALM.anchor)


def test_a_floor_that_cannot_be_kept_still_holds_until_the_process_ends(tmp_path, monkeypatch):
    state = StateDir.open(tmp_path / "state", create=True)

    def full(date_unix: int) -> None:
        raise StateError("no space left on device")

    monkeypatch.setattr(state, "save_floor", full)
    clock = realm_clock(state)
    clock.observe(2**36)  # a neighbour's card brought the date; it is no reason to end
    assert clock.now_unix() == 2**36


def test_a_date_after_the_grants_end_is_not_believed():
    issuer = signing_key("issuer whose key was stolen")
    grant = make_grant(REALM, issuer)
    far = grant.not_after + 1
    forged = make_credential(REALM, "kitchen", not_before=far, not_after=far + 86400, issuer=issuer)
    system = System(NOW_UNIX)
    clock = system.clock()
    with pytest.raises(RemoteProtocolError, match="expired"):
        clock.judge(Chain(forged, grant), REALM.anchor)
    assert (clock.floor_unix, system.kept) == (0, []), "one such credential would end every other for good"
