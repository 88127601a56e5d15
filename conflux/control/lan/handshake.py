"""Who is at the other end of the TLS connection.  Sans-IO: frames' bodies in, frames' bodies out.

    dialler                                                             acceptor
      │ ◄─ Greeting: nonce ──────────────────────────────────────────────  │   says nothing of itself
      │ ── Hello: realm tag, chain, boot, instance, nonce, signature ────► │   verifies chain and signature, and only
      │ ◄─ Welcome: chain, boot, instance, signature ────────────────────  │   then tells who it is

The dialler proves itself first: a scanner that connects learns nothing.  Both signatures cover the acceptor's
certificate, as each side sees it, and both nonces, so neither fits another connection.  instance is the random name
under which a node is announced by mDNS in this boot; with it, both know which announcement the other is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from conflux import wire
from conflux.crypto.kdf import sha256
from conflux.crypto.sign import SIGNATURE_BYTES, context
from conflux.errors import AuthError, RemoteProtocolError
from conflux.ids import BOOT_ID_BYTES, BootId, NodeId, RealmId
from conflux.realm.credential import Chain
from conflux.realm.member import Member
from conflux.wire import Record, nested, octets

NONCE_BYTES = 32
REALM_TAG_BYTES = 8
INSTANCE_BYTES = 8


def realm_tag(realm_id: RealmId) -> bytes:
    """Return the 8 bytes by which members recognise the realm on a LAN; from them nobody learns the realm id."""
    return sha256(b"conflux/1/lan-realm\0", realm_id)[:REALM_TAG_BYTES]


def join_binding(certificate_digest: bytes, greeting: bytes) -> bytes:
    """Return the 32 bytes that name one connection, for the proofs of joining."""
    return sha256(b"conflux/1/lan-join\0", certificate_digest, sha256(greeting))


@dataclass(frozen=True, slots=True)
class Greeting(Record):
    """The acceptor's first and only words to a stranger."""

    BYTES_MAX = 64
    SHAPES = (octets(NONCE_BYTES),)

    nonce: bytes


@dataclass(frozen=True, slots=True)
class Hello(Record):
    """The dialler proves itself."""

    BYTES_MAX = 28 * 1024
    SHAPES = (
        octets(REALM_TAG_BYTES),
        nested(Chain),
        octets(BOOT_ID_BYTES),
        octets(INSTANCE_BYTES),
        octets(NONCE_BYTES),
        octets(SIGNATURE_BYTES),
    )

    realm_tag: bytes
    chain: Chain
    boot: BootId
    instance: bytes
    nonce: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Welcome(Record):
    """The acceptor proves itself in turn."""

    BYTES_MAX = 28 * 1024
    SHAPES = (nested(Chain), octets(BOOT_ID_BYTES), octets(INSTANCE_BYTES), octets(SIGNATURE_BYTES))

    chain: Chain
    boot: BootId
    instance: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Ourselves:
    """What a node brings to every handshake.  judge: raises RemoteProtocolError unless a chain makes a member now."""

    member: Member
    boot: BootId
    instance: bytes
    judge: Callable[[Chain], None]


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end, proven."""

    node: NodeId
    name: str
    boot: BootId
    instance: bytes
    not_after: int  # unix seconds
    session: bytes  # the dialler's nonce: names this connection, to both sides alike


class Acceptor:
    """The listening side of one connection."""

    def __init__(self, ourselves: Ourselves, certificate_digest: bytes, entropy: Callable[[int], bytes]) -> None:
        self._ourselves = ourselves
        self._certificate_digest = certificate_digest
        self._nonce = entropy(NONCE_BYTES)
        self.greeting = Greeting(self._nonce).encode()

    @property
    def binding(self) -> bytes:
        """32 bytes for joining over this connection."""
        return join_binding(self._certificate_digest, self.greeting)

    def answer_untrusted(self, data: bytes) -> tuple[Peer, bytes]:
        """Return who dialled and the Welcome to send.  Raises RemoteProtocolError: then send nothing, and close."""
        us = self._ourselves
        realm_id = us.member.realm_id
        hello = Hello.decode_untrusted(data)
        if hello.realm_tag != realm_tag(realm_id):
            raise RemoteProtocolError("foreign-realm")
        signed = _signed(self._certificate_digest, self._nonce, hello.nonce, hello.chain, hello.boot, hello.instance)
        peer = _verify(us, "lan-dial", hello, signed, hello.nonce)
        signed = _signed(
            self._certificate_digest, self._nonce, hello.nonce, us.member.chain, us.boot, us.instance, sha256(data)
        )
        signature = us.member.keys.signing.sign(context("lan-accept", realm_id), signed)
        return peer, Welcome(us.member.chain, us.boot, us.instance, signature).encode()


class Dialler:
    """The connecting side of one connection."""

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
        signed = _signed(self._certificate_digest, self._acceptor_nonce, self._nonce, chain, us.boot, us.instance)
        signature = us.member.keys.signing.sign(context("lan-dial", us.member.realm_id), signed)
        tag = realm_tag(us.member.realm_id)
        self._hello = Hello(tag, chain, us.boot, us.instance, self._nonce, signature).encode()
        return self._hello

    def finish_untrusted(self, data: bytes) -> Peer:
        """Return who accepted.  Raises RemoteProtocolError."""
        welcome = Welcome.decode_untrusted(data)
        signed = _signed(
            self._certificate_digest,
            self._acceptor_nonce,
            self._nonce,
            welcome.chain,
            welcome.boot,
            welcome.instance,
            sha256(self._hello),
        )
        return _verify(self._ourselves, "lan-accept", welcome, signed, self._nonce)


def _signed(
    certificate_digest: bytes,
    acceptor_nonce: bytes,
    dialler_nonce: bytes,
    chain: Chain,
    boot: BootId,
    instance: bytes,
    hello_digest: bytes = b"",
) -> bytes:
    """Return what one side signs."""
    digest = sha256(chain.encode())
    return wire.encode([certificate_digest, acceptor_nonce, dialler_nonce, digest, boot, instance, hello_digest])


def _verify(us: Ourselves, purpose: str, said: Hello | Welcome, signed: bytes, session: bytes) -> Peer:
    credential = said.chain.credential
    node = credential.node_id
    if node == us.member.node_id:
        raise RemoteProtocolError("self", "our own node id")
    us.judge(said.chain)
    try:
        credential.verify_key().verify(context(purpose, us.member.realm_id), signed, said.signature)
    except AuthError:
        raise RemoteProtocolError("bad-signature", purpose) from None
    return Peer(node, credential.name, said.boot, said.instance, said.chain.not_after, session)
