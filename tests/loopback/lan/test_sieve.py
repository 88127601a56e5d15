"""mDNS on loopback: what of a flood reaches zeroconf."""

from __future__ import annotations

import asyncio
import os
import socket
import struct

from kit.ear import Tally

from conflux.control.lan.config import LanConfig, Place
from conflux.control.lan.discovery import Discovery
from conflux.control.lan.interfaces import MDNS_IPV4, usable_interfaces
from conflux.control.lan.sieve import BURST_PER_ADDRESS

TAG = b"realmtag"


def discovery(port: int | None, found: asyncio.Event, drops: Tally, instance: bytes) -> Discovery:
    def note(instance: bytes, places: tuple[Place, ...]) -> None:
        found.set()

    def drop(reason: str) -> None:
        drops[reason] += 1

    config = LanConfig(interfaces=("lo",))
    return Discovery(
        tag=TAG, instance=instance, port=port, config=config, found=note, gone=lambda instance: None, drop=drop
    )


def announcements(service: bytes, text_bytes: int, count: int) -> list[bytes]:
    """Return responses with one TXT record each, of ever other names."""
    text = b"\xff" + os.urandom(255)
    text *= text_bytes // len(text)
    packets = []
    for _ in range(count):
        name = b"\x10" + os.urandom(8).hex().encode() + service + b"\x04_tcp\x05local\0"
        packets.append(
            struct.pack("!6H", 0, 0x8400, 0, 1, 0, 0) + name + struct.pack("!HHIH", 16, 1, 4500, len(text)) + text
        )
    return packets


async def test_flood_of_announcements_fills_no_memory() -> None:
    drops = Tally()
    looks = discovery(None, asyncio.Event(), drops, b"looking!")
    await looks._open(usable_interfaces(looks._config))
    assert looks._zeroconf is not None
    cache = looks._zeroconf.zeroconf.cache
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        for packet in [*announcements(b"\x08_conflux", 8 * 1024, 300), *announcements(b"\x08_conflux", 256, 600)]:
            sock.sendto(packet, (MDNS_IPV4, 5353))
            await asyncio.sleep(0)
        await drops.until("mdns-flood")
    texts = [getattr(record, "text", b"") for name in cache.names() for record in cache.entries_with_name(name)]
    assert 0 < len(texts) <= BURST_PER_ADDRESS
    assert max(map(len, texts)) <= 256
    await looks.stop()


async def test_node_is_found_through_the_sieve() -> None:
    found, drops = asyncio.Event(), Tally()
    looks, speaks = discovery(None, found, drops, b"looking!"), discovery(7464, asyncio.Event(), drops, b"speaking")
    await speaks.start()
    await looks.start()
    async with asyncio.timeout(10):
        await found.wait()
    await looks.stop()
    await speaks.stop()
    assert not drops
