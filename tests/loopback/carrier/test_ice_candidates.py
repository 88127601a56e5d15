"""Where a peer may have an ICE agent send: addresses that it tells, and addresses that its checks come from."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network

import pytest
from kit.carrier import LOCALHOST

from conflux.carrier.ice.agent import EARLY_CHECK_COUNT_MAX, FIRST_SEEN_COUNT_MAX, LEARNT_COUNT_MAX, Ice

from aioice import stun  # isort: skip  # only findable once the carrier is loaded

OVERLAY = (ip_network("100.64.0.0/16"), ip_network("fd00::/48"))


@asynccontextmanager
async def agent_of(address: str, *, started: bool = True) -> AsyncIterator[Ice]:
    """Give an agent that has its candidates; started: and its peer's password."""
    agent = Ice(controlling=True, addresses=[address], refused=OVERLAY, drop_counts=Counter(), lost=lambda reason: None)
    await agent.gather_candidates()
    agent.remote_username, agent.remote_password = "rrrr", "p" * 22
    agent._early_checks_done = started
    try:
        yield agent
    finally:
        await agent.close()


def check(agent: Ice) -> bytes:
    """Return a check as the peer sends it, which knows the agent's password."""
    message = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
    message.attributes["USERNAME"] = f"{agent.local_username}:rrrr"
    message.attributes["PRIORITY"] = 1
    message.attributes["ICE-CONTROLLED"] = 5
    message.add_message_integrity(agent.local_password.encode())
    return bytes(message)


BAD = [
    "127.0.0.1",
    "::1",
    "100.64.0.5",
    "fd00::5",
    "224.0.0.251",
    "255.255.255.255",
    "ff02::fb",
    "0.0.0.0",
    "::",
    "::ffff:127.0.0.1",
    "::ffff:100.64.0.5",
    "::ffff:224.0.0.251",
    "::ffff:0.0.0.0",
    "::ffff:192.0.2.9",
]


@pytest.mark.parametrize("host", BAD)
async def test_address_that_no_peer_has_is_neither_tried_nor_learnt(host: str) -> None:
    async with agent_of("192.0.2.1") as agent:
        await agent.add_remote([f"1 1 udp 2130706431 {host} 53 typ host"])
        assert (agent.remote_candidates, agent.drop_counts) == ([], {"candidate-refused": 1})
    async with agent_of(LOCALHOST) as agent:
        agent._addresses = ("192.0.2.1",)  # as if the link were not inside this machine
        (endpoint,) = agent.endpoints
        endpoint.datagram_received(check(agent), (host, 53))
        assert (agent._check_list, agent.drop_counts) == ([], {"candidate-refused": 1})


async def test_addresses_that_the_peers_checks_come_from_are_counted() -> None:
    async with agent_of(LOCALHOST) as agent:
        (endpoint,) = agent.endpoints
        for number in range(3 * LEARNT_COUNT_MAX):
            for _ in range(2):  # repeated, as STUN does
                endpoint.datagram_received(check(agent), ("127.9.0.1", 1024 + number))
        assert len(agent._check_list) == len(agent.remote_candidates) == LEARNT_COUNT_MAX
        assert agent.drop_counts == {"candidate-refused": 4 * LEARNT_COUNT_MAX}


async def test_address_that_the_peer_told_counts_when_others_were_learnt() -> None:
    async with agent_of(LOCALHOST) as agent:
        (endpoint,) = agent.endpoints
        for number in range(2 * LEARNT_COUNT_MAX):
            endpoint.datagram_received(check(agent), ("127.9.0.1", 1024 + number))
        await agent.add_remote(["1 1 udp 2130706431 127.9.0.2 5000 typ host"])
        before = agent.drop_counts.total()
        endpoint.datagram_received(check(agent), ("127.9.0.2", 5000))
        assert agent.drop_counts.total() == before
        await asyncio.sleep(0)


async def test_copies_of_one_check_take_no_place_of_an_address_that_the_peer_checks_from() -> None:
    async with agent_of(LOCALHOST) as agent:
        (endpoint,) = agent.endpoints
        overheard = check(agent)
        endpoint.datagram_received(overheard, ("127.9.0.1", 1024))
        for number in range(2 * LEARNT_COUNT_MAX):
            endpoint.datagram_received(overheard, ("127.9.0.2", 1024 + number))
        endpoint.datagram_received(overheard, ("127.9.0.1", 1024))  # STUN repeats it
        endpoint.datagram_received(check(agent), ("127.9.0.1", 1025))
        learnt = [(each.host, each.port) for each in agent.remote_candidates]
        assert learnt == [("127.9.0.1", 1024), ("127.9.0.1", 1025)]
        assert agent.drop_counts == {"candidate-refused": 2 * LEARNT_COUNT_MAX}


async def test_where_so_many_checks_came_from_is_remembered() -> None:
    async with agent_of(LOCALHOST) as agent:
        (endpoint,) = agent.endpoints
        for _ in range(3 * FIRST_SEEN_COUNT_MAX):
            endpoint.datagram_received(check(agent), ("127.9.0.1", 1024))
        assert len(agent._first_seen) == FIRST_SEEN_COUNT_MAX


async def test_checks_that_wait_for_the_peers_password_are_counted() -> None:
    async with agent_of(LOCALHOST, started=False) as agent:
        (endpoint,) = agent.endpoints
        for number in range(EARLY_CHECK_COUNT_MAX + 10):
            endpoint.datagram_received(check(agent), ("127.9.0.1", 1024 + number))
        assert len(agent._early_checks) == EARLY_CHECK_COUNT_MAX
        assert agent.drop_counts == {"candidate-refused": 10}
