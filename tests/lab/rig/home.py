"""What stands between a board at home and the others: a router that masquerades, and a line with a length.

board --- home LAN --- Home --- line --- public LAN
                       eth1     eth0
"""

from __future__ import annotations

import signal
import sys
from enum import StrEnum
from pathlib import Path

from kit import stun_server
from overlays.wire import Switchyard, compiled
from rig.topology import Host, Lab, LabFailure, Lan, Process, port_name, wait_for


class Mapping(StrEnum):
    """How a router chooses the public port of a flow (RFC 4787, section 4.1).

    Both routers let in only what comes from an address and port that the board has sent to: that is conntrack.
    """

    ENDPOINT_INDEPENDENT = "masquerade"  # the board's own port while that is free: the same to every destination
    BY_DESTINATION = "masquerade fully-random"  # another port for each destination


class Home:
    """A LAN behind a router."""

    def __init__(self, lab: Lab, name: str, public: Lan, mapping: Mapping) -> None:
        self.lan = lab.lan(name)
        self.router = lab.host(f"{name}-router", public, self.lan)
        self.router.run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
        # What comes from outside unasked is dropped before it is local traffic.  Otherwise conntrack would remember it,
        # and the board's own packet to the same place would find its port taken: no hole would ever be the right one.
        rules = (
            "add table ip home",
            "add chain ip home incoming { type filter hook input priority 0; policy drop; }",
            "add rule ip home incoming iifname != eth0 accept",
            "add rule ip home incoming ct state established,related accept",
            "add chain ip home passing { type filter hook forward priority 0; policy drop; }",
            "add rule ip home passing iifname eth1 oifname eth0 accept",
            "add rule ip home passing ct state established,related accept",
            "add chain ip home outgoing { type nat hook postrouting priority 100; }",
            f"add rule ip home outgoing oifname eth0 {mapping}",
        )
        self.router.run("nft", "; ".join(rules))

    def board(self, lab: Lab, name: str) -> Host:
        """Make a board on the LAN, with a way out."""
        board = lab.host(name, self.lan)
        board.run("ip", "route", "add", "default", "via", self.router.addresses[2])
        return board


def serve_stun(host: Host) -> tuple[str, int]:
    """Run a STUN server on a host; return its address and port."""
    address, port = host.addresses[0], stun_server.PORT
    server = host.spawn("stun", sys.executable, Path(stun_server.__file__), address, str(port))
    wait_for(lambda: "ready" in server.output(), "the STUN server", within_s=5, logs=(server,))
    return address, port


class Lines:
    """Access lines of hosts on one LAN: each host's port leads to the bridge by way of a wire with a delay.

    A frame between two hosts with lines passes both.  Offloads are off on a line, or its delay would fall on
    super-packets.
    """

    def __init__(self, lan: Lan, hosts: tuple[Host, ...], *, rtt_ms: float) -> None:
        """rtt_ms: of each line, there and back."""
        self._wires: list[Process] = []
        self._yard = Switchyard(hosts[0], lan)
        for host in hosts:
            self._wires.append(self._lead(host, lan.device_of(host), rtt_ms))

    def _lead(self, host: Host, device: str, rtt_ms: float) -> Process:
        yard, port = self._yard, port_name(host)
        end, far = f"l-{host.name}"[:15], f"f-{host.name}"[:15]
        yard.run("ip", "link", "add", end, "type", "veth", "peer", "name", far)
        yard.run("ip", "link", "set", port, "nomaster")
        for name in (port, end):  # the yard itself sends nothing on a line
            yard.run("sh", "-c", f"echo 1 >/proc/sys/net/ipv6/conf/{name}/disable_ipv6")
        yard.run("ip", "link", "set", far, "master", "br0", "up")
        yard.run("ip", "link", "set", end, "up")
        yard.run(compiled(), "plain", port, end, far)
        host.run(compiled(), "plain", device)
        words = [port, end, f"{rtt_ms * 500:.0f}", "0", "0", "0", "1"]
        wire = yard.spawn(f"line-{host.name}", compiled(), *words)
        wait_for(lambda: "ready" in wire.output(), f"the line of {host.name}", within_s=5, logs=(wire,))
        return wire

    def close(self) -> None:
        """End the lines.  Raises LabFailure if one of them ended before."""
        for wire in self._wires:
            if wire.exit_code is not None:
                raise LabFailure(f"a line ended{wire.tail()}")
            wire.signal(signal.SIGTERM)
            wire.wait(5)
