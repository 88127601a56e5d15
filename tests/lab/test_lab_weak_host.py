"""Overlay addresses pass the TUN device alone, and realm packets never leave by another way.

alpha (daemon) ─┬─ LAN ─┬─ bravo (daemon)
                        └─ mallory: no credential, no Conflux
"""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass

import pytest
from rig.topology import Host, Lab, Realm, wait_for

TABLE = "conflux-conflux0"

SEND_UDP = """
import socket, struct, sys
source, target, text = sys.argv[1], sys.argv[2], sys.argv[3].encode()
family = socket.AF_INET6 if ":" in source else socket.AF_INET
packed = socket.inet_pton(family, source), socket.inet_pton(family, target)
size = 8 + len(text)
pseudo = b"".join(packed) + struct.pack("!IHBB", size, 0, 0, 17) if ":" in source else b""
udp = struct.pack("!HHHH", 5555, 8081, size, 0) + text
data = pseudo + udp + b"\\0" * (len(udp) % 2)
total = sum(struct.unpack(f"!{len(data) // 2}H", data))
while total >> 16:
    total = (total & 0xFFFF) + (total >> 16)
checksum = (~total & 0xFFFF or 0xFFFF) if pseudo else 0
udp = udp[:6] + struct.pack("!H", checksum) + text
raw = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
if pseudo:
    packet = struct.pack("!IHBB", 6 << 28, size, 17, 64) + b"".join(packed) + udp
else:
    packet = struct.pack("!BBHHHBBH", 0x45, 0, 20 + size, 1, 0, 64, 17, 0) + b"".join(packed) + udp
raw.sendto(packet, (target, 0))
"""

SAY_UDP = """
import socket, sys
socket.socket(int(sys.argv[1]), socket.SOCK_DGRAM).sendto(sys.argv[3].encode(), (sys.argv[2], 8081))
"""

HEAR_UDP = """
import socket, sys
heard = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
heard.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
heard.bind(("::", 8081))
print("ready", flush=True)
while True:
    print(heard.recvfrom(999)[0].decode(), flush=True)
"""


@dataclass(frozen=True)
class Trio:
    """Two members, and a host that is none."""

    alpha: Host
    bravo: Host
    mallory: Host
    realm: Realm


@pytest.fixture(scope="module")
def trio(shared_lab: Lab) -> Trio:
    lan = shared_lab.lan()
    alpha, bravo, mallory = (shared_lab.host(name, lan) for name in ("alpha", "bravo", "mallory"))
    made = Trio(alpha, bravo, mallory, shared_lab.realm(alpha, bravo))
    own4, own6 = alpha.overlay_addresses()
    mallory.run("ip", "route", "add", f"{own4}/32", "via", alpha.addresses[0])
    mallory.run("ip", "-6", "route", "add", f"{own6}/128", "via", alpha.addresses[1])
    return made


def route_to(host: Host, address: str) -> str:
    """Return the kernel's word for the way to an address."""
    done = host.run("ip", "route", "get", address, check=False)
    return (done.stdout + done.stderr).strip()


def test_an_outsider_on_the_lan_reaches_no_overlay_address_and_a_member_does(trio: Trio) -> None:
    for address in trio.alpha.overlay_addresses():
        assert trio.mallory.ping(address, "-c", "2", "-i", "0.2", "-W", "1").received == 0, address
        assert trio.bravo.ping(address, "-c", "2", "-i", "0.2", "-W", "5").lost == 0, trio.realm.tails()
    assert trio.mallory.ping(trio.alpha.addresses[0], "-c", "1", "-W", "5").lost == 0  # the LAN is as it was
    assert trio.alpha.ping(trio.alpha.overlay_addresses()[1], "-c", "1", "-W", "5").lost == 0  # and so is lo


def test_an_outsider_on_the_lan_cannot_send_in_a_members_name(trio: Trio) -> None:
    heard = trio.alpha.spawn("heard", "python3", "-c", HEAR_UDP)
    wait_for(lambda: "ready" in heard.output(), "a listener", within_s=5, logs=(heard,))
    for source, target in zip(trio.bravo.overlay_addresses(), trio.alpha.addresses[:2], strict=True):
        trio.mallory.run("python3", "-c", SEND_UDP, source, target, "forged")
    for source, target in zip(trio.mallory.addresses[:2], trio.alpha.addresses[:2], strict=True):
        trio.mallory.run("python3", "-c", SEND_UDP, source, target, "in its own name")
    wait_for(lambda: heard.output().count("in its own name") == 2, "what is not forged", within_s=5, logs=(heard,))
    assert "forged" not in heard.output()
    heard.kill()


