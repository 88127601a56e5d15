"""What an issuer did, when and to whom: a record to which lines are added and from which none is taken.

    line    base64( Entry ) newline
    Entry   number | at | what | node | name | detail | SHA-256 of the line before | Ed25519 signature of the issuer

Each entry has the hash of the line before it, so none can be changed, left out or put between.  The signature is the
Ed25519 half of the issuer's key alone: it tells a copy of the record from a forged one.  Who holds the issuer's key can
write another record, and who holds the disk can drop its end: note the last hash elsewhere if that matters.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

from conflux import record
from conflux.crypto.kdf import sha256
from conflux.crypto.sign import ED25519_SIGNATURE_BYTES, SigningKey, VerifyKey, context
from conflux.errors import AuthError, RemoteProtocolError
from conflux.ids import NODE_ID_BYTES, RealmId
from conflux.realm.credential import UNIX_S_MAX
from conflux.realm.reason import Reason
from conflux.record import Record, octets, text, uint

HASH_BYTES = 32
NAME_CHARS_MAX, DETAIL_CHARS_MAX = 63, 200
LINE_BYTES_MAX = 2048  # an entry has at most 1.2 kB, in base64 a third more
START = bytes(HASH_BYTES)  # in the place of the hash, in the first entry of all


class Act(StrEnum):
    """What was done."""

    INVITED = "invited"
    WITHDREW = "withdrew"  # an invitation
    ADMITTED = "admitted"
    RENEWED = "renewed"
    CHANGED = "changed"  # tags or capabilities
    RENAMED = "renamed"
    GRANTED = "granted"  # it may issue
    ASKED = "asked"  # it waits for a person's approval
    APPROVED = "approved"  # a person let it join
    REFUSED = "refused"
    LEFT = "left"
    REPLACED = "replaced"
    REVOKED = "revoked"
    REPAIRED = "repaired"  # this record: its last line was torn


@dataclass(frozen=True, slots=True)
class Entry(Record):
    """One line of the record."""

    BYTES_MAX = 1400
    SHAPES = (
        uint(),
        uint(UNIX_S_MAX),
        text(16),
        octets(0, NODE_ID_BYTES),
        text(NAME_CHARS_MAX),
        text(DETAIL_CHARS_MAX),
        octets(HASH_BYTES),
        octets(ED25519_SIGNATURE_BYTES),
    )

    number: int
    at: int  # unix seconds
    what: str  # a word of Act
    node: bytes  # empty: it is about no node
    name: str
    detail: str
    before: bytes
    signature: bytes

    def signed_bytes(self) -> bytes:
        """Return the bytes under the signature."""
        return record.encode(self._to_item()[:-1])


class Head(NamedTuple):
    """The end of a record.  digest: of its last line; START if there is none."""

    number: int
    digest: bytes


class AuditLog(Protocol):
    """The record of an issuer, where it is kept."""

    def head(self) -> Head:
        """Return its end."""

    def torn_bytes(self) -> int:
        """Return how many bytes of a torn last line were cut off since the last call."""

    def append(self, line: bytes) -> None:
        """Add a line; it is durable before this returns."""


class Broken(Exception):
    """A record does not hold.  number: of the first entry that does not."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(f"entry {number}: {why}")
        self.number = number


def note(
    log: AuditLog,
    key: SigningKey,
    realm_id: RealmId,
    what: Act,
    *,
    at: int,
    node: bytes = b"",
    name: str = "",
    detail: str = "",
) -> None:
    """Add an entry.  at: unix seconds.  detail: of this program, in words; it is cut at 200 characters.

    What a terminal acts on becomes a question mark: an entry with it could not be read, and no other be added.
    """
    detail = "".join(sign if sign.isprintable() else "?" for sign in detail[:DETAIL_CHARS_MAX])
    head = log.head()
    if torn := log.torn_bytes():
        log.append(_line(key, realm_id, head, Act.REPAIRED, at, b"", "", f"{torn} bytes of a torn line were cut off"))
        head = log.head()
    log.append(_line(key, realm_id, head, what, at, node, name, detail))


def _line(
    key: SigningKey, realm_id: RealmId, head: Head, what: Act, at: int, node: bytes, name: str, detail: str
) -> bytes:
    unsigned = Entry(head.number + 1, at, str(what), node, name, detail, head.digest, b"")
    signature = key.sign_ed25519(context("audit", realm_id), unsigned.signed_bytes())
    signed = Entry(head.number + 1, at, str(what), node, name, detail, head.digest, signature)
    return base64.b64encode(signed.encode()) + b"\n"


def digest_of(line: bytes) -> bytes:
    """Return the hash of a line, which the next one has; the newline is not part of it."""
    return sha256(line.rstrip(b"\n"))


def decode_line(line: bytes) -> Entry:
    """Return the entry of a line.  Raises RemoteProtocolError if it is damaged."""
    if len(line) > LINE_BYTES_MAX:
        raise RemoteProtocolError(Reason.MALFORMED, "too long")
    try:
        data = base64.b64decode(line.rstrip(b"\n"), validate=True)
    except (binascii.Error, ValueError):
        raise RemoteProtocolError(Reason.MALFORMED, "not base64") from None
    return Entry.decode_untrusted(data)


def verified(lines: Iterable[bytes], key: VerifyKey, realm_id: RealmId) -> Iterator[Entry]:
    """Yield the entries of a record, each verified.  Raises Broken at the first that does not hold.

    The first line may be any: what was before it is gone by rotation.
    """
    head: Head | None = None
    for line in lines:
        number = 1 if head is None else head.number + 1
        try:
            entry = decode_line(line)
        except RemoteProtocolError as error:
            raise Broken(number, f"damaged ({error})") from None
        if head is None:
            if (entry.number == 1) != (entry.before == START):
                raise Broken(entry.number, "does not begin the record")
        elif entry.number != head.number + 1:
            raise Broken(number, f"missing: entry {entry.number} follows")
        elif entry.before != head.digest:
            raise Broken(entry.number, "the entry before it was changed")
        try:
            key.verify_ed25519(context("audit", realm_id), entry.signed_bytes(), entry.signature)
        except AuthError:
            raise Broken(entry.number, "not signed by this issuer") from None
        head = Head(entry.number, digest_of(line))
        yield entry
