"""Events in words: what the log and `conflux watch` say of each."""

from __future__ import annotations

import json

import pytest
from kit.nodes import id_of, path_of

from conflux.api.server import encode
from conflux.control.event import Unanswered
from conflux.control.who import Who
from conflux.ids import NodeId, format_node_id
from conflux.link.event import DialEnd, LinkEnd
from conflux.node.event import Event, EventKind, NodeEnd, Reason, reason_of
from conflux.route.event import RouteEnd, RouteFailed
from conflux.route.message import Refusal, RefusalWord
from conflux.shell.feed import event_row, event_subject, event_text
from conflux.stream.event import ReceiverEnd, SenderEnd

NAMES = {id_of(name): name for name in ("bravo", "rod", "ruth")}
BRAVO = id_of("bravo")
DIRECT, BY_TWO = path_of("bravo").hops, path_of("rod", "ruth", "bravo").hops
ADDRESS = Who(name="bravo")


def name_of(node: NodeId) -> str:
    return NAMES.get(node, format_node_id(node))


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (Event(EventKind.QUEUE, asked=ADDRESS), "a packet waits for bravo"),
        (Event(EventKind.QUEUE, BRAVO), "packets wait for bravo"),
        (Event(EventKind.WHO, asked=ADDRESS), "asked who owns bravo"),
        (Event(EventKind.CARD, BRAVO, took_s=0.1), ""),
        (Event(EventKind.DIAL, BRAVO, path=DIRECT), ""),
        (Event(EventKind.DIAL, BRAVO, path=BY_TWO), "by rod, ruth"),
        (Event(EventKind.FRAMES, BRAVO, path=DIRECT), "direct"),
        (Event(EventKind.MOVED, BRAVO, path=BY_TWO), "by rod, ruth"),
        (Event(EventKind.REKEY, BRAVO, epoch=3), "epoch 3"),
        (Event(EventKind.SUSPECT, BRAVO), "no feedback"),
        (
            Event(EventKind.SUSPECT, BRAVO, path=DIRECT, reason=Reason(RouteEnd.TORN_DOWN)),
            "route lost: bravo ended the route (peer)",
        ),
        (
            Event(EventKind.FAILED, BRAVO, path=DIRECT, reason=Reason(DialEnd.TIMEOUT)),
            "direct: no link to bravo comes up, so UDP may not pass between the two (dial: timeout)",
        ),
        (
            Event(EventKind.FAILED, BRAVO, path=BY_TWO, reason=Reason(NodeEnd.NO_KEY, by=BY_TWO[1])),
            "by rod, ruth: the key of ruth is not known here (no-key)",
        ),
        (
            Event(EventKind.FAILED, BRAVO, reason=Reason(SenderEnd.REFUSED, "busy")),
            'no stream: bravo does not take the stream, saying "busy" (handshake: refused: busy)',
        ),
        (
            Event(EventKind.FAILED, BRAVO, path=DIRECT, reason=Reason(DialEnd.REFUSED, "busy")),
            "direct: bravo is busy with links to others (dial: refused: busy)",
        ),
        (
            Event(EventKind.UNREACHABLE, BRAVO, reason=Reason(NodeEnd.NO_PATH)),
            "given up: no path is left to try (no path)",
        ),
        (
            Event(EventKind.UNREACHABLE, BRAVO, reason=Reason(SenderEnd.NO_ANSWER, "absent")),
            "given up: bravo is not there: no neighbour and no broker leads to it (handshake: absent)",
        ),
        (Event(EventKind.ENDED, BRAVO, reason=Reason(ReceiverEnd.DONE)), "done"),
        (Event(EventKind.CLOSED, BRAVO, reason=Reason(LinkEnd.FAILED, "dtls")), "dtls"),
        (Event(EventKind.CLOSED, BRAVO, reason=Reason(LinkEnd.PEER)), "peer"),
        (Event(EventKind.FOUND, BRAVO, ADDRESS), ""),
        (Event(EventKind.NOT_FOUND, asked=ADDRESS, reason=Reason(Unanswered.NO_ANSWER)), "no node answers (no-answer)"),
    ],
)
def test_event_reads(event, text):
    assert event_text(event, name_of) == text


def test_event_is_about_what_was_asked_for_or_about_its_node():
    stranger = NodeId(bytes(16))
    assert event_subject(Event(EventKind.FOUND, BRAVO, Who(name="brave")), name_of) == "brave"
    assert event_subject(Event(EventKind.FOUND, BRAVO, Who(node=BRAVO)), name_of) == "bravo", "its name is known now"
    assert event_subject(Event(EventKind.LINK, BRAVO), name_of) == "bravo"
    assert event_subject(Event(EventKind.LINK, stranger), name_of) == format_node_id(stranger)


def test_row_of_an_event_is_plain_and_quotes_a_hop_beside_the_reason():
    refusal = Refusal(RefusalWord.OTHER, 0, of_next=False, said="timeout!")
    reason = reason_of(RouteFailed(1, b"stream", RouteEnd.REFUSED, refusal))
    event = Event(EventKind.FAILED, BRAVO, path=BY_TWO, reason=reason, took_s=0.12345678)
    row = event_row(event, name_of, 1_800_000_000.5)
    assert json.loads(encode(row)) == {
        "event": "failed",
        "at": 1_800_000_000.5,
        "name": "bravo",
        "text": 'by rod, ruth: rod refuses it, saying "timeout!" (timeout!)',
        "node": format_node_id(BRAVO),
        "path": [format_node_id(hop) for hop in BY_TWO],
        "reason": "other",
        "said": "timeout!",
        "took_ms": 123.457,
    }
