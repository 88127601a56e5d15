"""What a control channel needs to let nodes in, and what a joiner is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from conflux.control.drop import Drop
from conflux.control.lan.lately import Lately
from conflux.errors import RemoteProtocolError, UserError
from conflux.ids import NodeId
from conflux.realm.clock import RealmClock
from conflux.realm.join import JoinAnswer, JoinRequest, RenewRequest
from conflux.realm.reason import Reason

SEARCH_S = 15.0
RETRY_S = 1.0  # between two tries
# Between two tries where a person has to approve: above what the issuer takes of one address, with jitter.
APPROVAL_RETRY_S_MIN, APPROVAL_RETRY_S_MAX = 6.0, 12.0
APPROVAL_S = 3600.0  # how long a person is waited for
LIST_COUNT_MAX = 16  # signed lists that come with an answer; the others are fetched from any member

Request = JoinRequest | RenewRequest
Issue = Callable[[Request, bytes], JoinAnswer]
"""Answers a request, given the 32-byte binding of its connection.  Raises RemoteProtocolError with the reason."""


class Carrier(Protocol):
    """What passes requests on to an issuer that the asking node does not reach.

    lately: what was told of requests a moment ago, whichever way they came: a joiner tries several.
    """

    lately: Lately

    def passes(self, request: Request) -> bool:
        """Say whether a request is for another issuer, which is known here."""

    async def carry(self, request: Request, binding: bytes) -> bytes:
        """Return that issuer's answer, a JoinAnswer.  Raises RemoteProtocolError with its reason."""


@dataclass(frozen=True, slots=True)
class Office:
    """An issuer, as a channel sees it.

    issuer: its id, as tokens name it; None: this node issues nothing at present.  secret: of an invitation of its own.
    lists: the signed lists, encoded, that a new member gets with the answer.
    """

    issue: Issue
    issuer: Callable[[], NodeId | None]
    secret: Callable[[bytes], bytes | None]
    lists: Callable[[], Iterable[bytes]] = tuple


class RefusedByIssuer(UserError):
    """The issuer itself refused, beyond doubt: to look for it elsewhere makes no difference."""


class NoAnswerError(UserError):
    """No issuer answered: it may do so later."""


def approval_retry_s(entropy: Callable[[int], bytes]) -> float:
    """Return how long to wait before a person's approval is asked for again."""
    part = int.from_bytes(entropy(2)) / 65535
    return APPROVAL_RETRY_S_MIN + part * (APPROVAL_RETRY_S_MAX - APPROVAL_RETRY_S_MIN)


def explain_answer(error: RemoteProtocolError, clock: RealmClock) -> str:
    """Return what a person should read about an answer that did not verify."""
    if error.reason in (Reason.EXPIRED, Reason.NOT_YET_VALID):
        now = datetime.fromtimestamp(clock.now_unix(), UTC)
        return f"this device's clock is wrong, or the issuer's: here it is {now:%Y-%m-%d %H:%M} UTC ({error})"
    if error.reason == Reason.FOREIGN_REALM:
        return "the node that answered is of another realm than the invitation"
    if error.reason == Drop.CLOSED:
        return "the node that answered closed the connection"
    return f"the answer does not verify ({error})"
