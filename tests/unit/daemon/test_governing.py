"""What a daemon takes from the disk when the command line left a policy there."""

from __future__ import annotations

import pytest
from kit.builders import NOW_UNIX, make_realm
from kit.published import CLOSED_TEXT, OPEN_TEXT, published

from conflux.daemon.governing import Governing
from conflux.errors import RemoteProtocolError, UserError
from conflux.realm.clock import RealmClock
from conflux.realm.listbook import ListBook
from conflux.realm.policy import SignedPolicy
from conflux.state.directory import StateDir
from conflux.state.policy_files import PolicyFiles

BEFORE, AFTER = published(OPEN_TEXT, NOW_UNIX - 2), published(CLOSED_TEXT, NOW_UNIX - 1)


@pytest.fixture
def governing(tmp_path) -> Governing:
    """A daemon that runs, beside which two policies were left on the disk."""
    state = StateDir.open(tmp_path / "state", create=True)
    clock = RealmClock(0, system=lambda: float(NOW_UNIX), save=lambda date: None)
    governing = Governing(state, ListBook(make_realm().anchor, lambda: NOW_UNIX), clock)
    for each in (BEFORE, AFTER):
        PolicyFiles(state).save(each)
    return governing


def test_the_newest_is_published(governing):
    governing.look()
    assert governing.book.current == AFTER


def test_one_that_does_not_count_keeps_none_from_being_published(governing):
    """A revoked signer's may have the later number."""

    def publish(policy: SignedPolicy) -> None:
        if policy == AFTER:
            raise RemoteProtocolError("revoked")
        governing.book.learn(policy)

    governing.publish = publish
    governing.look()
    assert governing.book.current == BEFORE


def test_who_publishes_is_told_that_nothing_counts(governing):
    def publish(policy: SignedPolicy) -> None:
        raise RemoteProtocolError("revoked")

    governing.publish = publish
    with pytest.raises(UserError, match=r"^policy \d+ on the disk does not count: revoked$"):
        governing.look()


def test_nothing_new_is_no_error(governing):
    governing.look()
    governing.look()
    assert governing.book.current == AFTER
