"""This node's credential while the daemon runs: renewed before it ends, and renewed for others if we issue.

    member                                issuer
      │ ── RENEW: its chain ───────────────► │  still valid, ours, and sent by the node it names
      │ ◄─ RENEWED: a fresh chain ────────── │

Both travel as sealed control messages, so the issuer knows who asks.  Keys, name and addresses stay; nothing is
restarted.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from conflux.control.channel import Kind
from conflux.control.event import Message
from conflux.errors import RemoteProtocolError, StateError
from conflux.ids import NodeId
from conflux.log import LOGGER
from conflux.realm.clock import RealmClock
from conflux.realm.credential import Chain
from conflux.realm.issuer import Issuer
from conflux.realm.member import Member

CHECK_S = 60.0  # how often dates are looked at: clocks jump, and suspended boards sleep through timers
RETRY_S_MIN = 600.0  # between two askings of an issuer that does not answer
RETRY_S_MAX = 3600.0
RENEW_S_MIN = 60  # between two renewals of one node: each is two signatures and a file flushed to the card
RENEWED_COUNT_MAX = 1024


class Membership:
    """Watches one credential.

    ask: sends a control message.  adopted: keeps and uses the member with its new chain.
    """

    def __init__(
        self,
        member: Member,
        issuer: Issuer | None,
        clock: RealmClock,
        *,
        rng: Random,
        ask: Callable[[NodeId, Kind, bytes], object],
        answer: Callable[[Message, Kind, bytes], object],
        adopted: Callable[[Member], None],
    ) -> None:
        self.member = member
        self._issuer = issuer
        self._clock = clock
        self._rng = rng
        self._ask = ask
        self._answer = answer
        self._adopted = adopted
        self._ask_at = 0.0
        self._renewed: dict[NodeId, int] = {}  # when we last renewed for whom, unix seconds; the oldest goes
        self.refused = ""  # why the issuer last said no, or what was wrong with its answer

    def check(self, *, now: float) -> None:
        """Renew if it is time to; called every CHECK_S."""
        chain = self.member.chain
        if self._clock.now_unix() < chain.credential.renew_at or now < self._ask_at:
            return
        self._ask_at = now + RETRY_S_MIN + self._rng.random() * (RETRY_S_MAX - RETRY_S_MIN)
        if self._issuer is not None and chain.credential.issuer == self._issuer.issuer_id:
            try:
                self._adopt(self._issuer.renew(chain, now_unix=self._clock.now_unix()))
            except (RemoteProtocolError, StateError) as error:  # the latter: a full card; renewal comes round again
                self._refuse(f"this node cannot renew its own credential: {error}")
        else:
            self._ask(chain.credential.issuer, Kind.RENEW, chain.encode())

    def receive(self, message: Message) -> None:
        """Take a RENEW or RENEWED.  Raises RemoteProtocolError for what breaks a rule."""
        if message.kind is Kind.RENEW:
            self._renew_untrusted(message)
        elif message.kind is Kind.RENEWED:
            self._renewed_untrusted(message)

    def _renew_untrusted(self, message: Message) -> None:
        if self._issuer is None:
            raise RemoteProtocolError("not-issuer")
        chain = Chain.decode_untrusted(message.body)
        if chain.credential.node_id != message.peer:
            raise RemoteProtocolError("not-yours", "a credential may be renewed by its own node only")
        now_unix = self._clock.now_unix()
        last = self._renewed.get(message.peer)
        if last is not None and abs(now_unix - last) < RENEW_S_MIN:
            raise RemoteProtocolError("too-soon", "renewed a moment ago")
        fresh = self._issuer.renew(chain, now_unix=now_unix)
        self._renewed.pop(message.peer, None)
        self._renewed[message.peer] = now_unix
        if len(self._renewed) > RENEWED_COUNT_MAX:
            del self._renewed[next(iter(self._renewed))]
        LOGGER.info("renewed     the credential of %s", fresh.credential.name)
        self._answer(message, Kind.RENEWED, fresh.encode())

    def _renewed_untrusted(self, message: Message) -> None:
        if message.peer != self.member.chain.credential.issuer:
            raise RemoteProtocolError("wrong-issuer")
        chain = Chain.decode_untrusted(message.body)
        if chain.credential.serial <= self.member.chain.credential.serial:
            return  # an answer that came twice
        self._clock.judge(chain, self.member.anchor)
        self._adopt(chain)

    def _adopt(self, chain: Chain) -> None:
        old, new = self.member.chain.credential, chain.credential
        if (new.node_public, new.name, new.addresses) != (old.node_public, old.name, old.addresses):
            raise RemoteProtocolError("wrong-answer", "a renewal changes dates and nothing else")
        self.member = Member(self.member.keys, self.member.anchor, chain)
        self.refused = ""
        self._adopted(self.member)
        LOGGER.info("renewed     our credential, good until %d", chain.not_after)

    def _refuse(self, why: str) -> None:
        if why != self.refused:
            LOGGER.warning("%s", why)
        self.refused = why

    def warnings(self) -> list[str]:
        """Return what a person should know about dates."""
        found = [word for word in (self._clock.warning(), self.refused) if word]
        left_s = self.member.chain.not_after - self._clock.now_unix()
        if left_s <= 0:
            found.append("expired: the credential has ended, other nodes refuse this one; join the realm again")
        elif self._clock.now_unix() >= self.member.chain.credential.renew_at:
            found.append("not-renewed: the credential is due for renewal and its issuer has not answered yet")
        return found
