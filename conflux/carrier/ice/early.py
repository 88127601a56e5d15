"""Where DTLS goes while no pair is nominated yet.  Sans-IO.

       ICE alone first                          DTLS beside it
    check ──►                                check, ClientHello ──►
            ◄── answer, check                                   ◄── answer, check, ServerHello ...
    answer, ClientHello ──►                  answer, Finished ──►
            ◄── ServerHello ...                                 ◄── Finished
    Finished ──►
            ◄── Finished

A peer that sent an authenticated check is where it says, or wants the answer there; so it may have any flight.  An
address of which nothing came yet may have what is no larger than a check: a ClientHello.  The idea is that of
draft-hancke-tsvwg-sped; here the datagrams go beside the checks and not inside, so that any WebRTC peer reads them.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

P = TypeVar("P", bound=Hashable)  # a candidate pair

UNPROVEN_BYTES_MAX = 320  # a ClientHello has about 170
UNPROVEN_COUNT_MAX = 4  # pairs that get one unasked: most hosts have few


class Early(Generic[P]):
    """The last flight that was made, and where it has gone."""

    def __init__(self) -> None:
        self._flight: bytes | None = None
        self._checked: dict[P, None] = {}  # our check went there, the first ones first
        self._proven: dict[P, None] = {}  # a check of the peer came from there
        self._sent: set[P] = set()  # got the flight

    def made(self, flight: bytes) -> tuple[P, ...]:
        """Take a flight; return the pairs to send it on now."""
        self._flight = flight
        self._sent = {*self._proven, *self._unproven()}
        return tuple(self._sent)

    def checked(self, pair: P) -> bytes | None:
        """Take note that a check goes out on a pair; return what to send behind it."""
        self._checked[pair] = None
        return self._once(pair) if pair in self._unproven() else None

    def proven(self, pair: P, *, is_answered: bool) -> bytes | None:
        """Take note of the peer's check on a pair; return what to send there.

        is_answered: our own check there has its answer.  If not, a flight that went behind it may have been lost too.
        """
        if pair in self._proven:
            return None
        self._proven[pair] = None
        if not is_answered:
            self._sent.discard(pair)
        return self._once(pair)

    def nominated(self, pair: P) -> bytes | None:
        """Return what is to be sent on a pair that was nominated."""
        return self._once(pair)

    def _unproven(self) -> tuple[P, ...]:
        if self._flight is None or len(self._flight) > UNPROVEN_BYTES_MAX:
            return ()
        return tuple(self._checked)[:UNPROVEN_COUNT_MAX]

    def _once(self, pair: P) -> bytes | None:
        if self._flight is None or pair in self._sent:
            return None
        self._sent.add(pair)
        return self._flight
