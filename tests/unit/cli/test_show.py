"""Text for people: aligned, with few digits, and never "connected" when packets do not pass."""

import sys

import pytest

from conflux.cli import nodes, observe, route, show

ATTIC = {
    "name": "attic",
    "node": "a" * 26,
    "ipv6": "fd3c:7e38:688b:e369:1111:2a9b:cca6:d8a1",
    "ipv4": "100.96.7.7",
    "reach": "lan",
    "by": [],
    "state": "flowing",
    "heard_at": 4990.0,
    "left_at": None,
    "sent_bytes": 1_402_117,
    "received_bytes": 740,
    "expires_at": 4e9,
    "named": True,
}

STATUS = {
    "nodes": [],
    "version": "0.1",
    "pid": 7,
    "uptime_s": 4000,
    "node": {"id": "k" * 26, "name": "gate", "addresses": ["fd3c:7e38:688b:e369:17dd:2a9b:cca6:d8a", "100.96.121.39"]},
    "realm": {"name": "home", "id": "r" * 26},
    "credential": {"expires_at": 4e9, "renew_at": 3e9},
    "device": {"name": "conflux0", "mtu_bytes": 1280, "up": True, "read_packets": 10, "written_packets": 12},
    "control": [{"name": "lan", "up": True, "detail": "listening on port 7464, 2 neighbours"}],
    "datapath": {"name": "reference"},
    "memory": {"rss_bytes": 44_100_000, "pss_bytes": 39_000_000},
    "budget": {
        "state": "near",
        "day_limit_bytes": 50_000_000,
        "month_limit_bytes": None,
        "month_starts": 1,
        "today_bytes": 41_000_000,
        "month_bytes": 312_000_000,
        "days": [
            {"date": "2026-11-30", "sent_bytes": 9_000_000, "received_bytes": 14_000_000},
            {"date": "2026-12-01", "sent_bytes": 20_000_000, "received_bytes": 21_000_000},
        ],
    },
    "warnings": [],
    "streams": [],
    "links": [],
    "drops": {},
    "relaying": "on",
    "relays": [],
}

RELAY = {
    "before": {"name": "kitchen", "link": 3, "label_in": "cf2e3d4c", "label_out": "00000001"},
    "ahead": {"name": "sensor", "link": 12, "label_in": "00000002", "label_out": "a0b0c0d0"},
    "ahead_frames": 812,
    "ahead_bytes": 1_402_117,
    "back_frames": 31,
    "back_bytes": 2480,
    "expires_in_s": 512.3,
}

PATH = {
    "hops": ["gate", "barn", "sensor"],
    "rtt_ms": 2.31,
    "open_ms": 41.7,
    "openings": 2,
    "failures": 0,
    "received_frames": 900,
    "lost_frames": 1,
    "why": "measured",
}

STREAMS = [
    {
        "direction": "out",
        "node": "s" * 26,
        "name": "sensor",
        "state": "flowing",
        "path": ["gate", "sensor"],
        "packets": 1204,
        "bytes": 140_211,
        "queued_packets": 3,
        "queued_bytes": 3840,
        "rtt_ms": 1.234,
    },
    {
        "direction": "in",
        "node": "s" * 26,
        "name": "sensor",
        "state": "receiving",
        "path": None,
        "packets": 900,
        "bytes": 70_000,
        "queued_packets": None,
        "queued_bytes": None,
        "rtt_ms": None,
    },
]

LINKS = [
    {
        "link": 3,
        "name": "sensor",
        "state": "open",
        "dialled": True,
        "age_s": 72.0,
        "users": 2,
        "failures": 0,
        "sent_bytes": 9_800_000,
        "received_bytes": 12_000,
        "rtt_ms": 0.412,
        "rate_mbit": 4244.0,
    },
    {
        "link": None,
        "name": "barn",
        "state": "idle",
        "dialled": None,
        "age_s": None,
        "users": 0,
        "failures": 4,
        "sent_bytes": None,
        "received_bytes": None,
        "rtt_ms": None,
        "rate_mbit": None,
    },
]


def described(**changed: object) -> str:
    return "\n\n".join(observe.describe_status(STATUS | changed))


def test_status_at_rest_says_that_nothing_is_open():
    assert described().startswith("""\
nodes: none known yet but this one

this node   gate in realm home, running for 1 h 6 min
id          kkkkkkkkkkkkkkkkkkkkkkkkkk
addresses   fd3c:7e38:688b:e369:17dd:2a9b:cca6:d8a
            100.96.121.39
""")
    assert (
        "\nbytes       41 MB today, 312 MB this month\nbudget      50 MB a day, 41 MB used; nearly used up\n"
        in described()
    )
    assert "streams: none" in described()
    assert "links: none, no data-plane socket is open" in described()
    assert "dropped: nothing" in described()


