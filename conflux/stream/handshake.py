"""The stream handshake's messages and its key schedule.

    S                                                            D
    │  OPEN: stream, D's boot, ephemeral X-Wing key, signature   │
    │ ─────────────────────────────────────────────────────────► │  encapsulates
    │  ACCEPT: ciphertext, parameters, vantage, signature        │
    │ ◄───────────────────────────────────────────────────────── │
    secret, SHA-256 of both  ──HKDF──►  data key, feedback key, chain key

Both travel sealed to the receiver's hop key.  Both are signed with Ed25519 and ML-DSA-65.  The KEM key lives for one
handshake: an attacker who takes a node later reads no earlier stream.  Source: docs/reference/protocol.md, "Stream".
"""

from __future__ import annotations

from dataclasses import dataclass

from conflux.anchor.frame import AES_256_GCM, CHACHA20_POLY1305
from conflux.anchor.key import EpochKey
from conflux.crypto import kdf
from conflux.crypto.seal import PUBLIC_BYTES as SEAL_PUBLIC_BYTES
from conflux.crypto.sign import context
from conflux.errors import AuthError, RemoteProtocolError
from conflux.ids import NodeId, RealmId
from conflux.realm.listbook import DIGEST_BYTES
from conflux.realm.signed import SIGNATURE, Signed
from conflux.record import Record, nested, octets, sequence, text, uint

KEM_PUBLIC_BYTES = 1216
KEM_CIPHERTEXT_BYTES = 1120
KEY_BYTES = 32
PREFIX_BYTES = 4
VANTAGE_COUNT_MAX = 3  # chosen: 1.3 kB each, and S needs one that works and one to fall back on
AEADS = (AES_256_GCM, CHACHA20_POLY1305)


@dataclass(frozen=True, slots=True)
class Open(Signed):
    """S asks D to receive a stream."""

    PURPOSE = "stream-open"
    BYTES_MAX = 6144
    SHAPES = (
        octets(16),
        octets(16),
        octets(16),
        octets(8),
        octets(KEM_PUBLIC_BYTES),
        uint(86400),
        octets(32),
        sequence(uint(255), 8),
        octets(DIGEST_BYTES),
        SIGNATURE,
    )

    sender: bytes
    receiver: bytes
    stream: bytes
    receiver_boot: bytes  # from D's card: D refuses an OPEN that was recorded before its last restart
    kem_public: bytes
    lifetime_s: int  # the sender ends the stream after this in any case
    sender_chain_hash: bytes  # SHA-256 of the credential chain S acts under
    offload_kinds: tuple[int, ...]  # entry kinds beyond plain packets that S could send
    lists: bytes  # digest of the signed lists that S holds
    signature: bytes


@dataclass(frozen=True, slots=True)
class Vantage(Record):
    """One relay that D reaches well, so that S may build a path through it.

    Its hop key comes along: S need not ask the relay for its card, which would tell the relay who S is.
    """

    SHAPES = (octets(16), uint(2**32 - 1), octets(8), octets(SEAL_PUBLIC_BYTES))

    node: bytes
    cost_us: int  # round trip, microseconds; 0: not measured
    hop_key_id: bytes
    hop_public: bytes


@dataclass(frozen=True, slots=True)
class Accept(Signed):
    """D accepts the stream."""

    PURPOSE = "stream-accept"
    BYTES_MAX = 10240
    SHAPES = (
        octets(16),
        octets(32),
        octets(KEM_CIPHERTEXT_BYTES),
        uint(255),
        sequence(uint(255), 8),
        uint(3600),
        uint(62),
        sequence(nested(Vantage), VANTAGE_COUNT_MAX),
        octets(DIGEST_BYTES),
        SIGNATURE,
    )

    stream: bytes
    open_hash: bytes  # SHA-256 of the OPEN as it was received
    ciphertext: bytes
    aead: int  # the cipher that D's processor opens fastest
    offload_kinds: tuple[int, ...]  # of those S offered
    epoch_s_max: int
    epoch_bytes_log2_max: int
    vantage: tuple[Vantage, ...]
    lists: bytes  # digest of the signed lists that D holds
    signature: bytes


