"""The policy of a running daemon: kept over a restart, and taken from the disk when the command line left one there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from conflux.errors import RemoteProtocolError, StateError, UserError
from conflux.node.policing import Policing
from conflux.realm.clock import RealmClock
from conflux.realm.listbook import ListBook
from conflux.realm.policy import SignedPolicy
from conflux.state.directory import StateDir
from conflux.state.policy_files import PolicyFiles, load_policies

TYPE_CHECKING = False
if TYPE_CHECKING:
    from conflux.policy.rules import Policy

log = logging.getLogger(__name__)


class Governing:
    """book: the policies that are known here; the newest counts before any peer is spoken to.

    publish: has every node hear of a policy; set once there is a node.
    """

    def __init__(self, state: StateDir, lists: ListBook, clock: RealmClock) -> None:
        self._files = PolicyFiles(state)
        self.book = load_policies(self._files, lists, clock.now_unix, observe=clock.observe)
        self.publish: Callable[[SignedPolicy], object] = self.book.learn

    def follow(self, policing: Policing) -> None:
        """Read every policy to come beside the event loop, as a large one takes seconds on a small board."""

        def later(signed: SignedPolicy) -> None:
            log.info("policy %d by %s came", signed.head.number, signed.head.chain.credential.name)
            reading = asyncio.get_running_loop().run_in_executor(None, _read, signed.text)
            reading.add_done_callback(lambda done: self._hold(policing, signed, done.result()))

        policing.later = later

    def _hold(self, policing: Policing, signed: SignedPolicy, policy: Policy | None) -> None:
        if signed.head.rank != self.book.rank:
            return  # another one came meanwhile
        policing.enforce(signed.head.number, policy)
        trouble = policing.enforced.trouble
        if trouble is None:
            log.info("policy %d is in force", signed.head.number)
        else:
            log.error("%s", trouble)

    def look(self) -> None:
        """Publish what `conflux policy publish` left on the disk, if it is newer than what counts here.

        Raises UserError if there is such, and none of it counts.
        """
        news = [each for each in self._files.all() if self.book.is_news(each.head.rank)]
        why = None
        for each in sorted(news, key=lambda each: each.head.rank, reverse=True):
            try:
                self.publish(each)
            except (
                RemoteProtocolError,
                StateError,
            ) as error:  # as one of a node that was revoked, under a later number
                why = f"policy {each.head.number} on the disk does not count: {error}"
                log.error("%s", why)
            else:
                return
        if why is not None:
            raise UserError(why)


def _read(text: bytes) -> Policy | None:
    from conflux.policy.reading import read_untrusted

    return read_untrusted(text).policy
