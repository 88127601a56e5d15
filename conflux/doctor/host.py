"""Checks of the host: its disk, the TUN device, MTUs, interfaces, prefixes of others, and settings of the kernel."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import struct
from collections.abc import Iterator
from ipaddress import IPv4Interface
from pathlib import Path
from typing import NamedTuple

from conflux.control.lan.config import LanConfig
from conflux.control.lan.interfaces import usable_interfaces
from conflux.doctor.finding import Check, Finding, bad, good, unseen
from conflux.doctor.subject import Answer, Subject
from conflux.host import networks, tun
from conflux.host.networks import Network, Taken
from conflux.host.underlay import interfaces

TUN_NODE = Path("/dev/net/tun")
DEVICES = Path("/sys/class/net")
SYSCTL = Path("/proc/sys")
ROOM_BYTES_MIN = 1 << 20  # a node keeps some 100 kB; what else is written must not take the last block
MTU_MIN = 1280  # RFC 8200, section 5
STRICT = 1  # of rp_filter
_SIOCGIFMTU = 0x8921  # linux/sockios.h
EDIT = "sudo nano /etc/conflux/conflux.toml    # then: conflux config check"
# Names of devices of other overlays; a WireGuard device of another name is known by its type.
OTHERS = ("tailscale", "wg", "zt", "nebula", "wt", "ham", "tun", "ppp")


class Disk(NamedTuple):
    """path: where it was looked at: the state directory, or what is there of its path."""

    path: Path
    free_bytes: int
    has_files: bool
    is_read_only: bool


def look_at_disk(seen: Subject) -> Disk:
    """Look at the disk of the state directory.  Raises OSError."""
    path = seen.config.node.state_dir
    while True:
        try:
            status = os.statvfs(path)
            break
        except (FileNotFoundError, PermissionError, NotADirectoryError):
            if path == path.parent:
                raise
            path = path.parent
    room = status.f_bfree if os.geteuid() == 0 else status.f_bavail
    return Disk(
        path, room * status.f_frsize, not status.f_files or status.f_ffree > 0, bool(status.f_flag & os.ST_RDONLY)
    )


def disk(seen: Disk) -> Iterator[Finding]:
    """Judge a disk."""
    if seen.is_read_only:
        yield bad(
            Check.DISK, f"{seen.path} is on a read-only disk", f"sudo mount -o remount,rw $(stat -c %m {seen.path})"
        )
    elif seen.free_bytes < ROOM_BYTES_MIN or not seen.has_files:
        said = f"the disk of {seen.path} is full: {seen.free_bytes // 1000} kB are free"
        yield bad(Check.DISK, said, f"sudo du -xhd1 $(stat -c %m {seen.path}) | sort -h    # what takes the room")
    else:
        yield good(Check.DISK, f"{seen.path}: {seen.free_bytes // 1_000_000} MB free")


class Device(NamedTuple):
    """The TUN device.  has_node: /dev/net/tun is there.  is_there: a device of the name is.  up: as the daemon says."""

    name: str
    has_node: bool
    is_there: bool
    runs: bool
    up: bool | None


def look_at_device(seen: Subject) -> Device:
    """Look at the TUN device and at what makes it."""
    try:
        has_node = stat.S_ISCHR(TUN_NODE.stat().st_mode)
    except OSError:
        has_node = False
    up = (seen.daemon.status.get("device") or {}).get("up")
    name = device_name(seen)
    return Device(name, has_node, name in {each for _, each in socket.if_nameindex()}, seen.daemon.runs, up)


def device(seen: Device) -> Iterator[Finding]:
    """Judge the TUN device."""
    if not seen.has_node and not seen.up:
        yield bad(Check.TUN, f"{TUN_NODE} is missing", "sudo modprobe tun    # in a container: pass the device in")
    elif seen.up is False:
        yield bad(Check.TUN, f"{seen.name} does not pass packets", "sudo conflux down; sudo conflux up")
    elif seen.is_there and not seen.runs:
        said = f"{seen.name} exists and no daemon runs: another program made it"
        yield bad(Check.TUN, said, f"ip -d link show {seen.name}    # then choose another tun.name")
    elif seen.runs and not seen.is_there:
        yield bad(Check.TUN, f"{seen.name} is not there, and the daemon runs", "sudo conflux down; sudo conflux up")
    elif seen.runs:
        yield good(Check.TUN, f"{seen.name} is up")
    else:
        yield good(Check.TUN, f"{TUN_NODE} is there")


class Mtus(NamedTuple):
    """device: the TUN device's, or None.  configured: what it was given.  underlay: (name, MTU) each."""

    name: str
    device: int | None
    configured: int
    underlay: tuple[tuple[str, int], ...]


