"""What the daemon of this board says and reaches, before and after an update."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from conflux.api.client import ApiClient, HangsError, NotRunning
from conflux.api.ready import lacks
from conflux.board.trial import NAME_CHARS_MAX, PEERS_MAX, Peer
from conflux.errors import UserError

PING_S = 5.0  # a link is set up in less than a second; a question for a card takes up to five before that


class Daemon(NamedTuple):
    """runs: it answers.  lacks: what keeps its packets from passing, or "".  peers: whom it seems to reach."""

    runs: bool
    lacks: str
    peers: tuple[Peer, ...]


def look(client: ApiClient) -> Daemon:
    """Return what the daemon says."""
    try:
        got = client.look("status")
    except (NotRunning, HangsError) as error:
        return Daemon(False, str(error), ())
    except UserError as error:  # it waits for a realm, as a rule
        return Daemon(True, str(error), ())
    if not isinstance(got, dict):
        return Daemon(False, "its answer makes no sense", ())
    try:
        return Daemon(True, lacks(got), candidates(got["nodes"]))
    except (KeyError, TypeError):
        return Daemon(False, "its answer makes no sense", ())


def candidates(rows: Iterable[Mapping[str, Any]]) -> tuple[Peer, ...]:
    """Return whom it is worth to ask for an answer: who is reached now, the one heard last first."""
    reached = [row for row in rows if row["reach"] is not None]
    reached.sort(key=lambda row: row["heard_at"] or 0.0, reverse=True)
    return tuple(Peer(str(row["node"]), str(row["name"])[:NAME_CHARS_MAX]) for row in reached[:PEERS_MAX])


def answering(client: ApiClient, peers: Iterable[Peer]) -> tuple[Peer, ...]:
    """Return which of the peers answer through the overlay now; each is asked once, all at the same time."""
    asked = tuple(peers)
    if not asked:
        return ()
    with ThreadPoolExecutor(len(asked)) as pool:
        answers = list(pool.map(lambda peer: _answers(client, peer), asked))
    return tuple(peer for peer, answered in zip(asked, answers, strict=True) if answered)


def _answers(client: ApiClient, peer: Peer) -> bool:
    try:
        items = list(client.stream("ping", name=peer.node, count=1, timeout=PING_S))
    except UserError:
        return False
    return any(isinstance(item, dict) and item.get("rtt_ms") is not None for item in items)
