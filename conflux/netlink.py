"""Addresses, routes, MTU and state of a network device, set through pyroute2 in a process of their own.

pyroute2 costs 13.5 MB of resident memory and serves the daemon for 20 milliseconds of its life, so it is imported in a
child that is gone before the first packet:  configure() starts  `python -m conflux.netlink`,  which reads one Setup as
JSON and answers with an exit code and one line.  The child inherits the privileges the device was made with.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_interface, ip_network
from pathlib import Path

from conflux.errors import UserError
from conflux.ids import IPAddress

CHILD_TIMEOUT_S = 60  # a Pi Zero reading a cold SD card takes 5 s; beyond a minute nothing is going to happen
ADDRESS_FLAGS = 0x02 | 0x200  # IFA_F_NODAD: nobody else is on the device; IFA_F_NOPREFIXROUTE: we add our own
ADDR_GEN_MODE_NONE = 1
IFF_MULTICAST = 0x1000
GSO_BYTES_MAX = 65000  # a super-packet with its headers fits one frame
PROTO_STATIC = 4


@dataclass(frozen=True, slots=True)
class Setup:
    """What a device shall have."""

    device: str
    mtu: int
    addresses: tuple[IPAddress, ...]
    networks: tuple[IPv4Network | IPv6Network, ...]  # routed to the device


def configure(setup: Setup) -> None:
    """Give the device what setup says and bring it up.  Raises UserError."""
    request = {
        "device": setup.device,
        "mtu": setup.mtu,
        "addresses": [str(address) for address in setup.addresses],
        "networks": [str(network) for network in setup.networks],
    }
    package = Path(__file__).resolve().parent.parent
    try:
        child = subprocess.run(  # noqa: S603  # our own interpreter and module
            [sys.executable, "-P", "-m", __name__],  # -P: nothing is imported from the directory we were started in
            input=json.dumps(request).encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={"PYTHONPATH": str(package), "PATH": os.defpath},
            timeout=CHILD_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"cannot set up {setup.device}: {error}") from None
    if child.returncode:
        lines = child.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {child.returncode}"]
        raise UserError(f"cannot set up {setup.device}: {lines[-1]}")


def quieten(device: str) -> None:
    """Keep the kernel from talking on the device by itself: no router solicitation, no link-local address.

    Best effort: containers mount /proc/sys read-only, and the netlink side sets the part that matters again.
    """
    values = {"disable_ipv6": 0, "addr_gen_mode": ADDR_GEN_MODE_NONE, "accept_ra": 0, "autoconf": 0}
    values |= {"router_solicitations": 0, "dad_transmits": 0}
    for key, value in values.items():
        with contextlib.suppress(OSError):
            Path(f"/proc/sys/net/ipv6/conf/{device}/{key}").write_text(str(value), encoding="ascii")


def _apply(request: dict[str, object]) -> str | None:
    """Do what the request says, in the child.  Return what went wrong, or None."""
    from pyroute2 import IPRoute, NetlinkError  # type: ignore[import-untyped]  # it carries no types

    device, addresses, networks = str(request["device"]), request["addresses"], request["networks"]
    assert isinstance(addresses, list)
    assert isinstance(networks, list)
    own = [ip_interface(address) for address in addresses]
    quieten(device)
    step = "find the device"
    with IPRoute() as netlink:
        try:
            index = netlink.link_lookup(ifname=device)[0]
            step = f"set MTU {request['mtu']}"
            # Multicast off: or the kernel reports its group memberships into the tunnel.
            netlink.link("set", index=index, mtu=request["mtu"], flags=0, change=IFF_MULTICAST)
            with contextlib.suppress(NetlinkError):  # an old kernel: super-packets that do not fit are split instead
                netlink.link("set", index=index, gso_max_size=GSO_BYTES_MAX)
            with contextlib.suppress(NetlinkError):  # no IPv6 in this kernel: the address below says so better
                mode = {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", ADDR_GEN_MODE_NONE)]}
                netlink.link("set", index=index, IFLA_AF_SPEC={"attrs": [("AF_INET6", mode)]})
            for address in own:
                step = f"add address {address}"
                flags = {"IFA_FLAGS": ADDRESS_FLAGS} if address.version == 6 else {}
                netlink.addr("add", index=index, address=str(address.ip), prefixlen=address.max_prefixlen, **flags)
            step = "bring the device up"
            netlink.link("set", index=index, state="up")
            for network in (ip_network(text) for text in networks):
                step = f"add route {network}"
                source = next(str(address.ip) for address in own if address.version == network.version)
                netlink.route("add", dst=str(network), oif=index, prefsrc=source, proto=PROTO_STATIC)
        except NetlinkError as error:
            if error.code == errno.EEXIST and step.startswith("add route"):
                return f"{step}: another device has a route to that network already (see `ip route show`)"
            if error.code in (errno.EOPNOTSUPP, errno.EACCES) and step.startswith("add address") and ":" in step:
                return f"{step}: the kernel has no IPv6, or it is switched off (net.ipv6.conf.all.disable_ipv6)"
            return f"{step}: {os.strerror(error.code)}"
        except IndexError:
            return f"{step}: it has vanished"
    return None


if __name__ == "__main__":
    if problem := _apply(json.load(sys.stdin)):
        sys.exit(problem)
