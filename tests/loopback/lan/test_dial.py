"""Dialling: back-off, addresses, and the interfaces that mDNS uses."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from ipaddress import ip_address, ip_interface, ip_network

import ifaddr
import pytest

from conflux.control.lan import interfaces
from conflux.control.lan.certificate import Certificate, client_context
from conflux.control.lan.config import REDIAL_S_MAX, LanConfig, budget_key
from conflux.control.lan.connection import Connection
from conflux.control.lan.dial import Address, connect_first, open_connection, resolve, underlay_addresses
from conflux.control.lan.interfaces import usable_interfaces
from conflux.control.lan.lans import Interface, Lans
from conflux.control.lan.listener import Listener
from conflux.control.lan.target import Backoff
from conflux.host import underlay

# ── dialling ──────────────────────────────────────────────────────────────────────────────────────────────────────────


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


async def test_link_local_address_keeps_its_scope() -> None:
    index, name = socket.if_nameindex()[0]
    for host in (f"fe80::1%{name}", f"fe80::1%{index}"):
        (address,) = await resolve(host, 7464)
        assert address.sockaddr == ("fe80::1", 7464, 0, index)


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..example"])
async def test_text_that_is_no_host_name_resolves_to_nothing(host: str) -> None:
    assert await resolve(host, 7464) == []


async def test_name_that_resolves_into_the_overlay_is_not_dialled() -> None:
    config = LanConfig(overlay=(ip_network("127.0.0.0/8"), ip_network("::1/128")))
    assert await underlay_addresses((("localhost", 7464), ("127.0.0.1", 7464)), config) == []
    assert await underlay_addresses((("127.0.0.1", 7464),) * 3, LanConfig()) == [
        Address(socket.AF_INET, ("127.0.0.1", 7464))
    ]
    assert not config.allows("::ffff:127.0.0.1")


def test_a_dial_that_times_out_as_tls_stands_leaves_the_number_of_its_socket_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Closed under its transport, its number would be the next socket's, which the loop takes for the transport's.

    That is so with the loop of Python's own library, which a board without uvloop has.
    """
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(_dial_too_late(monkeypatch))


async def _dial_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    made = Connection.connection_made
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, ssl=Certificate.make().context)
    (address,) = await resolve("127.0.0.1", server.sockets[0].getsockname()[1])
    dialling = asyncio.create_task(open_connection(address, client_context(), asyncio.Event()))

    def made_too_late(self: Connection, transport: asyncio.BaseTransport) -> None:
        made(self, transport)
        dialling.cancel()

    monkeypatch.setattr(Connection, "connection_made", made_too_late)
    await asyncio.gather(dialling, return_exceptions=True)
    assert dialling.cancelled()
    with contextlib.ExitStack() as stack:
        for sock in [stack.enter_context(socket.socket()) for _ in range(32)]:
            sock.setblocking(False)
            loop.add_writer(sock, lambda: None)
            loop.remove_writer(sock)
    server.close()


async def test_first_address_that_answers_wins_and_no_socket_is_left() -> None:
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


LINKS = Lans((Interface("eth0", 2, tuple(map(ip_interface, ("192.0.2.5/24", "2001:db8::5/64", "fe80::5/64")))),))


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ("2001:db8:0:9::1", "2001:db8:0:9::2:3", True),  # behind a router a host may have all of it
        ("2001:db8:0:9::1", "2001:db8:0:a::1", False),
        ("2001:db8::1", "2001:db8::2:3", False),  # on a link of ours
        ("fe80::1%2", "fe80::2%2", False),
        ("fe80::1%2", "fe80::1%3", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("203.0.113.1", "203.0.113.2", False),
    ],
)
def test_ipv6_hosts_on_a_link_are_charged_by_address_and_others_by_network(one: str, other: str, shared: bool) -> None:
    keys = [budget_key(host, LINKS.are_beside) for host in (one, other)]
    assert (keys[0] == keys[1]) is shared


def test_flood_of_one_host_on_the_link_leaves_its_neighbours_their_budget() -> None:
    drops: list[str] = []
    listener = Listener(LanConfig(), Certificate.make(), NotImplemented, drops.append, LINKS.are_beside)
    flood = [listener._refusal("fe80::bad%2", 0.0) for _ in range(30)]
    assert flood == [None] * 16 + ["accept-rate"] * 14
    assert listener._refusal("fe80::1%2", 0.0) is None


