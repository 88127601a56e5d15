"""The check of multicast: asks a question by mDNS on each interface, and listens who hears it and who answers."""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from ipaddress import ip_address, ip_network
from typing import NamedTuple

from conflux.control.lan.config import MDNS_PORT, LanConfig
from conflux.control.lan.interfaces import MDNS_IPV4, MDNS_IPV6, usable_interfaces
from conflux.doctor.finding import Check, Finding, bad, good, unseen
from conflux.doctor.firewall import manager, open_port
from conflux.doctor.host import own_networks
from conflux.doctor.subject import Subject

# A responder answers within 120 ms, and what it said in the last second not again (RFC 6762, section 6); a question may
# be lost on Wi-Fi.
ASK_AT_S = (0.0, 0.6, 1.8)
WAIT_S = 3.0
DATAGRAM_BYTES_MAX = 9000
HEARD_COUNT_MAX = 64  # other devices of one interface that are noted

# linux/in.h, in6.h: deliver only what comes by the interface on which this socket itself joined the group.
_IP_MULTICAST_ALL, _IPV6_MULTICAST_ALL = 49, 29

# Nodes of Conflux answer the first; the second is answered by everything that speaks mDNS.
_QUESTIONS = tuple(
    struct.pack(">6H", 0, 0, 1, 0, 0, 0) + b"".join(bytes([len(each)]) + each for each in labels) + b"\0\0\x0c\0\x01"
    for labels in ((b"_conflux", b"_tcp", b"local"), (b"_services", b"_dns-sd", b"_udp", b"local"))
)


class Spoken(NamedTuple):
    """What came of asking from one address of an interface.

    refused: why the question could not be sent, or "".  returned: our own question came back, as it does to every
    program here that listens.  others: addresses of other devices that were heard.  expected: neighbours of this node
    that are on this network, by name.
    """

    interface: str
    address: str
    refused: str
    returned: bool
    others: tuple[str, ...]
    expected: tuple[str, ...] = ()


class Multicast(NamedTuple):
    """enabled: this node uses mDNS.  manager: of the firewall, as in firewall.MANAGERS."""

    enabled: bool
    spoken: tuple[Spoken, ...]
    manager: str = ""


def look(seen: Subject) -> Multicast:
    """Ask on every interface that this node uses, and listen for WAIT_S.  Raises OSError."""
    lan = seen.config.control.lan
    if not (lan.enabled and lan.mdns):
        return Multicast(False, ())
    found = usable_interfaces(LanConfig(interfaces=lan.interfaces, overlay=own_networks(seen)))
    speaking = set(found.multicast)
    links = [link for link in found.links if str(link.address.ip) in speaking]
    spoken = ask([(link.name, link.scope, str(link.address.ip)) for link in links])
    rows = [each for row in seen.daemon.status.get("control") or () for each in row.get("neighbours", ())]
    near = [(str(each.get("name")), str(each.get("address")).partition("%")[0]) for each in rows]
    networks = {str(link.address.ip): link.address.network for link in links}
    return Multicast(
        True,
        tuple(
            each._replace(
                expected=tuple(name for name, address in near if _is_in(address, str(networks[each.address])))
            )
            for each in spoken
        ),
        manager(),
    )


def judge(seen: Multicast) -> Iterator[Finding]:
    """Judge multicast, interface by interface."""
    if not seen.enabled:
        yield good(Check.MULTICAST, "mDNS is switched off")
    elif not seen.spoken:
        yield bad(Check.MULTICAST, "no interface can send multicast", "ip -brief link    # MULTICAST has to be there")
    for each in seen.spoken:
        at = f"{each.interface} {each.address}"
        if each.refused:
            said = f"{at}: cannot send: {each.refused}"
            yield bad(Check.MULTICAST, said, open_port(seen.manager, "udp", MDNS_PORT))
        elif not each.returned:
            said = f"{at}: a question was sent and not heard here: a firewall of this board drops it"
            yield bad(Check.MULTICAST, said, open_port(seen.manager, "udp", MDNS_PORT))
        elif each.others:
            count = len(each.others)
            yield good(
                Check.MULTICAST, f"{at}: sent, and heard of {count} other {'device' if count == 1 else 'devices'}"
            )
        elif each.expected:
            said = f"{at}: sent, and {', '.join(each.expected)} did not answer: this network does not pass multicast"
            yield bad(Check.MULTICAST, said, "name a neighbour in control.lan.peers: docs/how-to/no-multicast.md")
        else:
            yield unseen(Check.MULTICAST, f"{at}: sent, and no other device answers; is there one?")


