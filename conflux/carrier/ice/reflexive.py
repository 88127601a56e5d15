"""Asks a STUN server at which address it sees a socket of ours (RFC 8445, section 5.1.1.2)."""

from __future__ import annotations

import socket

from conflux.carrier import lean
from conflux.carrier.ice.endpoint import Endpoint
from conflux.carrier.ice.server import IceServer
from conflux.host.names import NAMES, is_number

lean.load()

from aioice import Candidate, stun  # noqa: E402  # only findable now
from aioice.candidate import candidate_foundation, candidate_priority  # noqa: E402


async def seen_by_stun(endpoint: Endpoint, server: IceServer) -> tuple[Candidate, None]:
    """Return the address that a STUN server sees an endpoint at, as a candidate.

    aioice has the same, and looks numbers up by name in a thread.  Raises OSError and stun.TransactionError.
    """
    address = await address_of(server)
    request = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
    response, _ = await endpoint.request(request, (address, server.port))
    if "XOR-MAPPED-ADDRESS" not in response.attributes:
        raise stun.TransactionFailed(response)
    ours = endpoint.local_candidate
    host, port = response.attributes["XOR-MAPPED-ADDRESS"]
    candidate = Candidate(
        foundation=candidate_foundation("srflx", "udp", ours.host),
        component=ours.component,
        transport=ours.transport,
        priority=candidate_priority(ours.component, "srflx"),
        host=host,
        port=port,
        type="srflx",
        related_address=ours.host,
        related_port=ours.port,
    )
    return candidate, None


async def address_of(server: IceServer) -> str:
    """Return the address of a server; of a name, an IPv4 one.  Raises OSError."""
    if is_number(server.host):
        return server.host
    rows = await NAMES.look_up(server.host, server.port, family=socket.AF_INET)
    return str(rows[0][4][0])
