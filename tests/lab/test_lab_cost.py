"""What one exchange between two boards costs on the wire, message by message: bounds that may only fall.

alpha --- br0 --- bravo          every packet at alpha's eth0, named; see rig/ledger
"""

from __future__ import annotations

import time

import pytest
from rig.ledger.rows import Sum, sums
from rig.ledger.spells import Spell, Watched
from rig.topology import SETTINGS, Lab

pytestmark = pytest.mark.alone

GONE_S = SETTINGS["stream"]["idle_timeout"] + SETTINGS["link"]["linger"] + 3.0


@pytest.fixture(scope="module")
def spells() -> dict[str, Spell]:
    """What passed: a first contact, two later exchanges, and ten large packets."""
    lab = Lab(SETTINGS)
    watched = Watched(lab, "alpha", "bravo")
    address = watched.hosts[1].overlay_addresses()[1]
    time.sleep(8)  # presence, cards and mDNS's questions of the start are through
    for title in ("first", "warm up", "again"):
        watched.spell(title, lambda: watched.alpha.first_answer_ms(address), seconds=GONE_S)
    large = ("-c", "10", "-i", "0.05", "-s", "4000", "-W", "5")
    watched.spell("large", lambda: watched.alpha.ping(address, *large), seconds=GONE_S)
    watched.spell("connection", watched.cut_control, seconds=8)
    found = {spell.title: spell for spell in watched.spells()}
    lab.close()
    return found


def messages(spell: Spell) -> dict[str, Sum]:
    """The messages of a spell, by name."""
    return sums(spell.rows)


def test_the_ledger_has_every_byte_that_the_kernel_counted(spells: dict[str, Spell]) -> None:
    for spell in spells.values():
        assert round(spell.ledger_bytes) == spell.counted_bytes, spell.title
        assert not [name for name in messages(spell) if "not opened" in name or name == "cut short"]


def test_an_exchange_costs_no_more_than_it_did(spells: dict[str, Spell]) -> None:
    assert spells["first"].kb < 42
    assert spells["again"].kb < 8


def test_boards_that_met_before_sign_nothing_and_offer_within_two_messages(spells: dict[str, Spell]) -> None:
    again = messages(spells["again"])
    assert again["RESUME"].wire_bytes + again["RESUMED"].wire_bytes < 1500
    assert not {"OPEN", "ACCEPT", "OFFER", "ANSWER", "WHO", "CARD"} & set(again)
    assert messages(spells["first"])["OPEN"].wire_bytes < 7000  # one, not one each way


def test_an_exchange_of_one_packet_probes_for_no_larger_ones_and_one_of_many_does(spells: dict[str, Spell]) -> None:
    assert "SCTP probe of the MTU" not in messages(spells["again"])
    assert "SCTP probe of the MTU" in messages(spells["large"])


def test_no_stream_is_reset_on_a_link_that_ends(spells: dict[str, Spell]) -> None:
    for spell in spells.values():
        assert "SCTP RE-CONFIG" not in messages(spell), spell.title


def test_a_direct_route_is_set_up_without_a_sealed_slot(spells: dict[str, Spell]) -> None:
    assert messages(spells["again"])["SETUP"].wire_bytes < 2 * 250  # one each way


def test_a_link_that_a_resumption_opens_has_no_handshake(spells: dict[str, Spell]) -> None:
    assert "DTLS handshake" in messages(spells["first"])
    assert "DTLS handshake" not in messages(spells["again"])


def test_a_link_of_seconds_asks_for_no_consent(spells: dict[str, Spell]) -> None:
    assert messages(spells["again"])["STUN check"].packets <= 8  # those that open it, by both families
    assert "SCTP HEARTBEAT" not in messages(spells["again"])


def test_the_goodbye_meets_no_closed_port(spells: dict[str, Spell]) -> None:
    for title in ("first", "again"):
        assert "ICMP unreachable" not in messages(spells[title]), title


def test_a_connection_between_boards_that_met_has_no_signature_and_no_chain(spells: dict[str, Spell]) -> None:
    control = [row for row in spells["connection"].rows if row.group in ("control", "TCP")]
    assert {"HELLO_AGAIN", "WELCOME_AGAIN"} <= set(messages(spells["connection"]))
    assert not {"HELLO", "WELCOME", "CHAIN"} & set(messages(spells["connection"]))
    assert sum(row.wire_bytes for row in control) < 4000


def test_cards_of_a_first_contact_between_neighbours_carry_no_chain(spells: dict[str, Spell]) -> None:
    assert messages(spells["first"])["CARD"].wire_bytes < 6000
    assert messages(spells["first"])["WHO"].wire_bytes < 6000