def ask(places: Sequence[tuple[str, int, str]]) -> list[Spoken]:
    """Ask from each place (interface, its index, address) at once, and return what came of it, in that order."""
    heard: dict[str, set[str]] = {address: set() for _, _, address in places}
    refused: dict[str, str] = dict.fromkeys(heard, "")
    own = set(heard)
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as opened:
        ears: dict[str, tuple[socket.socket, int]] = {}
        for _, index, address in places:
            try:
                ear = opened.enter_context(_ear(address, index))
            except OSError as error:
                refused[address] = error.strerror or str(error)
                continue
            ears[address] = ear, index
            selector.register(ear, selectors.EVENT_READ, address)
        began, asked = time.monotonic(), 0
        while ears and (now := time.monotonic() - began) < WAIT_S:
            if asked < len(ASK_AT_S) and now >= ASK_AT_S[asked]:
                for address, (ear, index) in ears.items():
                    refused[address] = _send(ear, address, index)
                asked += 1
            until = ASK_AT_S[asked] if asked < len(ASK_AT_S) else WAIT_S
            for key, _ in selector.select(max(0.0, until - now)):
                _hear(key.fileobj, heard[key.data])  # type: ignore[arg-type]  # the ear that was registered
            if asked and all(refused[each] or (each in heard[each] and heard[each] - own) for each in ears):
                break
    return [
        Spoken(name, address, refused[address], address in heard[address], tuple(sorted(heard[address] - own)))
        for name, _, address in places
    ]


def _ear(address: str, index: int) -> socket.socket:
    """Return a socket that hears the group on one interface.  Raises OSError."""
    is_ipv6 = ":" in address
    ear = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the daemon listens there too
        if is_ipv6:
            ear.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            ear.bind(("::", MDNS_PORT))
            group = socket.inet_pton(socket.AF_INET6, MDNS_IPV6) + struct.pack("=I", index)
            ear.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
            ear.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
            ear.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
            with contextlib.suppress(OSError):  # kernels before 4.20
                ear.setsockopt(socket.IPPROTO_IPV6, _IPV6_MULTICAST_ALL, 0)
        else:
            ear.bind(("0.0.0.0", MDNS_PORT))  # multicast comes to the group's address
            member = struct.pack("=4s4si", socket.inet_aton(MDNS_IPV4), socket.inet_aton(address), index)
            ear.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
            ear.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, member)
            ear.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
            ear.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
    except OSError:
        ear.close()
        raise
    return ear


def _send(ear: socket.socket, address: str, index: int) -> str:
    """Ask; return why that failed, or ""."""
    place = (MDNS_IPV6, MDNS_PORT, 0, index) if ":" in address else (MDNS_IPV4, MDNS_PORT)
    try:
        for question in _QUESTIONS:
            ear.sendto(question, place)
    except OSError as error:
        if error.errno == errno.EPERM:
            return "a firewall of this board drops it"
        return os.strerror(error.errno) if error.errno else str(error)
    return ""


def _hear(ear: socket.socket, heard: set[str]) -> None:
    with contextlib.suppress(OSError):
        _, source = ear.recvfrom(DATAGRAM_BYTES_MAX)
        if len(heard) < HEARD_COUNT_MAX:
            heard.add(str(source[0]).partition("%")[0])


def _is_in(address: str, network: str) -> bool:
    try:
        return ip_address(address) in ip_network(network)
    except ValueError:
        return False
