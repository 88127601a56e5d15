"""This host's addresses under the overlay, those that are most likely of use first.

A gateway may have dozens of container networks that are older than its LAN.  Every list of addresses has a bound: of
what a link tries, of what mDNS speaks from, of what a peer takes.  So the order decides who can be reached: networks
with a neighbour come first, then those with the default route, and last bridges and what has no carrier.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import socket
import struct
from collections.abc import Callable, Collection, Sequence
from enum import IntEnum
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
)
from typing import NamedTuple

NAMED_COUNT_MAX = 4  # of the interfaces that are left out, in the words for a person

# linux/sockios.h, net/if.h, linux/ethtool.h
_SIOCGIFFLAGS, _SIOCETHTOOL = 0x8913, 0x8946
_IFF_RUNNING = 0x40
_ETHTOOL_GDRVINFO = 3
_DRVINFO_BYTES = 196
_NAME_BYTES_MAX = 15  # IFNAMSIZ, with a zero at the end

# Reserved for documentation, so on no network of this host: the way there is the default route.  Nothing is sent.
_ELSEWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


class Use(IntEnum):
    """What speaks for an interface; the smaller, the better."""

    NEIGHBOUR = 0  # a neighbour's connection uses it
    DEFAULT_ROUTE = 1
    PLAIN = 2
    BRIDGE = 3  # of containers, as a rule
    NO_CARRIER = 4


class Interface(NamedTuple):
    """One network interface, its number, and its addresses with their prefixes."""

    name: str
    number: int  # of the kernel
    prefixed: tuple[IPv4Interface | IPv6Interface, ...]

    @property
    def addresses(self) -> tuple[IPv4Address | IPv6Address, ...]:
        """Its addresses alone."""
        return tuple(each.ip for each in self.prefixed)


def interfaces() -> list[Interface]:
    """Return this host's interfaces that have addresses, in the system's order.  Raises OSError."""
    import ifaddr  # loaded with the first link or with mDNS; a command line does without

    return [
        Interface(
            adapter.name,
            adapter.index or 0,
            tuple(
                ip_interface((own.ip if isinstance(own.ip, str) else own.ip[0], own.network_prefix))
                for own in adapter.ips
            ),
        )
        for adapter in ifaddr.get_adapters()
    ]


def survey(*, in_use: Collection[str] = ()) -> list[Interface]:
    """Return this host's interfaces that have addresses, by use.  in_use: addresses of neighbours' connections.

    Raises OSError, such as for want of a descriptor.
    """
    found = interfaces()
    near = {ip_address(text.partition("%")[0]) for text in in_use}
    default = _default_sources()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        uses = {each.name: _use(each, near, default, asking.fileno()) for each in found}
    return sorted(found, key=lambda each: uses[each.name])  # else in the system's order


def _use(
    interface: Interface,
    near: Collection[IPv4Address | IPv6Address],
    default: Collection[IPv4Address | IPv6Address],
    fd: int,
) -> Use:
    if any(address in near for address in interface.addresses):
        return Use.NEIGHBOUR
    if any(address in default for address in interface.addresses):
        return Use.DEFAULT_ROUTE
    name = interface.name.encode()[:_NAME_BYTES_MAX]
    if not _has_carrier(name, fd):
        return Use.NO_CARRIER
    return Use.BRIDGE if _driver(name, fd) == "bridge" else Use.PLAIN


def _has_carrier(name: bytes, fd: int) -> bool:
    try:
        flags = fcntl.ioctl(fd, _SIOCGIFFLAGS, struct.pack("16sH22x", name, 0))
    except OSError:  # it is gone
        return False
    return bool(struct.unpack_from("H", flags, 16)[0] & _IFF_RUNNING)


def _driver(name: bytes, fd: int) -> str:
    """Return the kernel's word for what an interface is; "" if it says none."""
    info = array.array("B", struct.pack("=I", _ETHTOOL_GDRVINFO) + bytes(_DRVINFO_BYTES - 4))
    try:
        fcntl.ioctl(fd, _SIOCETHTOOL, struct.pack("@16sP16x", name, info.buffer_info()[0]))
    except OSError:
        return ""
    return info.tobytes()[4:36].split(b"\0")[0].decode("ascii", "replace")


def _default_sources() -> set[IPv4Address | IPv6Address]:
    """Return the addresses from which the default routes would send."""
    found = set()
    for family, elsewhere in _ELSEWHERE:
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((elsewhere, 9))
            found.add(ip_address(probe.getsockname()[0]))
    return found


def is_here(address: str) -> bool:
    """Say whether this host has a numeric address now, or cannot say; a link-local IPv6 one on any interface."""
    host = address.partition("%")[0]
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except OSError as error:  # another one, as of no descriptor left, says nothing of the address
        return error.errno != errno.EADDRNOTAVAIL
    return True


def left_out(names: Sequence[str]) -> str:
    """Return the names of interfaces that are not used, for a person."""
    shown = ", ".join(names[:NAMED_COUNT_MAX])
    return shown if len(names) <= NAMED_COUNT_MAX else f"{shown} and {len(names) - NAMED_COUNT_MAX} more"


class Underlay:
    """The addresses that a link of this host may use.

    count_max: of them.  excluded: networks that no link runs over.  interfaces: names; none: all.  in_use: returns the
    addresses of neighbours' connections.
    """

    def __init__(
        self,
        *,
        count_max: int,
        excluded: Sequence[IPv4Network | IPv6Network],
        interfaces: Collection[str] = (),
        in_use: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self._count_max = count_max
        self._excluded = excluded
        self._interfaces = interfaces
        self._in_use = in_use
        self.warning: str | None = None  # what is cut, for a person

    def addresses(self) -> list[str]:
        """Return the addresses at this moment; a link-local IPv6 one with its scope.  Raises OSError."""
        in_use = self._in_use()
        near = {ip_address(text.partition("%")[0]) for text in in_use}
        used: list[str] = []
        cut: dict[str, None] = {}
        for interface in survey(in_use=in_use):
            if self._interfaces and interface.name not in self._interfaces:
                continue
            for address in interface.addresses:
                if not self._is_usable(address, near):
                    continue
                if len(used) < self._count_max:
                    scoped = address.version == 6 and address.is_link_local
                    used.append(f"{address}%{interface.name}" if scoped else str(address))
                else:
                    cut[interface.name] = None
        self.warning = self._words(used, list(cut))
        return used

    def _is_usable(self, address: IPv4Address | IPv6Address, near: Collection[IPv4Address | IPv6Address]) -> bool:
        """Say whether a peer may reach it.

        A link-local IPv6 address is of use to the neighbours on its wire alone, and they have others as a rule: it
        counts where a neighbour's own connection had to use it.
        """
        if address.is_loopback or (address.version == 6 and address.is_link_local and address not in near):
            return False
        return not any(address in network for network in self._excluded)

    def _words(self, used: Sequence[str], cut: list[str]) -> str | None:
        if not used:
            named = f" on {left_out(list(self._interfaces))}" if self._interfaces else ""
            return f"no-address: this host has no address{named} that a link can use"
        if cut:
            return (
                f"many-addresses: links use {self._count_max} of this host's addresses, and none of {left_out(cut)}; "
                "name the interfaces to use in control.lan.interfaces"
            )
        return None
