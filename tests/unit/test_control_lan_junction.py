"""Which LAN a connection is on, and what a node passes on between LANs."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from ipaddress import ip_interface

import pytest

from conflux.control.envelope import HOP_LIMIT_MAX, Envelope
from conflux.control.lan import junction as junction_module
from conflux.control.lan.junction import Junction, Passage
from conflux.control.lan.lans import Interface, Lans
from conflux.ids import NodeId


def node(name: str) -> NodeId:
    return NodeId(name.encode().ljust(16, b"."))


ROD, ALPHA, ALICE, RUTH, BRAVO, CHARLIE = map(node, ("rod", "alpha", "alice", "ruth", "bravo", "charlie"))


def envelope(to: NodeId | None, *, hop_limit: int = HOP_LIMIT_MAX, payload: bytes = b"sealed") -> Envelope:
    return Envelope(to, os.urandom(16), hop_limit, None, payload)


class Rod:
    """The middle node: alpha and alice on LAN one, ruth, who joins further LANs, and bravo on LAN two."""

    def __init__(self) -> None:
        self.drops: Counter[str] = Counter()
        self.junction = Junction(ROD, self.drop)
        for name, lan in ((ALPHA, "one"), (ALICE, "one"), (RUTH, "two"), (BRAVO, "two")):
            self.junction.place(name, lan)
        self.junction.hear(RUTH, joins=True)

    def drop(self, reason: str) -> None:
        self.drops[reason] += 1

    def receive(self, envelope: Envelope, via: NodeId = ALPHA, now: float = 0.0) -> Passage:
        return self.junction.receive_untrusted(envelope.encode(), via, now=now)


@pytest.fixture
def rod() -> Rod:
    return Rod()


# ── what goes where ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_announcement_goes_on_to_other_lans_with_a_hop_less(rod: Rod) -> None:
    said = envelope(None)
    passage = rod.receive(said)
    assert passage.deliver
    assert passage.to == (RUTH, BRAVO)
    assert Envelope.decode_untrusted(passage.onward) == replace(said, hop_limit=HOP_LIMIT_MAX - 1)


def test_envelope_for_us_is_delivered_and_goes_nowhere(rod: Rod) -> None:
    assert rod.receive(envelope(ROD)) == Passage(deliver=True)


@pytest.mark.parametrize("to", [BRAVO, ALICE])
def test_envelope_for_a_neighbour_goes_to_it_alone_on_whatever_lan(rod: Rod, to: NodeId) -> None:
    passage = rod.receive(envelope(to))
    assert (passage.deliver, passage.to) == (False, (to,))


def test_envelope_for_somebody_further_away_goes_to_those_who_join_lans_alone(rod: Rod) -> None:
    passage = rod.receive(envelope(CHARLIE))
    assert (passage.deliver, passage.to) == (False, (RUTH,))
    assert rod.receive(envelope(CHARLIE), via=RUTH).to == ()  # nobody on LAN one joins any other


def test_envelope_never_goes_back_to_who_brought_it(rod: Rod) -> None:
    assert rod.receive(envelope(ALPHA)) == Passage(deliver=False)
    assert rod.drops == {"not-for-us": 1}


def test_node_on_one_lan_passes_nothing_on() -> None:
    alone = Rod()
    alone.junction.remove(RUTH)
    alone.junction.remove(BRAVO)
    assert not alone.junction.joins
    assert alone.receive(envelope(None)) == Passage(deliver=True)
    assert alone.receive(envelope(ALICE)) == Passage(deliver=False)
    assert alone.receive(envelope(CHARLIE)) == Passage(deliver=False)


def test_nothing_passes_to_or_from_a_neighbour_whose_lan_is_unknown(rod: Rod) -> None:
    rod.junction.place(BRAVO, None)
    assert rod.receive(envelope(None)).to == (RUTH,)
    assert rod.receive(envelope(None), via=BRAVO) == Passage(deliver=True)


def test_last_hop_delivers_and_does_not_go_on(rod: Rod) -> None:
    assert rod.receive(envelope(None, hop_limit=0)) == Passage(deliver=True)
    assert rod.receive(envelope(BRAVO, hop_limit=0)) == Passage(deliver=False)
    assert Envelope.decode_untrusted(rod.receive(envelope(BRAVO, hop_limit=1)).onward).hop_limit == 0
    assert rod.drops == {"hop-limit": 2}


def test_what_is_no_envelope_is_left_to_who_reads_envelopes(rod: Rod) -> None:
    assert rod.junction.receive_untrusted(b"rubbish", ALPHA, now=0.0) == Passage(deliver=True)


# ── copies ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_copy_is_dropped_whoever_brings_it(rod: Rod) -> None:
    said = envelope(None)
    rod.receive(said)
    for via, copy in ((ALICE, said), (BRAVO, replace(said, hop_limit=3))):
        assert rod.receive(copy, via) == Passage(deliver=False)
    assert rod.drops == {"duplicate": 2}


def test_envelope_of_our_own_never_comes_back(rod: Rod) -> None:
    said = envelope(None, hop_limit=5)
    assert rod.junction.send(None, said.encode(), now=0.0) == (ALPHA, ALICE, RUTH, BRAVO)
    assert rod.receive(replace(said, hop_limit=HOP_LIMIT_MAX), RUTH) == Passage(deliver=False)


def test_rubbish_under_the_same_id_does_not_shut_the_envelope_out(rod: Rod) -> None:
    said = envelope(None)
    rod.receive(replace(said, payload=b"rubbish"), ALICE)
    rod.receive(replace(said, to=BRAVO), ALICE)
    assert rod.receive(said).to == (RUTH, BRAVO)


def test_copy_without_hops_does_not_shut_the_envelope_out(rod: Rod) -> None:
    said = envelope(None)
    assert rod.receive(replace(said, hop_limit=0), ALICE) == Passage(deliver=True)
    passage = rod.receive(said)
    assert (passage.deliver, passage.to) == (False, (RUTH, BRAVO))  # on, but here it was heard


def test_what_is_remembered_is_forgotten_after_a_minute(rod: Rod) -> None:
    first, last = envelope(None), envelope(None)
    rod.receive(first)
    for number in range(1000):
        rod.junction.send(None, envelope(None).encode(), now=0.5 * number)
    rod.receive(last, now=500.0)
    assert len(rod.junction._seen) == 2 * junction_module.SEEN_S
    assert rod.receive(last, ALICE, now=500.0 + junction_module.SEEN_S / 2) == Passage(deliver=False)
    assert rod.receive(first, now=500.0).deliver


def test_copy_with_more_hops_is_forgotten_when_the_first_is(rod: Rod) -> None:
    said = envelope(None)
    rod.receive(replace(said, hop_limit=1), now=0.0)
    rod.receive(said, now=junction_module.SEEN_S - 1)
    rod.receive(envelope(None), now=junction_module.SEEN_S)
    assert len(rod.junction._seen) == 1


def test_what_is_remembered_is_bounded_and_names_nobody(rod: Rod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(junction_module, "SEEN_COUNT_MAX", 8)
    for number in range(100):
        rod.receive(envelope(CHARLIE, payload=b"a secret"), now=float(number))
    assert len(rod.junction._seen) == 8
    held = repr([getattr(rod.junction, name) for name in vars(rod.junction)])
    assert "alpha" in held  # a neighbour
    assert "charlie" not in held
    assert "secret" not in held


# ── our own ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_own_envelope_goes_to_the_neighbour_or_to_those_who_join_lans(rod: Rod) -> None:
    assert rod.junction.send(BRAVO, envelope(BRAVO).encode(), now=0.0) == (BRAVO,)
    assert rod.junction.send(CHARLIE, envelope(CHARLIE).encode(), now=0.0) == (RUTH,)
    rod.junction.hear(RUTH, joins=False)
    assert rod.junction.send(CHARLIE, envelope(CHARLIE).encode(), now=0.0) == ()


def test_word_of_a_node_that_is_no_neighbour_is_ignored(rod: Rod) -> None:
    rod.junction.hear(CHARLIE, joins=True)
    rod.junction.remove(RUTH)
    assert not rod.junction.says_it_joins(CHARLIE)
    assert not rod.junction.says_it_joins(RUTH)
    assert rod.junction.send(CHARLIE, b"", now=0.0) == ()


# ── budgets ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def passed(rod: Rod, via: NodeId, count: int, to: NodeId | None, payload: bytes = b"x", now: float = 0.0) -> int:
    return sum(bool(rod.receive(envelope(to, payload=payload), via, now).to) for _ in range(count))


def test_flood_of_one_neighbour_is_cut_off_before_it_is_looked_at(rod: Rod) -> None:
    assert passed(rod, ALPHA, 1000, BRAVO) == 200
    assert rod.drops == {"flood": 800}
    assert passed(rod, ALICE, 100, BRAVO) == 100
    assert passed(rod, ALPHA, 1000, BRAVO, now=1.0) == 50


def test_flood_is_cut_off_where_no_lans_are_joined_too(rod: Rod) -> None:
    for other in (RUTH, BRAVO):
        rod.junction.remove(other)
    said = [rod.receive(envelope(ROD)).deliver for _ in range(1000)]
    assert (said.count(True), rod.drops) == (400, {"flood": 600})  # what the plane would take of one neighbour


def test_who_joins_lans_speaks_for_many_and_may_say_twice_as_much(rod: Rod) -> None:
    assert passed(rod, RUTH, 1000, ALPHA) == 400


def test_bytes_sent_on_are_charged_with_every_copy(rod: Rod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rod.junction._byte_budget, "_burst", 100_000.0)
    said = [rod.receive(envelope(None, payload=bytes(10_000))) for _ in range(10)]
    assert [bool(passage.to) for passage in said] == [True] * 2 + [False] * 8
    assert all(passage.deliver for passage in said)  # what we only listen to costs nobody else anything
    assert rod.drops == {"forward-flood": 8}


def test_budget_survives_the_connection(rod: Rod) -> None:
    passed(rod, ALPHA, 200, BRAVO)
    rod.junction.remove(ALPHA)
    rod.junction.place(ALPHA, "one")
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
