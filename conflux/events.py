"""What happens in a node that a person may want to see: the log and `conflux watch` are made of these."""

from __future__ import annotations

from dataclasses import dataclass

from conflux.ids import NodeId


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened.

    kind: a word of the list below.  took_s: how long it took where that makes sense.

    queue       a packet waits for a destination     who         we asked who owns an address
    card        we got its owner's card              handshake   a stream is agreed
    dial        a link is being opened               link        it is open
    frames      packets flow                         idle        nothing was sent for a while: the stream ends
    closed      a link is closed                     suspect     feedback stopped coming
    failed      an attempt came to nothing           unreachable the destination was given up for now
    rekey       a stream has new keys                restarted   a peer came back as a new process
    moved       a stream goes another way
    receiving   a peer's stream delivers packets     ended       it ended
    found       an asked name has an owner           not-found   or has none
    """

    kind: str
    node: NodeId | None
    name: str  # the node's name, or the address or name that was asked for
    text: str = ""
    took_s: float | None = None
