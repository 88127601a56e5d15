"""Which offers of peers are kept for this node's answers, and for how many."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from kit.builders import FIRST_BOOT
from kit.nodes import id_of

from conflux.control.envelope import Kind
from conflux.control.event import Message
from conflux.link.event import Signal
from conflux.node import requests
from conflux.node.requests import Requests
from conflux.stream.event import RideEnded

ROD = id_of("rod")


def offer(seq: int) -> Message:
    return Message(ROD, Kind.OFFER, b"offer", seq, 0, FIRST_BOOT)


def answer(seq: int) -> Signal:
    return Signal(ROD, Kind.ANSWER, b"answer", re=seq, attempt=bytes(16), answered=False)


def test_offers_are_kept_up_to_the_bound_and_the_oldest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "OFFER_COUNT_MAX", 2)
    replied: list[int] = []
    told: list[bytes] = []
    plane: Any = SimpleNamespace(
        reply=lambda to, kind, body, *, now: replied.append(to.seq),
        notify=lambda peer, kind, body, *, now: told.append(body),
    )
    links: Any = SimpleNamespace(can_be_keyed=lambda peer, attempt: True)
    streams: Any = SimpleNamespace(resuming=SimpleNamespace(ride_back=lambda peer, re, rider, *, keyed, now: None))
    machine = Requests(plane, streams, links)
    for seq in (1, 2, 3):
        machine.remember_offer(offer(seq))
    for seq in (1, 2, 3, 3):  # the first is forgotten; the last is answered already
        machine.signal(answer(seq), 0.0)
    assert replied == [2, 3]
    assert told == [b"answer"] * 2


@pytest.mark.parametrize("answered", [False, True])
def test_an_offer_whose_resumption_had_no_answer_is_made_anew_and_not_sent_again(answered: bool) -> None:
    sent: list[bytes] = []
    anew: list[bytes] = []
    rides = iter((True, False))
    plane: Any = SimpleNamespace(
        request=lambda peer, kind, body, *, now: sent.append(body) or 1, pairs=SimpleNamespace(next_seq=lambda: 7)
    )
    streams: Any = SimpleNamespace(resuming=SimpleNamespace(ride=lambda peer, rider, *, now: next(rides)))
    links: Any = SimpleNamespace(
        offers=lambda peer, attempt: True, offer_anew=lambda peer, attempt, *, now: anew.append(attempt)
    )
    machine = Requests(plane, streams, links)
    machine.signal(Signal(ROD, Kind.OFFER, b"offer", re=None, attempt=b"attempt1", answered=True), 0.0)
    machine.ride_ended(RideEnded(ROD, answered=answered), 0.0)
    assert (sent, anew) == (([b"offer"], []) if answered else ([], [b"attempt1"]))
