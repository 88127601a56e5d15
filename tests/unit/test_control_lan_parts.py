"""The parts of the LAN engine that need no network: handshake records, frames, back-off, addresses, interfaces."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from ipaddress import ip_address, ip_network

import ifaddr
import pytest
from builders import NOW_UNIX, make_member, make_realm
from control_world import boot_id

from conflux.control.lan import interfaces
from conflux.control.lan.config import REDIAL_S_MAX, LanConfig
from conflux.control.lan.dial import Address, connect_first, resolve, underlay_addresses
from conflux.control.lan.frame import BODY_BYTES_MAX, FrameReader, FrameType, encode_frame
from conflux.control.lan.handshake import Acceptor, Dialler, Hello, Ourselves, Peer, Welcome, realm_tag
from conflux.control.lan.interfaces import usable_interfaces
from conflux.control.lan.listener import budget_key
from conflux.control.lan.neighbours import Neighbour, Neighbours
from conflux.control.lan.target import Backoff
from conflux.errors import LocalProtocolError, RemoteProtocolError
from conflux.ids import NodeId

CERTIFICATE = b"c" * 32


def ourselves(name: str, realm: str = "home") -> Ourselves:
    member = make_member(make_realm(realm), name)
    instance = name.encode().ljust(8, b".")
    return Ourselves(member, boot_id(1), instance, lambda chain: chain.verify(member.anchor, now_unix=NOW_UNIX))


# ── handshake ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_handshake_tells_both_sides_the_same_connection_and_each_the_other() -> None:
    acceptor = Acceptor(ourselves("alice"), CERTIFICATE, os.urandom)
    dialler = Dialler(ourselves("bob"), CERTIFICATE, os.urandom)
    dialled_by, welcome = acceptor.answer_untrusted(dialler.hello_untrusted(acceptor.greeting))
    accepted_by = dialler.finish_untrusted(welcome)
    assert (dialled_by.name, dialled_by.node) == ("bob", make_member(make_realm(), "bob").node_id)
    assert (accepted_by.name, accepted_by.instance) == ("alice", b"alice...")
    assert dialled_by.session == accepted_by.session


def test_every_changed_field_of_hello_and_welcome_is_refused() -> None:
    acceptor = Acceptor(ourselves("alice"), CERTIFICATE, os.urandom)
    dialler = Dialler(ourselves("bob"), CERTIFICATE, os.urandom)
    hello = Hello.decode_untrusted(dialler.hello_untrusted(acceptor.greeting))
    _, data = acceptor.answer_untrusted(hello.encode())
    welcome = Welcome.decode_untrusted(data)
    other = ourselves("carol")
    fields = (hello.realm_tag, hello.chain, hello.boot, hello.instance, hello.nonce, hello.signature)
    changed = (bytes(8), other.member.chain, boot_id(9), bytes(8), bytes(32), bytes(3373))
    for index, value in enumerate(changed):
        forged = Hello(*fields[:index], value, *fields[index + 1 :])  # type: ignore[arg-type]  # one of each, in order
        with pytest.raises(RemoteProtocolError):
            acceptor.answer_untrusted(forged.encode())
    answer = (welcome.chain, welcome.boot, welcome.instance, welcome.signature)
    for index, value in enumerate((other.member.chain, boot_id(9), bytes(8), bytes(3373))):
        lie = Welcome(*answer[:index], value, *answer[index + 1 :])  # type: ignore[arg-type]  # one of each, in order
        with pytest.raises(RemoteProtocolError, match="bad-signature"):
            dialler.finish_untrusted(lie.encode())


def test_welcome_of_another_hello_is_refused() -> None:
    """The acceptor's signature covers the Hello it answered: a dialler takes no other."""
    acceptor = Acceptor(ourselves("alice"), CERTIFICATE, os.urandom)
    nonce = os.urandom(32)
    bob, carol = (Dialler(ourselves(name), CERTIFICATE, lambda size: nonce) for name in ("bob", "carol"))
    bob.hello_untrusted(acceptor.greeting)
    _, welcome = acceptor.answer_untrusted(carol.hello_untrusted(acceptor.greeting))
    with pytest.raises(RemoteProtocolError, match="bad-signature"):
        bob.finish_untrusted(welcome)


def test_man_in_the_middle_has_another_certificate() -> None:
    acceptor = Acceptor(ourselves("alice"), CERTIFICATE, os.urandom)
    dialler = Dialler(ourselves("bob"), b"m" * 32, os.urandom)
    with pytest.raises(RemoteProtocolError, match="bad-signature"):
        acceptor.answer_untrusted(dialler.hello_untrusted(acceptor.greeting))


