"""Addresses, routes, MTU and state of a network device, set through pyroute2 in a child process.

pyroute2 costs 13.5 MB of resident memory, and the daemon needs it for 20 milliseconds of its life.  So only a child
imports it, which ends before the first packet: `python -m conflux.host.netlink` reads one DeviceConfig as JSON and
answers with an exit code and one line.  The child has the privileges that the device is made with.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import sys
from ipaddress import IPv4Network, IPv6Network, ip_interface, ip_network
from pathlib import Path
from typing import NamedTuple, Self

import conflux
from conflux.errors import UserError, words_of
from conflux.ids import IPAddress

CHILD_TIMEOUT_S = 60  # a Pi Zero that reads the files for the first time takes 5 s; after a minute it hangs
ADDRESS_FLAGS = 0x02 | 0x200  # IFA_F_NODAD: no other host is on the device; IFA_F_NOPREFIXROUTE: we add our own routes
ADDR_GEN_MODE_NONE = 1
IFF_MULTICAST = 0x1000
NO_SUCH_FAMILY = (errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.EACCES)  # no IPv6: nothing to close
GSO_BYTES_MAX = 65000  # a super-packet with its headers fits one frame
PROTO_STATIC = 4
CLOSED_METRIC = (
    4_000_000_000  # above that of every route that a person or a program makes; the kernel's last has 2**32-1
)


class DeviceConfig(NamedTuple):
    """The addresses, the routes and the MTU of one device."""

    device: str
    mtu: int
    addresses: tuple[IPAddress, ...]
    networks: tuple[IPv4Network | IPv6Network, ...]  # routed to the device
    closed: tuple[IPv4Network | IPv6Network, ...] = ()  # unreachable while the device is gone, until the next boot


class Child:
    """The process that configures the device.  Used as a context manager, it ends with the block at the latest.

    start() lets it import pyroute2 while this process is busy with something else: that takes a third of a second.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the process, which waits for configure(); that tells of a failure, too."""
        with contextlib.suppress(OSError):
            self._process = self._spawn()

    def _spawn(self) -> subprocess.Popen[bytes]:
        package = Path(conflux.__file__).resolve().parent.parent
        return subprocess.Popen(  # noqa: S603  # our own interpreter and module
            [sys.executable, "-P", "-m", __name__],  # -P: import nothing from the working directory
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={"PYTHONPATH": str(package), "PATH": os.defpath},
        )

    def configure(self, config: DeviceConfig) -> None:
        """Configure the device and bring it up.  Raises UserError."""
        request = {
            "device": config.device,
            "mtu": config.mtu,
            "addresses": [str(address) for address in config.addresses],
            "networks": [str(network) for network in config.networks],
            "closed": [str(network) for network in config.closed],
        }
        try:
            if self._process is None:
                self._process = self._spawn()
            _, said = self._process.communicate(json.dumps(request).encode(), CHILD_TIMEOUT_S)
            code = self._process.returncode
        except (OSError, subprocess.TimeoutExpired) as error:
            why = words_of(error) if isinstance(error, OSError) else "the program that does it hangs"
            raise UserError(f"cannot set up {config.device}: {why}") from None
        finally:
            self.close()
        if code:
            lines = said.decode(errors="replace").strip().splitlines() or [f"exit code {code}"]
            raise UserError(f"cannot set up {config.device}: {lines[-1]}")

    def close(self) -> None:
        """End the process, if there is one."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for pipe in (process.stdin, process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        process.wait()


def has_ipv6(device: str) -> bool:
    """Say whether a device can have IPv6 addresses: no in many containers, and where a person switched it off."""
    quieten(device)
    try:
        text = Path(f"/proc/sys/net/ipv6/conf/{device}/disable_ipv6").read_text(encoding="ascii")
    except OSError:  # no such protocol in this kernel, or no /proc/sys
        return Path("/proc/net/if_inet6").exists()
    return text.strip() == "0"


def quieten(device: str) -> None:
    """Keep the kernel from sending packets of its own on the device: no router solicitation, no link-local address.

    A failure is ignored: containers mount /proc/sys read-only, and _apply() sets what matters once more by netlink.
    """
    values = {"disable_ipv6": 0, "addr_gen_mode": ADDR_GEN_MODE_NONE, "accept_ra": 0, "autoconf": 0}
    values |= {"router_solicitations": 0, "dad_transmits": 0}
    for key, value in values.items():
        with contextlib.suppress(OSError):
            Path(f"/proc/sys/net/ipv6/conf/{device}/{key}").write_text(str(value), encoding="ascii")


def _apply(request: dict[str, object]) -> str | None:
    """Configure the device as the request says, in the child.  Return what went wrong, or None."""
    from pyroute2 import IPRoute, NetlinkError  # type: ignore[import-untyped]  # it ships no types

    device, addresses, networks = str(request["device"]), request["addresses"], request["networks"]
    closed = request["closed"]
    assert isinstance(addresses, list)
    assert isinstance(networks, list)
    assert isinstance(closed, list)
    own = [ip_interface(address) for address in addresses]
    quieten(device)
    step = "find the device"
    with IPRoute() as netlink:
        try:
            index = netlink.link_lookup(ifname=device)[0]
            step = f"set MTU {request['mtu']}"
            # Multicast is switched off: otherwise the kernel sends reports of its groups into the tunnel.
            netlink.link("set", index=index, mtu=request["mtu"], flags=0, change=IFF_MULTICAST)
            with contextlib.suppress(NetlinkError):  # an old kernel: the engine splits a super-packet that is too large
                netlink.link("set", index=index, gso_max_size=GSO_BYTES_MAX)
            with contextlib.suppress(
                NetlinkError
            ):  # a kernel without IPv6: adding the address below fails with a better text
                mode = {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", ADDR_GEN_MODE_NONE)]}
                netlink.link("set", index=index, IFLA_AF_SPEC={"attrs": [("AF_INET6", mode)]})
            for address in own:
                step = f"add address {address}"
                flags = {"IFA_FLAGS": ADDRESS_FLAGS} if address.version == 6 else {}
                netlink.addr("add", index=index, address=str(address.ip), prefixlen=address.max_prefixlen, **flags)
            step = "bring the device up"
            netlink.link("set", index=index, state="up")
            for text in closed:  # before our routes: there is no moment without one of them
                step = f"close the way to {text}"
                try:
                    netlink.route("replace", dst=text, type="unreachable", priority=CLOSED_METRIC, proto=PROTO_STATIC)
                except NetlinkError as error:
                    if error.code not in NO_SUCH_FAMILY:
                        raise
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
    with contextlib.suppress(ImportError):  # now: _apply() says what is missing
        import pyroute2

        assert pyroute2
    if problem := _apply(json.load(sys.stdin)):
        sys.exit(problem)
