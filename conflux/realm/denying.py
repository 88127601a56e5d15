"""The signer's part of a deny list: its next state, with one more node on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from conflux.crypto.sign import SigningKey
from conflux.errors import UserError
from conflux.ids import NodeId
from conflux.realm.credential import Grant
from conflux.realm.listbook import ListBook
from conflux.realm.lists import DENIED_COUNT_MAX, BrokerNotice, Denial, DenyList, ListKind, SignedList, parse_reason


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signs lists: the root, with grant None, or an issuer."""

    key: SigningKey
    grant: Grant | None

    def id_in(self, book: ListBook) -> NodeId:
        """Return the id under which its lists are held: the realm id for the root."""
        return NodeId(book.anchor.realm_id) if self.grant is None else self.grant.issuer

    def next_state(self, book: ListBook, content: DenyList | BrokerNotice, *, now_unix: int) -> SignedList:
        """Return a newer state of this signer's list than any that the book knows.

        Its number is the second in which it was made, or one more than the last: after a restore from a backup, the
        next list is still the newest.
        """
        kind = ListKind.DENY if isinstance(content, DenyList) else ListKind.BROKER
        last = book.find(kind, self.id_in(book))
        number = now_unix if last is None else max(now_unix, last.number + 1)
        return SignedList.make(self.key, book.anchor, self.grant, number, content)

    def deny(
        self,
        book: ListBook,
        node: NodeId,
        *,
        reason: str,
        now_unix: int,
        is_long_gone: Callable[[NodeId], bool] = lambda node: False,
    ) -> SignedList:
        """Return this signer's deny list with one more node; the present one if the node is on it.

        is_long_gone: says of a node on the list that every credential of it ended long ago; it is left out.  Raises
        UserError if this signer may not deny the node, or has no room; ConfigError for a bad reason.
        """
        parse_reason(reason)
        me = self.id_in(book)
        if self.grant is not None and (node == me or book.is_issuer(node)):
            raise UserError("that node is an issuer: only the realm's root key can revoke it")
        last = book.find(ListKind.DENY, me)
        denials = () if last is None else last.denials()
        if last is not None and last.grant == self.grant and any(each.node == node for each in denials):
            return last
        kept = [each for each in denials if each.node != node and not is_long_gone(each.node)]
        if len(kept) >= DENIED_COUNT_MAX:
            raise UserError(f"the list is full: {DENIED_COUNT_MAX} nodes are revoked whose credentials may still last")
        since = next((each.since for each in denials if each.node == node), now_unix)
        content = DenyList(tuple(sorted([*kept, Denial(node, since, reason)], key=lambda each: each.node)))
        return self.next_state(book, content, now_unix=now_unix)

    def resign(self, book: ListBook, *, now_unix: int) -> list[SignedList]:
        """Return newer states of this signer's lists that were signed under another grant than its present one.

        A list counts until its grant ends.
        """
        held = [found for kind in ListKind if (found := book.find(kind, self.id_in(book))) is not None]
        return [
            self.next_state(book, each.broker() or DenyList(each.denials()), now_unix=now_unix)
            for each in held
            if each.grant != self.grant
        ]
