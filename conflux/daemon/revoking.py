"""The signed lists of a running daemon: kept over a restart, and what this node as an issuer adds to them."""

from __future__ import annotations

import logging
from collections.abc import Callable

from conflux.errors import StateError, UserError
from conflux.ids import NodeId
from conflux.realm.clock import RealmClock
from conflux.realm.credential import Chain
from conflux.realm.lists import SignedList
from conflux.realm.member import Member
from conflux.state.directory import ROOT_KEY, StateDir
from conflux.state.founding import issuer_of
from conflux.state.issuer_files import IssuerFiles
from conflux.state.list_files import ListFiles
from conflux.state.revoking import Revoked, Revoker, find_member, load_book, revoked_words

log = logging.getLogger(__name__)


class _NotedFiles(ListFiles):
    """Files that tell when a list is kept."""

    def __init__(self, state: StateDir, noted: Callable[[], None]) -> None:
        super().__init__(state)
        self._noted = noted

    def keep(self, signed: SignedList) -> None:
        super().keep(signed)
        self._noted()


class Revocation:
    """book: every signed list that is known here; it holds before any peer is spoken to.

    publish: has every node hear of a list; until it is set nobody does, and all learn of it once they compare.
    noted: called when a list is new here, shortly before it counts.
    """

    def __init__(self, state: StateDir, member: Member, clock: RealmClock) -> None:
        self.noted: Callable[[], None] = lambda: None
        self.book = load_book(_NotedFiles(state, lambda: self.noted()), member, clock.now_unix)
        self.publish: Callable[[SignedList], object] = self.book.learn
        self._state = state
        self._member = member
        self._clock = clock
        self._records = IssuerFiles(state)
        self.settle()
        for words in self.warnings():
            log.warning("%s", words)

    def settle(self) -> None:
        """Have the lists say what the issuer's records say.  No-op at a node that issues nothing."""
        try:
            if issuer_of(self._state, self._member) is not None:
                revoker = Revoker(self._state, self._member)
                revoker.settle(self.book, lambda signed: self.publish(signed), now_unix=self._clock.now_unix())
        except StateError as error:
            log.error("the deny list is not brought up to date: %s", error)

    def find(self, word: str) -> NodeId | None:
        """Return a node on this issuer's record by name, id or IPv4 address.  Raises UserError if this node is none.

        Who may only look makes the daemon ask this, for each word that is no node: it reads what has changed since the
        last time, not every record.
        """
        if self._state.grant() is None and not (self._state.path / ROOT_KEY).exists():
            raise UserError(f"{self._member.name} does not issue for realm {self._member.anchor.name}")
        return find_member(self._records, word)

    def revoke(self, node: NodeId, reason: str) -> Revoked:
        """Revoke a node, and have all others hear of it.  Raises UserError, StateError."""
        revoker = Revoker(self._state, self._member)
        done = revoker.revoke(self.book, node, reason=reason, now_unix=self._clock.now_unix())
        self.publish(done.signed)
        return done

    def against(self, chain: Chain) -> bytes | None:
        """Return an encoded list by which the node of a chain is denied, for the node itself to read."""
        lists = self.book.lists_against(chain.credential.node_id, chain.credential.issuer)
        return lists[0].encode() if lists else None

    def warnings(self) -> list[str]:
        """Return what a person should know if this node itself is revoked."""
        return revoked_words(self.book, self._member)
