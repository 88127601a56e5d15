"""Who is at the other end of the TLS connection: as builds before `conflux-2` have it, and what both forms share.

Sans-IO: bodies of frames in, bodies of frames out.  How two later builds meet is in meeting.py.

    dialler                                                             acceptor
      │ ◄─ Greeting: nonce ──────────────────────────────────────────────  │   tells nothing of itself
      │ ── Hello: realm tag, chain, boot, seed, nonce, signature ────────► │   verifies chain and signature, and only
      │ ◄─ Welcome: chain, boot, seed, signature ────────────────────────  │   then tells who it is
      │    or Revoked: the signed list that denies the dialler             │

The dialler proves itself first: a scanner that connects learns nothing.  Both signatures cover the acceptor's
certificate, as each end sees it, and both nonces, so neither fits another connection.  By the seed each end knows which
announcement belongs to the other: mDNS shows a node in this boot under its instance, a hash of node id, boot and seed.
So no node can say that another's announcement is its own, and who only sees the instance learns nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from conflux import record
from conflux.control.drop import Drop
from conflux.crypto.kdf import sha256
from conflux.crypto.sign import SIGNATURE_BYTES, context
from conflux.errors import AuthError, RemoteProtocolError
from conflux.ids import BOOT_ID_BYTES, BootId, IPAddress, NodeId, RealmId
from conflux.realm.broker.subjects import buckets_of
from conflux.realm.credential import Chain
from conflux.realm.member import Member
from conflux.record import Record, nested, octets

NONCE_BYTES = 32
REALM_TAG_BYTES = 8
INSTANCE_BYTES = 8
SEED_BYTES = 8


def realm_tag(realm_id: RealmId) -> bytes:
    """Return the 8 bytes by which members recognise the realm on a LAN; the realm id does not follow from them."""
    return sha256(b"conflux/1/lan-realm\0", realm_id)[:REALM_TAG_BYTES]


def instance_of(node: NodeId, boot: BootId, seed: bytes) -> bytes:
    """Return the 8 bytes under which mDNS announces a node in a boot.  Only who knows the seed can tell whose."""
    return sha256(b"conflux/1/lan-instance\0", node, boot, seed)[:INSTANCE_BYTES]


def join_binding(certificate_digest: bytes, greeting: bytes) -> bytes:
    """Return the 32 bytes that bind the proofs of joining to one connection."""
    return sha256(b"conflux/1/lan-join\0", certificate_digest, sha256(greeting))


@dataclass(frozen=True, slots=True)
class Greeting(Record):
    """The acceptor sends a nonce; a stranger learns nothing else."""

    BYTES_MAX = 64
    SHAPES = (octets(NONCE_BYTES),)

    nonce: bytes


@dataclass(frozen=True, slots=True)
class Hello(Record):
    """The dialler proves its identity."""

    BYTES_MAX = 28 * 1024
    SHAPES = (
        octets(REALM_TAG_BYTES),
        nested(Chain),
        octets(BOOT_ID_BYTES),
        octets(SEED_BYTES),
        octets(NONCE_BYTES),
        octets(SIGNATURE_BYTES),
    )

    realm_tag: bytes
    chain: Chain
    boot: BootId
    seed: bytes
    nonce: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Welcome(Record):
    """The acceptor proves its identity, after the dialler."""

    BYTES_MAX = 28 * 1024
    SHAPES = (nested(Chain), octets(BOOT_ID_BYTES), octets(SEED_BYTES), octets(SIGNATURE_BYTES))

    chain: Chain
    boot: BootId
    seed: bytes
    signature: bytes


class TwinError(RemoteProtocolError):
    """The peer proved to have our own key, and runs as another boot: our card was copied."""

    def __init__(self, boot: BootId) -> None:
        super().__init__(Drop.TWIN, "another board with our key")
        self.boot = boot
        self.welcome = b""  # at the accepting end: what to send before the connection is closed


class Ourselves(NamedTuple):
    """A node's own part of every handshake.

    judge: raises RemoteProtocolError unless a chain makes a member now.  admit: likewise if its node is revoked; asked
    last, when the peer has proved that the chain is its own.  features: what this node says beyond those of its build.
    """

    member: Member
    boot: BootId
    seed: bytes
    judge: Callable[[Chain], None]
    admit: Callable[[Chain], None] = lambda chain: None
    features: tuple[str, ...] = ()

    @property
    def instance(self) -> bytes:
        """The 8 bytes under which mDNS announces this node."""
        return instance_of(self.member.node_id, self.boot, self.seed)

    @property
    def is_revoked(self) -> bool:
        """Whether this node itself is revoked, as far as it knows."""
        try:
            self.admit(self.member.chain)
        except RemoteProtocolError:
            return True
        return False


class Peer(NamedTuple):
    """The node at the other end, after it proved its identity."""

    node: NodeId
    name: str
    boot: BootId
    instance: bytes
    not_after: int  # unix seconds
    session: bytes  # the dialler's nonce: the name of this connection at both ends
    issuer: NodeId  # of its credential
    buckets: frozenset[int] = frozenset()  # of the questions that it answers
    addresses: tuple[IPAddress, ...] = ()  # in the overlay
    features: frozenset[str] = frozenset()  # what its build says that it can do; none: it is an earlier one
    knows: bytes = b""  # the digest of the chain of ours that it keeps; empty: none
    chain: Chain | None = None  # that it proved to be its own


class Acceptor:
    """The accepting end of one connection."""

    def __init__(self, ourselves: Ourselves, certificate_digest: bytes, entropy: Callable[[int], bytes]) -> None:
        self._ourselves = ourselves
        self._certificate_digest = certificate_digest
        self._nonce = entropy(NONCE_BYTES)
        self.greeting = Greeting(self._nonce).encode()

    @property
    def binding(self) -> bytes:
        """The 32 bytes that bind a request to join to this connection."""
        return join_binding(self._certificate_digest, self.greeting)

    def answer_untrusted(self, data: bytes) -> tuple[Peer, bytes]:
        """Return the peer and the Welcome to send.  Raises RemoteProtocolError: then send nothing, and close."""
        us = self._ourselves
        realm_id = us.member.realm_id
        hello = Hello.decode_untrusted(data)
        if hello.realm_tag != realm_tag(realm_id):
            raise RemoteProtocolError(Drop.FOREIGN_REALM)
        signed = _signed(self._certificate_digest, self._nonce, hello.nonce, hello.chain, hello.boot, hello.seed)
        twin: TwinError | None = None
        try:
            peer = _verify(us, "lan-dial", hello, signed, hello.nonce)
        except TwinError as error:
            twin = error  # it proved to have our key: let it know of us too
        signed = _signed(
            self._certificate_digest, self._nonce, hello.nonce, us.member.chain, us.boot, us.seed, sha256(data)
        )
        signature = us.member.keys.signing.sign(context("lan-accept", realm_id), signed)
        welcome = Welcome(us.member.chain, us.boot, us.seed, signature).encode()
        if twin is not None:
            twin.welcome = welcome
            raise twin
        return peer, welcome


class Dialler:
    """The dialling end of one connection."""

    def __init__(self, ourselves: Ourselves, certificate_digest: bytes, entropy: Callable[[int], bytes]) -> None:
        self._ourselves = ourselves
        self._certificate_digest = certificate_digest
        self._nonce = entropy(NONCE_BYTES)
        self._acceptor_nonce = b""
        self._hello = b""

    def hello_untrusted(self, data: bytes) -> bytes:
        """Return the Hello to send in answer to a Greeting."""
        us = self._ourselves
        self._acceptor_nonce = Greeting.decode_untrusted(data).nonce
        chain = us.member.chain
        signed = _signed(self._certificate_digest, self._acceptor_nonce, self._nonce, chain, us.boot, us.seed)
        signature = us.member.keys.signing.sign(context("lan-dial", us.member.realm_id), signed)
        tag = realm_tag(us.member.realm_id)
        self._hello = Hello(tag, chain, us.boot, us.seed, self._nonce, signature).encode()
        return self._hello

    def finish_untrusted(self, data: bytes) -> Peer:
        """Return the peer.  Raises RemoteProtocolError if it did not prove its identity."""
        welcome = Welcome.decode_untrusted(data)
        signed = _signed(
            self._certificate_digest,
            self._acceptor_nonce,
            self._nonce,
            welcome.chain,
            welcome.boot,
            welcome.seed,
            sha256(self._hello),
        )
        return _verify(self._ourselves, "lan-accept", welcome, signed, self._nonce)


def _signed(
    certificate_digest: bytes,
    acceptor_nonce: bytes,
    dialler_nonce: bytes,
    chain: Chain,
    boot: BootId,
    seed: bytes,
    hello_digest: bytes = b"",
) -> bytes:
    """Return the bytes that one end signs."""
    digest = sha256(chain.encode())
    return record.encode([certificate_digest, acceptor_nonce, dialler_nonce, digest, boot, seed, hello_digest])


def _verify(us: Ourselves, purpose: str, said: Hello | Welcome, signed: bytes, session: bytes) -> Peer:
    us.judge(said.chain)
    try:
        said.chain.credential.verify_key().verify(context(purpose, us.member.realm_id), signed, said.signature)
    except AuthError:
        raise RemoteProtocolError(Drop.BAD_SIGNATURE, purpose) from None
    return peer_of(us, said.chain, said.boot, said.seed, session)


def peer_of(us: Ourselves, chain: Chain, boot: BootId, seed: bytes, session: bytes) -> Peer:
    """Return the node that proved that a chain is its own.

    Raises RemoteProtocolError if that is this node itself, or one that is revoked; TwinError if it has our key.
    """
    credential = chain.credential
    node = credential.node_id
    if node == us.member.node_id and boot == us.boot:
        raise RemoteProtocolError(Drop.SELF, "our own node id")
    us.admit(chain)
    if node == us.member.node_id:
        raise TwinError(boot)
    buckets = frozenset(buckets_of(node, credential.name, credential.addresses, credential.capabilities))
    instance = instance_of(node, boot, seed)
    issuer, addresses = credential.issuer, credential.addresses
    ends = chain.not_after
    return Peer(node, credential.name, boot, instance, ends, session, issuer, buckets, addresses, chain=chain)
