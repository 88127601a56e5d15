"""Why something failed, in words: every kind that a machine knows has a phrase of its own."""

from __future__ import annotations

from enum import StrEnum

import pytest

from conflux.control.event import Unanswered
from conflux.link.event import DialEnd, LinkEnd
from conflux.node.event import NodeEnd, Reason, Step
from conflux.route.event import RouteEnd
from conflux.route.message import RefusalWord
from conflux.shell.words import phrase, short, way
from conflux.stream.event import ReceiverEnd, SenderEnd

KINDS: tuple[type[StrEnum], ...] = (
    NodeEnd,
    Unanswered,
    SenderEnd,
    ReceiverEnd,
    RouteEnd,
    RefusalWord,
    LinkEnd,
    DialEnd,
)


@pytest.mark.parametrize("end", [end for kind in KINDS for end in kind], ids=lambda end: f"{type(end).__name__}.{end}")
def test_every_end_has_a_step_a_phrase_and_its_word(end: StrEnum) -> None:
    reason = Reason(end)
    text = phrase(reason.step, end.value, "", "shed")
    assert text.endswith(f" ({reason})")
    assert not text.startswith("it failed"), "a kind without words"
    assert "{" not in text


def test_every_step_is_that_of_a_kind() -> None:
    assert {Reason(next(iter(kind))).step for kind in KINDS} == set(Step)


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        (Reason(RefusalWord.NO_RELAY, "no-relay"), "shed does not relay (no-relay)"),
        (Reason(RefusalWord.OTHER, "tired!"), 'shed refuses it, saying "tired!" (tired!)'),
        (Reason(DialEnd.NO_ANSWER, "timeout"), "shed does not answer (dial: timeout)"),
        (
            Reason(DialEnd.NO_ANSWER, "absent"),
            "shed is not there: no neighbour and no broker leads to it (dial: absent)",
        ),
        (
            Reason(DialEnd.REFUSED, "timeout"),
            "shed gave the link up, as nothing came through to it (dial: refused: timeout)",
        ),
        (Reason(DialEnd.REFUSED, "full"), 'shed refuses the link, saying "full" (dial: refused: full)'),
        (
            Reason(DialEnd.FAILED, "no-address"),
            "this board has no address that a link can use (dial: no-address)",
        ),
        (Reason(SenderEnd.REFUSED), "shed does not take the stream (handshake: refused)"),
        (Reason(RouteEnd.TIMEOUT), "no answer of shed came back (timeout)"),
    ],
)
def test_the_words_say_who_and_what(reason: Reason, text: str) -> None:
    assert phrase(reason.step, reason.end.value, reason.said, "shed") == text
    assert short(reason.step, reason.end.value, reason.said) == str(reason)


def test_a_step_of_a_later_version_has_words_too() -> None:
    assert phrase("teleport", "fog", "", "shed") == "it failed (fog)"


def test_a_way_is_named_by_its_relays() -> None:
    assert (way(["bravo"]), way(["shed", "barn", "bravo"])) == ("direct", "by shed, barn")