def test_packets_for_a_member_do_not_leave_in_clear_by_a_more_specific_route(trio: Trio) -> None:
    """As a router advertisement for a part of the realm's network would set it."""
    heard = trio.mallory.spawn("taken", "python3", "-c", HEAR_UDP)
    wait_for(lambda: "ready" in heard.output(), "a listener", within_s=5, logs=(heard,))
    for family, mine, address in zip((2, 10), trio.alpha.addresses, trio.bravo.overlay_addresses(), strict=False):
        whole = f"{address}/{128 if family == 10 else 32}"
        trio.mallory.run("ip", "addr", "add", whole, "dev", "eth0", *(["nodad"] if family == 10 else []))
        trio.alpha.run("ip", "route", "add", whole, "dev", "eth0", "src", mine)
        said = trio.alpha.run("python3", "-c", SAY_UDP, str(family), address, "in clear", check=False)
        assert "not permitted" in said.stderr  # whoever sends is told
        trio.alpha.run("ip", "route", "del", whole, "dev", "eth0")
        trio.mallory.run("ip", "addr", "del", whole, "dev", "eth0")
        trio.alpha.run(
            "python3", "-c", SAY_UDP, str(family), trio.mallory.addresses[family // 10], "to its own address"
        )
    wait_for(lambda: heard.output().count("its own") == 2, "what is for the LAN", within_s=5, logs=(heard,))
    assert "in clear" not in heard.output()
    heard.kill()
    for address in trio.bravo.overlay_addresses():
        assert trio.alpha.ping(address, "-c", "1", "-W", "5").lost == 0, trio.realm.tails()


def test_the_table_is_the_daemons_own(trio: Trio) -> None:
    assert trio.alpha.run("nft", "delete", "table", "inet", TABLE, check=False).returncode != 0
    trio.alpha.run("nft", "flush", "ruleset")
    assert TABLE in trio.alpha.run("nft", "list", "tables").stdout
    assert not [each for each in trio.realm.daemons["alpha"].status().warnings if "nftables" in each]


def test_realm_packets_have_no_other_way_when_the_daemon_is_gone(trio: Trio) -> None:
    bravo, mallory = trio.bravo, trio.mallory
    bravo.run("ip", "route", "add", "default", "via", mallory.addresses[0])
    bravo.run("ip", "-6", "route", "add", "default", "via", mallory.addresses[1])
    members = [str(ipaddress.ip_address(address) + 1) for address in bravo.overlay_addresses()]
    assert all("dev conflux0" in route_to(bravo, each) for each in members)
    trio.realm.daemons["bravo"].kill()
    wait_for(lambda: TABLE not in bravo.run("nft", "list", "tables").stdout, "the table's end", within_s=5)
    for each in members:
        assert "unreachable" in route_to(bravo, each).lower() or "No route" in route_to(bravo, each), each
    trio.realm.restart(bravo)
    assert TABLE in bravo.run("nft", "list", "tables").stdout
    assert all("dev conflux0" in route_to(bravo, each) for each in members)
    trio.realm.daemons["bravo"].down()
    assert not any("eth0" in route_to(bravo, each) for each in members)
    trio.realm.restart(bravo)


def test_a_packet_for_an_address_that_the_device_lacks_is_not_passed_on(trio: Trio) -> None:
    alpha, bravo = trio.alpha, trio.bravo
    address = bravo.overlay_addresses()[0]
    trio.realm.daemons["bravo"].down()
    bravo.configure({"tun": {"ipv4": False, "fail_closed": False}})
    for route in json.loads(bravo.run("ip", "-json", "route", "show", "type", "unreachable").stdout):
        bravo.run("ip", "route", "del", "unreachable", route["dst"], "metric", str(route["metric"]))
    trio.realm.restart(bravo)
    bravo.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    assert alpha.ping(address, "-c", "3", "-i", "0.2", "-W", "2").received == 0
    wait_for(
        lambda: trio.realm.daemons["bravo"].status().drops.get("not-ours", 0) >= 3,
        "the packets dropped at bravo",
        within_s=5,
        logs=trio.realm.logs(),
    )