def look_at_mtus(seen: Subject) -> Mtus:
    """Look at the MTUs of the TUN device and of the networks below.  Raises OSError."""
    name = device_name(seen)
    configured = (seen.daemon.status.get("device") or {}).get("mtu_bytes", seen.config.tun.mtu)
    wanted = seen.config.control.lan.interfaces
    below = [each.name for each in interfaces() if each.name not in (name, "lo")]
    used = [each for each in dict.fromkeys(below) if not wanted or each in wanted]
    underlay = tuple((each, mtu) for each in used if (mtu := _mtu(each)) is not None)
    return Mtus(name, _mtu(name), int(configured), underlay)


def mtus(seen: Mtus) -> Iterator[Finding]:
    """Judge MTUs."""
    small = [f"{name} {mtu}" for name, mtu in seen.underlay if mtu < MTU_MIN]
    if seen.device is not None and seen.device != seen.configured:
        said = f"{seen.name} has {seen.device}, and the daemon gave it {seen.configured}"
        yield bad(Check.MTU, said, f"sudo ip link set dev {seen.name} mtu {seen.configured}")
    elif small:
        name = small[0].split()[0]
        said = f"{', '.join(small)}: IPv6 needs {MTU_MIN}"
        yield bad(Check.MTU, said, f"sudo ip link set dev {name} mtu 1500")
    else:
        own = [] if seen.device is None else [(seen.name, seen.device)]
        yield good(Check.MTU, ", ".join(f"{name} {mtu}" for name, mtu in (*own, *seen.underlay)) or "no interface")


class Interfaces(NamedTuple):
    """absent: configured and not here, in words.  usable: (name, its addresses) each.  trouble: why none was seen."""

    enabled: bool
    absent: str | None
    usable: tuple[tuple[str, tuple[str, ...]], ...]


def look_at_interfaces(seen: Subject) -> Interfaces:
    """Look at the interfaces that neighbours and links use.  Raises OSError."""
    lan = seen.config.control.lan
    found = usable_interfaces(LanConfig(interfaces=lan.interfaces, overlay=own_networks(seen)))
    names: dict[str, list[str]] = {}
    for link in found.links:
        if link.name != device_name(seen) and link.address.ip in found.announced:
            names.setdefault(link.name, []).append(str(link.address.ip))
    absent = networks.missing(lan.interfaces) if lan.interfaces else None
    return Interfaces(lan.enabled, absent, tuple((name, tuple(each)) for name, each in names.items()))


def judge_interfaces(seen: Interfaces) -> Iterator[Finding]:
    """Judge the interfaces."""
    if seen.absent is not None:
        yield bad(Check.INTERFACES, f"control.lan.interfaces: {seen.absent}", EDIT)
    if not seen.usable:
        yield bad(Check.INTERFACES, "no network interface has an address that a node can use", "ip -brief address")
    for name, addresses in seen.usable:
        yield good(Check.INTERFACES, f"{name}: {', '.join(addresses)}")


class Prefixes(NamedTuple):
    """own: the realm's.  used: what other devices of this host lead to.  others: devices of other overlays.

    astray: prefixes of the realm for which this host sends from another address than ours.
    """

    device: str
    own: tuple[Network, ...]
    used: tuple[Taken, ...]
    others: tuple[str, ...]
    tailscale_drops: tuple[Network, ...]
    astray: tuple[Network, ...] = ()


def look_at_prefixes(seen: Subject) -> Prefixes:
    """Look at whose the realm's prefixes are on this host.  Raises OSError."""
    name, own = device_name(seen), own_networks(seen)
    names = [each for _, each in socket.if_nameindex() if each not in (name, "lo")]
    others = tuple(each for each in names if each.startswith(OTHERS) or _is_wireguard(each))
    drops = tuple(each for each in own if networks.tailscale_drops(each))
    runs = seen.daemon.answer is Answer.STATUS and bool((seen.daemon.status.get("device") or {}).get("up"))
    addresses = {str(each) for each in (seen.daemon.status.get("node") or {}).get("addresses", ())}
    routed = {network for device, network in tun.routes() if device == name}
    astray = tuple(each for each in own if runs and each in routed and _source(each) not in addresses)
    return Prefixes(name, own, tuple(networks.taken(but=name)), others, drops, astray)


