"""Requests to join or to be renewed that arrive over the LAN: how many are answered, with which frame.  Sans-IO."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from conflux.budget import BudgetTable, TokenBucket
from conflux.control.admitting import Carrier, Issue
from conflux.control.lan.config import REMOTE_COUNT_MAX, LanConfig, budget_key
from conflux.control.lan.frame import FrameType
from conflux.control.lan.lately import Lately
from conflux.errors import RemoteProtocolError, UserError
from conflux.ids import NodeId
from conflux.realm.join import JoinRefused, JoinRequest, RenewRequest
from conflux.realm.reason import Reason

log = logging.getLogger(__name__)

ONE_JOIN_S: Final = 20.0  # a joiner tries every address of ours, one after another for 15 s: that is one request


class Admission:
    """Answers requests to join.  issue: None if this node is no issuer.  carrier: passes on what is for another.

    is_on_link: says whether an address is on a link of ours.
    """

    def __init__(
        self,
        issue: Issue | None,
        config: LanConfig,
        drop: Callable[[str], None],
        carrier: Carrier | None = None,
        *,
        is_on_link: Callable[[str], bool],
    ) -> None:
        self._is_on_link = is_on_link
        self._issue = issue
        self._drop = drop
        self._carrier = carrier
        self._lately = Lately(ONE_JOIN_S) if carrier is None else carrier.lately
        self._budget = TokenBucket(config.join_rate, config.join_burst)
        self._remote_budget = BudgetTable(config.join_rate_per_address, config.join_burst_per_address, REMOTE_COUNT_MAX)

    async def answer_untrusted(
        self, kind: FrameType, data: bytes, binding: bytes, remote: str, *, now: float
    ) -> tuple[FrameType, bytes]:
        """Return the frame that answers a request from the address remote; a refusal carries its reason."""
        node: NodeId | None = None
        try:
            if not self._remote_budget.take(budget_key(remote, self._is_on_link), now) or not self._budget.take(now):
                raise RemoteProtocolError(Reason.BUSY, "too many requests to join")
            renews = kind is FrameType.RENEW
            request = RenewRequest.decode_untrusted(data) if renews else JoinRequest.decode_untrusted(data)
            node = request.node_id
            if self._carrier is not None and self._carrier.passes(request):
                return FrameType.JOINED, await self._carrier.carry(request, binding)
            if self._issue is None:
                raise RemoteProtocolError(Reason.WRONG_ISSUER, "this node issues nothing")
            answer = self._issue(request, binding)
        except RemoteProtocolError as error:
            if self._is_new(node, error.reason, now):
                self._drop(f"join-{error.reason}")
                level = logging.DEBUG if error.reason == Reason.WAITING else logging.INFO  # it asks every few seconds
                log.log(level, "a request to join from %s was refused: %s", remote, error)
            return FrameType.JOIN_REFUSED, JoinRefused(error.reason).encode()
        except UserError as error:  # about this node's own records, which are not the joiner's business
            log.error("a request to join from %s could not be answered: %s", remote, error)
            return FrameType.JOIN_REFUSED, JoinRefused(Reason.BUSY).encode()
        done = "was renewed" if renews else "joined"
        if self._is_new(node, done, now):
            log.info("%s %s from %s", answer.chain.credential.name, done, remote)
        return FrameType.JOINED, answer.encode()

    def _is_new(self, node: NodeId | None, outcome: str, now: float) -> bool:
        """Say whether a request is not one that was answered so a moment ago, at another address of ours."""
        return node is None or self._lately.is_new((node, outcome), now)
