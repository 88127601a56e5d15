"""The two messages of a resumption, and its key schedule.  No state: resumptions.py has that.

    A                                                                        B
    │  RESUME: X25519 key, ML-KEM key or nothing, box(what A says)           │
    │ ─────────────────────────────────────────────────────────────────────► │   both hold rs, from the last time
    │  RESUMED: X25519 key, ML-KEM ciphertext or nothing, box(what B says)   │
    │ ◄───────────────────────────────────────────────────────────────────── │

    rs ─► early ─► key of A's box
            └─ with the fresh secret ─► hs ─► key of B's box
                                         └─ with both messages ─► master ─► both streams' keys, the next rs

The secret rs is what authenticates: there are no signatures.  Source: docs/reference/protocol.md, "Resumption".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from conflux.carrier.interface import LinkKeys
from conflux.crypto import kdf
from conflux.crypto.box import seal_once, unseal_once
from conflux.crypto.exchange import ML_CIPHERTEXT_BYTES, ML_PUBLIC_BYTES, SECRET_BYTES, X_BYTES
from conflux.crypto.sign import context
from conflux.errors import RemoteProtocolError
from conflux.ids import BootId, NodeId, RealmId, StreamId
from conflux.realm.listbook import DIGEST_BYTES
from conflux.record import Record, nested, octets, sequence, uint
from conflux.stream.handshake import AEADS, VANTAGE_COUNT_MAX, EpochKeys, Vantage, cut, transcript

SECRET_KEPT_BYTES = 32
ID_BYTES = 8
KEYS_BYTES = 104  # of one stream
LINK_KEYS_BYTES = 88
CHAIN_HASH_BYTES = 16
NO_STREAM = StreamId(bytes(16))  # in the place of a stream that B does not send: it sends one to A already
RIDER_BYTES_MAX = 5120  # an OFFER, or the answer to one
_BOX_BYTES_MAX = 10240
_ZERO = bytes(32)


class Ends(NamedTuple):
    """Who asks whom, and in which boot each is.  All of fixed size, so nothing moves from one into another."""

    asker: NodeId
    answerer: NodeId
    asker_boot: BootId
    answerer_boot: BootId


class Rider(NamedTuple):
    """A signal of the link that rides along: its kind and its body.  seq: of the sender's messages; 0 in an answer."""

    kind: int
    body: bytes
    seq: int = 0


@dataclass(frozen=True, slots=True)
class Terms(Record):
    """What each says to the other: of the stream that it sends, of those that it takes, and of the link."""

    BYTES_MAX = _BOX_BYTES_MAX
    SHAPES = (
        octets(16),
        uint(255),
        sequence(uint(255), 8),
        octets(CHAIN_HASH_BYTES),
        octets(DIGEST_BYTES),
        sequence(nested(Vantage), VANTAGE_COUNT_MAX),
        uint(255),
        uint(),
        uint(255),
        octets(0, RIDER_BYTES_MAX),
    )

    stream: bytes  # the one that its sender sends, or NO_STREAM in an answer
    aead: int  # the cipher that its sender's processor opens fastest
    offload_kinds: tuple[int, ...]  # entry kinds beyond plain packets that its sender sends and takes
    chain_hash: bytes  # of the credential chain that its sender acts under
    lists: bytes  # digest of the signed lists that its sender holds
    vantage: tuple[Vantage, ...]  # relays that its sender reaches well
    link_aead: int  # the cipher of a link without a handshake: wanted with an offer, agreed with an answer; 0: none
    rider_seq: int  # 0 in an answer
    rider_kind: int  # 0: no rider
    rider: bytes

    @property
    def riding(self) -> Rider | None:
        """Return the signal that rides along, if any."""
        return Rider(self.rider_kind, self.rider, self.rider_seq) if self.rider_kind else None


@dataclass(frozen=True, slots=True)
class Resume(Record):
    """A asks B."""

    SHAPES = (octets(X_BYTES), octets(0, ML_PUBLIC_BYTES), octets(17, _BOX_BYTES_MAX))

    x_public: bytes
    ml_public: bytes  # empty without ML-KEM
    box: bytes  # Terms

    def head(self) -> bytes:
        """Return what the key of the box is bound to."""
        return _head(self.x_public, self.ml_public)


@dataclass(frozen=True, slots=True)
class Resumed(Record):
    """B answers A."""

    SHAPES = (octets(X_BYTES), octets(0, ML_CIPHERTEXT_BYTES), octets(17, _BOX_BYTES_MAX))

    x_public: bytes
    ml_ciphertext: bytes  # empty without ML-KEM
    box: bytes  # Terms

    def head(self) -> bytes:
        """Return what the key of the box is bound to."""
        return _head(self.x_public, self.ml_ciphertext)


