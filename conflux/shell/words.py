"""Why something came to nothing, in words for a person.

The machines know kinds (StrEnum); over the daemon's socket they are the same words as text.  So this imports nothing,
and a test asks it for the words of every kind there is.
"""

from __future__ import annotations

from collections.abc import Mapping

GIVEN_UP = "given up: "  # before why a destination was

# By the step that failed, and the kind of its end.  {who}: the node that said so, or that did not answer.
_PHRASES: Mapping[str, Mapping[str, str]] = {
    "dial": {
        "backing-off": "{who} was dialled a moment ago",
        "timeout": "no link to {who} comes up, so UDP may not pass between the two",
        "refused": "{who} refuses the link",
        "no-answer": "{who} does not answer",
        "revoked": "{who} is a member no more",
        "failed": "no link to {who} can be opened",
    },
    "handshake": {
        "refused": "{who} does not take the stream",
        "bad-answer": "{who} answers something else",
        "no-answer": "{who} does not answer",
        "restarted": "{who} restarted",
        "lifetime": "the stream's day was over",
        "rekey": "{who} did not agree on new keys",
        "resume-conflict": "somebody else used a secret of {who}",
        "revoked": "{who} is a member no more",
        "signed-anew": "{who} opened a new one with signatures",
    },
    "route": {
        "timeout": "no answer of {who} came back",
        "link-down": "the link to {who} is gone",
        "link-closed": "{who} closed the link",
        "tether-down": "{who} closed the route's channels",
        "peer": "{who} ended the route",
        "refused": "{who} refuses the route",
    },
    "hop": {
        "auth": "{who} cannot open what is meant for it",
        "busy": "{who} carries all it can",
        "link-closed": "the next hop of {who} closed the link",
        "link-down": "{who} lost the link to the next hop",
        "loop": "{who} is on it twice",
        "malformed": "{who} does not understand the set-up",
        "no-relay": "{who} does not relay",
        "replay": "{who} saw this set-up before",
        "stale-key": "the key of {who} has changed",
        "timeout": "{who} gets no answer from the next hop",
        "unknown-next": "{who} does not know the next hop",
        "unknown-stream": "{who} does not know the stream",
        "unreachable": "{who} cannot reach the next hop",
        "other": "{who} refuses it",
    },
    "path": {
        "no path": "no path is left to try",
        "no-relay": "{who} does not relay",
        "no-key": "the key of {who} is not known here",
        "bad-key": "the card of a node on it has a key that is none",
        "unknown-relay": "no node answers to the id of {who}",
        "revoked": "{who} is a member no more",
    },
    "question": {
        "timeout": "{who} does not answer",
        "no-answer": "no node answers",
        "absent": "no neighbour and no broker leads to it",
        "refused": "no channel takes the question",
        "unknown-peer": "its card is not found",
        "busy": "too many questions are open",
        "revoked": "it is a member no more",
    },
    "link": {
        "asked": "not needed any more",
        "peer": "{who} closed it",
        "peer-lost": "the process of {who} is gone",
        "revoked": "{who} is a member no more",
        "replaced": "{who} dials anew",
        "signed-anew": "{who} opened a stream with signatures, and a secret had opened the link",
        "failed": "it was lost",
    },
    "stream": {
        "done": "{who} sends nothing more",
        "idle": "nothing came on it for long",
        "unused": "nothing ever came on it",
        "replaced": "a newer one took its place",
        "restarted": "{who} restarted",
        "resume-conflict": "somebody else used a secret of {who}",
        "signed-anew": "{who} opened a new one with signatures",
        "expired": "its lifetime, or the credential of {who}, ended",
        "revoked": "{who} is a member no more",
    },
}

# The same with the word beside it, where that says more: of this node's control plane, of its carrier, or of the peer.
_MORE: Mapping[tuple[str, str, str], str] = {
    ("dial", "no-answer", "absent"): "{who} is not there: no neighbour and no broker leads to it",
    ("handshake", "no-answer", "absent"): "{who} is not there: no neighbour and no broker leads to it",
    ("dial", "no-answer", "unknown-peer"): "the card of {who} is not found",
    ("handshake", "no-answer", "unknown-peer"): "the card of {who} is not found",
    ("dial", "refused", "timeout"): "{who} gave the link up, as nothing came through to it",
    ("dial", "refused", "busy"): "{who} is busy with links to others",
    ("dial", "refused", "failed"): "{who} cannot open the link",
    ("dial", "failed", "no-address"): "this board has no address that a link can use",
}


def phrase(step: str, reason: str, said: str, who: str) -> str:
    """Return why a step failed, as "shed does not relay (no-relay)"; a peer's unknown words are quoted.

    step, reason: the kinds, as text.  who: the node that is meant, as a person calls it.
    """
    known = _MORE.get((step, reason, said))
    text = (known or _PHRASES.get(step, {}).get(reason, "it failed")).format(who=who)
    if said and known is None and said != reason and reason in ("refused", "other"):
        text += f', saying "{said}"'
    return f"{text} ({short(step, reason, said)})"


def short(step: str, reason: str, said: str) -> str:
    """Return the word for it in status-and-drops.md, after the step: "dial: refused: busy", "no-relay"."""
    stepped = f"{step}: " if step in ("dial", "handshake") else ""
    refused = "refused: " if stepped and reason == "refused" and said else ""
    return stepped + refused + (said or reason)


def way(hops: list[str] | tuple[str, ...]) -> str:
    """Return a path of named hops, the destination last: "by shed, barn" or "direct"."""
    return "by " + ", ".join(hops[:-1]) if len(hops) > 1 else "direct"


_NAMED = ("queue", "who")  # events whose text says of whom


def line(event: str, name: str, text: str) -> str:
    """Return an event as a person reads it, without its kind and its duration."""
    return text if event in _NAMED else " ".join(filter(None, (name, text)))
