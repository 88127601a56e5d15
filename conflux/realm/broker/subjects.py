"""The subjects of the broker: their one home.

    cx.p.<area>.<from>          presence, for a whole area;  cx.p._.<from>: for all areas
    cx.w.<bucket>.<from>        a question, for the nodes whose name, id or address is in the bucket
    cx.w.r<bucket>.<from>       the same question again, for the other connection of those nodes
    cx.u.<to>.<from>.<kind>     a message for one node; the kind says to which of its two connections
    cx.join.<invite>            requests to join;  cx.joined.<invite>: their answers
    cx.auth.<what>              signed lists, from issuers to all

<to> and <from> are NATS user keys of 56 characters: a user JWT confines its node to its own (see jwt.py).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import NamedTuple

from conflux.crypto import nkey
from conflux.crypto.kdf import sha256
from conflux.errors import LocalProtocolError, RemoteProtocolError
from conflux.ids import IPAddress, NodeId
from conflux.realm.credential import RELAY
from conflux.realm.reason import Reason

BUCKET_BITS = 12
BUCKET_COUNT = 1 << BUCKET_BITS
AREA_CHARS_MAX = 32
SUBJECT_CHARS_MAX = 160  # the longest of ours has 121
ENVELOPE = "e"  # the kind of a message, whatever is in it: the broker learns nothing from it
AGAIN = "r"  # that of a copy of a message which had no answer
PUBLIC_RELAY = "public"  # on a card: every node can dial this one, so it may be a relay for any two
NO_RESPONDERS = "nr"  # the kind of the subject on which the server says that nobody listens
NO_RESPONDERS_AGAIN = "nrr"  # likewise, of a copy

EVERY_AREA = "_"  # in the place of an area; no area has that name
ANY_PRESENCE = "cx.p.*.*"
ANY_QUESTION = "cx.w.*.*"
JOIN = "cx.join."
ANY_JOIN = "cx.join.*"
ANY_JOINED = "cx.joined.*"
ANY_AUTH = "cx.auth.>"
EVERYTHING = "cx.>"  # for the link of a site's own server

_AREA = re.compile(rf"[a-z0-9](?:[a-z0-9-]{{0,{AREA_CHARS_MAX - 2}}}[a-z0-9])?")
_WORD = re.compile(r"[a-z0-9-]{1,32}")


class Presence(NamedTuple):
    """A subject of presence."""

    area: str  # or EVERY_AREA
    sender: bytes  # 32 bytes of Ed25519 key, as every sender and receiver here


class Question(NamedTuple):
    """A subject of a question to a bucket."""

    bucket: int
    sender: bytes
    again: bool = False


class Message(NamedTuple):
    """A subject of a message for one node."""

    receiver: bytes
    sender: bytes
    kind: str


class Join(NamedTuple):
    """A subject of a request to join, or of its answer."""

    invite_id: bytes
    is_answer: bool


class Auth(NamedTuple):
    """A subject of signed lists."""

    what: str


Subject = Presence | Question | Message | Join | Auth


def is_area(text: str) -> bool:
    """Say whether a word names an area: 1 to 32 of a-z, 0-9 and hyphens inside."""
    return _AREA.fullmatch(text) is not None


def bucket_of(target: bytes) -> int:
    """Return the bucket, 0 to 4095, of what is asked for: a node id, a packed address, a name or feature in UTF-8."""
    return int.from_bytes(sha256(b"conflux/1/bucket", target)[:2], "big") >> (16 - BUCKET_BITS)


def buckets_of(
    node: NodeId, name: str, addresses: Iterable[IPAddress], capabilities: Collection[str] = ()
) -> tuple[int, ...]:
    """Return the buckets in which a node is asked for, sorted, each once.

    A node that may relay is also where public relays are asked for, whether it is one at present or not.
    """
    targets = [node, name.encode(), *(address.packed for address in addresses)]
    if RELAY in capabilities:
        targets.append(PUBLIC_RELAY.encode())
    return tuple(sorted({bucket_of(target) for target in targets}))


def presence(area: str, sender: bytes) -> str:
    """Return the subject on which a node of 32 bytes of key says something to an area, or to EVERY_AREA."""
    return f"cx.p.{_area(area)}.{_key(sender)}"


def presences(area: str) -> str:
    """Return the subject to listen to for what is said to an area, or to EVERY_AREA."""
    return f"cx.p.{_area(area)}.*"


def question(bucket: int, sender: bytes, *, again: bool = False) -> str:
    """Return the subject on which a node asks a bucket.  again: its first question had no answer."""
    return f"cx.w.{_bucket(bucket, again)}.{_key(sender)}"


def questions(bucket: int, *, again: bool = False) -> str:
    """Return the subject to listen to for the questions to a bucket."""
    return f"cx.w.{_bucket(bucket, again)}.*"


def message(receiver: bytes, sender: bytes, *, again: bool = False) -> str:
    """Return the subject on which one node sends to another.  again: an earlier copy had no answer."""
    return f"cx.u.{_key(receiver)}.{_key(sender)}.{AGAIN if again else ENVELOPE}"


def messages(receiver: bytes) -> str:
    """Return the subjects of everything that is for a node."""
    return f"cx.u.{_key(receiver)}.>"


def messages_of(receiver: bytes, kind: str) -> str:
    """Return the subject to listen to for one kind of what is for a node."""
    return f"cx.u.{_key(receiver)}.*.{kind}"


def no_responders(me: bytes, receiver: bytes, *, again: bool = False) -> str:
    """Return the reply subject of a message, on which the server answers if the receiver does not listen."""
    return f"cx.u.{_key(me)}.{_key(receiver)}.{NO_RESPONDERS_AGAIN if again else NO_RESPONDERS}"


def join(invite_id: bytes) -> str:
    """Return the subject of requests to join by an invitation."""
    return f"cx.join.{invite_id.hex()}"


def joined(invite_id: bytes) -> str:
    """Return the subject of the answers to those requests."""
    return f"cx.joined.{invite_id.hex()}"


def auth(what: str) -> str:
    """Return the subject of signed lists of one sort."""
    if not _WORD.fullmatch(what):
        raise LocalProtocolError(f"{what!r} is no word of a subject")
    return f"cx.auth.{what}"


def parse_untrusted(subject: str) -> Subject:
    """Return what a subject says.  Raises RemoteProtocolError(Reason.MALFORMED) for any that is not one of ours."""
    if len(subject) > SUBJECT_CHARS_MAX:
        raise _refuse(subject[:32])
    match subject.split("."):
        case ["cx", "p", area, sender] if is_area(area) or area == EVERY_AREA:
            return Presence(area, _user(sender))
        case ["cx", "w", word, sender] if _is_bucket(bucket := word.removeprefix(AGAIN)):
            return Question(int(bucket), _user(sender), bucket != word)
        case ["cx", "u", receiver, sender, (("e" | "r" | "nr" | "nrr") as kind)]:
            return Message(_user(receiver), _user(sender), kind)
        case ["cx", ("join" | "joined") as which, invite] if re.fullmatch(r"(?:[0-9a-f]{2}){1,32}", invite):
            return Join(bytes.fromhex(invite), which == "joined")
        case ["cx", "auth", what] if _WORD.fullmatch(what):
            return Auth(what)
    raise _refuse(subject)


def _is_bucket(text: str) -> bool:
    if not (text.isascii() and text.isdecimal() and len(text) <= 4):
        return False
    return int(text) < BUCKET_COUNT and str(int(text)) == text


def _refuse(subject: str) -> RemoteProtocolError:
    return RemoteProtocolError(Reason.MALFORMED, f"subject {subject[:64]!r}")


def _user(word: str) -> bytes:
    return nkey.decode_untrusted(nkey.Kind.USER, word)


def _key(public: bytes) -> str:
    return nkey.encode(nkey.Kind.USER, public)


def _area(area: str) -> str:
    if not is_area(area) and area != EVERY_AREA:
        raise LocalProtocolError(f"{area!r} is no area")
    return area


def _bucket(bucket: int, again: bool) -> str:
    if not 0 <= bucket < BUCKET_COUNT:
        raise LocalProtocolError(f"bucket {bucket}, not 0 to {BUCKET_COUNT - 1}")
    return f"{AGAIN if again else ''}{bucket}"
