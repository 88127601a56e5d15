"""One UDP socket of an ICE agent: datagrams are sorted as they come, and the socket can be handed to an engine."""

from __future__ import annotations

import contextlib
import socket
import struct
from abc import abstractmethod
from collections import Counter
from dataclasses import dataclass

from conflux.carrier import lean
from conflux.carrier.drop import Drop
from conflux.carrier.ice.datagrams import DatagramTraffic, DatagramTransport, header_bytes, is_dtls
from conflux.carrier.ice.sockets import (
    ENGINE_BUFFER_BYTES,
    forbid_fragments,
    probed_bytes_max,
    report_errors,
    set_buffers,
)

lean.load()

from aioice import Connection, ice  # noqa: E402  # only findable now

# aioice raises these on STUN messages that are well framed and wrong inside.
_STUN_ERRORS = (ValueError, KeyError, IndexError, AssertionError, struct.error)


@dataclass(frozen=True, slots=True)
class HandedOver:
    """What an engine needs to move a link's datagrams.  The agent keeps the socket, and closes it.

    address: where datagrams go; None: fd is one end of a socket pair.  datagram_bytes_max: the largest UDP payload
    worth probing for.
    """

    fd: int
    address: tuple[str, int] | None
    datagram_bytes_max: int


class Agent(Connection):
    """What an endpoint needs of its ICE agent, beside what aioice has."""

    endpoints: set[Endpoint]  # those with an open socket
    drop_counts: Counter[str]
    traffic: DatagramTraffic

    @abstractmethod
    def dtls_received(self, data: bytes) -> None:
        """Take a datagram that is a DTLS record."""

    @abstractmethod
    def error_about(self, endpoint: Endpoint, address: tuple[str, int]) -> None:
        """Take the kernel's word that it could not deliver from endpoint to address."""


class Endpoint(ice.StunProtocol):
    """One UDP socket of a link."""

    def __init__(self, agent: Agent, sock: socket.socket) -> None:
        super().__init__(agent)
        self._agent = agent
        self._socket = sock
        self._agent.endpoints.add(self)

    def datagram_received(self, data: bytes | str, addr: tuple[str, int]) -> None:
        """Take a datagram: DTLS and STUN are told apart by the first byte (RFC 7983)."""
        assert isinstance(data, bytes)
        if is_dtls(data):
            self._agent.dtls_received(data)
        elif data and data[0] <= 3:
            try:
                super().datagram_received(data, addr)
            except _STUN_ERRORS:
                self._agent.drop_counts[Drop.STUN_MALFORMED] += 1
        else:
            self._agent.drop_counts[Drop.NOT_DTLS_NOR_STUN] += 1

    def error_received(self, exc: Exception) -> None:
        """Read the kernel's error queue, or the socket stays readable for ever, and tell the agent of each address."""
        with contextlib.suppress(OSError):
            while True:
                _, _, _, address = self._socket.recvmsg(0, 512, socket.MSG_ERRQUEUE)
                self._agent.error_about(self, address)

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the agent: the socket is closed."""
        self._agent.endpoints.discard(self)
        super().connection_lost(exc)

    @property
    def receive_buffer_bytes(self) -> int:
        """The size of the socket's receive buffer, as the kernel counts it."""
        return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    def watch_errors(self) -> None:
        """Have ICMP errors reported.

        Not before nomination: an error about a dead candidate would make the next good send fail.
        """
        report_errors(self._socket)

    def release(self, remote: tuple[str, int]) -> HandedOver:
        """Stop reading; an engine reads the socket from now on."""
        assert isinstance(self.transport, DatagramTransport)
        sock = self.transport.release()
        set_buffers(sock, ENGINE_BUFFER_BYTES)
        forbid_fragments(sock)
        return HandedOver(sock.fileno(), remote, probed_bytes_max(sock, remote))

    def return_to_socket(self, data: bytes) -> None:
        """Send the datagram to the socket itself, so that the engine that reads it now gets this one too."""
        with contextlib.suppress(OSError):  # a full buffer loses datagrams, as it always does
            self._socket.sendto(data, self._socket.getsockname())
            self._agent.traffic.returned_bytes += len(data) + header_bytes(self._socket)
