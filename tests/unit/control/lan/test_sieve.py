"""Which datagrams of multicast DNS are looked at."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address

import pytest
from zeroconf import ServiceInfo
from zeroconf._dns import DNSQuestion
from zeroconf._protocol.outgoing import DNSOutgoing
from zeroconf.const import (
    _CLASS_IN,
    _FLAGS_AA,
    _FLAGS_QR_QUERY,
    _FLAGS_QR_RESPONSE,
    _TYPE_A,
    _TYPE_PTR,
    _TYPE_SRV,
    _TYPE_TXT,
)

from conflux.control.lan.interfaces import ADDRESS_COUNT_MAX
from conflux.control.lan.sieve import BURST, BURST_PER_ADDRESS, DATAGRAM_BYTES_MAX, Sieve

SERVICE = "_conflux._tcp.local."
INSTANCE = "0123456789abcdef"


def announcement(service: str = SERVICE, name: str = INSTANCE, address_count: int = 2) -> list[ServiceInfo]:
    addresses = [ip_address("2001:db8::") + number for number in range(address_count)]
    return [
        ServiceInfo(
            service,
            f"{name}.{service}",
            addresses=[address.packed for address in addresses],
            port=7464,
            properties={b"r": b"0" * 16, b"v": b"1"},
            server=f"{name}.local.",
        )
    ]


def datagrams(*, service: str = SERVICE, name: str = INSTANCE, address_count: int = 2) -> list[bytes]:
    """Return what zeroconf sends of such a node: all at once, each record alone, and the questions for them."""
    (info,) = announcement(service, name, address_count)
    records = [info.dns_pointer(), info.dns_service(), info.dns_text(), *info.dns_addresses()]
    whole = DNSOutgoing(_FLAGS_QR_RESPONSE | _FLAGS_AA)
    for record in records:
        whole.add_answer_at_time(record, 0)
    out = [whole]
    for record in records:
        out.append(DNSOutgoing(_FLAGS_QR_RESPONSE | _FLAGS_AA))
        out[-1].add_answer_at_time(record, 0)
    for asked, kind in ((service, _TYPE_PTR), (info.name, _TYPE_SRV), (info.name, _TYPE_TXT), (info.server, _TYPE_A)):
        out.append(DNSOutgoing(_FLAGS_QR_QUERY))
        out[-1].add_question(DNSQuestion(asked, kind, _CLASS_IN))
    return [packet for each in out for packet in each.packets()]


class Counted:
    """A sieve, and what it dropped."""

    def __init__(self) -> None:
        self.drops: Counter[str] = Counter()
        self.sieve = Sieve(lambda reason: self.drops.update((reason,)))

    def passes(self, data: bytes, host: str = "192.0.2.1", now: float = 0.0) -> bool:
        return self.sieve.passes_untrusted(data, host, now)


@pytest.mark.parametrize("address_count", [1, 4, ADDRESS_COUNT_MAX])
def test_every_datagram_of_a_node_passes(address_count: int) -> None:
    counted = Counted()
    found = datagrams(address_count=address_count)
    assert len(found) >= 8
    assert all(counted.passes(packet) for packet in found)


def test_datagrams_of_other_services_do_not_pass_and_are_no_drop() -> None:
    counted = Counted()
    foreign = datagrams(service="_ipp._tcp.local.", name="Printer in the hall")
    assert not any(counted.passes(packet) for packet in foreign)
    assert not counted.passes(b"")
    assert not counted.drops


def test_large_datagrams_do_not_pass_whatever_they_name() -> None:
    (whole, *_) = datagrams()
    counted = Counted()
    assert counted.passes(whole + bytes(DATAGRAM_BYTES_MAX - len(whole)))
    assert not counted.passes(whole + bytes(DATAGRAM_BYTES_MAX + 1 - len(whole)))


def test_datagrams_of_one_address_and_of_all_are_rationed() -> None:
    (whole, *_) = datagrams()
    counted = Counted()
    assert sum(counted.passes(whole) for _ in range(1000)) == BURST_PER_ADDRESS
    assert counted.passes(whole, "192.0.2.2")
    assert (
        sum(counted.passes(whole, f"198.51.{n >> 8}.{n & 255}") for n in range(5000)) == BURST - BURST_PER_ADDRESS - 1
    )
    assert counted.drops["mdns-flood"] > 3000
