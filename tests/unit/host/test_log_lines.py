"""Every line that the program can write: no Python in it, on one line, whatever a peer is called or says."""

from __future__ import annotations

import ast
import itertools
import logging
import re
from collections.abc import Iterator
from errno import ECONNREFUSED, ENOSPC
from ipaddress import ip_address
from ssl import SSLError
from typing import Any, NamedTuple

import pytest
from kit.nodes import id_of
from kit.plain import python_in
from kit.tree import TREE, nodes

from conflux.control.drop import Drop
from conflux.control.event import Unanswered
from conflux.control.who import Who
from conflux.errors import RemoteProtocolError, StateError
from conflux.host.log import message_of
from conflux.link.event import DialEnd, LinkEnd
from conflux.node.event import Event, EventKind, NodeEnd, Reason
from conflux.route.event import RouteEnd
from conflux.route.message import RefusalWord
from conflux.shell.feed import event_row
from conflux.shell.telling import Telling, line
from conflux.stream.event import ReceiverEnd, SenderEnd

LOGGERS = {"log", "logger", "_log", "self._log", "logging"}
LEVELS = {"debug", "info", "warning", "error", "critical", "exception", "log"}
PLACEHOLDER = re.compile(r"%(?:%|(-?\d*(?:\.\d+)?)([a-z]))")

HOSTILE = (
    "shed\nstopping",  # a line of its own
    "\x1b[2J\x1b]0;mine\x07",  # what a terminal obeys
    "ab\u202ecilbup",  # read backwards
    "%s %d %(name)s {0}",
    "x" * 200,
    "",
)
VALUES: tuple[object, ...] = (
    *HOSTILE,
    None,
    b"\x00\xff",
    ("10.7.1.13", 7464),
    (("10.7.1.13", 7464), ("fe80::1%2", 7464)),
    ["a", None],
    {"a": (1,)},
    frozenset({Drop.FLOOD}),
    Drop.FLOOD,
    StateError,
    ip_address("fd00::1"),
    OSError(ECONNREFUSED, "Connect call failed ('10.7.1.13', 7464)"),
    OSError("Multiple exceptions: [Errno 111] Connect call failed ('::1', 7464, 0, 0), [Errno 113] ..."),
    FileNotFoundError(ENOSPC, "No space left on device", "/var/lib/conflux/x"),
    TimeoutError(),
    ConnectionResetError(),
    SSLError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed (_ssl.c:1006)"),
    RemoteProtocolError(Drop.MALFORMED, "\n" * 400),
    StateError("disk full"),
)


class Call(NamedTuple):
    """One call of a logger.  place: file and line."""

    place: str
    form: str
    count: int | None  # of its arguments, where the code says it


def calls() -> Iterator[Call]:
    """Yield every call of a logger in the daemon and the command line."""
    for file in sorted((TREE / "conflux").rglob("*.py")):
        for node in nodes(file):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if node.func.attr in LEVELS and ast.unparse(node.func.value) in LOGGERS:
                form, *arguments = node.args[1:] if node.func.attr == "log" else node.args
                place = f"{file.relative_to(TREE)}:{node.lineno}"
                assert isinstance(form, ast.Constant), f"{place}: the form of a line is a constant"
                assert "{" not in str(form.value), f"{place}: values are handed to the logger"
                starred = any(isinstance(argument, ast.Starred) for argument in arguments)
                yield Call(place, str(form.value), None if starred else len(arguments))


CALLS = tuple(calls())


def is_a_line(text: str) -> bool:
    return text.isprintable() and python_in(text) is None


def values(form: str) -> Iterator[tuple[object, ...]]:
    """Yield arguments of a form: each hostile value in each place that takes anything."""
    kinds = [kind for _, kind in PLACEHOLDER.findall(form) if kind]
    assert set(kinds) <= {"s", "d", "f", "g"}, form  # %r and %a show Python
    for value in VALUES:
        yield tuple(value if kind == "s" else 7 for kind in kinds)


def test_there_are_lines():
    assert len(CALLS) > 60


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.place)
def test_a_line_is_one_and_has_no_python_in_it(call):
    for arguments in values(call.form):
        assert call.count in (None, len(arguments))
        record = logging.LogRecord("conflux", logging.INFO, "x.py", 1, call.form, arguments, None)
        assert is_a_line(message_of(record)), (call, message_of(record))


