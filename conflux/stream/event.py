"""Outputs of the streams: messages for the control plane, and events for the datapath's tables."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from conflux.anchor.key import EpochKey
from conflux.carrier.interface import LinkKeys
from conflux.control.envelope import Kind, Pairing
from conflux.ids import NodeId, StreamId
from conflux.stream.handshake import Vantage


class SenderEnd(StrEnum):
    """Why a stream this node sends ended, or never began, as this node saw it."""

    REFUSED = "refused"  # the receiver does not take it
    BAD_ANSWER = "bad-answer"  # the answer to OPEN was no ACCEPT of it
    NO_ANSWER = "no-answer"  # the control plane got none
    RESTARTED = "restarted"  # the receiver is a new process
    LIFETIME = "lifetime"  # its day is over
    REKEY = "rekey"  # the offer of the next key got no answer
    REVOKED = "revoked"  # the receiver is a member no more
    CONFLICT = "resume-conflict"  # somebody else has the secret that opened it
    SIGNED = "signed-anew"  # a secret opened it, and the receiver signs


class ReceiverEnd(StrEnum):
    """Why a stream this node received ended."""

    DONE = "done"  # its sender said so
    IDLE = "idle"  # nothing came on it for long
    UNUSED = "unused"  # nothing ever came on it
    REPLACED = "replaced"  # pushed out by a newer stream of the same sender
    RESTARTED = "restarted"  # its sender is a new process
    EXPIRED = "expired"  # its lifetime is over, or its sender's credential
    REVOKED = "revoked"  # its sender is a member no more
    CONFLICT = "resume-conflict"  # somebody else has the secret that opened it
    SIGNED = "signed-anew"  # a secret opened it, and its sender signs


@dataclass(frozen=True, slots=True)
class Send:
    """A request for the peer, answered by ACCEPT, OPEN_REFUSED or silence."""

    peer: NodeId
    kind: Kind
    body: bytes
    stream: StreamId


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a request.  to: as it was handed in with that request."""

    to: Any
    kind: Kind
    body: bytes


@dataclass(frozen=True, slots=True)
class Pass:
    """A message of a resumption, under an id that only the two know.  again: an earlier copy had no answer."""

    peer: NodeId
    id: bytes
    what: Pairing
    body: bytes
    again: bool = False


Transmit = Send | Reply | Pass


@dataclass(frozen=True, slots=True)
class SenderReady:
    """The stream is agreed on: its first keys, and the relays its receiver reaches well."""

    stream: StreamId
    peer: NodeId
    data: EpochKey
    feedback: EpochKey
    vantage: tuple[Vantage, ...]
    offload_kinds: tuple[int, ...]  # agreed on; entry kinds beyond plain packets


@dataclass(frozen=True, slots=True)
class SenderFailed:
    """The stream cannot be opened, or its keys could not be renewed.

    said: the refusing peer's word, or the control plane's for the missing answer; shown, and decides nothing.
    """

    stream: StreamId
    peer: NodeId
    end: SenderEnd
    said: str = ""


@dataclass(frozen=True, slots=True)
class SenderRekeyed:
    """The stream has the keys of its next epoch."""

    stream: StreamId
    data: EpochKey
    feedback: EpochKey


@dataclass(frozen=True, slots=True)
class ReceiverReady:
    """A stream is accepted: half-open until its first frame verifies."""

    stream: StreamId
    peer: NodeId
    data: EpochKey
    feedback: EpochKey
    offload_kinds: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ReceiverRekeyed:
    """The stream has the keys of its next epoch."""

    stream: StreamId
    data: EpochKey
    feedback: EpochKey


@dataclass(frozen=True, slots=True)
class ReceiverGone:
    """A stream is received no more."""

    stream: StreamId
    peer: NodeId
    end: ReceiverEnd


@dataclass(frozen=True, slots=True)
class SendEntry:
    """An entry for the stream's next frame: a rekey."""

    stream: StreamId
    kind: int
    body: bytes


@dataclass(frozen=True, slots=True)
class CardOutdated:
    """The peer opens streams under another credential than the one that is known here: its card is worth asking for."""

    peer: NodeId


@dataclass(frozen=True, slots=True)
class Rode:
    """A signal of the link came with a resumption.  seq: as if it had been a message of its own; 0: an answer.

    keys: of the link, if both agreed that it has no handshake; with an answer alone.
    """

    peer: NodeId
    kind: int
    body: bytes
    seq: int
    keys: LinkKeys | None = None


@dataclass(frozen=True, slots=True)
class RideEnded:
    """The resumption with the peer is over, and the offer that rode along got no answer: it is to be sent by itself.

    answered: the peer said that it sends no answer along, and no keys.  Else it may have, and the message was lost.
    """

    peer: NodeId
    answered: bool


@dataclass(frozen=True, slots=True)
class SignedAnew:
    """The peer opened a stream with signatures: what its secret opened has ended, and a link that it opened has to."""

    peer: NodeId


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two used the secret of a resumption with the peer: what it opened ended, and a link that it opened has to.

    seen_here: the peer does not know yet.
    """

    peer: NodeId
    seen_here: bool


@dataclass(frozen=True, slots=True)
class Resumed:
    """A resumption with the peer gave both streams their keys."""

    peer: NodeId


Event = (
    SenderReady
    | SenderFailed
    | SenderRekeyed
    | ReceiverReady
    | ReceiverRekeyed
    | ReceiverGone
    | SendEntry
    | CardOutdated
    | Conflict
    | Rode
    | RideEnded
    | Resumed
    | SignedAnew
)
