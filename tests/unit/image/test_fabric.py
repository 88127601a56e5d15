"""The switch of the boards' tests: whom a frame reaches, and when."""

from __future__ import annotations

import pytest
from image.fabric import ADDRESSES_MAX, WAITING_MAX, Fabric

PORTS = ("attic", "cellar", "shed")
ALL = b"\xff" * 6
MDNS = bytes.fromhex("01005e0000fb")


def address(number: int) -> bytes:
    """Return one machine's address."""
    return b"\x52\x54\x00" + number.to_bytes(3, "big")


def frame(target: bytes, sender: bytes, body: bytes = b"") -> bytes:
    """Return an Ethernet frame."""
    return target + sender + b"\x08\x00" + body


def reached(fabric: Fabric, now: float = 0.0) -> list[str]:
    """Return which ports have a frame due."""
    return [port for port, _ in fabric.due(now=now)]


def test_first_frame_floods_and_the_answer_goes_to_its_sender_alone():
    fabric = Fabric(PORTS)
    fabric.receive("attic", frame(address(2), address(1)), now=0)
    assert reached(fabric) == ["cellar", "shed"]
    fabric.receive("cellar", frame(address(1), address(2)), now=0)
    assert reached(fabric) == ["attic"]
    fabric.receive("attic", frame(address(2), address(1)), now=0)
    assert reached(fabric) == ["cellar"]


@pytest.mark.parametrize("target", [ALL, MDNS])
def test_broadcast_and_multicast_reach_everybody_else(target):
    fabric = Fabric(PORTS)
    fabric.receive("shed", frame(target, address(3)), now=0)
    assert reached(fabric) == ["attic", "cellar"]


def test_machine_that_moves_to_another_port_is_found_there():
    fabric = Fabric(PORTS)
    fabric.receive("attic", frame(ALL, address(1)), now=0)
    fabric.receive("shed", frame(ALL, address(1)), now=0)
    list(fabric.due(now=0))
    fabric.receive("cellar", frame(address(1), address(2)), now=0)
    assert reached(fabric) == ["shed"]


def test_frame_for_a_machine_at_its_own_port_goes_nowhere():
    fabric = Fabric(PORTS)
    fabric.receive("attic", frame(ALL, address(1)), now=0)
    list(fabric.due(now=0))
    fabric.receive("attic", frame(address(1), address(9)), now=0)
    assert reached(fabric) == []


def test_delay_counts_on_both_cables_and_frames_stay_in_order():
    fabric = Fabric(PORTS)
    fabric.condition("attic", delay_s=0.02)
    fabric.condition("cellar", delay_s=0.03)
    for body in (b"one", b"two"):
        fabric.receive("attic", frame(ALL, address(1), body), now=1.0)
    assert fabric.next_timeout() == pytest.approx(1.02)
    assert reached(fabric, 1.03) == ["shed", "shed"]
    assert fabric.next_timeout() == pytest.approx(1.05)
    assert [data[-3:] for _, data in fabric.due(now=1.06)] == [b"one", b"two"]
    assert fabric.next_timeout() is None


def test_loss_takes_its_share_and_is_counted():
    fabric = Fabric(PORTS[:2], seed=7)
    fabric.condition("cellar", loss=0.25)
    for _ in range(2000):
        fabric.receive("attic", frame(ALL, address(1)), now=0)
    passed, lost = len(reached(fabric)), fabric.cables["cellar"].drops["lost"]
    assert passed + lost == 2000
    assert 420 < lost < 580
    assert fabric.cables["cellar"].sent == passed


def test_partition_holds_until_healed_and_a_port_in_no_group_reaches_all():
    fabric = Fabric(PORTS)
    fabric.partition([["attic"], ["cellar"]])
    fabric.receive("attic", frame(ALL, address(1)), now=0)
    assert reached(fabric) == ["shed"]
    assert fabric.cables["cellar"].drops == {"cut": 1}
    fabric.receive("shed", frame(ALL, address(3)), now=0)
    assert reached(fabric) == ["attic", "cellar"]
    fabric.partition([])
    fabric.receive("attic", frame(ALL, address(1)), now=0)
    assert reached(fabric) == ["cellar", "shed"]


@pytest.mark.parametrize("data", [b"", b"\x00" * 13, b"\x00" * 65_537])
def test_what_is_no_frame_is_dropped(data):
    fabric = Fabric(PORTS)
    fabric.receive("attic", data, now=0)
    assert reached(fabric) == []
    assert fabric.cables["attic"].drops == {"malformed": 1}


def test_tables_are_bounded():
    fabric = Fabric(PORTS[:2])
    for number in range(ADDRESSES_MAX + 1):
        fabric.receive("attic", frame(ALL, address(number)), now=0)
        list(fabric.due(now=0))
    fabric.receive("cellar", frame(address(0), address(9)), now=0)
    assert reached(fabric) == ["attic"]  # forgotten, hence flooded
    fabric.condition("cellar", delay_s=60)
    for _ in range(WAITING_MAX + 5):
        fabric.receive("attic", frame(ALL, address(1)), now=0)
    assert fabric.cables["cellar"].drops == {"full": 5}


def test_conditions_that_no_cable_has_are_refused():
    fabric = Fabric(PORTS)
    for wrong in ({"delay_s": -1.0}, {"delay_s": 61.0}, {"loss": 1.1}, {"loss": float("nan")}):
        with pytest.raises(ValueError, match=r"a (delay|loss) of"):
            fabric.condition("attic", **wrong)
    with pytest.raises(KeyError):
        fabric.condition("garage", loss=0.1)
    with pytest.raises(KeyError):
        fabric.partition([["garage"]])
