"""The policies that a node holds: the one that counts, and those before it, which a person may go back to.

A policy of a node that a signed list denies counts only if it was signed before the denial.  So the thief of a key
publishes nothing new, no node is without rules because their author left, and every node comes to the same result,
whichever it hears first.  What the thief signed before the denial ends with the next policy, whose number is higher.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

from conflux.errors import RemoteProtocolError, UserError
from conflux.realm.credential import POLICY
from conflux.realm.dates import utc
from conflux.realm.listbook import ListBook
from conflux.realm.member import Member
from conflux.realm.policy import PolicyHead, Rank, SignedPolicy
from conflux.realm.reason import Reason

KEPT_COUNT_MAX = 8  # the newest ones; each takes at most 290 kB


class PolicyBook:
    """Policies, the newest first.

    lists: who is denied.  clock: unix seconds.  observe: is given dates that the realm has signed.  save: keeps a
    policy over a restart; called before it has any effect.  forget: drops one that is not kept any more.
    """

    def __init__(
        self,
        lists: ListBook,
        clock: Callable[[], int],
        *,
        observe: Callable[[int], None] = lambda date_unix: None,
        save: Callable[[SignedPolicy], None] = lambda policy: None,
        forget: Callable[[Rank], None] = lambda rank: None,
    ) -> None:
        self._lists = lists
        self._clock = clock
        self._observe = observe
        self._save = save
        self._forget = forget
        self._kept: list[tuple[Rank, SignedPolicy]] = []  # the newest first

    def load(self, kept: Iterable[SignedPolicy]) -> None:
        """Take what was kept over a restart; what does not hold is left out."""
        for policy in kept:
            with suppress(RemoteProtocolError):
                policy.head.verify(self._lists.anchor)
                self._keep(policy)

    @property
    def current(self) -> SignedPolicy | None:
        """The policy that counts; None: there is none, and members reach one another."""
        return next((policy for _, policy in self._kept if not self._is_denied(policy.head)), None)

    @property
    def rank(self) -> Rank | None:
        """Which policy counts; None: there is none."""
        return next((rank for rank, policy in self._kept if not self._is_denied(policy.head)), None)

    @property
    def earlier(self) -> tuple[SignedPolicy, ...]:
        """What was published before the one that counts, the newest first, as far as it is kept here."""
        current = self.rank
        return tuple(
            policy
            for rank, policy in self._kept
            if current is not None and rank < current and not self._is_denied(policy.head)
        )

    def is_news(self, rank: Rank) -> bool:
        """Say whether a policy is newer than the one that counts here."""
        current = self.rank
        return current is None or rank > current

    def judge_untrusted(self, head: PolicyHead) -> None:
        """Raise RemoteProtocolError unless the policy of a head would count now.

        Reasons: old-policy, revoked, and those of PolicyHead.verify() and verify_date().
        """
        if not self.is_news(head.rank):
            raise RemoteProtocolError(Reason.OLD_POLICY)
        head.verify(self._lists.anchor)
        self._lists.note(head.chain)
        self._observe(head.chain.newest_date)
        head.verify_date(self._clock())
        if self._is_denied(head):
            raise RemoteProtocolError(Reason.REVOKED, "the policy of a node that was revoked before it signed")

    def learn(self, policy: SignedPolicy) -> bool:
        """Take a policy; False: the one here is as new.  Raises RemoteProtocolError; nothing has then changed."""
        if policy.head.rank == self.rank:
            return False
        self.judge_untrusted(policy.head)
        self._save(policy)
        self._keep(policy)
        return True

    def _keep(self, policy: SignedPolicy) -> None:
        rank = policy.head.rank
        self._kept = sorted([*(each for each in self._kept if each[0] != rank), (rank, policy)], reverse=True)
        while len(self._kept) > KEPT_COUNT_MAX:
            self._forget(self._kept.pop(self._superseded_soonest())[0])

    def _superseded_soonest(self) -> int:
        """Return the place of the policy that was in force for the shortest time; the oldest of several.

        So a burst of somebody who has a key does not push out the policy before.  The newest two stay in any case.
        """
        numbers = [rank.number for rank, _ in self._kept]
        return min(range(2, len(numbers)), key=lambda at: (numbers[at - 1] - numbers[at], -at))

    def _is_denied(self, head: PolicyHead) -> bool:
        denials = self._lists.denials_of(head.signer, head.chain.credential.issuer)
        return any(each.denial.since <= head.number for each in denials)


def sign_next(book: PolicyBook, member: Member, text: bytes, *, now_unix: int) -> SignedPolicy:
    """Return a text as the next policy.  Raises UserError if this node may not publish one."""
    credential = member.chain.credential
    if POLICY not in credential.capabilities:
        raise UserError(
            f"{member.name} may not publish a policy: an issuer runs "
            f"`conflux realm grant {member.name} --capability {POLICY}`"
        )
    last = book.rank
    number = max(now_unix, member.chain.newest_date, 0 if last is None else last.number + 1)
    if number >= member.chain.not_after:
        raise UserError(
            f"{member.name}'s credential ended on {utc(member.chain.not_after)}: it has to be renewed first"
        )
    return SignedPolicy.make(member, number, text)
