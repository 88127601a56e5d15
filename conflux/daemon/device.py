"""How the TUN device has to be configured, beside what this host uses already."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Final, NamedTuple

from conflux.config.settings import Config
from conflux.errors import UserError
from conflux.host import networks
from conflux.host.netlink import DeviceConfig
from conflux.host.networks import Network
from conflux.realm.member import Member

log = logging.getLogger(__name__)

_OFF: Final = "IPv6 is switched off on this host (net.ipv6.conf.all.disable_ipv6)"
_REMEDIES: Final = {
    4: "until the daemon starts anew and leaves IPv4 out",
    6: "and members in it are not reached: find what advertises it (ip -6 route)",
}
LOOK_S: Final = 15.0  # between two looks at the host's networks: so long the log is silent about a new collision


class Plan(NamedTuple):
    """config: the device's.  fenced: networks that pass the device alone.  warnings: what was left out, and why."""

    config: DeviceConfig
    fenced: tuple[Network, ...]
    warnings: tuple[str, ...]


def require_a_family(config: Config, *, has_ipv6: bool) -> None:
    """Raise UserError if the device can have no address at all: before an invitation is used up."""
    if not has_ipv6 and not config.tun.ipv4:
        raise UserError(f"{config.tun.name} can have no address: {_OFF}, and tun.ipv4 is false")


def plan(config: Config, member: Member, *, has_ipv6: bool = True) -> Plan:
    """Return what the device gets.  Raises UserError if nothing is left.

    IPv4 is left out where it would cut this host off from a network of its own, and IPv6 where the host has none.
    A network inside the realm's IPv6 prefix changes nothing: any device on the LAN can make one by an advertisement.
    """
    anchor, used = member.anchor, networks.taken(but=config.tun.name)
    collides = networks.collision(anchor.ipv4_prefix, used)
    realm = (anchor.ipv6_prefix, anchor.ipv4_prefix) if collides is None else (anchor.ipv6_prefix,)
    has_ipv4 = config.tun.ipv4 and collides is None
    has = {6: has_ipv6, 4: has_ipv4}
    addresses = tuple(address for address in member.addresses if has[address.version])
    said = warnings(member, used) if config.tun.ipv4 else ()
    if not has_ipv6:
        if not addresses:
            raise UserError("; ".join((f"{config.tun.name} can have no address: {_OFF}", *said)))
        said += (f"no-ipv6: {_OFF}: this node is reached at {addresses[0]} alone",)
    versions = {address.version for address in addresses}
    routed = tuple(network for network in realm if network.version in versions)
    closed = realm if config.tun.fail_closed else ()
    device = DeviceConfig(config.tun.name, config.tun.mtu, addresses, routed, closed)
    return Plan(device, realm, said)


def warnings(member: Member, used: list[networks.Taken]) -> tuple[str, ...]:
    """Return what there is to say about the realm's IPv4 prefix on a host with these networks."""
    prefix = member.anchor.ipv4_prefix
    found = networks.collision(prefix, used)
    if found is not None:
        return (
            f"ipv4-collides: the realm's IPv4 prefix {prefix} covers {found}, which would be cut off: "
            "this node uses the realm's IPv6 alone (tun.ipv4 = false says so on purpose)",
        )
    if networks.tailscale_drops(prefix):
        return (
            "ipv4-collides: Tailscale runs here, and its firewall drops packets from the realm's IPv4 prefix "
            f"{prefix}: use the realm's IPv6, or stop Tailscale",
        )
    return ()


def interface_warnings(config: Config) -> tuple[str, ...]:
    """Return what there is to say about interfaces that are configured and not here: now, or for good."""
    try:
        absent = networks.missing(config.control.lan.interfaces) if config.control.lan.enabled else None
    except OSError as error:  # no descriptor left
        log.warning("cannot look at the interfaces of this host: %s", error)
        return ()
    return () if absent is None else (f"no-interface: control.lan.interfaces: {absent}",)


def collisions(prefixes: Iterable[Network], device: str) -> tuple[str, ...]:
    """Return what there is to say about networks of this host that lie in one of prefixes now.

    device: the name of ours, which keeps its routes and its fence all the same.
    """
    try:
        used = networks.taken(but=device)
    except OSError as error:  # no descriptor left, or the like: the next look has to do
        log.warning("cannot look at the networks of this host: %s", error)
        return ()
    found = ((prefix, networks.collision(prefix, used)) for prefix in dict.fromkeys(prefixes))
    return tuple(
        f"ipv{prefix.version}-collides: {each} lies in the realm's prefix {prefix}: packets for it go nowhere, "
        f"{_REMEDIES[prefix.version]}"
        for prefix, each in found
        if each is not None
    )


def cut_off(fenced: Iterable[Network], device: str) -> str | None:
    """Return which IPv4 network of this host the fence cuts off, as that of a lease that came after the start.

    None if it cuts off none.  A new start leaves the realm's IPv4 out there, so it cannot be met twice in a row.
    fenced: of the plan.  device: the name of ours.  Raises OSError.
    """
    ours = [prefix for prefix in fenced if prefix.version == 4]
    used = networks.taken(but=device) if ours else []
    found = ((prefix, networks.collision(prefix, used)) for prefix in ours)
    return next((f"{each} lies in the realm's prefix {prefix}" for prefix, each in found if each is not None), None)


async def watch(fenced: Iterable[Network], device: str) -> None:
    """Warn whenever a network of this host comes to lie in a fenced IPv6 network.

    It ends nothing: whoever is on the LAN can make such a network, and make it again after every start.  For one of
    IPv4, see cut_off().
    """
    said: tuple[str, ...] = ()
    prefixes = [prefix for prefix in fenced if prefix.version == 6]
    while True:
        before, said = said, collisions(prefixes, device)
        for words in said:
            if words not in before:
                log.warning("%s", words)
        await asyncio.sleep(LOOK_S)
