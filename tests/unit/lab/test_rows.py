"""The reader of a daemon's JSON that labs, demo and soak share."""

from __future__ import annotations

import json

import pytest
from rig.rows import read

from conflux.api import scheme
from conflux.api.nodes import PeerRow, Reach
from conflux.api.rows import (
    ChannelRow,
    CredentialRow,
    DatapathRow,
    DestinationRow,
    DeviceRow,
    LinkRow,
    NodeRow,
    RealmRow,
    RelayEnd,
    Relaying,
    RelayRow,
    RouteRow,
    Status,
    StreamRow,
    Streams,
)
from conflux.api.usage import BudgetRow, DayRow
from conflux.api.why import KnownBy, Source, Verdict, Why
from conflux.control.channel import NeighbourStatus
from conflux.control.event import PlaneStatus
from conflux.host.memory import Memory


def sent(value: object) -> object:
    """Return what a command prints, as a lab decodes it."""
    return json.loads(json.dumps(scheme.answer(value)))


STREAM = StreamRow("in", "n", "bravo", "receiving", None, None, 0, 1, 2, 3, 4, 5, None, None, 0.5, None)
WHOLE = Status(
    version="0.1.0",
    pid=7,
    uptime_s=2,
    nodes=(PeerRow("rod", "n", None, "100.79.3.2", Reach.LAN, (), None, 1.5, None, 0, 0, None, True),),
    node=NodeRow("n", "alpha", ("100.79.3.1",)),
    realm=RealmRow("home", "r"),
    credential=CredentialRow(1, 2, 3, "n", ("cold",), ()),
    policy_number=None,
    device=DeviceRow("conflux0", 4000, True, 1, 2),
    control=(ChannelRow("lan", True, "", (NeighbourStatus("n", "rod", "a", None, True, False, 1.0, 2.0, (), 9),)),),
    relaying=Relaying.ON,
    memory=Memory(None, 3),
    budget=BudgetRow("near", 100, None, 1, 85, 90, (DayRow("2026-12-01", 40, 45),)),
    warnings=("clock-behind: two days",),
    sockets=0,
    tasks=(),
    streams=(STREAM,),
    links=(LinkRow(1, "n", "rod", "open", True, 1.0, 1, 0, None),),
    routes=(RouteRow("out", 1, "0000000a", True, None),),
    relays=(RelayRow(RelayEnd(None, 1, "0a", "0b"), RelayEnd("rod", 2, "0c", "0d"), 1, 2, 3, 4, 5.0),),
    destinations=(DestinationRow("n", "rod", (), "flowing", None, ("rod",), 0, ()),),
    datapath=DatapathRow("native", (), (), (), (), {"aged": 2}),
    plane=PlaneStatus("00", "01", 1, 0, (), {}),
    drops={"aged": 2},
)


def test_an_answer_is_read_back_as_what_it_was_made_of() -> None:
    read_back = read(Status, sent(WHOLE))
    assert read_back == WHOLE
    assert type(read_back.nodes[0].reach) is Reach
    got = Why("bravo", "bravo", None, Verdict.FLOWING, (Source(KnownBy.BEHIND, via="rod"),), trying=(("rod", "bravo"),))
    assert read(Why, sent(got)) == got


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"frames": "two"}, r"Streams.streams\[0\].frames: 'two' is no <class 'int'>"),
        ({"frames": True}, "frames: True is no"),
        ({"frames": None}, "frames: None is no"),
        ({"direction": "up"}, "direction: 'up' is no"),
        ({"path": "rod"}, "path: 'rod' is no"),
        ({"renamed": 1}, r"lacks \[\], and has no field for \['renamed'\]"),
    ],
)
def test_a_value_that_the_row_has_no_place_for_is_named(change: dict[str, object], words: str) -> None:
    answer = {"scheme": 1, "streams": [{**STREAM._asdict(), **change}]}
    with pytest.raises(ValueError, match=words):
        read(Streams, answer)


def test_a_key_that_is_missing_is_named() -> None:
    row = STREAM._asdict()
    del row["frames"]
    with pytest.raises(ValueError, match=r"lacks \['frames'\]"):
        read(Streams, {"scheme": 1, "streams": [row]})


@pytest.mark.parametrize("answer", [None, [], {"streams": []}, {"scheme": 2, "streams": []}])
def test_an_answer_of_another_scheme_is_refused(answer: object) -> None:
    with pytest.raises(ValueError, match="no object of scheme 1"):
        read(Streams, answer)
