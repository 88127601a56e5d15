"""What real servers of a broker see of nodes that start, ask, and agree on streams and links."""

from __future__ import annotations

import random

from kit.cluster import broker
from kit.overheard import Overheard, Secrets, check
from rig.crowd import CANDIDATES, Crowd, crowd

from conflux.control.nats.channel import ed25519_of
from conflux.realm.broker import subjects


def secrets_of(nodes: Crowd) -> Secrets:
    members = [node.member for node in nodes.nodes]
    return Secrets(
        names=tuple(member.name for member in members),
        nodes=tuple(member.node_id for member in members),
        overlay=tuple(address for member in members for address in member.addresses),
        underlay=tuple(candidate.split()[4] for candidate in CANDIDATES),
    )


async def test_servers_see_who_sends_to_whom_and_nothing_of_what() -> None:
    async with broker(is_traced=True) as at, crowd(at, 3) as nodes:
        for node in nodes.nodes:
            await node.start()
        await nodes.until(lambda: all(node.has_joined for node in nodes.nodes))
        openings = await nodes.open_streams(nodes.pairs(3, random.Random(1)), per_s=10.0)
        assert [opening.failed for opening in openings] == [""] * 3
        await nodes.until(lambda: nodes.got("message") >= 3 * 6)
    overheard = Overheard.read(bytes(at.servers[0].said))
    sorts = check(overheard, secrets_of(nodes))
    assert sorts["PRESENCE"] >= 3
    assert sorts["WHO"] >= 3
    assert sorts["CARD"] >= 3
    assert sorts["sealed"] >= 3 * 5  # OPEN and ACCEPT, OFFER, ANSWER and CANDIDATES
    pairs = {
        (subject.sender, subject.receiver)
        for subject in (subjects.parse_untrusted(each.subject) for each in overheard.published)
        if isinstance(subject, subjects.Message)
    }
    keys = [ed25519_of(node.member.keys.public.encode()) for node in nodes.nodes]
    assert pairs == {(one, other) for one in keys for other in keys if one != other}