@dataclass(frozen=True, slots=True)
class Refused(Record):
    """D does not accept the stream.  reason: a slug such as "busy" or "policy"."""

    SHAPES = (octets(16), text(32))

    stream: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class RekeyOffer(Record):
    """Entry REKEY in a data frame: a fresh KEM key for the next epoch."""

    SHAPES = (uint(255), octets(KEM_PUBLIC_BYTES))

    epoch: int
    kem_public: bytes


@dataclass(frozen=True, slots=True)
class RekeyAnswer(Record):
    """Entry REKEY in a feedback frame: the ciphertext for it."""

    SHAPES = (uint(255), octets(KEM_CIPHERTEXT_BYTES))

    epoch: int
    ciphertext: bytes


@dataclass(slots=True)
class EpochKeys:
    """The keys from one secret: one for each direction, and the chain key from which the next epoch's are derived."""

    data: EpochKey
    feedback: EpochKey
    chain: bytearray

    def erase(self) -> None:
        """Overwrite the chain key.  The datapath erases the other two with their entries."""
        self.chain[:] = bytes(len(self.chain))


def derive(secret: bytes, *, salt: bytes, info: bytes, epoch: int, aead: int) -> EpochKeys:
    """Return the keys of one epoch by HKDF-SHA-256."""
    return cut(kdf.hkdf(secret, salt=salt, info=info, size=3 * KEY_BYTES + 2 * PREFIX_BYTES), epoch=epoch, aead=aead)


def cut(okm: bytes, *, epoch: int, aead: int) -> EpochKeys:
    """Return 104 bytes of key material as data key, prefix, feedback key, prefix, chain key."""
    data, okm = okm[:KEY_BYTES], okm[KEY_BYTES:]
    data_prefix, okm = okm[:PREFIX_BYTES], okm[PREFIX_BYTES:]
    feedback, okm = okm[:KEY_BYTES], okm[KEY_BYTES:]
    feedback_prefix, chain = okm[:PREFIX_BYTES], okm[PREFIX_BYTES:]
    return EpochKeys(
        EpochKey(epoch, aead, data, data_prefix),
        EpochKey(epoch, aead, feedback, feedback_prefix),
        bytearray(chain),
    )


def first_keys(secret: bytes, open_: bytes, accept: bytes, realm: RealmId, aead: int) -> EpochKeys:
    """Return epoch 0's keys from the handshake's secret and transcript."""
    info = context("stream-keys", realm)
    return derive(secret, salt=transcript(open_, accept), info=info, epoch=0, aead=aead)


def next_keys(previous: EpochKeys, secret: bytes, offer: bytes, answer: bytes, realm: RealmId) -> EpochKeys:
    """Return the next epoch's keys from the previous chain key, the fresh secret and the rekey's transcript."""
    info = context("stream-rekey", realm) + transcript(offer, answer)
    epoch = (previous.data.epoch + 1) % 256
    return derive(secret, salt=bytes(previous.chain), info=info, epoch=epoch, aead=previous.data.aead)


def transcript(first: bytes, second: bytes) -> bytes:
    """Return a hash of two messages in which no byte can move from one into the other."""
    return kdf.sha256(kdf.sha256(first), kdf.sha256(second))


def check_open(open_: Open, *, sender: NodeId, me: NodeId) -> None:
    """Raise RemoteProtocolError unless the OPEN names its sender and this node.

    It need not name the credential that this node holds of the sender: one of them may have been renewed since.
    """
    if open_.sender != sender or open_.receiver != me:
        raise RemoteProtocolError("misaddressed", "the open names other ends")


def check_accept(accept: Accept, open_: bytes, offered: tuple[int, ...]) -> None:
    """Raise RemoteProtocolError unless the ACCEPT answers exactly this OPEN with something it offered."""
    if not kdf.equal(accept.open_hash, kdf.sha256(open_)):
        raise AuthError("the accept answers another open")
    if accept.aead not in AEADS or not set(accept.offload_kinds) <= set(offered):
        raise RemoteProtocolError("parameters", "the accept chooses what was not offered")
