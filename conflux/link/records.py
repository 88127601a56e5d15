"""The messages by which two nodes bring a link up.  Each record is the body of one control message.

OFFER ──────────►            number orders the attempts of two nodes, made by either: an offer carries one more than
      ◄────────── ANSWER     the highest its maker has seen (Lamport's clock).  So the node that gets an offer can tell
CANDIDATES ◄────► CANDIDATES "the maker knows of my attempt and gave it up" (higher), "it crossed mine on the way"
LINK_REFUSED ◄──► …          (equal: the offer of the lower node id wins) and "it is late" (lower).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from conflux.carrier.interface import CANDIDATE_CHARS_MAX, CANDIDATE_COUNT_MAX, Description
from conflux.realm.listbook import DIGEST_BYTES
from conflux.record import Record, nested, octets, sequence, text, uint

ATTEMPT_BYTES = 8
NUMBER_MAX = 2**31  # no two nodes get there; a node that lies about it spoils only its own links

_ATTEMPT = octets(ATTEMPT_BYTES)


@dataclass(frozen=True, slots=True)
class Offer(Record):
    """Body of OFFER: its sender wants a link and is the initiator."""

    BYTES_MAX = 5120
    SHAPES = (_ATTEMPT, uint(NUMBER_MAX), nested(Description), octets(DIGEST_BYTES))

    attempt: bytes
    number: int
    description: Description
    lists: bytes = bytes(DIGEST_BYTES)  # digest of the signed lists that the sender holds


@dataclass(frozen=True, slots=True)
class Answer(Record):
    """Body of ANSWER: its sender takes the offer of that attempt."""

    BYTES_MAX = 5120
    SHAPES = (_ATTEMPT, nested(Description), octets(DIGEST_BYTES))

    attempt: bytes
    description: Description
    lists: bytes = bytes(DIGEST_BYTES)  # digest of the signed lists that the sender holds


@dataclass(frozen=True, slots=True)
class Candidates(Record):
    """Body of CANDIDATES: addresses found after the description went out (STUN, TURN)."""

    BYTES_MAX = 4096
    SHAPES = (_ATTEMPT, sequence(text(CANDIDATE_CHARS_MAX), CANDIDATE_COUNT_MAX))

    attempt: bytes
    candidates: tuple[str, ...]


class RefusalWord(StrEnum):
    """Why nothing comes of an attempt, as a node says on the wire."""

    BUSY = "busy"  # it answers as many offers as it may
    FAILED = "failed"  # its carrier could not open the link
    GLARE = "glare"  # its own offer crossed this one, and wins
    STALE = "stale"  # it knows of a later attempt
    TIMEOUT = "timeout"
    UNKNOWN_ATTEMPT = "unknown-attempt"
    WITHDRAWN = "withdrawn"  # it wants the link no longer


# Refusals over which attempt of the two is the valid one: dialling again settles it.  All others are a plain no, and so
# is a word of another version.
DISAGREEMENTS = frozenset({RefusalWord.GLARE, RefusalWord.STALE, RefusalWord.UNKNOWN_ATTEMPT, RefusalWord.WITHDRAWN})


@dataclass(frozen=True, slots=True)
class Refusal(Record):
    """Body of LINK_REFUSED: nothing will come of that attempt.

    number: the highest the sender has seen.  reason: a RefusalWord, or the word of another version.
    """

    BYTES_MAX = 256
    SHAPES = (_ATTEMPT, uint(NUMBER_MAX), text(64))

    attempt: bytes
    number: int
    reason: str