# ── interfaces ───────────────────────────────────────────────────────────────────────────────────────────────────────


def adapter(name: str, index: int, *hosts: str) -> ifaddr.Adapter:
    ips = [ifaddr.IP((host, 0, index), 64, name) if ":" in host else ifaddr.IP(host, 24, name) for host in hosts]
    return ifaddr.Adapter(name, name, ips, index)


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interfaces of a board; those with an index above 90 have no multicast."""
    adapters = [
        adapter("lo", 1, "127.0.0.1", "::1"),
        adapter("eth0", 2, "192.0.2.5", "2001:db8::5", "fe80::5"),
        adapter("conflux0", 3, "fd00:1::5", "fe80::99"),
        adapter("wlan0", 4, "198.51.100.5"),
        adapter("broken0", 91, "203.0.113.5", "fe80::7"),
    ]
    monkeypatch.setattr(ifaddr, "get_adapters", lambda: adapters)
    monkeypatch.setattr(underlay, "_use", lambda *asked: underlay.Use.PLAIN)
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


def test_mdns_speaks_from_as_many_addresses_as_one_socket_may_join_and_names_the_others(monkeypatch, tmp_path) -> None:
    adapters = [adapter(f"br-{number}", 10 + number, f"172.17.{number}.1") for number in range(4)]
    monkeypatch.setattr(ifaddr, "get_adapters", lambda: [*adapters, adapter("eth0", 50, "192.0.2.5")])
    monkeypatch.setattr(underlay, "_use", lambda found, *asked: underlay.Use(3 if found.name.startswith("br") else 2))
    monkeypatch.setattr(interfaces, "_can_multicast", lambda address, index: True)
    monkeypatch.setattr(interfaces, "MEMBERSHIPS", tmp_path / "igmp_max_memberships")
    interfaces.MEMBERSHIPS.write_text("3\n")
    found = usable_interfaces(LanConfig())
    assert found.multicast == ("192.0.2.5", "172.17.0.1", "172.17.1.1")
    assert found.left_out == ("br-2", "br-3")
    assert ip_address("172.17.2.1") not in found.announced


@pytest.mark.usefixtures("board")
@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("127.0.0.1", "a service of this host"),
        ("::1", "a service of this host"),
        ("192.0.2.5", "our own"),
        ("2001:db8::5", "our own"),
        ("fe80::5%eth0", "our own"),
        ("203.0.114.9", "behind a router"),
        ("2001:db9::9", "behind a router"),
        ("fd00:1::9", "on the overlay"),
        ("0.0.0.0", "nowhere"),
        ("224.0.0.251", "many"),
        ("::ffff:127.0.0.1", "a service of this host"),
        ("::ffff:192.0.2.9", "in a form that no announcement has"),
        ("fe80::9", "on a link that is not said"),
        ("fe80::9%conflux0", "on the overlay's device"),
        ("fe80::9%77", "on no link"),
        ("a.example", "no address"),
    ],
)
def test_announced_address_that_is_not_on_a_link_of_ours_is_not_dialled(host: str, why: str) -> None:
    assert not usable_interfaces(LanConfig(overlay=(ip_network("fd00:1::/48"),))).reaches(host), why


@pytest.mark.usefixtures("board")
@pytest.mark.parametrize(
    "host", ["192.0.2.9", "198.51.100.9", "2001:db8::9", "203.0.113.9", "fe80::9%eth0", "fe80::9%2"]
)
def test_announced_address_on_a_link_of_ours_is_dialled(host: str) -> None:
    assert usable_interfaces(LanConfig(overlay=(ip_network("fd00:1::/48"),))).reaches(host)


@pytest.mark.usefixtures("board")
def test_announced_address_on_the_link_of_an_interface_that_is_not_named_is_not_dialled() -> None:
    found = usable_interfaces(LanConfig(interfaces=("wlan0",)))
    assert not any(found.reaches(host) for host in ("192.0.2.9", "fe80::9%eth0", "127.0.0.1"))
    assert found.reaches("198.51.100.9")
    assert usable_interfaces(LanConfig(interfaces=("lo",))).reaches("127.0.0.1")  # a person wants it
