"""The fence: an nftables table of our own, so that overlay addresses pass the TUN device alone.

Linux answers for each of its addresses on every interface.  Without the fence a host on the LAN, with no credential,
would reach what listens on an overlay address, and could send in a member's name.  And the kernel sends by the longest
prefix: a router advertisement for a part of the realm's network would have its packets leave to the LAN in clear.

    table inet conflux-NAME { chain prerouting { type filter hook prerouting priority raw; policy accept;
        iifname != NAME iifname != "lo" ip6 saddr PREFIX counter drop
        iifname != NAME iifname != "lo" [iifname != each that may send into the realm] ip6 daddr PREFIX counter drop
        ... the same of IPv4 ... }
      chain postrouting { type filter hook postrouting priority raw; policy accept;
        oifname != NAME oifname != "lo" [oifname != each that may send into the realm] ip6 saddr PREFIX counter drop
        oifname != NAME oifname != "lo" ip6 daddr PREFIX counter drop
        ... the same of IPv4 ... } }

The table belongs to the netlink socket that made it: the kernel lets nobody else change it, not even by `nft flush
ruleset`, and takes it away with this process, however that ends.  A kernel before 5.12 has no owners: there the table
stays, harmless without the device, until the next start replaces it.  No program is needed, and no capability after
it is made.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import struct
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from conflux.errors import words_of

log = logging.getLogger(__name__)

NETLINK_NETFILTER: Final = 12
ANSWER_TIMEOUT_S: Final = 5.0  # the kernel answers at once, but for a module that is loaded first
ANSWER_BYTES_MAX: Final = 65536
PRIORITY_RAW: Final = -300

# linux/netlink.h
NLMSG_ERROR: Final = 2
NLM_F_REQUEST: Final = 0x001
NLM_F_ACK: Final = 0x004
NLM_F_CREATE: Final = 0x400
NLM_F_APPEND: Final = 0x800
NLA_F_NESTED: Final = 0x8000

# linux/netfilter/nfnetlink.h, nf_tables.h
BATCH_BEGIN: Final = 0x10
BATCH_END: Final = 0x11
NFTABLES: Final = 10
NEWTABLE, DELTABLE, NEWCHAIN, NEWRULE = 0, 2, 3, 6
TABLE_F_OWNER: Final = 0x2
FAMILY_INET: Final = 1
HOOK_PREROUTING: Final = 0
HOOK_POSTROUTING: Final = 4
NF_DROP: Final = 0
NF_ACCEPT: Final = 1
REGISTER: Final = 1
REGISTER_VERDICT: Final = 0
META_IIFNAME: Final = 6
META_OIFNAME: Final = 7
META_NFPROTO: Final = 15
CMP_EQ, CMP_NEQ = 0, 1
PAYLOAD_NETWORK_HEADER: Final = 1
INTERFACE_BYTES: Final = 16

PREROUTING: Final = "prerouting"
POSTROUTING: Final = "postrouting"

Network = IPv4Network | IPv6Network


class Fence:
    """A table that exists as long as this object's socket is open."""

    def __init__(self, netlink: socket.socket) -> None:
        self._netlink = netlink

    @classmethod
    def build(cls, device: str, realm: Sequence[Network], forward_from: Sequence[str] = ()) -> Fence:
        """Make the table, in place of one that was left behind.  Raises OSError.

        device: the TUN device.  realm: the realm's prefixes.  forward_from: devices whose packets may enter the realm
        through this host.
        """
        netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        try:
            netlink.settimeout(ANSWER_TIMEOUT_S)
            netlink.bind((0, 0))
            try:
                _transact(netlink, _table(device, realm, forward_from, TABLE_F_OWNER))
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                    raise
                _transact(netlink, _table(device, realm, forward_from, 0))  # no owners before Linux 5.12
        except BaseException:
            netlink.close()
            raise
        return cls(netlink)

    def close(self) -> None:
        """Take the table away."""
        self._netlink.close()


def build(device: str, realm: Sequence[Network], forward_from: Sequence[str]) -> tuple[Fence | None, tuple[str, ...]]:
    """Return the fence, or None and what a person has to know, which is logged too.  See Fence.build()."""
    try:
        return Fence.build(device, realm, forward_from), ()
    except OSError as error:
        warning = (
            f"no nftables table can be made ({words_of(error)}): hosts on the LAN reach what listens on this "
            "node's overlay addresses, and can send in a member's name (docs/how-to/firewall.md)"
        )
        log.error("%s", warning)
        return None, (warning,)


