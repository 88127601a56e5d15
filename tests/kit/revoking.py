"""What tests of revoking in the simulator do: revoke a host, have one take no notice, see what still arrives."""

from __future__ import annotations

from kit.builders import NOW_UNIX
from kit.world import REALM, World

from conflux.realm.denying import Signer
from conflux.sim.world import Host

ROOT = Signer(REALM.root, None)


def revoke(by: Host, *hosts: Host) -> None:
    """Have the node of by, which holds the root's key, revoke other hosts."""
    assert by.node is not None
    for host in hosts:
        book = by.node.plane.lists.book
        signed = ROOT.deny(book, host.node_id, reason="stolen", now_unix=NOW_UNIX)
        by.node.publish(signed, now=by.world.now)
    by.drain()


def deaf(host: Host) -> Host:
    """Let a host take no lists: a revoked node that goes on as if nothing had happened."""
    assert host.node is not None
    lists = host.node.plane.lists
    for name in ("receive_untrusted", "hear"):
        setattr(lists, name, lambda *arguments, **named: None)
    return host


def flow(world: World, host: Host, to: Host, *, every_s: float = 0.05, for_s: float = 10.0) -> None:
    """Have a host send numbered pings for a while."""

    def send(number: int) -> None:
        if host.node is not None and world.now < ends_at:
            host.send(to, b"ping %d" % number)
            world.at(every_s, lambda: send(number + 1))

    ends_at = world.now + for_s
    send(0)


def last_at(host: Host, prefix: bytes) -> float:
    """Return when the last payload that begins so arrived."""
    return max((at for at, payload in host.received if payload.startswith(prefix)), default=0.0)


def links(host: Host) -> set[bytes]:
    """Return the nodes to which a host has an open link."""
    assert host.node is not None
    return {link.peer for link in host.node.status(now=host.world.now).links if link.link is not None}
