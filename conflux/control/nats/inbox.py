"""What comes from the broker: which of it is decoded, for whom it is, and what is dropped.  Sans-IO.

    message ─► budget of the sender ─► budget of all ─► subject ─► envelope ─► is it what the subject says? ─► arrival

A server is believed in nothing but this: that it may refuse to serve.  A subject says which key sent a message; a
server that lies can put any key there, so what the key sent is verified above, and budgets are there for all together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from conflux.budget import BudgetTable, TokenBucket
from conflux.control.drop import Drop
from conflux.control.envelope import Envelope
from conflux.control.nats.config import (
    SENDER_BURST,
    SENDER_COUNT_MAX,
    SENDER_RATE,
    TOTAL_BURST,
    TOTAL_RATE,
)
from conflux.control.nats.protocol import Message
from conflux.errors import RemoteProtocolError
from conflux.realm.broker import subjects

NOBODY_LISTENS = 503
SENDER_AT = 3  # which word of a subject says who sent a message; of a signed list none does
_NOBODY = frozenset({subjects.NO_RESPONDERS, subjects.NO_RESPONDERS_AGAIN})


class Received(NamedTuple):
    """An envelope.

    sender: the 32-byte key that the server says sent it; None: the subject says none.  again: it is a copy, as an
    earlier one had no answer.
    """

    envelope: Envelope
    sender: bytes | None
    again: bool = False


class Nobody(NamedTuple):
    """A server says that nobody listens for a key.  again: for copies of messages that had no answer."""

    key: bytes
    again: bool = False


class Inbox:
    """One node's part: me is its 32-byte key, buckets are those in which it listens.  drop: counts what ends here."""

    def __init__(self, me: bytes, area: str, drop: Callable[[str], None]) -> None:
        self.buckets: frozenset[int] = frozenset()
        self._me = me
        self._area = area
        self._drop = drop
        self._total = TokenBucket(TOTAL_RATE, TOTAL_BURST)
        self._senders = BudgetTable(SENDER_RATE, SENDER_BURST, SENDER_COUNT_MAX)

    def receive_untrusted(self, message: Message, *, now: float) -> Received | Nobody | None:
        """Take a message; None: it was dropped, and counted."""
        try:
            return self._receive_untrusted(message, now)
        except RemoteProtocolError as error:
            self._drop(error.reason)
            return None

    def _receive_untrusted(self, message: Message, now: float) -> Received | Nobody:
        # The sender's own budget first: a member that floods this node takes nothing of what is there for all.
        if not self._senders.take(_sender_word_untrusted(message.subject), now) or not self._total.take(now):
            raise RemoteProtocolError(Drop.FLOOD)
        subject = subjects.parse_untrusted(message.subject)
        sender = self._sender(subject)
        if sender == self._me:
            raise RemoteProtocolError(Drop.OWN_ECHO)
        if isinstance(subject, subjects.Message) and subject.kind in _NOBODY:
            if message.status != NOBODY_LISTENS or message.payload:
                raise RemoteProtocolError(Drop.MALFORMED, "no answer of a server")
            return Nobody(subject.sender, subject.kind == subjects.NO_RESPONDERS_AGAIN)
        envelope = Envelope.decode_untrusted(message.payload)
        if not _belongs(envelope, subject):
            raise RemoteProtocolError(Drop.MALFORMED, "an envelope for others than its subject")
        return Received(envelope, sender, _is_again(subject))

    def _sender(self, subject: subjects.Subject) -> bytes | None:
        """Return who sent it.  Raises RemoteProtocolError if this node does not listen there."""
        match subject:
            case subjects.Presence() if subject.area in (self._area, subjects.EVERY_AREA):
                return subject.sender
            case subjects.Question() if subject.bucket in self.buckets:
                return subject.sender
            case subjects.Message() if subject.receiver == self._me:
                return subject.sender
            case subjects.Auth():
                return None
        raise RemoteProtocolError(Drop.NOT_FOR_US)


def _sender_word_untrusted(subject: str) -> str:
    """Return the word that says who sent a message, not decoded; empty if there is none."""
    return "".join(subject[: subjects.SUBJECT_CHARS_MAX].split(".")[SENDER_AT : SENDER_AT + 1])


def _is_again(subject: subjects.Subject) -> bool:
    if isinstance(subject, subjects.Message):
        return subject.kind == subjects.AGAIN
    return isinstance(subject, subjects.Question) and subject.again


def _belongs(envelope: Envelope, subject: subjects.Subject) -> bool:
    """Say whether an envelope is for those whom its subject reaches."""
    if isinstance(subject, subjects.Message):
        return envelope.to is not None
    bucket = subject.bucket if isinstance(subject, subjects.Question) else None
    if envelope.to is not None:  # plain, for a node whose key its sender does not know
        return envelope.key_id is None and subjects.bucket_of(envelope.to) == bucket
    return envelope.bucket == bucket
