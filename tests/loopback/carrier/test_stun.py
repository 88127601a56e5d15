"""What a STUN server is asked for and what its answer is worth; checks through filters as home routers have them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from kit.carrier import LEFT, LOCALHOST, make_side, open_link, sides
from kit.stun_server import StunServer

from conflux.carrier.ice.agent import Ice
from conflux.carrier.ice.server import IceServer
from conflux.carrier.interface import CandidatesFound, Describe, Described

REPETITION_S = 0.5  # after which STUN itself would send a lost check again (RFC 8489, section 6.2.1)


@asynccontextmanager
async def stun_server(protocol: Any = StunServer) -> AsyncIterator[IceServer]:
    """Serve on loopback, and give the server as a configuration names it."""
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(protocol, local_addr=(LOCALHOST, 0))
    try:
        yield IceServer.parse(f"stun:{LOCALHOST}:{transport.get_extra_info('sockname')[1]}")
    finally:
        transport.close()
        await server.closed.wait()


@asynccontextmanager
async def agent_of(*, controlling: bool) -> AsyncIterator[Ice]:
    """Give an agent on loopback that has its candidates."""
    agent = Ice(
        controlling=controlling, addresses=[LOCALHOST], refused=(), drop_counts=Counter(), lost=lambda reason: None
    )
    await agent.gather_candidates()
    try:
        yield agent
    finally:
        await agent.close()


class Reticent(StunServer):
    """Answers without saying where the request came from."""

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer with no attribute at all."""
        self._transport.sendto(b"\x01\x01\0\0" + data[4:20], addr)


async def test_address_that_a_stun_server_finds_follows_the_description() -> None:
    async with stun_server(lambda: StunServer(mapped=("198.51.100.1", 4242))) as server:
        side = make_side("rtc", ice_servers=(server,))
        side.carrier.perform(Describe(LEFT, initiator=True))
        found = await side.event(CandidatesFound)
        assert [type(event) for event in side.events] == [Described, CandidatesFound]
        assert " 198.51.100.1 4242 typ srflx " in found.candidates[0]
        await side.close()


async def test_address_that_the_peer_knows_already_is_not_told_again() -> None:
    async with stun_server() as server, agent_of(controlling=True) as agent:
        told: list[Any] = []
        await agent.find_more([server, server], told.append)
        assert told == []
        assert not agent.drop_counts


async def test_two_servers_that_agree_make_one_candidate() -> None:
    def mapped() -> StunServer:
        return StunServer(mapped=("198.51.100.1", 4242))

    async with stun_server(mapped) as one, stun_server(mapped) as other, agent_of(controlling=True) as agent:
        told: list[Any] = []
        await agent.find_more([one, other], told.append)
        assert [candidate.host for candidate in told] == ["198.51.100.1"]


async def test_answer_without_an_address_counts_as_none() -> None:
    async with stun_server(Reticent) as server, agent_of(controlling=True) as agent:
        await agent.find_more([server], lambda found: None)
        assert agent.drop_counts == {"ice-server-silent": 1}


async def test_silent_stun_server_delays_nothing() -> None:
    async with sides(ice_servers=(IceServer.parse("stun:127.0.0.1:9"),)) as (left, right):
        await open_link(left, right)  # the server is asked for half a minute, longer than any wait here
        assert left.drops("ice-server-silent") == right.drops("ice-server-silent") == 0


# ── through routers that let in only what comes from where the board has sent to ──


def filter_incoming(agent: Ice, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Have an agent hear only from addresses that it has sent to; the event is set when it does not hear something."""
    (endpoint,) = agent.endpoints
    sent_to: set[Any] = set()
    unheard = asyncio.Event()
    sendto, received = endpoint.transport.sendto, endpoint.datagram_received

    def send(data: bytes, addr: Any = None) -> None:
        sent_to.add(addr)
        sendto(data, addr)

    def receive(data: bytes | str, addr: tuple[str, int]) -> None:
        if addr in sent_to:
            received(data, addr)
        else:
            unheard.set()

    monkeypatch.setattr(endpoint.transport, "sendto", send)
    monkeypatch.setattr(endpoint, "datagram_received", receive)
    return unheard


@pytest.mark.parametrize("first_controls", [True, False])
async def test_check_that_a_filter_dropped_is_sent_again_when_the_peers_own_comes(
    first_controls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("conflux.carrier.ice.agent.CROSSING_S", 0.0)  # as on a long way
    async with agent_of(controlling=first_controls) as first, agent_of(controlling=not first_controls) as second:
        unheard = filter_incoming(second, monkeypatch)
        filter_incoming(first, monkeypatch)
        async with asyncio.timeout(REPETITION_S / 2), asyncio.TaskGroup() as tasks:
            tasks.create_task(reach(first, second))
            await unheard.wait()
            tasks.create_task(reach(second, first))


async def test_agents_without_a_candidate_connect_once_one_comes() -> None:
    async with (
        agent_of(controlling=True) as first,
        agent_of(controlling=False) as second,
        asyncio.timeout(REPETITION_S / 2),
        asyncio.TaskGroup() as tasks,
    ):
        for agent, other in ((first, second), (second, first)):
            tasks.create_task(agent.reach(other.local_username, other.local_password, []))
        for _ in range(3):
            await asyncio.sleep(0)  # both look at their empty lists
        await first.add_remote(one.to_sdp() for one in second.local_candidates)


async def reach(agent: Ice, other: Ice) -> None:
    """Connect an agent to another one whose description is here."""
    candidates = [one.to_sdp() for one in other.local_candidates]
    await agent.reach(other.local_username, other.local_password, candidates)
