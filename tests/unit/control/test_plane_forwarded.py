"""The control plane when a third node carries what two say to each other."""

from __future__ import annotations

from kit.control import Station, World

from conflux.control.envelope import Kind
from conflux.control.hop_keys import LIFETIME_S, OVERLAP_S

HEAL_S_MAX = 1.5


class Row(World):
    """alpha ─ rod ─ bravo: alpha and bravo are not each other's neighbours."""

    def __init__(self) -> None:
        lans = {"alpha": ("one",), "rod": ("one", "two"), "bravo": ("two",)}
        super().__init__("alpha", "rod", "bravo", lans=lans)
        self.run(5.0)  # presence is over

    def ask(self) -> float:
        """Let alpha ask bravo something, and return after how long the answer is there."""
        alpha, bravo = self["alpha"], self["bravo"]
        asked_at, before = self.now, len(alpha.messages())
        token = alpha.plane.request(bravo.node, Kind.OPEN, b"open", now=self.now)
        answered = 0
        while len(alpha.messages()) == before:
            assert self.now - asked_at < 10.0
            self.run(0.001)
            for message in bravo.messages()[answered:]:
                answered += 1
                if message.kind is Kind.OPEN:
                    bravo.plane.reply(message, Kind.ACCEPT, b"accept", now=self.now)
        assert alpha.messages()[-1].re == token
        return self.now - asked_at


def quiet(station: Station) -> None:
    """Let a station keep its presence to itself, so that nothing but the envelope itself can heal."""
    station.plane.presences._near_at = station.plane.presences._far_at = float("inf")


def test_card_is_found_and_a_request_answered_over_a_bridge() -> None:
    world = Row()
    assert world.ask() < 0.02


def test_request_sealed_to_a_replaced_key_is_answered_over_a_bridge() -> None:
    world = Row()
    world.ask()
    world.run(LIFETIME_S + OVERLAP_S + 1.0)
    assert world.ask() < HEAL_S_MAX


def test_request_to_a_restarted_node_is_answered_over_a_bridge() -> None:
    world = Row()
    world.ask()
    bravo = world.start("bravo", boot=2)
    quiet(bravo)
    assert world.ask() < HEAL_S_MAX
    assert len(world["alpha"].changed()) == 1


def test_restarted_node_is_noticed_over_a_bridge_by_its_presence() -> None:
    world = Row()
    world.ask()
    world.start("bravo", boot=2)
    world.run(3.0)
    assert [event.card.node_id for event in world["alpha"].changed()] == [world["bravo"].node]
