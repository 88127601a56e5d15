"""Requests to join: how many are answered, and with which word they are refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Coroutine
from typing import Any

import pytest
from kit.builders import make_realm, node_keys

from conflux.control.admitting import Issue
from conflux.control.lan.admission import ONE_JOIN_S, Admission
from conflux.control.lan.config import LanConfig
from conflux.control.lan.frame import FrameType
from conflux.errors import RemoteProtocolError, StateError
from conflux.ids import NodeId
from conflux.realm.invite import Token
from conflux.realm.join import JoinAnswer, Joiner, JoinRefused, JoinRequest

BINDING = bytes(32)


def request() -> bytes:
    anchor = make_realm().anchor
    token = Token(anchor.fingerprint, NodeId(anchor.realm_id), bytes(8), bytes(16), 2**40, 1, ())
    return Joiner(token, node_keys("bob"), "bob", entropy=bytes).request(BINDING).encode()


def at_once(answering: Coroutine[Any, Any, tuple[FrameType, bytes]]) -> tuple[FrameType, bytes]:
    """Return what an answer is that waits for nobody."""
    with pytest.raises(StopIteration) as ended:
        answering.send(None)
    found: tuple[FrameType, bytes] = ended.value.value
    return found


class Desk:
    """An admission, and what it dropped."""

    def __init__(self, issue: Issue | None, config: LanConfig | None = None) -> None:
        self.drops: Counter[str] = Counter()
        self.admission = Admission(issue, config or LanConfig(), self.drop, is_on_link=lambda host: False)

    def drop(self, reason: str) -> None:
        self.drops[reason] += 1

    def refusal(self, data: bytes, remote: str = "192.0.2.1", now: float = 0.0) -> str:
        """Return the word with which a request is refused."""
        kind, body = at_once(self.admission.answer_untrusted(FrameType.JOIN, data, BINDING, remote, now=now))
        assert kind is FrameType.JOIN_REFUSED
        return JoinRefused.decode_untrusted(body).said


def test_node_that_is_no_issuer_says_so() -> None:
    desk = Desk(None)
    assert desk.refusal(request()) == "wrong-issuer"
    assert desk.drops == {"join-wrong-issuer": 1}


def test_bytes_that_are_no_request_are_refused() -> None:
    assert Desk(None).refusal(b"junk") == "malformed"


def test_request_and_binding_reach_the_issuer_and_its_word_goes_back() -> None:
    seen: list[tuple[str, bytes]] = []

    def issue(asked: JoinRequest, binding: bytes) -> JoinAnswer:
        seen.append((asked.name, binding))
        raise RemoteProtocolError("used-up", "by another node")

    desk = Desk(issue)
    assert desk.refusal(request()) == "used-up"
    assert seen == [("bob", BINDING)]
    assert desk.drops == {"join-used-up": 1}


def test_trouble_of_the_issuer_itself_is_told_as_busy_and_is_no_drop() -> None:
    def issue(asked: JoinRequest, binding: bytes) -> JoinAnswer:
        raise StateError("the disk is full")

    desk = Desk(issue)
    assert desk.refusal(request()) == "busy"
    assert desk.drops == {}


@pytest.mark.parametrize(
    ("remotes", "answered"),
    [
        (["192.0.2.1"] * 7, 5),  # the burst of one address
        ([f"2001:db8::{number}" for number in range(7)], 5),  # all of one /64
        ([f"192.0.2.{number}" for number in range(20)], 16),  # the burst of all
    ],
)
def test_requests_are_rationed_by_address_and_in_all_before_they_are_decoded(remotes: list[str], answered: int) -> None:
    desk = Desk(None)
    words = [desk.refusal(b"junk", remote) for remote in remotes]
    assert words == ["malformed"] * answered + ["busy"] * (len(remotes) - answered)


def test_ration_comes_back_with_time() -> None:
    desk = Desk(None)
    words = [desk.refusal(b"junk", now=now) for now in [0.0] * 6 + [5.0] * 2]
    assert words == ["malformed"] * 5 + ["busy", "malformed", "busy"]


def test_a_joiner_that_tries_every_address_is_refused_counted_and_written_once(caplog) -> None:
    caplog.set_level("INFO", "conflux")
    desk = Desk(None)
    for number in range(3):
        assert desk.refusal(request(), f"192.0.2.{number}", now=5.0 * number) == "wrong-issuer"
    assert desk.drops == {"join-wrong-issuer": 1}
    assert len(caplog.messages) == 1
    desk.refusal(request(), now=ONE_JOIN_S)  # another try
    assert desk.drops == {"join-wrong-issuer": 2}
