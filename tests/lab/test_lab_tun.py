"""The TUN device against a real kernel.

child process in its own network namespace:   test ──fd──► conflux9 ◄── kernel
"""

import subprocess
import sys
import textwrap

from kit.tree import TREE

PROLOGUE = """
import asyncio, ipaddress, subprocess
from conflux.host import netlink
from conflux.host import privileges
from conflux.errors import UserError
from conflux.host.tun import Tun

ADDRESSES = (ipaddress.ip_address("fd12:3456:789a::5"), ipaddress.ip_address("100.64.3.4"))
NETWORKS = (ipaddress.ip_network("fd12:3456:789a::/48"), ipaddress.ip_network("100.64.0.0/16"))
CONFIG = netlink.DeviceConfig("conflux9", 1280, ADDRESSES, NETWORKS)

def run(command):
    return subprocess.run(command, shell=True, capture_output=True, text=True).stdout
"""


def in_namespace(script: str) -> str:
    """Return what the script prints when run as root of a fresh network namespace."""
    done = subprocess.run(
        [
            "unshare",
            "--net",
            sys.executable,
            "-W",
            "error",
            "-c",
            PROLOGUE + textwrap.dedent(script),
        ],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(TREE), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_addresses_routes_and_mtu_are_as_asked_for() -> None:
    out = in_namespace("""
        device = Tun.create("conflux9")
        netlink.Child().configure(CONFIG)
        print(run("ip addr show dev conflux9; ip route; ip -6 route"))
    """)
    assert "mtu 1280" in out
    assert "inet6 fd12:3456:789a::5/128" in out
    assert "inet 100.64.3.4/32" in out
    assert "fe80" not in out
    assert "fd12:3456:789a::/48 dev conflux9" in out
    assert "100.64.0.0/16 dev conflux9 proto static src 100.64.3.4" in out


def test_the_kernel_sends_nothing_by_itself_and_a_ping_arrives_as_one_packet() -> None:
    out = in_namespace("""
        device = Tun.create("conflux9")
        netlink.Child().configure(CONFIG)
        got = []

        async def read():
            arrived = asyncio.Event()
            device.start(lambda packet: (got.append(packet), arrived.set()), lambda why: None)
            ping = await asyncio.create_subprocess_exec("ping", "-c1", "-W1", "fd12:3456:789a::7", stdout=-3)
            await asyncio.wait_for(arrived.wait(), 10)
            await ping.wait()

        asyncio.run(read())
        print(len(got), got[0][0] >> 4, len(got[0]))
    """)
    assert out.split() == ["1", "6", "104"]


def test_nothing_is_left_when_the_process_is_killed() -> None:
    out = in_namespace("""
        import os, signal, sys
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            device = Tun.create("conflux9")
            netlink.Child().configure(CONFIG)
            os.write(writer, b"up")
            signal.pause()
        os.read(reader, 2)
        print("before", "conflux9" in run("ip link"))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        print("after", "conflux9" in run("ip link; ip route; ip -6 route"))
    """)
    assert out.splitlines() == ["before True", "after False"]


def test_a_name_that_is_taken_and_a_network_that_is_routed_elsewhere_are_named() -> None:
    out = in_namespace("""
        device = Tun.create("conflux9")
        netlink.Child().configure(CONFIG)
        gone = netlink.DeviceConfig("gone", 1280, (), ())
        for attempt in (lambda: Tun.create("conflux9"), lambda: netlink.Child().configure(gone)):
            try:
                attempt()
            except UserError as error:
                print(error)
        other = Tun.create("conflux8")
        try:
            netlink.Child().configure(netlink.DeviceConfig("conflux8", 1280, ADDRESSES, NETWORKS[1:]))
        except UserError as error:
            print(error)
    """)
    taken, gone, routed = out.splitlines()
    assert "named conflux9 exists already" in taken
    assert "find the device: it has vanished" in gone
    assert "add route 100.64.0.0/16: another device has a route" in routed


def test_a_device_removed_by_somebody_is_noticed_and_one_set_down_is_a_drop() -> None:
    out = in_namespace("""
        device = Tun.create("conflux9")
        netlink.Child().configure(CONFIG)
        packet = bytes.fromhex("6000000000003b40") + ADDRESSES[0].packed + ADDRESSES[0].packed
        print(device.write(packet), device.trouble(CONFIG))
        run("ip link set conflux9 down")
        print(device.write(packet), dict(device.drops), device.trouble(CONFIG))
        run("ip link set conflux9 up")
        print(device.trouble(CONFIG))

        async def removed():
            lost = asyncio.get_running_loop().create_future()
            device.start(lambda packet: None, lost.set_result)
            run("ip link del conflux9")
            print(await asyncio.wait_for(lost, 10))

        asyncio.run(removed())
        print(device.trouble(CONFIG))
    """)
    assert out.splitlines() == [
        "True None",
        "False {'tun-down': 1} conflux9 is down",
        "conflux9 has lost the route to fd12:3456:789a::/48",
        "conflux9 was removed",
        "conflux9 is gone",
    ]


def test_after_dropping_privileges_the_device_still_moves_packets_and_no_other_can_be_made() -> None:
    out = in_namespace("""
        device = Tun.create("conflux9")
        netlink.Child().configure(CONFIG)
        privileges.drop()
        packet = bytes.fromhex("6000000000003b40") + ADDRESSES[0].packed + ADDRESSES[0].packed
        print(device.write(packet), privileges.effective())
        try:
            Tun.create("conflux8")
        except UserError as error:
            print(error)
    """)
    assert out.splitlines() == ["True 0", "no permission to create conflux8: run as root or with CAP_NET_ADMIN"]
