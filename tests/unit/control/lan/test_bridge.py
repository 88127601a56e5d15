"""Which LAN a connection is on, and which envelopes a bridge passes on."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from ipaddress import ip_interface

import pytest

from conflux import record
from conflux.control import passed as passed_module
from conflux.control.envelope import ENVELOPE_BYTES_MAX, HOP_LIMIT_MAX, PAYLOAD_BYTES_MAX, Envelope
from conflux.control.lan import bridge as bridge_module
from conflux.control.lan.bridge import ISLAND_MESSAGE_BURST, ISLAND_MESSAGE_RATE, NOWHERE, Bridge, Passage
from conflux.control.lan.lans import Interface, Lans
from conflux.ids import NodeId


def node(name: str) -> NodeId:
    return NodeId(name.encode().ljust(16, b"."))


ROD, ALPHA, ALICE, RUTH, BRAVO, CHARLIE = map(node, ("rod", "alpha", "alice", "ruth", "bravo", "charlie"))


def envelope(to: NodeId | None, *, hop_limit: int = HOP_LIMIT_MAX, payload: bytes = b"sealed") -> Envelope:
    return Envelope(to, os.urandom(16), hop_limit, None, payload)


class Rod:
    """A bridge: alpha and alice are on LAN one, bravo and ruth, another bridge, on LAN two."""

    def __init__(self) -> None:
        self.drops: Counter[str] = Counter()
        self.bridge = Bridge(ROD, self.drop)
        for name, lan in ((ALPHA, "one"), (ALICE, "one"), (RUTH, "two"), (BRAVO, "two")):
            self.bridge.place(name, lan)
        self.bridge.hear(RUTH, joins=True)

    def drop(self, reason: str) -> None:
        self.drops[reason] += 1

    def receive(self, envelope: Envelope, via: NodeId = ALPHA, now: float = 0.0) -> Passage:
        return self.bridge.receive_untrusted(envelope.encode(), via, now=now)


@pytest.fixture
def rod() -> Rod:
    return Rod()


# ── what goes where ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_envelope_for_all_goes_on_to_other_lans_with_a_hop_less(rod: Rod) -> None:
    said = envelope(None)
    passage = rod.receive(said)
    assert passage.delivered == said
    assert passage.to == (RUTH, BRAVO)
    assert Envelope.decode_untrusted(passage.onward) == replace(said, hop_limit=HOP_LIMIT_MAX - 1)


def test_envelope_for_us_is_delivered_and_goes_nowhere(rod: Rod) -> None:
    said = envelope(ROD)
    assert rod.receive(said) == Passage(said)


@pytest.mark.parametrize("to", [BRAVO, ALICE])
def test_envelope_for_a_neighbour_goes_to_it_alone_on_any_lan(rod: Rod, to: NodeId) -> None:
    passage = rod.receive(envelope(to))
    assert (passage.delivered, passage.to) == (None, (to,))


def test_envelope_for_a_node_further_away_goes_to_bridges_alone(rod: Rod) -> None:
    passage = rod.receive(envelope(CHARLIE))
    assert (passage.delivered, passage.to) == (None, (RUTH,))
    assert rod.receive(envelope(CHARLIE), via=RUTH).to == ()  # no neighbour on LAN one is a bridge


def test_envelope_never_goes_back_to_the_neighbour_that_brought_it(rod: Rod) -> None:
    assert rod.receive(envelope(ALPHA)) == NOWHERE
    assert rod.drops == {"not-for-us": 1}


def test_node_on_one_lan_passes_nothing_on() -> None:
    alone = Rod()
    alone.bridge.remove(RUTH)
    alone.bridge.remove(BRAVO)
    assert not alone.bridge.joins
    said = envelope(None)
    assert alone.receive(said) == Passage(said)
    assert alone.receive(envelope(ALICE)) == NOWHERE
    assert alone.receive(envelope(CHARLIE)) == NOWHERE


def test_nothing_passes_to_or_from_a_neighbour_whose_lan_is_unknown(rod: Rod) -> None:
    rod.bridge.place(BRAVO, None)
    assert rod.receive(envelope(None)).to == (RUTH,)
    said = envelope(None)
    assert rod.receive(said, via=BRAVO) == Passage(said)


def test_last_hop_delivers_and_does_not_go_on(rod: Rod) -> None:
    said = envelope(None, hop_limit=0)
    assert rod.receive(said) == Passage(said)
    assert rod.receive(envelope(BRAVO, hop_limit=0)) == NOWHERE
    assert Envelope.decode_untrusted(rod.receive(envelope(BRAVO, hop_limit=1)).onward).hop_limit == 0
    assert rod.drops == {"hop-limit": 2}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "malformed"),
        (b"\x00", "malformed"),
        (b"\xff" * 40, "malformed"),
        (b"\x86\x02\xf6" + b"\x50" + bytes(16) + b"\x08\xf6\x41\x00", "version"),
        (bytes(ENVELOPE_BYTES_MAX + 1), "oversized"),
        (record.encode([1, bytes(16), bytes(16), HOP_LIMIT_MAX + 1, None, b"x"]), "malformed"),
        (record.encode([1, bytes(15), bytes(16), HOP_LIMIT_MAX, None, b"x"]), "malformed"),
    ],
)
def test_what_is_no_envelope_is_a_counted_drop(rod: Rod, data: bytes, reason: str) -> None:
    assert rod.bridge.receive_untrusted(data, ALPHA, now=0.0) == NOWHERE
    assert rod.drops == {reason: 1}


def test_truncated_and_flipped_envelopes_are_dropped_or_are_other_envelopes(rod: Rod) -> None:
    good = envelope(ROD, payload=bytes(500)).encode()
    for size in range(len(good)):
        assert rod.bridge.receive_untrusted(good[:size], RUTH, now=float(size)) == NOWHERE
    assert rod.drops == {"malformed": len(good)}
    for position in range(40, len(good)):
        flipped = bytearray(good)
        flipped[position] ^= 1
        passage = rod.bridge.receive_untrusted(bytes(flipped), RUTH, now=float(len(good) + position))
        assert passage.delivered is None or passage.delivered.encode() == flipped
    assert set(rod.drops) <= {"malformed", "version"}


# ── copies ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_copy_is_dropped_from_any_neighbour(rod: Rod) -> None:
    said = envelope(None)
    rod.receive(said)
    for via, copy in ((ALICE, said), (BRAVO, replace(said, hop_limit=3))):
        assert rod.receive(copy, via) == NOWHERE
    assert rod.drops == {"duplicate": 2}


def test_envelope_of_our_own_never_comes_back(rod: Rod) -> None:
    said = envelope(None, hop_limit=5)
    assert rod.bridge.send(said, now=0.0) == (ALPHA, ALICE, RUTH, BRAVO)
    assert rod.receive(replace(said, hop_limit=HOP_LIMIT_MAX), RUTH) == NOWHERE


def test_rubbish_under_the_same_id_does_not_shut_the_envelope_out(rod: Rod) -> None:
    said = envelope(None)
    rod.receive(replace(said, payload=b"rubbish"), ALICE)
    rod.receive(replace(said, to=BRAVO), ALICE)
    assert rod.receive(said).to == (RUTH, BRAVO)


def test_copy_without_hops_does_not_shut_the_envelope_out(rod: Rod) -> None:
    said = envelope(None)
    last_hop = replace(said, hop_limit=0)
    assert rod.receive(last_hop, ALICE) == Passage(last_hop)
    passage = rod.receive(said)
    assert (passage.delivered, passage.to) == (None, (RUTH, BRAVO))  # it goes on, but was delivered before


def test_copy_of_a_neighbour_over_its_budget_does_not_shut_the_envelope_out(rod: Rod) -> None:
    for number in range(8):
        rod.bridge.place(node(f"more-{number}"), "two")
    largest = bytes(PAYLOAD_BYTES_MAX)
    said = envelope(None, payload=largest)
    for _ in range(100):
        rod.receive(envelope(None, payload=largest), ALICE)
    flood = rod.drops["forward-flood"]
    assert rod.receive(said, ALICE).to == ()
    assert rod.drops["forward-flood"] == flood + 1 > 1
    assert len(rod.receive(said).to) == 10
    assert rod.receive(said).to == ()


def test_copy_of_a_neighbour_on_an_unknown_lan_does_not_shut_the_envelope_out(rod: Rod) -> None:
    rod.bridge.place(ALICE, None)
    said = envelope(None)
    assert rod.receive(said, ALICE) == Passage(said)
    assert rod.receive(said).to == (RUTH, BRAVO)


def test_envelope_is_forgotten_after_a_minute(rod: Rod) -> None:
    first, last = envelope(None), envelope(None)
    rod.receive(first)
    for number in range(1000):
        rod.bridge.send(envelope(None), now=0.5 * number)
    rod.receive(last, now=500.0)
    assert len(rod.bridge._passed) == 2 * passed_module.SEEN_S
    assert rod.receive(last, ALICE, now=500.0 + passed_module.SEEN_S / 2) == NOWHERE
    assert rod.receive(first, now=500.0).delivered is not None


def test_copy_with_more_hops_is_forgotten_when_the_first_is(rod: Rod) -> None:
    said = envelope(None)
    rod.receive(replace(said, hop_limit=1), now=0.0)
    rod.receive(said, now=passed_module.SEEN_S - 1)
    rod.receive(envelope(None), now=passed_module.SEEN_S)
    assert len(rod.bridge._passed) == 1


def test_memory_of_envelopes_is_bounded_and_names_no_node(rod: Rod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passed_module, "SEEN_COUNT_MAX", 8)
    for number in range(100):
        rod.receive(envelope(CHARLIE, payload=b"a secret"), now=float(number))
    assert len(rod.bridge._passed) == 8
    held = repr([getattr(rod.bridge, name) for name in vars(rod.bridge)])
    assert "alpha" in held  # a neighbour
    assert "charlie" not in held
    assert "secret" not in held


# ── our own ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_own_envelope_goes_to_its_receiver_or_to_bridges(rod: Rod) -> None:
    assert rod.bridge.send(envelope(BRAVO), now=0.0) == (BRAVO,)
    assert rod.bridge.send(envelope(CHARLIE), now=0.0) == (RUTH,)
    rod.bridge.hear(RUTH, joins=False)
    assert rod.bridge.send(envelope(CHARLIE), now=0.0) == ()


def test_word_of_a_node_that_is_no_neighbour_is_ignored(rod: Rod) -> None:
    rod.bridge.hear(CHARLIE, joins=True)
    rod.bridge.remove(RUTH)
    assert not rod.bridge.says_it_joins(CHARLIE)
    assert not rod.bridge.says_it_joins(RUTH)
    assert rod.bridge.send(envelope(CHARLIE), now=0.0) == ()


# ── budgets ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def passed(rod: Rod, via: NodeId, count: int, to: NodeId | None, payload: bytes = b"x", now: float = 0.0) -> int:
    return sum(bool(rod.receive(envelope(to, payload=payload), via, now).to) for _ in range(count))


def test_flood_of_one_neighbour_is_cut_off_before_it_is_looked_at(rod: Rod) -> None:
    assert passed(rod, ALPHA, 1000, BRAVO) == 200
    assert rod.drops == {"flood": 800}
    assert passed(rod, ALICE, 100, BRAVO) == 100
    assert passed(rod, ALPHA, 1000, BRAVO, now=1.0) == 50


def test_flood_is_cut_off_at_a_node_that_is_no_bridge_too(rod: Rod) -> None:
    for other in (RUTH, BRAVO):
        rod.bridge.remove(other)
    passages = [rod.receive(envelope(ROD)) for _ in range(1000)]
    assert (1000 - passages.count(NOWHERE), rod.drops) == (
        400,
        {"flood": 600},
    )  # what the plane would take of one neighbour


def test_bridge_carries_envelopes_of_many_and_may_send_twice_as_many(rod: Rod) -> None:
    assert passed(rod, RUTH, 1000, ALPHA) == 400


def test_bytes_sent_on_are_charged_with_every_copy(rod: Rod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rod.bridge._byte_budget, "_burst", 100_000.0)
    said = [rod.receive(envelope(None, payload=bytes(10_000))) for _ in range(10)]
    assert [bool(passage.to) for passage in said] == [True] * 2 + [False] * 8
    assert all(passage.delivered is not None for passage in said)  # an envelope that is only delivered costs no bytes
    assert rod.drops == {"forward-flood": 8}


def test_budget_survives_the_connection(rod: Rod) -> None:
    passed(rod, ALPHA, 200, BRAVO)
    rod.bridge.remove(ALPHA)
    rod.bridge.place(ALPHA, "one")
    assert passed(rod, ALPHA, 10, BRAVO) == 0


# ── LANs ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def lans(*interfaces: tuple[str, str]) -> Lans:
    return Lans(
        Interface(name, index, tuple(map(ip_interface, addresses.split())))
        for index, (name, addresses) in enumerate(interfaces, start=1)
    )


BOARD = lans(
    ("lo", "127.0.0.1/8 ::1/128"),
    ("eth0", "10.7.1.11/24 fd00:7:1::11/64 fe80::1/64"),
    ("eth1", "10.7.2.11/24 fd00:7:2::11/64 fe80::1/64"),
)


@pytest.mark.parametrize(
    ("local", "remote", "lan"),
    [
        (("10.7.1.11", 7464), ("10.7.1.12", 40000), "eth0"),
        (("10.7.2.11", 7464), ("10.7.2.12", 40000), "eth1"),
        (("fd00:7:2::11", 7464, 0, 0), ("fd00:7:2::12", 40000, 0, 0), "eth1"),
        (("fe80::1", 7464, 0, 2), ("fe80::2", 40000, 0, 2), "eth0"),
        (("fe80::1%eth1", 7464, 0, 3), ("fe80::2%eth1", 40000, 0, 3), "eth1"),
        (("10.7.1.11", 40000), ("192.0.2.1", 7464), "eth0"),  # a static peer behind a router
        (("10.7.2.11", 7464), ("10.7.1.12", 40000), "eth0"),  # dialled at our other address, through a router
        (("10.7.3.11", 7464), ("10.7.3.12", 40000), None),  # the interface is gone
        (("fe80::1", 7464, 0, 9), ("fe80::2", 40000, 0, 9), None),
    ],
)
def test_connection_is_on_the_lan_its_addresses_say(
    local: tuple[object, ...], remote: tuple[object, ...], lan: str | None
) -> None:
    assert BOARD.of(local, remote) == lan


def test_interfaces_that_share_a_prefix_are_on_one_lan() -> None:
    house = lans(
        ("eth0", "192.168.1.5/24 fe80::1/64"),
        ("eth1", "169.254.3.4/16 fe80::2/64"),
        ("eth2", "169.254.9.9/16 fe80::3/64"),  # link-local prefixes are the same everywhere and join nothing
        ("usb0", "10.0.0.1/24"),
        ("wlan0", "192.168.1.6/24 10.0.0.2/24 fe80::4/64"),
    )
    assert house.of(("192.168.1.5", 1), ("192.168.1.9", 2)) == "eth0+usb0+wlan0"
    assert house.of(("fe80::4", 1, 0, 5), ("fe80::9", 2, 0, 5)) == "eth0+usb0+wlan0"
    assert house.of(("169.254.3.4", 1), ("169.254.3.5", 2)) == "eth1"
    assert house.of(("169.254.9.9", 1), ("169.254.3.5", 2)) == "eth2"


def test_longest_prefix_decides() -> None:
    nested = lans(("wan", "10.0.0.1/8"), ("lan", "10.7.1.1/24"))
    assert nested.of(("10.0.0.1", 1), ("10.7.1.9", 2)) == "lan"
    assert nested.of(("10.0.0.1", 1), ("10.8.1.9", 2)) == "wan"


def test_this_machines_loopback_is_a_lan() -> None:
    assert Lans.survey().of(("127.0.0.1", 1), ("127.0.0.1", 2)) == "lo"


# ── islands ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def with_islands() -> Rod:
    """Rod, where charlie and delta are connected on LAN one, and multicast does not show them."""
    rod = Rod()
    rod.bridge.place(CHARLIE, "charlie alone", "one")
    rod.bridge.place(node("delta"), "delta alone", "one")
    return rod


def test_islands_may_ask_the_lan_they_are_on_little_all_together() -> None:
    """Every node there passes it on: N times what they send."""
    rod, delta = with_islands(), node("delta")
    burst = int(ISLAND_MESSAGE_BURST)
    for number in range(burst):
        assert rod.receive(envelope(None), via=(CHARLIE, delta)[number % 2]).to[:2] == (ALPHA, ALICE)
    over = rod.receive(envelope(None), via=CHARLIE)
    assert (over.to, over.delivered is not None) == ((RUTH, BRAVO, delta), True), "other LANs get it all the same"
    assert rod.receive(envelope(None), via=delta).to == (RUTH, BRAVO, CHARLIE)
    assert rod.drops == {"forward-flood": 2}
    assert ALPHA in rod.receive(envelope(None), via=CHARLIE, now=1 / ISLAND_MESSAGE_RATE).to


def test_islands_bytes_to_the_lan_they_are_on_are_charged_with_every_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(envelope(None).encode())
    monkeypatch.setattr(bridge_module, "ISLAND_BYTE_BURST", 4.0 * size)
    rod = with_islands()
    assert [ALPHA in rod.receive(envelope(None), via=CHARLIE).to for _ in range(3)] == [True, True, False]


def test_what_islands_used_up_takes_nothing_from_bridges_and_answers() -> None:
    rod = with_islands()
    for _ in range(int(ISLAND_MESSAGE_BURST) + 1):
        rod.receive(envelope(None), via=CHARLIE)
    assert rod.drops == {"forward-flood": 1}
    assert rod.receive(envelope(ALPHA), via=CHARLIE).to == (ALPHA,)
    assert rod.receive(envelope(None), via=RUTH).to[:2] == (ALPHA, ALICE)
    assert CHARLIE in rod.receive(envelope(None), via=ALPHA).to


def test_copy_that_islands_may_not_pass_on_does_not_shut_the_envelope_out() -> None:
    bridge = Bridge(ROD, lambda reason: None)
    bridge.place(ALPHA, "one", "one")
    bridge.place(RUTH, "one", "one")
    bridge.place(CHARLIE, "charlie alone", "one")
    bridge.place(BRAVO, "two", "two")
    bridge.hear(ALPHA, joins=True)
    question = envelope(NodeId(b"elsewhere......."))
    for _ in range(int(ISLAND_MESSAGE_BURST)):
        bridge.receive_untrusted(envelope(question.to).encode(), CHARLIE, now=0.0)
    assert bridge.receive_untrusted(question.encode(), CHARLIE, now=0.0).to == ()
    assert bridge.receive_untrusted(question.encode(), BRAVO, now=0.0).to == (ALPHA,)
