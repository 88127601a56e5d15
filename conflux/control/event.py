"""What the control plane hands out: messages, answers and failures, and envelopes to send."""

from __future__ import annotations

from dataclasses import dataclass

from conflux.control.channel import Kind
from conflux.control.question import Who
from conflux.ids import BootId, NodeId
from conflux.realm.card import Card


@dataclass(frozen=True, slots=True)
class Transmit:
    """One envelope for every running channel.  Tell the plane what became of it: handoff(token, ...)."""

    token: int
    to: NodeId | None  # None: announce
    envelope: bytes


@dataclass(frozen=True, slots=True)
class Message:
    """A verified message of a member.  re: the token of our request that it answers, 0 if none."""

    peer: NodeId
    kind: Kind
    body: bytes
    seq: int
    re: int
    boot: BootId


@dataclass(frozen=True, slots=True)
class RequestFailed:
    """Nobody answered.  reason: "timeout", "absent", "refused", "unknown-peer" or "busy"."""

    peer: NodeId
    token: int
    kind: Kind
    reason: str


@dataclass(frozen=True, slots=True)
class CardFound:
    """The answer to who(query)."""

    card: Card
    query: Who


@dataclass(frozen=True, slots=True)
class WhoFailed:
    """Nobody who owns it answered.  reason: "no-answer", "absent", "refused" or "busy"."""

    query: Who
    reason: str


@dataclass(frozen=True, slots=True)
class CardChanged:
    """A peer we had a card of runs as a new process: whatever was agreed with the old one is void."""

    card: Card


@dataclass(frozen=True, slots=True)
class Heard:
    """A verified message of node was handed over by via, a neighbour (perhaps node itself)."""

    node: NodeId
    via: NodeId


Event = Heard | Message | RequestFailed | CardFound | WhoFailed | CardChanged