def _head(x_public: bytes, ml: bytes) -> bytes:
    return kdf.sha256(x_public, ml)  # the first part has one size


# ── the key schedule ─────────────────────────────────────────────────────────────────────────────────────────────────


class Schedule:
    """The keys of one realm's resumptions.  Whoever calls erases what it keeps."""

    def __init__(self, realm: RealmId) -> None:
        self._realm = realm

    def _expand(self, key: bytes | bytearray, label: str, data: bytes = b"", size: int = 32) -> bytes:
        return kdf.expand(key, info=context(label, self._realm) + data, size=size)

    def first(self, secret: bytes, open_: bytes, accept: bytes) -> bytearray:
        """Return the secret that a handshake with signatures leaves behind."""
        return bytearray(self._expand(kdf.extract(transcript(open_, accept), secret), "resume-first"))

    def ask_id(self, rs: bytearray, asker: NodeId, answerer: NodeId) -> bytes:
        """Return the 8 bytes by which the answerer knows which secret a RESUME is for."""
        return self._expand(rs, "resume-id", asker + answerer, ID_BYTES)

    def back_id(self, rs: bytearray, asker: NodeId, answerer: NodeId) -> bytes:
        """Return the 8 bytes by which the asker knows a RESUMED: others, so that nobody between pairs the two."""
        return self._expand(rs, "resume-back-id", asker + answerer, ID_BYTES)

    def early(self, rs: bytearray, ends: Ends) -> bytearray:
        """Return what both know before anything is sent, for this direction and these boots alone."""
        return bytearray(kdf.extract(_ZERO, bytes(rs) + b"".join(ends)))

    def seal_ahead(self, early: bytearray, head: bytes, ahead: Terms) -> bytes:
        """Return A's box.  head: of a RESUME whose X25519 key is fresh, so its key seals this alone."""
        return seal_once(self._expand(early, "resume-ahead", head), ahead.encode())

    def unseal_ahead(self, early: bytearray, resume: Resume) -> Terms:
        """Return what A says.  Raises RemoteProtocolError, AuthError for a box that does not open."""
        key = self._expand(early, "resume-ahead", resume.head())
        return Terms.decode_untrusted(unseal_once(key, resume.box))

    def handshake(self, early: bytearray, secret: bytes) -> bytearray:
        """Return hs.  secret: the 64 bytes of the fresh exchange."""
        if len(secret) != SECRET_BYTES:
            raise ValueError(f"a fresh secret of {len(secret)} bytes")
        return bytearray(kdf.extract(self._expand(early, "resume-derived"), secret))

    def seal_back(self, hs: bytearray, asked: bytes, head: bytes, back: Terms) -> bytes:
        """Return B's box.  asked: SHA-256 of the RESUME."""
        return seal_once(self._expand(hs, "resume-back", asked + head), back.encode())

    def unseal_back(self, hs: bytearray, asked: bytes, resumed: Resumed) -> Terms:
        """Return what B says.  Raises RemoteProtocolError, AuthError for a box that does not open."""
        key = self._expand(hs, "resume-back", asked + resumed.head())
        return Terms.decode_untrusted(unseal_once(key, resumed.box))

    def master(self, hs: bytearray, resume: bytes, resumed: bytes) -> bytearray:
        """Return the secret of the whole exchange, of both messages as they were sent."""
        return bytearray(kdf.extract(self._expand(hs, "resume-derived"), transcript(resume, resumed)))

    def stream_keys(self, master: bytearray, *, of_asker: bool, aead: int) -> EpochKeys:
        """Return epoch 0's keys of one of the two streams."""
        okm = self._expand(master, "resume-stream", b"\0" if of_asker else b"\1", KEYS_BYTES)
        return cut(okm, epoch=0, aead=aead)

    def link_keys(self, master: bytearray, *, of_asker: bool, aead: int) -> LinkKeys:
        """Return the keys of the link whose offer and answer went along, for one of the two ends."""
        okm = self._expand(master, "resume-link", b"", LINK_KEYS_BYTES)
        keys, ivs = (okm[:32], okm[32:64]), (okm[64:76], okm[76:])
        out, in_ = (0, 1) if of_asker else (1, 0)
        return LinkKeys(aead, keys[out], keys[in_], ivs[out], ivs[in_])

    def next(self, master: bytearray) -> bytearray:
        """Return the secret for the next time."""
        return bytearray(self._expand(master, "resume-next"))


def check_terms(terms: Terms) -> None:
    """Raise RemoteProtocolError for a cipher that is not known here."""
    if terms.aead not in AEADS:
        raise RemoteProtocolError("parameters", "a cipher that is not known here")