def prefixes(seen: Prefixes) -> Iterator[Finding]:
    """Judge whether the realm's prefixes are the realm's alone."""
    others = f"; other VPNs here: {', '.join(seen.others)}" if seen.others else ""
    if not seen.own:
        yield unseen(Check.PREFIXES, f"the realm's prefixes are not known{others}", "sudo conflux doctor")
        return
    is_good = True
    for prefix in seen.own:
        found = networks.collision(prefix, seen.used)
        if found is not None:
            is_good = False
            said = f"{found} lies in the realm's prefix {prefix}"
            yield bad(Check.PREFIXES, said, f"ip -{prefix.version} route show dev {found.device}    # who made it")
        if prefix in seen.tailscale_drops:
            is_good = False
            said = f"Tailscale runs here, and its firewall drops packets from the realm's prefix {prefix}"
            yield bad(Check.PREFIXES, said, "sudo tailscale down    # or use the realm's IPv6 addresses")
        elif prefix in seen.astray:
            is_good = False
            said = f"packets for {prefix} leave by another way than {seen.device}"
            yield bad(Check.PREFIXES, said, f"ip -{prefix.version} rule; ip route get {prefix[1]}")
    if is_good:
        yield good(Check.PREFIXES, f"{', '.join(map(str, seen.own))}: no other network of this host is in them{others}")


class Kernel(NamedTuple):
    """Settings of the kernel; None: not there.  shared: interfaces that are on one IPv4 network with another."""

    ipv6_off: int | None
    rp_filter: int | None
    shared: tuple[str, ...]
    rmem_max: int | None


def look_at_kernel(seen: Subject) -> Kernel:
    """Look at the settings of the kernel that matter.  Raises OSError."""
    found: dict[object, list[str]] = {}
    for each in interfaces():
        for address in each.prefixed:
            if isinstance(address, IPv4Interface) and each.name not in (device_name(seen), "lo"):
                found.setdefault(address.network, []).append(each.name)
    shared = {name for names in found.values() if len(set(names)) > 1 for name in names}
    return Kernel(
        _sysctl("net/ipv6/conf/all/disable_ipv6"),
        _sysctl("net/ipv4/conf/all/rp_filter"),
        tuple(sorted(shared)),
        _sysctl("net/core/rmem_max"),
    )


def kernel(seen: Kernel) -> Iterator[Finding]:
    """Judge the settings of the kernel."""
    if seen.ipv6_off is None:
        yield bad(
            Check.KERNEL, "the kernel has no IPv6", "cat /proc/cmdline    # take ipv6.disable=1 away, and restart"
        )
    elif seen.ipv6_off:
        said = "IPv6 is switched off (net.ipv6.conf.all.disable_ipv6)"
        yield bad(Check.KERNEL, said, "sudo sysctl -w net.ipv6.conf.all.disable_ipv6=0")
    if seen.rp_filter == STRICT and seen.shared:
        said = f"rp_filter is strict, and {' and '.join(seen.shared)} are on one network: answers are dropped"
        yield bad(Check.KERNEL, said, "sudo sysctl -w net.ipv4.conf.all.rp_filter=2")
    elif seen.ipv6_off == 0:
        buffers = "" if seen.rmem_max is None else f", socket buffers up to {seen.rmem_max // 1024} KiB"
        yield good(Check.KERNEL, f"IPv6 is on, rp_filter does no harm{buffers}")


# ── parts ──


def own_networks(seen: Subject) -> tuple[Network, ...]:
    """Return the realm's prefixes: from the disk, else as the device is routed."""
    if seen.member is not None:
        return (seen.member.anchor.ipv6_prefix, seen.member.anchor.ipv4_prefix)
    routed = {network for name, network in tun.routes() if name == device_name(seen)}
    return tuple(sorted(filter(_is_prefix, routed), key=str))


def _is_prefix(network: Network) -> bool:
    """Say whether a route may be that of a realm's prefix: not one address, nor the kernel's own of every device."""
    return network.prefixlen < network.max_prefixlen and not network.is_multicast and not network.is_link_local


def device_name(seen: Subject) -> str:
    """Return the name of the TUN device: the daemon's, else the configured one."""
    return str((seen.daemon.status.get("device") or {}).get("name", seen.config.tun.name))


def _mtu(name: str) -> int | None:
    """Return the MTU of a device of this network namespace, or None."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            answer = fcntl.ioctl(asking, _SIOCGIFMTU, struct.pack("16si20x", name.encode(), 0))
        except OSError:
            return None
    return int(struct.unpack_from("i", answer, 16)[0])


def _is_wireguard(name: str) -> bool:
    try:
        return "DEVTYPE=wireguard" in (DEVICES / name / "uevent").read_text("ascii").split()
    except (OSError, UnicodeDecodeError):
        return False


def _source(network: Network) -> str | None:
    """Return the address from which this host would send into a network; nothing is sent."""
    family = socket.AF_INET6 if network.version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(network[1]), 9))
            return str(probe.getsockname()[0])
    except OSError:
        return None


def _sysctl(name: str) -> int | None:
    try:
        return int((SYSCTL / name).read_text("ascii"))
    except (OSError, ValueError):
        return None
