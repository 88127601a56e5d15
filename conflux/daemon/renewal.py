"""This node's credential while the daemon runs: renewed before it ends, and changed when its issuer says so.

    member                                issuer
      │ ── RENEW: its chain ───────────────► │  still valid, issued here, and sent by the node it names
      │ ◄─ RENEWED: a fresh chain ────────── │

      │ ◄─ RENEWED: a fresh chain ────────── │  unasked: its name or its rights were changed
      │ ── ACK ────────────────────────────► │

Both are sealed control messages, so each knows which node speaks.  Keys and addresses stay, and nothing is restarted.
issuing.py has the issuer's part.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from random import Random

from conflux.budget import BudgetTable
from conflux.control.envelope import Kind
from conflux.control.event import Message
from conflux.errors import RemoteProtocolError, StateError
from conflux.ids import NodeId
from conflux.realm.clock import RealmClock
from conflux.realm.credential import Chain
from conflux.realm.dates import span, utc
from conflux.realm.issuer import Issuer
from conflux.realm.join import require_follows
from conflux.realm.member import Member
from conflux.realm.reason import Reason

log = logging.getLogger(__name__)

CHECK_S = 60.0  # between two looks at the dates: clocks jump, and timers do not run on a suspended board
RETRY_S_MIN = 600.0  # between two requests to an issuer that does not answer
RETRY_S_MAX = 3600.0
LEAVE_S = 8.0  # chosen: a request is repeated for five seconds
IN_VAIN_COUNT = 2  # chosen: one request may be lost with a switched-off issuer; another issuer may be in its place
# Chains that a member hands over unasked: each takes two verifications, a new card, and two files flushed to disk.
UNASKED_RATE, UNASKED_BURST, HANDER_COUNT_MAX = 1 / 60, 5.0, 256


class Renewal:
    """Watches one credential.

    issuer: this node as an issuer, or None while it is none.  ask, answer: send a control message.  adopted: keeps and
    uses the member with its new chain.  denies: says of a node and its issuer whether it is revoked.
    """

    def __init__(
        self,
        member: Member,
        issuer: Callable[[], Issuer | None],
        clock: RealmClock,
        *,
        rng: Random,
        ask: Callable[[NodeId, Kind, bytes], int],
        answer: Callable[[Message, Kind, bytes], object],
        adopted: Callable[[Member], None],
        denies: Callable[[NodeId, NodeId | None], bool] = lambda node, issuer: False,
    ) -> None:
        self.member = member
        self._issuer = issuer
        self._clock = clock
        self._rng = rng
        self._ask = ask
        self._answer = answer
        self._adopted = adopted
        self._denies = denies
        self._ask_at = 0.0
        self._asked_count = 0  # since the last answer
        self._leaving = 0  # the token of our LEAVE
        self._left = asyncio.Event()
        self._unasked = BudgetTable(UNASKED_RATE, UNASKED_BURST, HANDER_COUNT_MAX)
        self.refused = ""  # why the last renewal of our own credential failed, or ""

    def check(self, *, now: float) -> None:
        """Renew if the credential is due.  Called every CHECK_S."""
        chain = self.member.chain
        if self._clock.now_unix() < chain.credential.renew_at or now < self._ask_at or self._is_revoked():
            return
        self._ask_at = now + RETRY_S_MIN + self._rng.random() * (RETRY_S_MAX - RETRY_S_MIN)
        issuer = self._issuer()
        if issuer is not None and chain.credential.issuer == issuer.issuer_id:
            try:
                # Whoever holds the issuer's key renews itself, whatever the date.
                self.adopt(issuer.renew(chain, now_unix=self._clock.now_unix(), late_s=None))
            except (RemoteProtocolError, StateError) as error:  # StateError: the disk is full; check() tries again
                self.refuse(f"this node cannot renew its own credential: {error}{_remedy(error)}")
        else:
            self._asked_count += 1
            self._ask(chain.credential.issuer, Kind.RENEW, chain.encode())

    def ask(self) -> None:
        """Ask the issuer for a fresh credential although this one is not due: it lacks an admission to the broker."""
        if not self._is_revoked():
            self._ask(self.member.chain.credential.issuer, Kind.RENEW, self.member.chain.encode())

    async def leave(self) -> bool:
        """Tell the issuer that this node leaves, and say whether it has taken note within LEAVE_S."""
        issuer = self.member.chain.credential.issuer
        if issuer == self.member.node_id:
            return False  # nobody else knows the records
        self._left = asyncio.Event()
        self._leaving = self._ask(issuer, Kind.LEAVE, b"")
        try:
            async with asyncio.timeout(LEAVE_S):
                await self._left.wait()
        except TimeoutError:
            return False
        return True

    def acknowledged(self, message: Message) -> bool:
        """Say whether an ACK was of our leaving, and take note of it."""
        if message.re != self._leaving or message.peer != self.member.chain.credential.issuer:
            return False
        self._left.set()
        return True

    def is_lost(self) -> bool:
        """Say whether the issuer has to be looked for: it was asked in vain, or may not be asked any more."""
        if self._is_revoked():  # if our issuer is, another one that has this node on record may take its place
            return not self._denies(self.member.node_id, None)
        if self._clock.now_unix() < self.member.chain.credential.renew_at:
            return False
        issuer = self._issuer()
        if issuer is not None and issuer.issuer_id == self.member.chain.credential.issuer:
            return False
        return self._asked_count >= IN_VAIN_COUNT or self._clock.now_unix() >= self.member.chain.not_after

    def _is_revoked(self) -> bool:
        """Say whether nobody would answer this node."""
        return self._denies(self.member.node_id, self.member.chain.credential.issuer)

    def receive(self, message: Message, *, now: float) -> None:
        """Take a RENEWED.  Raises RemoteProtocolError if it breaks a rule, StateError if the disk is full."""
        chain = Chain.decode_untrusted(message.body)
        ours = self.member.chain.credential
        if not message.re and not self._unasked.take(message.peer, now):
            raise RemoteProtocolError("too-soon", "changed a moment ago")
        if message.peer != chain.credential.issuer:
            raise RemoteProtocolError("wrong-issuer")
        if chain.credential.issuer == ours.issuer and chain.credential.serial < ours.serial:
            return  # older than ours: it came late
        if (chain.credential.issuer, chain.credential.serial) != (ours.issuer, ours.serial):
            require_follows(self.member.chain, chain)
            self._clock.judge(chain, self.member.anchor)
            self.adopt(chain)
        if not message.re:
            self._answer(message, Kind.ACK, b"")

    def adopt(self, chain: Chain) -> None:
        """Use a chain that was judged.  Raises RemoteProtocolError unless it is of this node, at its addresses."""
        old, new = self.member.chain.credential, chain.credential
        if (new.node_public, new.addresses) != (old.node_public, old.addresses):
            raise RemoteProtocolError("wrong-answer", "a renewal changes neither keys nor addresses")
        if new.name != old.name:
            log.info("this node is called %s now, and was %s", new.name, old.name)
        self.member = Member(self.member.keys, self.member.anchor, chain)
        self.refused = ""
        self._asked_count = 0
        self._adopted(self.member)
        log.info("renewed this node's credential, until %s", utc(chain.not_after))

    def refuse(self, why: str) -> None:
        """Take note why the last renewal failed; each reason is logged once."""
        if why != self.refused:
            log.warning("%s", why)
        self.refused = why

    def warnings(self) -> list[str]:
        """Return what a person should know about the credential and the clock."""
        found = [word for word in (self._clock.warning(), self.refused) if word]
        left_s = self.member.chain.not_after - self._clock.now_unix()
        if left_s <= 0 and self._issuer() is not None:
            found.append(
                "expired: the credential has ended; as an issuer this node renews itself: conflux down; conflux up"
            )
        elif left_s <= 0:
            found.append(
                "expired: the credential has ended, other nodes refuse this one.  The board that let it in renews it "
                "once they meet; there: conflux up.  If that has no record of it any more, there: conflux realm "
                "invite; and here: conflux down; conflux join TOKEN; conflux up"
            )
        elif self._clock.now_unix() >= self.member.chain.credential.renew_at:
            found.append(
                f"not-renewed: the credential ends in {span(left_s)}, and the board that let this one in has not "
                "answered yet; there: conflux up.  If it is dead, on another board: conflux realm restore FILE; "
                "conflux up"
            )
        return found


def _remedy(error: RemoteProtocolError | StateError) -> str:
    """Return the commands after which an issuer can renew itself again."""
    if not isinstance(error, RemoteProtocolError) or error.reason != Reason.GRANT_EXPIRED:
        return ""
    return (
        ".  On the board with root.key: conflux down; conflux up.  If that is lost, here: "
        "conflux down; conflux realm restore FILE; conflux up"
    )
