"""The policies as files, one each, named so that the newest sorts last.

The daemon writes what it learns; `conflux policy publish` writes beside it, and has it look then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from conflux.errors import RemoteProtocolError, StateError
from conflux.realm.listbook import ListBook
from conflux.realm.policy import PIECE_BYTES, PIECE_COUNT_MAX, PolicyHead, Rank, SignedPolicy
from conflux.realm.policybook import PolicyBook
from conflux.record import Record, nested, octets, sequence
from conflux.state.directory import StateDir

log = logging.getLogger(__name__)

POLICIES, POLICY_SUFFIX = "policies", ".policy"


@dataclass(frozen=True, slots=True)
class _Kept(Record):
    """A policy as a file has it."""

    BYTES_MAX = 300 * 1024
    SHAPES = (nested(PolicyHead), sequence(octets(1, PIECE_BYTES), PIECE_COUNT_MAX))

    head: PolicyHead
    pieces: tuple[bytes, ...]


class PolicyFiles:
    """The policies of a node, in its state directory."""

    def __init__(self, state: StateDir) -> None:
        self._state = state

    def all(self) -> list[SignedPolicy]:
        """Return every policy that is kept; a damaged file is left out, as other nodes have the policy too."""
        found = []
        for name in self._state.versions(POLICIES, POLICY_SUFFIX):
            try:
                data = self._state.read(name, bytes_max=_Kept.BYTES_MAX)
                if data is not None:
                    kept = _Kept.decode_untrusted(data)
                    found.append(SignedPolicy.join_untrusted(kept.head, kept.pieces))
            except RemoteProtocolError as error:
                log.error("%s: damaged (%s); other nodes have the policy too", self._state.path / name, error)
            except StateError as error:
                log.error("%s", error)
        return found

    def save(self, policy: SignedPolicy) -> None:
        """Keep a policy.  Raises StateError."""
        self._state.atomic_write(_name(policy.head.rank), _Kept(policy.head, policy.pieces).encode())

    def keep(self, policy: SignedPolicy) -> None:
        """Keep a policy that a peer sent: on a full disk it holds all the same, until the next start."""
        try:
            self.save(policy)
        except StateError as error:
            log.error("the policy is not kept over a restart: %s", error)

    def forget(self, rank: Rank) -> None:
        """Drop a policy.  No-op if there is none."""
        try:
            self._state.remove(_name(rank))
        except StateError as error:
            log.error("an old policy stays on the disk: %s", error)


def _name(rank: Rank) -> str:
    return f"{POLICIES}/{rank.number:013d}-{rank.digest[:8].hex()}{POLICY_SUFFIX}"


def load_policies(
    files: PolicyFiles,
    lists: ListBook,
    clock: Callable[[], int],
    *,
    observe: Callable[[int], None] = lambda date_unix: None,
) -> PolicyBook:
    """Return the book of the policies that are kept, which keeps what it learns.  clock: unix seconds."""
    book = PolicyBook(lists, clock, observe=observe, save=files.keep, forget=files.forget)
    book.load(files.all())
    return book
