"""Datagrams between an engine and a candidate pair that goes through a TURN server."""

from __future__ import annotations

import contextlib
import select
import socket

from conflux.carrier import lean
from conflux.carrier.ice.datagrams import DATAGRAM_BYTES_MAX, READ_COUNT_MAX, Watch
from conflux.carrier.ice.endpoint import HandedOver
from conflux.carrier.ice.sockets import DATAGRAM_BYTES_RELAYED

lean.load()

from aioice import ice  # noqa: E402  # only findable now


class Ferry:
    """Carries datagrams between a relayed pair and an engine, by a socket pair: only aioice speaks TURN."""

    def __init__(self, pair: ice.CandidatePair, watch: Watch) -> None:
        self._pair = pair
        self._watch = watch
        self._ours, self._engines = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self._ours, self._engines):
            end.setblocking(False)
        watch.add(self._ours.fileno(), self._ready)

    @property
    def handed_over(self) -> HandedOver:
        """The engine's end of the socket pair."""
        return HandedOver(self._engines.fileno(), None, DATAGRAM_BYTES_RELAYED)

    def received(self, data: bytes) -> None:
        """Pass a datagram from the relay on to the engine."""
        with contextlib.suppress(OSError):  # a full buffer loses datagrams, as on any path
            self._ours.send(data)

    def _ready(self, events: int) -> None:
        for _ in range(READ_COUNT_MAX):
            try:
                data = self._ours.recv(DATAGRAM_BYTES_MAX)
            except OSError:
                return
            self._pair.protocol.transport.sendto(data, self._pair.remote_addr)

    def close(self) -> None:
        """Pass on what the engine sent last, its goodbye, and close both ends; the engine no longer uses its own."""
        self._ready(select.EPOLLIN)
        self._watch.discard(self._ours.fileno())
        self._ours.close()
        self._engines.close()