ENDS = (NodeEnd, Unanswered, SenderEnd, ReceiverEnd, RouteEnd, RefusalWord, LinkEnd, DialEnd)


def events() -> Iterator[Event]:
    """Yield events of every kind, with every reason there is, and with hostile words."""
    node, path = id_of("bravo"), (id_of("rod"), id_of("bravo"))
    reasons = [None, *(Reason(end, said) for ends in ENDS for end in ends for said in ("", HOSTILE[0]))]
    whos = (None, Who(name="bravo"), Who(address=ip_address("100.64.0.9")), Who(node=node), Who(feature="relay"))
    for kind in EventKind:
        for reason in reasons:
            if kind is not EventKind.FAILED or reason is not None:
                yield Event(kind, node, path=path, reason=reason, took_s=0.0123, epoch=3)
        for who, at in itertools.product(whos, (None, node)):
            if who is not None or at is not None:
                yield Event(kind, at, who, path=path[1:], reason=Reason(NodeEnd.NO_PATH), epoch=0)


class Lines(logging.Handler):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.levelno, message_of(record)))


@pytest.fixture
def lines() -> Iterator[Lines]:
    logger = logging.getLogger("conflux.shell.telling")
    handler, level = Lines(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


def told(telling: Telling, *found: Event, at: float = 0.0, name: Any = "shed") -> None:
    for event in found:
        telling.tell(event, event_row(event, lambda node: name, at))


@pytest.mark.parametrize(("name", "every"), [("shed", 1), *((name, 11) for name in HOSTILE)])
def test_every_event_is_a_line_without_python_whatever_its_node_is_called(lines, name, every):
    """Every event, and of those about a node with a hostile name every eleventh, among them all kinds."""
    found = list(events())[::every]
    for event in found:
        told(Telling(), event, name=name)
    assert {event.kind for event in found} == set(EventKind)
    assert len(lines.lines) == len(found)
    assert [text for _, text in lines.lines if not is_a_line(text)] == []


def test_a_stream_that_begins_and_ends_again_and_again_writes_nothing_at_info(lines):
    telling = Telling()
    once = [
        *(EventKind.QUEUE, EventKind.WHO, EventKind.FOUND, EventKind.CARD, EventKind.DIAL, EventKind.LINK),
        *(EventKind.HANDSHAKE, EventKind.FRAMES, EventKind.RECEIVING, EventKind.REKEY, EventKind.MOVED),
        *(EventKind.IDLE, EventKind.ENDED, EventKind.CLOSED),
    ]
    node = id_of("bravo")
    for second in range(100):
        told(telling, *(Event(kind, node, Who(name="bravo"), epoch=2) for kind in once), at=60.0 * second)
    assert len(lines.lines) == 100 * len(once)
    assert [text for level, text in lines.lines if level >= logging.INFO] == []


def test_a_node_that_cannot_be_reached_is_a_line_and_another_when_it_is_reached_again(lines):
    telling, node = Telling(), id_of("bravo")
    lost = Event(EventKind.UNREACHABLE, node, reason=Reason(DialEnd.TIMEOUT))
    told(telling, lost, at=100.0)
    told(telling, lost, lost, at=160.0)
    told(telling, Event(EventKind.FRAMES, node), at=400.0)
    told(telling, Event(EventKind.FRAMES, node), at=500.0)
    assert [text for level, text in lines.lines if level >= logging.INFO] == [
        "shed cannot be reached: no link to shed comes up, so UDP may not pass between the two (dial: timeout)",
        "shed is reached again, after 5 minutes",
    ]


def test_a_line_of_an_event_has_its_time_in_three_digits():
    event = Event(EventKind.FRAMES, id_of("bravo"), path=(id_of("bravo"),), took_s=10.2419)
    assert line(event_row(event, lambda node: "shed", 0.0)) == "frames      shed direct (10.2 s)"
    event = Event(EventKind.HANDSHAKE, id_of("bravo"), took_s=0.018012)
    assert line(event_row(event, lambda node: "shed", 0.0)) == "handshake   shed (18 ms)"