def test_status_under_load_fits_eighty_columns_and_aligns():
    text = described(streams=STREAMS, links=LINKS, drops={"spoofed": 12, "replayed": 3})
    assert max(map(len, text.splitlines())) <= 80
    assert (
        """\
stream  name    state      by     bytes  packets  queued      rtt
to      sensor  flowing    gate  140 kB     1204  3.8 kB  1.23 ms
from    sensor  receiving  -      70 kB      900       -        -
"""
        in text
    )
    assert (
        """\
dropped, and worth a look:
  spoofed 12:
    a peer's packet from an address that is not its own

dropped, as in any network:
  reason    count
  replayed      3"""
        in text
    )


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"device": STATUS["device"] | {"up": False}}, "DOWN: packets do not pass"),
        ({"control": [{"name": "lan", "up": False, "detail": "stopped"}]}, "lan DOWN: stopped"),
        ({"control": []}, "none: no control channel is enabled"),
        ({"credential": {"expires_at": 1000}}, "EXPIRED on 1970-01-01"),
        ({"relays": [RELAY, RELAY]}, "relaying    on, 2 routes of others"),
        ({}, "relaying    on, no routes of others now"),
        ({"relaying": "off"}, "relaying    off, by configuration"),
        ({"relaying": "not-allowed"}, "relaying    off, the credential does not allow it"),
        ({"warnings": ["clock-behind: 70 s"]}, "WRONG  clock-behind: 70 s"),
        ({"control": [{"name": "nats", "up": False, "detail": "x"}]}, "WRONG  control channel nats is down: x"),
    ],
)
def test_status_says_what_is_wrong(changed, words):
    assert words in described(**changed)


def test_status_begins_with_who_is_there():
    barn = ATTIC | {"name": "barn", "reach": "relay", "by": ["rod", "shed"], "heard_at": 4000.0, "expires_at": 1000.0}
    loft = ATTIC | {"name": "loft", "reach": None, "left_at": 4980.0, "heard_at": 4980.0, "ipv4": None}
    rows = [ATTIC, barn, loft, loft | {"name": "shed", "left_at": None, "heard_at": None, "expires_at": None}]
    assert (
        nodes.describe_nodes(rows, now_unix=5000.0)
        == """\
node   reached       heard         sent  received  credential
attic  LAN           now         1.4 MB     740 B  until 2096-10-02
  fd3c:7e38:688b:e369:1111:2a9b:cca6:d8a1  100.96.7.7
barn   by rod, shed  16 min ago  1.4 MB     740 B  EXPIRED 1970-01-01
  fd3c:7e38:688b:e369:1111:2a9b:cca6:d8a1  100.96.7.7
loft   left the LAN  20 s ago    1.4 MB     740 B  until 2096-10-02
  fd3c:7e38:688b:e369:1111:2a9b:cca6:d8a1
shed   not now       -           1.4 MB     740 B  -
  fd3c:7e38:688b:e369:1111:2a9b:cca6:d8a1"""
    )
    assert described(nodes=rows).startswith("node ")


def words_of(blocks: list[str]) -> set[str]:
    return {word for block in blocks for word in block.split()}


@pytest.mark.parametrize("columns", [80, 40])
def test_no_word_is_cut_in_two_and_no_line_is_wider_than_the_terminal(columns):
    path = PATH | {"name": "sensor", "node": "s" * 26, "carrying": True}
    route_row = {"direction": "out", "next": "gate", "link": 3, "label": "cf2e3d4c", "ready": True}
    status = STATUS | {
        "nodes": [ATTIC, ATTIC | {"name": "barn", "reach": "relay", "by": ["rod", "shed"]}],
        "streams": STREAMS,
        "links": LINKS,
        "relays": [RELAY],
        "warnings": ["the clock of this host is 70 s behind that of the realm: set it"],
        "drops": {"spoofed": 12, "replayed": 3},
    }
    answer = {"name": "sensor", "state": "flowing", "path": PATH["hops"], "paths": [path]}
    paths = {"routes": [route_row], "relays": [RELAY], "paths": [path]}
    for describe, got in (
        (observe.describe_status, STATUS),
        (observe.describe_status, status),
        (observe.describe_paths, paths),
        (route.describe_route, answer),
    ):
        blocks = describe(got, columns=columns)
        assert max(len(line) for block in blocks for line in block.splitlines()) <= columns, "\n\n".join(blocks)
        assert words_of(describe(got, columns=1000)) - words_of(blocks) <= {"-"}, "a word was cut, or is lost"