def test_hello_sent_back_as_a_welcome_is_refused() -> None:
    """Reflection: the purposes differ, and so does the own id."""
    acceptor = Acceptor(ourselves("alice"), CERTIFICATE, os.urandom)
    dialler = Dialler(ourselves("bob"), CERTIFICATE, os.urandom)
    hello = Hello.decode_untrusted(dialler.hello_untrusted(acceptor.greeting))
    with pytest.raises(RemoteProtocolError, match="self"):
        dialler.finish_untrusted(Welcome(hello.chain, hello.boot, hello.instance, hello.signature).encode())


def test_own_node_id_is_refused() -> None:
    acceptor = Acceptor(ourselves("alice"), CERTIFICATE, os.urandom)
    dialler = Dialler(ourselves("alice"), CERTIFICATE, os.urandom)
    with pytest.raises(RemoteProtocolError, match="self"):
        acceptor.answer_untrusted(dialler.hello_untrusted(acceptor.greeting))


def test_realm_tag_does_not_show_the_realm_id() -> None:
    realm_id = make_realm().anchor.realm_id
    tag = realm_tag(realm_id)
    assert len(tag) == 8
    assert tag not in realm_id
    assert tag != realm_tag(make_realm("elsewhere").anchor.realm_id)


# ── neighbours ───────────────────────────────────────────────────────────────────────────────────────────────────────

SMALL, LARGE = NodeId(b"a" * 16), NodeId(b"b" * 16)


def neighbour(name: str, *, dialled: bool, at: float = 100.0, boot: int = 1, session: bytes = b"s") -> Neighbour[str]:
    return Neighbour(Peer(LARGE, "large", boot_id(boot), b"instance", 2**40, session * 32), name, dialled, at)


def test_what_the_smaller_id_dialled_survives_whichever_came_first() -> None:
    for order in ((True, False), (False, True)):
        neighbours: Neighbours[str] = Neighbours(SMALL)
        losers = [neighbours.admit(neighbour(f"dialled {dialled}", dialled=dialled)) for dialled in order]
        assert [entry.connection for entry in neighbours.all()] == ["dialled True"]
        assert [loser.connection for loser in losers if loser] == ["dialled False"]


def test_late_second_connection_replaces_since_its_dialler_lost_the_first() -> None:
    neighbours: Neighbours[str] = Neighbours(SMALL)
    neighbours.admit(neighbour("first", dialled=True))
    loser = neighbours.admit(neighbour("second", dialled=False, at=106.0))
    assert loser is not None
    assert loser.connection == "first"


def test_newer_boot_replaces_and_older_does_not() -> None:
    neighbours: Neighbours[str] = Neighbours(SMALL)
    neighbours.admit(neighbour("old", dialled=True, boot=1))
    assert neighbours.admit(neighbour("new", dialled=False, boot=2)) is not None
    late = neighbour("late", dialled=True, boot=1, at=200.0)
    assert neighbours.admit(late) is late
    assert [entry.connection for entry in neighbours.all()] == ["new"]


def test_lost_connection_that_was_replaced_removes_nobody() -> None:
    neighbours: Neighbours[str] = Neighbours(SMALL)
    neighbours.admit(neighbour("first", dialled=True))
    neighbours.admit(neighbour("second", dialled=True, at=200.0))
    assert neighbours.remove("first") is None
    removed = neighbours.remove("second")
    assert removed is not None
    assert len(neighbours) == 0
    assert not neighbours.has_instance(b"instance")


# ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_frame_layout() -> None:
    assert encode_frame(FrameType.ENVELOPE, b"xyz").hex(" ") == "00 03 10 78 79 7a"
    assert encode_frame(FrameType.PING).hex(" ") == "00 00 11"


def test_largest_frame_passes_and_a_larger_one_is_refused_from_its_header() -> None:
    reader = FrameReader()
    assert reader.feed_untrusted(encode_frame(FrameType.ENVELOPE, bytes(BODY_BYTES_MAX)))
    with pytest.raises(RemoteProtocolError, match="oversized"):
        reader.feed_untrusted((BODY_BYTES_MAX + 1).to_bytes(2, "big") + b"\x10")
    with pytest.raises(LocalProtocolError):
        encode_frame(FrameType.ENVELOPE, bytes(BODY_BYTES_MAX + 1))


def test_unknown_frame_type_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="malformed"):
        FrameReader().feed_untrusted(b"\x00\x01\x63x")


