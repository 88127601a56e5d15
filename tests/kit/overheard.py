"""What the servers of a broker see, and what may be in it.

A server with `trace: true` logs every line that it reads from a client, after TLS, and every message with its payload.
Nothing that it could see is missing there but addresses of hosts, which stand before each line, and times.
"""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from conflux.control.envelope import PLAIN_KINDS, Envelope, Inner, Kind
from conflux.control.who import Question
from conflux.errors import RemoteProtocolError
from conflux.ids import IPAddress, NodeId, format_node_id
from conflux.realm.broker import subjects

_READ = re.compile(rb"cid:(\d+) - .*?<<- (?:\[([^\n]*)\]|MSG_PAYLOAD: \[\"(.*)\"\])$")
_ESCAPE = re.compile(rb"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|(.))")
_LETTERS = {b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_TO_ALL = frozenset({Kind.PRESENCE}) | {Kind.LIST, Kind.LISTS_ASK}


class Published(NamedTuple):
    """A message that a client handed to a server."""

    subject: str
    payload: bytes


@dataclass
class Overheard:
    """Everything that clients said.  said: their lines without payloads, CONNECT with what is in its JWT."""

    said: list[str] = field(default_factory=list)
    published: list[Published] = field(default_factory=list)

    @classmethod
    def read(cls, *logs: bytes) -> Overheard:
        """Return what stands in the logs of servers."""
        found = cls()
        for log in logs:
            found._read(log)
        return found

    def _read(self, log: bytes) -> None:
        pending: dict[bytes, str] = {}  # by connection: the PUB that a payload belongs to
        for line in log.split(b"\n")[:-1]:
            match = _READ.search(line)
            if match is None:
                continue
            connection, words, payload = match.groups()
            if payload is None:
                self.said.append(_with_jwt(words.decode()))
                if words.startswith(b"PUB "):
                    pending[connection] = words.decode()
                continue
            subject, *_, size = pending.pop(connection).split()[1:]
            self.published.append(Published(subject, _unquoted(payload)))
            assert len(self.published[-1].payload) == int(size), "the log does not say all of it"


def _with_jwt(words: str) -> str:
    """Return a line; in place of a JWT, what it says."""
    jwt = re.search(r'"jwt": ?"[^".]*\.([^".]*)\.', words)
    return words if jwt is None else words + base64.urlsafe_b64decode(jwt[1] + "==").decode()


def _unquoted(text: bytes) -> bytes:
    """Return the bytes that Go printed with %q."""

    def meant(match: re.Match[bytes]) -> bytes:
        octet, short, long, letter = match.groups()
        if octet is not None:
            return bytes((int(octet, 16),))
        if letter is not None:
            return _LETTERS.get(letter, letter)
        return chr(int(short or long, 16)).encode()

    return _ESCAPE.sub(meant, text)


@dataclass(frozen=True)
class Secrets:
    """What a realm would rather keep to itself."""

    names: tuple[str, ...]
    nodes: tuple[NodeId, ...]
    overlay: tuple[IPAddress, ...]
    underlay: tuple[str, ...]  # addresses of hosts

    def of_people(self) -> Iterator[bytes]:
        """Yield names and overlay addresses, in every form in which they travel."""
        yield from (name.encode() for name in self.names)
        for address in self.overlay:
            yield str(address).encode()
            yield bytes((0x40 + len(address.packed),)) + address.packed  # as CBOR has it

    def of_nodes(self) -> Iterator[bytes]:
        """Yield node ids."""
        for node in self.nodes:
            yield from (node, node.hex().encode(), format_node_id(node).encode())

    def of_hosts(self) -> Iterator[bytes]:
        """Yield the addresses at which hosts are reached."""
        yield from (address.encode() for address in self.underlay)


def check(overheard: Overheard, secrets: Secrets) -> Counter[str]:
    """See that nothing was overheard but what docs/explanation/threat-model.md says; return how often each sort was.

    The sorts are names of kinds, "sealed" and "join".  Raises AssertionError.
    """
    for line in overheard.said:
        _lacks(line.encode(), [*secrets.of_people(), *secrets.of_nodes(), *secrets.of_hosts()], line)
    sorts = Counter[str]()
    for subject, payload in overheard.published:
        _lacks(payload, secrets.of_hosts(), subject)
        sorts[_check_one(subjects.parse_untrusted(subject), payload, secrets)] += 1
    return sorts


def _check_one(subject: subjects.Subject, payload: bytes, secrets: Secrets) -> str:
    if isinstance(subject, subjects.Join):
        _lacks(payload, secrets.of_people(), "a request to join, or its answer")
        return "join"
    envelope = Envelope.decode_untrusted(payload)
    if envelope.key_id is not None:
        assert isinstance(subject, subjects.Message), "what is sealed is for one node"
        return _check_sealed(subject, envelope, secrets)
    kind = Kind(Inner.decode_untrusted(envelope.payload).kind)
    assert kind in PLAIN_KINDS, f"{kind.name} travels plain"
    if isinstance(subject, subjects.Presence):
        assert kind in _TO_ALL, f"{kind.name} goes to all of an area"
        _lacks(payload, secrets.of_people(), kind.name)
    elif isinstance(subject, subjects.Question):
        target = envelope.bucket if envelope.to is None else subjects.bucket_of(envelope.to)
        assert target == subject.bucket
    if kind is Kind.WHO and envelope.to is None:
        asked = Question.decode_untrusted(Inner.decode_untrusted(envelope.payload).body).who
        assert isinstance(subject, subjects.Question), "a question goes to a bucket, and to no other"
        assert asked.bucket == subject.bucket
    return kind.name


def _check_sealed(subject: subjects.Message, envelope: Envelope, secrets: Secrets) -> str:
    assert subject.kind in (subjects.ENVELOPE, subjects.AGAIN), "the subject says of what kind the message is"
    senders = [form for form in secrets.of_nodes() if form != envelope.to]
    _lacks(envelope.payload, [*secrets.of_people(), *senders], "a sealed message")
    try:
        Inner.decode_untrusted(envelope.payload)
    except RemoteProtocolError:
        return "sealed"
    raise AssertionError("a sealed message is readable")


def _lacks(data: bytes, forms: Iterable[bytes], what: str) -> None:
    found = [form for form in forms if form in data]
    assert not found, f"{what} holds {found}"
