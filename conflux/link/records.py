"""What two nodes say to each other to bring a link up.  Each record is the body of one control message.

OFFER ──────────►            number orders the attempts of a pair of nodes, whoever made them: an offer carries one
      ◄────────── ANSWER     more than the highest its maker has seen (Lamport's clock), so a side that gets an
CANDIDATES ◄────► CANDIDATES offer can tell "knows of our attempt and has given it up" (higher), "crossed ours on
LINK_REFUSED ◄──► …          the way" (equal: the lower node id's wins) and "was late" (lower).
"""

from __future__ import annotations

from dataclasses import dataclass

from conflux.carrier.interface import Description
from conflux.wire import Record, nested, octets, sequence, text, uint

ATTEMPT_BYTES = 8
NUMBER_MAX = 2**31  # no pair of nodes gets there; a liar who says so only spoils its own links
CANDIDATE_COUNT_MAX = 16  # as many as a Description carries

_ATTEMPT = octets(ATTEMPT_BYTES)


@dataclass(frozen=True, slots=True)
class Offer(Record):
    """Body of OFFER: the sender wants a link and is its initiator."""

    BYTES_MAX = 5120
    SHAPES = (_ATTEMPT, uint(NUMBER_MAX), nested(Description))

    attempt: bytes
    number: int
    description: Description


@dataclass(frozen=True, slots=True)
class Answer(Record):
    """Body of ANSWER: the sender takes the offer of that attempt."""

    BYTES_MAX = 5120
    SHAPES = (_ATTEMPT, nested(Description))

    attempt: bytes
    description: Description


@dataclass(frozen=True, slots=True)
class Candidates(Record):
    """Body of CANDIDATES: addresses found after the description went out (STUN, TURN)."""

    BYTES_MAX = 4096
    SHAPES = (_ATTEMPT, sequence(text(200), CANDIDATE_COUNT_MAX))

    attempt: bytes
    candidates: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refusal(Record):
    """Body of LINK_REFUSED: nothing will come of that attempt.  number: the highest the sender has seen."""

    BYTES_MAX = 256
    SHAPES = (_ATTEMPT, uint(NUMBER_MAX), text(64))

    attempt: bytes
    number: int
    reason: str