def test_what_is_wrong_is_red_line_by_line_and_nothing_else_is():
    blocks = observe.describe_status(STATUS | {"warnings": ["a b " * 30]}, columns=40, paint=show.red)
    red = [line for block in blocks for line in block.splitlines() if "\x1b" in line]
    assert len(red) > 2
    assert all(line.startswith("\x1b[31m") and line.endswith("\x1b[0m") for line in red)
    assert "\x1b" not in "".join(observe.describe_status(STATUS, paint=show.red))


@pytest.mark.parametrize(
    ("when", "terminal", "environment", "coloured"),
    [
        ("auto", True, {"TERM": "xterm"}, True),
        ("auto", False, {"TERM": "xterm"}, False),
        ("auto", True, {"TERM": "xterm", "NO_COLOR": "1"}, False),
        ("auto", True, {"TERM": "dumb"}, False),
        ("auto", True, {}, False),
        ("always", False, {"NO_COLOR": "1"}, True),
        ("never", True, {"TERM": "xterm"}, False),
    ],
)
def test_colour_is_for_terminals_unless_it_is_asked_for(monkeypatch, when, terminal, environment, coloured):
    for name in ("TERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    assert (show.painter(when)("x") != "x") is coloured


@pytest.mark.parametrize(("said", "columns"), [("40", 40), ("3", 20), ("0", 80), ("wide", 80), ("", 80)])
def test_the_width_is_what_columns_says_else_eighty_without_a_terminal(monkeypatch, said, columns):
    monkeypatch.setenv("COLUMNS", said)
    assert show.columns() == columns


@pytest.mark.parametrize(
    ("mbit", "text"),
    [(0.64, "640 kbit/s"), (8.71, "8.7 Mbit/s"), (87, "87 Mbit/s"), (4244, "4.2 Gbit/s"), (25_000, "25 Gbit/s")],
)
def test_a_rate_is_shown_in_its_unit(mbit, text):
    assert show.rate(mbit) == text


def test_a_relayed_route_is_shown_as_two_links_with_labels_and_counters():
    table = """\
relayed from  link  label     to      link  label     frames   bytes    back
kitchen          3  cf2e3d4c  sensor    12  a0b0c0d0     812  1.4 MB  2.5 kB"""
    assert observe.describe_relays([RELAY]) == table
    assert table in described(relays=[RELAY])
    assert observe.describe_paths({"routes": [], "relays": [RELAY], "paths": []}) == [table]
    assert observe.describe_paths({"routes": [], "relays": [], "paths": []}) == ["routes: none"]


def test_a_route_is_explained_by_every_candidate():
    direct = PATH | {"hops": ["sensor"], "rtt_ms": None, "open_ms": None, "why": "never measured", "carrying": False}
    paths = [PATH | {"carrying": True}, direct]
    answer = {"name": "sensor", "state": "flowing", "path": PATH["hops"], "paths": paths}
    assert (
        "\n".join(route.describe_route(answer))
        == """\
sensor: flowing, by gate, barn
by          now          rtt  set-up  opened  failed  lost  why
gate, barn  carries  2.31 ms   42 ms       2       0     1  measured
direct      -              -       -       2       0     1  never measured"""
    )
    assert route.describe_route(answer | {"state": "dialing", "path": None})[0] == "sensor: dialing"
    assert route.describe_route(answer | {"state": None, "path": None})[0] == "sensor: no stream goes there now"


def test_a_move_is_told_with_both_paths_and_its_time():
    answer = {"name": "sensor", "before": ["sensor"], "after": PATH["hops"], "took_ms": 43.6}
    assert route.describe_move(answer) == "sensor moved in 44 ms\n  before  direct\n  now     gate, barn"


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.9, "4 s"), (720, "12 min"), (12000, "3 h 20 min"), (533000, "6 d 4 h"), (None, None)]
)
def test_a_duration_is_shown_in_two_units_at_most(seconds, text):
    assert show.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(740, "740 B"), (12000, "12 kB"), (3_400_000, "3.4 MB"), (5e12, "5.0 TB"), (None, None)]
)
def test_a_size_is_shown_in_decimal_units(count, text):
    assert show.size(count) == text


@pytest.mark.parametrize(("value", "text"), [(1.239, "1.24 ms"), (87.4, "87 ms"), (1420, "1.4 s"), (None, None)])
def test_milliseconds_are_shown_with_few_digits(value, text):
    assert show.milliseconds(value) == text


def test_an_event_is_shown_on_one_line():
    event = {"event": "handshake", "at": 0.25, "name": "sensor", "text": "", "took_ms": 31.2, "node": None}
    assert observe.describe_event(event).endswith(".250  handshake    sensor (31 ms)")
    assert "17 events were lost" in observe.describe_event({"event": "events-lost", "lost_events": 17})