# ── dialling ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_backoff_doubles_with_jitter_to_half_a_minute_and_starts_over() -> None:
    backoff = Backoff(random.Random(1))
    delays = [backoff.next_s() for _ in range(12)]
    assert 0.1 <= delays[0] <= 0.2
    assert all(
        bound / 2 <= delay <= bound for delay, bound in zip(delays, [0.2 * 2**i for i in range(8)], strict=False)
    )
    assert REDIAL_S_MAX / 2 <= delays[-1] <= REDIAL_S_MAX
    backoff.reset()
    assert backoff.next_s() <= 0.2


def test_link_local_address_keeps_its_scope() -> None:
    index, name = socket.if_nameindex()[0]
    for host in (f"fe80::1%{name}", f"fe80::1%{index}"):
        (address,) = asyncio.run(resolve(host, 7464))
        assert address.sockaddr == ("fe80::1", 7464, 0, index)


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..example"])
def test_name_that_is_none_resolves_to_nothing(host: str) -> None:
    assert asyncio.run(resolve(host, 7464)) == []


def test_name_that_resolves_into_the_overlay_is_not_dialled() -> None:
    config = LanConfig(overlay=(ip_network("127.0.0.0/8"), ip_network("::1/128")))
    assert asyncio.run(underlay_addresses((("localhost", 7464), ("127.0.0.1", 7464)), config)) == []
    assert asyncio.run(underlay_addresses((("127.0.0.1", 7464),) * 3, LanConfig())) == [
        Address(socket.AF_INET, ("127.0.0.1", 7464))
    ]
    assert not config.allows("::ffff:127.0.0.1")


def test_first_address_that_answers_wins_and_no_socket_is_left() -> None:
    async def scene() -> None:
        with socket.socket() as closed, socket.socket() as listening:
            closed.bind(("127.0.0.1", 0))
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            addresses = [Address(socket.AF_INET, sock.getsockname()) for sock in (closed, listening)]
            sock, address = await connect_first(addresses)
            assert address == addresses[1]
            sock.close()
            with pytest.raises(ConnectionRefusedError):
                await connect_first(addresses[:1])
            with pytest.raises(OSError, match="no address"):
                await connect_first([])

    asyncio.run(scene())


def test_ipv6_hosts_are_charged_by_their_network() -> None:
    assert budget_key("2001:db8::1") == budget_key("2001:db8::2:3")
    assert budget_key("2001:db8::1") != budget_key("2001:db8:0:1::1")
    assert budget_key("192.0.2.1") != budget_key("192.0.2.2")
    assert budget_key("fe80::1%eth0") == budget_key("fe80::2")


# ── interfaces ───────────────────────────────────────────────────────────────────────────────────────────────────────


def adapter(name: str, index: int, *hosts: str) -> ifaddr.Adapter:
    ips = [ifaddr.IP(host if ":" not in host else (host, 0, index), 24, name) for host in hosts]
    return ifaddr.Adapter(name, name, ips, index)


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> None:
    """Interfaces of a board; those of index above 90 cannot do multicast."""
    adapters = [
        adapter("lo", 1, "127.0.0.1", "::1"),
        adapter("eth0", 2, "192.0.2.5", "2001:db8::5", "fe80::5"),
        adapter("conflux0", 3, "fd00:1::5", "fe80::99"),
        adapter("wlan0", 4, "198.51.100.5"),
        adapter("broken0", 91, "203.0.113.5", "fe80::7"),
    ]
    monkeypatch.setattr(ifaddr, "get_adapters", lambda: adapters)
    monkeypatch.setattr(interfaces, "_can_multicast", lambda address, index: index <= 90)


@pytest.mark.usefixtures("board")
def test_loopback_overlay_and_broken_interfaces_are_left_out() -> None:
    found = usable_interfaces(LanConfig(overlay=(ip_network("fd00:1::/48"),)))
    assert found.multicast == ("192.0.2.5", "fe80::5", "198.51.100.5")
    expected = ("192.0.2.5", "2001:db8::5", "fe80::5", "198.51.100.5")
    assert found.announced == tuple(ip_address(host) for host in expected)


@pytest.mark.usefixtures("board")
def test_configured_interfaces_are_the_only_ones() -> None:
    found = usable_interfaces(LanConfig(interfaces=("wlan0",)))
    assert found.multicast == ("198.51.100.5",)
    assert usable_interfaces(LanConfig(interfaces=("none0",))).multicast == ()
