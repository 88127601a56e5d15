"""What crosses between the LANs and a broker, how often, how much, and who is told."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from kit.builders import make_member, make_realm
from kit.control import boot_id
from kit.recorder import Recorder
from kit.world import relay

from conflux.control import crossing as crossing_module
from conflux.control import passed
from conflux.control.channel import Arrival, Handoff
from conflux.control.crossing import BYTE_BURST, MESSAGE_BURST, MESSAGE_RATE, Crossing, may_cross
from conflux.control.envelope import HOP_LIMIT_MAX, PAYLOAD_BYTES_MAX, Envelope, Inner, Kind
from conflux.ids import NodeId
from conflux.realm.credential import BRIDGE

ALPHA, ALICE, BRAVO, BOB = (NodeId(name.encode().ljust(16, b".")) for name in ("alpha", "alice", "bravo", "bob"))
PATH, OTHER_PATH = b"p" * 32, b"o" * 32
IDS = itertools.count(1)


class Rod:
    """A bridge with a neighbour in buckets 1 and 2."""

    def __init__(self, *, allowed: bool = True) -> None:
        self.near, self.far = Recorder("lan", far=False, buckets=frozenset({1, 2})), Recorder("nats", far=True)
        self.sought: list[NodeId] = []
        self.drops: Counter[str] = Counter()
        self.crossing = Crossing(
            self.near, self.far, allowed=allowed, seek=lambda node, arrival: self.sought.append(node), drop=self.count
        )
        self.crossing.look()

    def count(self, reason: str) -> None:
        self.drops[reason] += 1

    def from_near(self, envelope: Envelope, via: NodeId = ALPHA, now: float = 0.0) -> None:
        self.crossing.transit_untrusted(Arrival(envelope, via, "lan"), now=now)

    def from_far(self, envelope: Envelope, path: bytes = PATH, now: float = 0.0) -> None:
        self.crossing.transit_untrusted(Arrival(envelope, None, "nats", path), now=now)


def envelope(
    to: NodeId | None, *, hop_limit: int = HOP_LIMIT_MAX, payload: bytes = b"sealed", bucket: int | None = None
) -> Envelope:
    return Envelope(to, next(IDS).to_bytes(16), hop_limit, bytes(8), payload, bucket)


def question(src: NodeId, bucket: int | None = 1) -> Envelope:
    inner = Inner(src, boot_id(1), 1, Kind.WHO, 0, b"question", bytes(64)).encode()
    return Envelope(None, next(IDS).to_bytes(16), HOP_LIMIT_MAX, None, inner, bucket)


def less(envelope: Envelope) -> Envelope:
    return Envelope(
        envelope.to, envelope.id, envelope.hop_limit - 1, envelope.key_id, envelope.payload, envelope.bucket
    )


# ── when ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_capability_is_what_the_credential_says() -> None:
    assert not may_cross(make_member(make_realm("home"), "alice"))
    assert may_cross(relay("rod", BRIDGE))


def test_both_sides_are_told_when_envelopes_begin_and_cease_to_cross() -> None:
    rod = Rod()
    assert (rod.near.told, rod.far.told, rod.crossing.crosses) == ([frozenset()], [{1, 2}], True)
    rod.near.buckets = frozenset({1, 2, 7})
    for _ in range(2):
        rod.crossing.look()
    assert (rod.near.told, rod.far.told) == ([frozenset()], [{1, 2}, {1, 2, 7}])
    rod.far.up = False
    for _ in range(2):
        rod.crossing.look()
    assert (rod.near.told[1:], rod.far.told[2:], rod.crossing.crosses) == ([None], [None], False)


@pytest.mark.parametrize("lacks", ["capability", "lan", "broker", "neighbours"])
def test_nothing_crosses_without_capability_channel_or_neighbour(lacks: str) -> None:
    rod = Rod()
    if lacks == "capability":
        rod.crossing.allow(False)
    elif lacks == "neighbours":
        rod.near.buckets = frozenset()
    else:
        (rod.near if lacks == "lan" else rod.far).up = False
    rod.crossing.look()
    rod.from_near(envelope(BRAVO))
    rod.from_far(envelope(ALPHA))
    assert (rod.near.passed, rod.far.passed, rod.crossing.crosses) == ([], [], False)
    rod.crossing.allow(True)
    rod.near.up = rod.far.up = True
    rod.near.buckets = frozenset({1})
    rod.crossing.look()
    assert rod.crossing.crosses


def test_member_without_the_capability_tells_nobody_anything() -> None:
    rod = Rod(allowed=False)
    assert (rod.near.told, rod.far.told) == ([], [])


# ── what ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("sent", [envelope(BRAVO), envelope(None), envelope(None, bucket=5)])
def test_envelope_crosses_with_a_hop_less(sent: Envelope) -> None:
    rod = Rod()
    rod.from_near(sent)
    assert (rod.far.passed, rod.near.passed) == ([(less(sent), None)], [])
    rod = Rod()
    rod.from_far(sent)
    assert (rod.near.passed, rod.far.passed) == ([(less(sent), None)], [])


def test_envelope_without_hops_left_goes_nowhere() -> None:
    rod = Rod()
    rod.from_near(envelope(BRAVO, hop_limit=0))
    rod.from_far(envelope(ALPHA, hop_limit=0))
    assert (rod.near.passed, rod.far.passed, rod.drops) == ([], [], {"hop-limit": 2})


def test_envelope_crosses_once_whichever_way_its_copies_come() -> None:
    rod = Rod()
    said = envelope(None)
    rod.from_near(said)
    rod.from_near(said, via=ALICE)
    rod.from_far(less(said))  # as another bridge passed it on
    assert (len(rod.far.passed), rod.near.passed, rod.drops) == (1, [], {"duplicate": 2})


def test_copy_with_more_hops_left_crosses_again() -> None:
    rod = Rod()
    said = envelope(BRAVO)
    rod.from_near(less(less(said)), via=ALICE)
    rod.from_near(said)
    assert [passed.hop_limit for passed, _ in rod.far.passed] == [HOP_LIMIT_MAX - 3, HOP_LIMIT_MAX - 1]


def test_no_copy_of_its_own_envelopes_crosses() -> None:
    rod = Rod()
    own = envelope(None)
    rod.crossing.sent(own, now=0.0)
    rod.from_near(less(own))
    rod.from_far(less(own))
    assert (rod.near.passed, rod.far.passed, rod.drops) == ([], [], {"duplicate": 2})


def test_seen_envelopes_are_forgotten_after_a_while() -> None:
    rod = Rod()
    said = envelope(BRAVO)
    rod.from_near(said, now=0.0)
    rod.from_near(said, now=passed.SEEN_S - 1)
    rod.from_near(said, now=2 * passed.SEEN_S)
    assert len(rod.far.passed) == 2


def test_envelope_for_a_node_that_no_neighbour_reaches_is_dropped() -> None:
    rod = Rod()
    rod.near.says = Handoff.ABSENT
    rod.from_far(envelope(BOB))
    rod.from_far(envelope(None))  # no neighbour is there to hear it: nothing wrong with it
    assert (rod.drops, rod.sought) == ({"not-for-us": 1}, [])


# ── the way back ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_answer_goes_back_by_the_path_that_the_question_came_by() -> None:
    rod = Rod()
    rod.from_far(question(BRAVO))
    rod.far.says = Handoff.FORWARDED
    rod.from_near(envelope(BRAVO))
    assert [hint for _, hint in rod.far.passed] == [PATH]
    assert rod.sought == [BRAVO]  # until its card is here, the path is not sure
    rod.from_far(question(BRAVO), OTHER_PATH)
    rod.far.says = Handoff.ACCEPTED
    rod.from_near(envelope(BRAVO))
    assert [hint for _, hint in rod.far.passed] == [PATH, OTHER_PATH]
    assert rod.sought == [BRAVO]


def test_node_that_is_not_known_is_asked_for_and_the_envelope_is_left_to_be_repeated() -> None:
    rod = Rod()
    rod.far.says = Handoff.ABSENT
    rod.from_near(envelope(BOB))
    rod.from_near(envelope(None))
    assert rod.sought == [BOB]
    rod.far.says = Handoff.DOWN
    rod.from_near(envelope(ALICE))
    assert rod.sought == [BOB]


def test_sealed_envelopes_teach_no_path() -> None:
    rod = Rod()
    inner = question(BRAVO).payload
    rod.from_far(Envelope(ALPHA, bytes(16), 8, bytes(8), inner))
    rod.from_near(envelope(BRAVO))
    assert [hint for _, hint in rod.far.passed] == [None]


def test_malformed_question_is_dropped() -> None:
    rod = Rod()
    rod.from_far(Envelope(None, bytes(16), 8, None, b"rubbish", 1))
    assert (rod.near.passed, rod.drops) == ([], {"malformed": 1})


def test_paths_of_askers_are_bounded_and_the_oldest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crossing_module, "ASKER_COUNT_MAX", 2)
    rod = Rod()
    for src in (BRAVO, BOB, ALICE):
        rod.from_far(question(src))
    for src in (BRAVO, BOB, ALICE):
        rod.from_near(envelope(src))
    assert [hint for _, hint in rod.far.passed] == [None, PATH, PATH]


def test_askers_that_one_path_makes_up_push_out_its_own_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crossing_module, "ASKER_PER_PATH_MAX", 2)
    rod, carol = Rod(), NodeId(b"carol".ljust(16, b"."))
    rod.from_far(question(BRAVO))
    for src in (BOB, ALICE, carol):
        rod.from_far(question(src), path=OTHER_PATH)
    for src in (BRAVO, BOB, ALICE, carol):
        rod.from_near(envelope(src))
    assert [hint for _, hint in rod.far.passed] == [PATH, None, OTHER_PATH, OTHER_PATH]


# ── budgets ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_flood_of_one_leaves_the_share_of_the_others() -> None:
    rod = Rod()
    for _ in range(int(MESSAGE_BURST) + 50):
        rod.from_far(envelope(ALPHA))
        rod.from_near(envelope(BRAVO))
    assert rod.drops == {"flood": 100}
    rod.from_far(envelope(ALPHA), OTHER_PATH)
    rod.from_near(envelope(BRAVO), via=ALICE)
    assert rod.drops == {"flood": 100}
    rod.from_near(envelope(BRAVO), now=1.5 / MESSAGE_RATE)
    assert rod.drops == {"flood": 100}


def test_copy_of_one_over_its_budget_does_not_shut_the_envelope_out() -> None:
    rod, said = Rod(), envelope(BRAVO, payload=bytes(PAYLOAD_BYTES_MAX))
    while not rod.drops["forward-flood"]:
        rod.from_near(envelope(BRAVO, payload=bytes(PAYLOAD_BYTES_MAX)), via=ALICE)
    rod.from_near(said, via=ALICE)
    assert rod.drops == {"forward-flood": 2}
    rod.from_near(said)
    assert rod.far.passed[-1] == (less(said), None)
    rod.from_near(said)
    assert rod.drops == {"forward-flood": 2, "duplicate": 1}


def test_bytes_of_one_are_bounded_too() -> None:
    rod = Rod()
    count = int(BYTE_BURST // PAYLOAD_BYTES_MAX) + 10
    for _ in range(count):
        rod.from_near(envelope(BRAVO, payload=bytes(PAYLOAD_BYTES_MAX)))
    assert 8 <= rod.drops["forward-flood"] <= 12
    assert len(rod.far.passed) == count - rod.drops["forward-flood"]
    rod.from_near(envelope(BRAVO, payload=bytes(PAYLOAD_BYTES_MAX)), via=ALICE)
    assert len(rod.far.passed) == count - rod.drops["forward-flood"] + 1