# ── what is sent ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _table(device: str, realm: Sequence[Network], forward_from: Sequence[str], flags: int) -> list[bytes]:
    """Return the messages of one transaction: the table of an earlier life goes, ours comes."""
    name = _text(1, f"conflux-{device}")
    messages = [
        _message(NEWTABLE, NLM_F_CREATE, name),
        _message(DELTABLE, 0, name),
        _message(NEWTABLE, NLM_F_CREATE, name, _u32(2, flags)),
    ]
    for chain, hook in ((PREROUTING, HOOK_PREROUTING), (POSTROUTING, HOOK_POSTROUTING)):
        place = _nest(4, _u32(1, hook), _u32(2, PRIORITY_RAW))
        made = [name, _text(3, chain), place, _u32(5, NF_ACCEPT), _text(7, "filter")]
        messages.append(_message(NEWCHAIN, NLM_F_CREATE, *made))
    for network in realm:
        source, destination = (8, 24) if network.version == 6 else (12, 16)
        for chain, interface, offset, allowed in (
            (PREROUTING, META_IIFNAME, source, ()),
            (PREROUTING, META_IIFNAME, destination, forward_from),
            (POSTROUTING, META_OIFNAME, source, forward_from),  # answers to what entered there
            (POSTROUTING, META_OIFNAME, destination, ()),
        ):
            others = _none_of(interface, (device, "lo", *allowed))
            expressions = [*others, *_within(network, offset), _counter(), _drop()]
            rule = [name, _text(2, chain), _nest(4, *expressions)]
            messages.append(_message(NEWRULE, NLM_F_CREATE | NLM_F_APPEND, *rule))
    return messages


def _none_of(interface: int, devices: Iterable[str]) -> Iterable[bytes]:
    """Match packets that come in by, or go out by, another device than these."""
    yield _expression("meta", _u32(1, REGISTER), _u32(2, interface))
    for device in devices:
        yield _compare(CMP_NEQ, device.encode().ljust(INTERFACE_BYTES, b"\0"))


def _within(network: Network, offset: int) -> Iterable[bytes]:
    """Match packets of the network's family whose address at offset is in the network."""
    family = socket.AF_INET6 if network.version == 6 else socket.AF_INET
    size = len(network.network_address.packed)
    yield _expression("meta", _u32(1, REGISTER), _u32(2, META_NFPROTO))
    yield _compare(CMP_EQ, bytes([family]))
    yield _expression("payload", _u32(1, REGISTER), _u32(2, PAYLOAD_NETWORK_HEADER), _u32(3, offset), _u32(4, size))
    mask, nothing = _nest(4, _value(network.netmask.packed)), _nest(5, _value(bytes(size)))
    yield _expression("bitwise", _u32(1, REGISTER), _u32(2, REGISTER), _u32(3, size), mask, nothing)
    yield _compare(CMP_EQ, network.network_address.packed)


def _compare(operation: int, value: bytes) -> bytes:
    return _expression("cmp", _u32(1, REGISTER), _u32(2, operation), _nest(3, _value(value)))


def _counter() -> bytes:
    return _expression("counter")


def _drop() -> bytes:
    verdict = _nest(2, _nest(2, _u32(1, NF_DROP)))
    return _expression("immediate", _u32(1, REGISTER_VERDICT), verdict)


def _expression(name: str, *attributes: bytes) -> bytes:
    return _nest(1, _text(1, name), _nest(2, *attributes))


def _value(value: bytes) -> bytes:
    return _attribute(1, value)


def _u32(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack(">i" if value < 0 else ">I", value))


def _text(kind: int, text: str) -> bytes:
    return _attribute(kind, text.encode() + b"\0")


def _nest(kind: int, *attributes: bytes) -> bytes:
    return _attribute(kind | NLA_F_NESTED, b"".join(attributes))


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _message(kind: int, flags: int, *attributes: bytes) -> bytes:
    return _netlink_message(NFTABLES << 8 | kind, flags | NLM_F_ACK, FAMILY_INET, 0, b"".join(attributes))


def _netlink_message(kind: int, flags: int, family: int, resource: int, payload: bytes = b"") -> bytes:
    """Return a message without its sequence number, which _transact() writes."""
    body = struct.pack(">BBH", family, 0, resource) + payload
    return struct.pack("=IHHII", 16 + len(body), kind, flags | NLM_F_REQUEST, 0, 0) + body


# ── the transaction ──────────────────────────────────────────────────────────────────────────────────────────────────


def _transact(netlink: socket.socket, messages: Sequence[bytes]) -> None:
    """Have the kernel do all of it, or nothing.  Raises OSError with what the first refused message met."""
    batch = [
        _netlink_message(BATCH_BEGIN, 0, socket.AF_UNSPEC, NFTABLES),
        *messages,
        _netlink_message(BATCH_END, 0, socket.AF_UNSPEC, NFTABLES),
    ]
    numbered = [each[:8] + struct.pack("=I", number) + each[12:] for number, each in enumerate(batch)]
    netlink.send(b"".join(numbered))
    waiting = set(range(1, len(batch) - 1))
    while waiting:
        answers = netlink.recv(ANSWER_BYTES_MAX)
        at = 0
        while at + 16 <= len(answers):
            size, kind, _, number, _ = struct.unpack_from("=IHHII", answers, at)
            if kind == NLMSG_ERROR:
                (code,) = struct.unpack_from("=i", answers, at + 16)
                if code:
                    raise OSError(-code, os.strerror(-code))
                waiting.discard(number)
            at += max(size + 3 & ~3, 16)
