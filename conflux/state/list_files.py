"""The signed lists as files, one per kind and signer.

The daemon writes what it learns; the command line writes only while no daemon runs, with the directory locked.
"""

from __future__ import annotations

import logging

from conflux.errors import StateError
from conflux.ids import format_node_id
from conflux.realm.lists import ListKey, SignedList
from conflux.state.directory import StateDir

log = logging.getLogger(__name__)

LISTS, LIST_SUFFIX = "lists", ".list"


class ListFiles:
    """The lists of a node, in its state directory."""

    def __init__(self, state: StateDir) -> None:
        self._state = state

    def all(self) -> list[SignedList]:
        """Return every list that is kept; a damaged file is left out, as other nodes have the list too."""
        found = []
        for name in self._state.versions(LISTS, LIST_SUFFIX):
            try:
                signed = self._state.load_record(name, SignedList)
            except StateError as error:
                log.error("%s", error)
                continue
            if signed is not None:
                found.append(signed)
        return found

    def save(self, signed: SignedList) -> None:
        """Keep a list, in the place of an older state of it.  Raises StateError."""
        self._state.save_record(_name(signed.key), signed)

    def keep(self, signed: SignedList) -> None:
        """Keep a list that a peer sent: it did nothing wrong if the disk is full, and the list holds all the same."""
        try:
            self.save(signed)
        except StateError as error:
            log.error("a signed list is not kept over a restart: %s", error)

    def forget(self, key: ListKey) -> None:
        """Drop a list that is void.  No-op if there is none."""
        try:
            self._state.remove(_name(key))
        except StateError as error:
            log.error("a signed list that is void stays on the disk: %s", error)


def _name(key: ListKey) -> str:
    return f"{LISTS}/{key.kind}-{format_node_id(key.signer)}{LIST_SUFFIX}"
