"""How two nodes meet, if both are builds that speak `conflux-2` (ALPN).  Sans-IO: frames in, frames out.

    dialler                                                         acceptor
      │ ◄─ GREETING: nonce ──────────────────────────────────────────  │   tells nothing of itself
      │ ── HELLO: digest of its chain, KEM key, features, signature ─► │
      │ ◄─ CHAIN_ASK, ── CHAIN ──────────────────────────────────────► │   only if the chain is not here
      │ ◄─ WELCOME: digest of its chain, ciphertext, signature ──────  │   only now it tells who it is
      │ ── CHAIN_ASK, ◄─ CHAIN ──────────────────────────────────────  │   only if the chain is not here
      │ ── CHAIN_ASK: nothing ───────────────────────────────────────► │   the dialler believes it

    met before, in these lives of both:
      │ ── HELLO_AGAIN: id, nonce, MAC ──────────────────────────────► │
      │ ◄─ WELCOME_AGAIN: MAC, or HELLO_ASK: then HELLO as above ────  │

As in handshake.py the dialler proves itself first, and every signature and every MAC covers the acceptor's certificate,
as each end sees it, and both nonces.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from conflux import record
from conflux.control.chains import Chains, digest_of, short_chain, whole_chain_untrusted
from conflux.control.drop import Drop
from conflux.control.lan.acquaintances import ID_BYTES, Acquaintance, Acquaintances, derive, transcript_of
from conflux.control.lan.frame import FrameType
from conflux.control.lan.handshake import (
    NONCE_BYTES,
    REALM_TAG_BYTES,
    SEED_BYTES,
    Greeting,
    Ourselves,
    Peer,
    TwinError,
    join_binding,
    peer_of,
    realm_tag,
)
from conflux.crypto import kem
from conflux.crypto.kdf import SHA256_BYTES, equal, hmac_sha256, sha256
from conflux.crypto.sign import SIGNATURE_BYTES, context
from conflux.errors import AuthError, RemoteProtocolError
from conflux.ids import BOOT_ID_BYTES, BootId
from conflux.realm.card import POLICIES, SMALL_QUESTIONS
from conflux.realm.credential import Chain
from conflux.record import Record, octets, sequence, text

FEATURE_COUNT_MAX = 16
FEATURE_CHARS_MAX = 32
TREE = "tree"  # a feature: has a place in the ring of a large LAN, wide.py; said where the configuration has it
FEATURES_OF_BUILD = (SMALL_QUESTIONS, POLICIES)  # what this build says of itself; what it does not know it ignores

Frame = tuple[FrameType, bytes]


class Want(enum.IntEnum):
    """The body of CHAIN_ASK: what the sender needs of the other's chain."""

    NOTHING = 0  # it has the chain, and believes it
    SHORT = 1  # the chain, with the digest of its grant in the grant's place
    WHOLE = 2


_FEATURES = sequence(text(FEATURE_CHARS_MAX), FEATURE_COUNT_MAX)


@dataclass(frozen=True, slots=True)
class FullHello(Record):
    """The dialler proves its identity.  kem_public: for the key that both know each other again by."""

    VERSION: ClassVar[int] = 2
    BYTES_MAX = 8 * 1024
    SHAPES = (
        octets(REALM_TAG_BYTES),
        octets(SHA256_BYTES),
        octets(BOOT_ID_BYTES),
        octets(SEED_BYTES),
        octets(NONCE_BYTES),
        octets(kem.PUBLIC_BYTES),
        _FEATURES,
        octets(SIGNATURE_BYTES),
    )

    realm_tag: bytes
    chain_digest: bytes
    boot: BootId
    seed: bytes
    nonce: bytes
    kem_public: bytes
    features: tuple[str, ...]
    signature: bytes


@dataclass(frozen=True, slots=True)
class FullWelcome(Record):
    """The acceptor proves its identity, after the dialler."""

    VERSION: ClassVar[int] = 2
    BYTES_MAX = 8 * 1024
    SHAPES = (
        octets(SHA256_BYTES),
        octets(BOOT_ID_BYTES),
        octets(SEED_BYTES),
        octets(kem.CIPHERTEXT_BYTES),
        _FEATURES,
        octets(SIGNATURE_BYTES),
    )

    chain_digest: bytes
    boot: BootId
    seed: bytes
    kem_ciphertext: bytes
    features: tuple[str, ...]
    signature: bytes


@dataclass(frozen=True, slots=True)
class HelloAgain(Record):
    """The dialler proves to be the node that was met.  id: of what both keep."""

    BYTES_MAX = 128
    SHAPES = (octets(ID_BYTES), octets(NONCE_BYTES), octets(SHA256_BYTES))

    id: bytes
    nonce: bytes
    mac: bytes


@dataclass(frozen=True, slots=True)
class WelcomeAgain(Record):
    """The acceptor proves it in turn."""

    BYTES_MAX = 64
    SHAPES = (octets(SHA256_BYTES),)

    mac: bytes


class _End:
    """What both ends of a connection have in common.

    peer: the node at the other end, once it has proved its identity.  expects: the frames that may come next.
    twin: the other end has our own key, in another life.
    """

    def __init__(
        self,
        ourselves: Ourselves,
        certificate_digest: bytes,
        entropy: Callable[[int], bytes],
        chains: Chains,
        acquaintances: Acquaintances,
    ) -> None:
        self.peer: Peer | None = None
        self.expects: tuple[FrameType, ...] = ()
        self.twin: TwinError | None = None
        self.their_chain: Chain | None = None
        self._us = ourselves
        self._realm_id = ourselves.member.realm_id
        self._certificate_digest = certificate_digest
        self._chains = chains
        self._acquaintances = acquaintances
        self._own_digest = digest_of(ourselves.member.chain)
        self._dialler_nonce = b""
        self._acceptor_nonce = b""
        self._asked = Want.NOTHING
        self._told = Want.NOTHING

    def _signed(
        self, digest: bytes, boot: BootId, seed: bytes, kem_part: bytes, features: tuple[str, ...], hello: bytes
    ) -> bytes:
        """Return the bytes that one end signs.  hello: the body of HELLO, for the acceptor; empty for the dialler."""
        connection = [self._certificate_digest, self._acceptor_nonce, self._dialler_nonce]
        said = [digest, boot, seed, sha256(kem_part), list(features)]
        return record.encode([*connection, *said, sha256(hello) if hello else b""])

    def _mac(self, held: Acquaintance, *, dialled: bool, hello: bytes = b"") -> bytes:
        """Return the MAC of one end.  dialled: by us.  hello: the body of HELLO_AGAIN, for the acceptor's."""
        ours: list[bytes] = [self._us.member.node_id, self._us.boot, held.ours]
        theirs: list[bytes] = [held.peer.node, held.peer.boot, digest_of(held.chain)]
        ends = [*ours, *theirs] if dialled else [*theirs, *ours]
        connection = [self._certificate_digest, self._acceptor_nonce, self._dialler_nonce]
        purpose = context("lan-again-accept" if hello else "lan-again-dial", self._realm_id)
        said = record.encode([*connection, *ends, sha256(hello) if hello else b""])
        return hmac_sha256(held.key, purpose + said)

    def _still_counts(self, held: Acquaintance) -> bool:
        """Say whether a node that was met would be let in now, and holds our chain as it is now."""
        if held.ours != self._own_digest:
            return False
        try:
            self._us.admit(held.chain)
        except RemoteProtocolError:
            return False
        return True

    def _prove_untrusted(self, purpose: str, chain: Chain, said: FullHello | FullWelcome, signed: bytes) -> Peer:
        """Return the peer, if its chain counts and it signed this."""
        us = self._us
        us.judge(chain)
        try:
            chain.credential.verify_key().verify(context(purpose, self._realm_id), signed, said.signature)
        except AuthError:
            raise RemoteProtocolError(Drop.BAD_SIGNATURE, purpose) from None
        self.their_chain = self._chains.learn(chain)
        try:
            peer = peer_of(us, self.their_chain, said.boot, said.seed, self._dialler_nonce)
        except TwinError as twin:
            self.twin = twin
            raise
        return peer._replace(features=frozenset(said.features), knows=self._own_digest)

    def _ask_chain(self) -> Frame:
        """Ask for the chain that is not here: at first without its grant, which most members share."""
        if self._asked is Want.WHOLE:
            raise RemoteProtocolError(Drop.MALFORMED, "not the chain that was said")
        self._asked = Want(self._asked + 1)
        return FrameType.CHAIN_ASK, bytes((self._asked,))

    def _chain_untrusted(self, data: bytes, digest: bytes) -> Chain | None:
        """Return the chain that came, if it is the one that was said; None: its grant is not here."""
        try:
            chain = whole_chain_untrusted(data, self._chains.grants.find_untrusted)
        except RemoteProtocolError as error:
            if error.reason == Drop.UNKNOWN_GRANT:
                return None
            raise
        if digest_of(chain) != digest:
            raise RemoteProtocolError(Drop.MALFORMED, "another chain than the one that was said")
        return chain

    def _give_chain(self, want: Want) -> Frame:
        """Answer CHAIN_ASK; each form is given once."""
        if want <= self._told:
            raise RemoteProtocolError(Drop.MALFORMED, "the chain is asked for again")
        self._told = want
        chain = self._us.member.chain
        return FrameType.CHAIN, short_chain(chain) if want is Want.SHORT else chain.encode()

    def _remember(self, peer: Peer, secret: bytes, hello: bytes, welcome: bytes) -> None:
        transcript = transcript_of(self._certificate_digest, self._acceptor_nonce, hello, welcome)
        id_, key = derive(secret, transcript, self._realm_id)
        ours = self._us.member.chain.not_after
        assert self.their_chain is not None
        self._acquaintances.remember(
            peer, self.their_chain, id_=id_, key=key, ours=self._own_digest, ours_not_after=ours
        )


def _said(us: Ourselves) -> tuple[str, ...]:
    """Return what a node says that it can do."""
    return (*FEATURES_OF_BUILD, *us.features)


def _want_untrusted(body: bytes) -> Want:
    try:
        return Want(int.from_bytes(body, "big")) if len(body) == 1 else Want(-1)
    except ValueError:
        raise RemoteProtocolError(Drop.MALFORMED, "the body of CHAIN_ASK is 0, 1 or 2") from None


class MeetingAcceptor(_End):
    """The accepting end of one connection."""

    def __init__(
        self,
        ourselves: Ourselves,
        certificate_digest: bytes,
        entropy: Callable[[int], bytes],
        chains: Chains,
        acquaintances: Acquaintances,
    ) -> None:
        super().__init__(ourselves, certificate_digest, entropy, chains, acquaintances)
        self._acceptor_nonce = entropy(NONCE_BYTES)
        self.greeting = Greeting(self._acceptor_nonce).encode()
        self.expects = (FrameType.HELLO, FrameType.HELLO_AGAIN)
        self._hello = b""
        self._welcome = b""
        self._secret = b""
        self._proved: Peer | None = None

    @property
    def binding(self) -> bytes:
        """The 32 bytes that bind a request to join to this connection."""
        return join_binding(self._certificate_digest, self.greeting)

    def take_untrusted(self, kind: FrameType, body: bytes) -> list[Frame]:
        """Return what to send in answer to a frame.  Raises RemoteProtocolError: then send nothing, and close."""
        if kind is FrameType.HELLO_AGAIN:
            return self._again_untrusted(body)
        if kind is FrameType.HELLO:
            self._hello = body
            hello = FullHello.decode_untrusted(body)
            return self._answer_untrusted(hello, self._chains.find(hello.chain_digest))
        if kind is FrameType.CHAIN:
            hello = FullHello.decode_untrusted(self._hello)
            return self._answer_untrusted(hello, self._chain_untrusted(body, hello.chain_digest))
        want = _want_untrusted(body)
        if want is not Want.NOTHING:
            return [self._give_chain(want)]
        self.expects = ()
        if self.twin is not None:
            return []
        assert self._proved is not None
        assert self.their_chain is not None
        self._us.judge(self.their_chain)  # seconds may have passed since HELLO, and it chose how many
        self._us.admit(self.their_chain)
        self._remember(self._proved, self._secret, self._hello, self._welcome)
        self.peer = self._proved
        return []

    def _again_untrusted(self, body: bytes) -> list[Frame]:
        again = HelloAgain.decode_untrusted(body)
        self._dialler_nonce = again.nonce
        held = self._acquaintances.find(again.id)
        # Whatever is wrong, the answer is the same: a stranger learns no more of it than that.
        if held is None or not self._still_counts(held) or not equal(self._mac(held, dialled=False), again.mac):
            self.expects = (FrameType.HELLO,)
            return [(FrameType.HELLO_ASK, b"")]
        self.peer = held.peer._replace(session=again.nonce)
        return [(FrameType.WELCOME_AGAIN, WelcomeAgain(self._mac(held, dialled=False, hello=body)).encode())]

    def _answer_untrusted(self, hello: FullHello, chain: Chain | None) -> list[Frame]:
        if chain is None:  # whatever the realm: so a stranger does not learn which one this node is of
            self.expects = (FrameType.CHAIN,)
            return [self._ask_chain()]
        if hello.realm_tag != realm_tag(self._realm_id):
            raise RemoteProtocolError(Drop.FOREIGN_REALM)
        self._dialler_nonce = hello.nonce
        signed = self._signed(hello.chain_digest, hello.boot, hello.seed, hello.kem_public, hello.features, b"")
        with contextlib.suppress(TwinError):  # it proved to have our key: let it know of us too
            self._proved = self._prove_untrusted("lan-hello", chain, hello, signed)
        ciphertext, self._secret = kem.encapsulate(hello.kem_public)
        us = self._us
        signed = self._signed(self._own_digest, us.boot, us.seed, ciphertext, _said(us), self._hello)
        signature = us.member.keys.signing.sign(context("lan-welcome", self._realm_id), signed)
        welcome = FullWelcome(self._own_digest, us.boot, us.seed, ciphertext, _said(us), signature)
        self._welcome = welcome.encode()
        self.expects = (FrameType.CHAIN_ASK,)
        return [(FrameType.WELCOME, self._welcome)]


class MeetingDialler(_End):
    """The dialling end of one connection.  met: the node that is expected there, if it was met."""

    def __init__(
        self,
        ourselves: Ourselves,
        certificate_digest: bytes,
        entropy: Callable[[int], bytes],
        chains: Chains,
        acquaintances: Acquaintances,
        met: Acquaintance | None = None,
    ) -> None:
        super().__init__(ourselves, certificate_digest, entropy, chains, acquaintances)
        self.expects = (FrameType.GREETING,)
        self._dialler_nonce = entropy(NONCE_BYTES)
        self._met = met if met is not None and self._still_counts(met) else None
        self._hello = b""
        self._welcome = b""
        self._kem: kem.PrivateKey | None = None

    def take_untrusted(self, kind: FrameType, body: bytes) -> list[Frame]:
        """Return what to send in answer to a frame.  Raises RemoteProtocolError if the peer is not to be believed."""
        match kind:
            case FrameType.GREETING:
                self._acceptor_nonce = Greeting.decode_untrusted(body).nonce
                return [self._introduce_in_full() if self._met is None else self._greet(self._met)]
            case FrameType.HELLO_ASK:
                if body:
                    raise RemoteProtocolError(Drop.MALFORMED, "HELLO_ASK has no body")
                return [self._introduce_in_full()]
            case FrameType.WELCOME_AGAIN:
                assert self._met is not None
                if not equal(
                    self._mac(self._met, dialled=True, hello=self._hello), WelcomeAgain.decode_untrusted(body).mac
                ):
                    raise RemoteProtocolError(Drop.BAD_SIGNATURE, "lan-again-accept")
                self._us.admit(self._met.chain)  # seconds may have passed since HELLO_AGAIN, and it chose how many
                self.peer = self._met.peer._replace(session=self._dialler_nonce)
                return []
            case FrameType.CHAIN_ASK:
                want = _want_untrusted(body)
                if want is Want.NOTHING:
                    raise RemoteProtocolError(Drop.MALFORMED, "nothing of the chain is asked for")
                return [self._give_chain(want)]
            case FrameType.WELCOME:
                self._welcome = body
                welcome = FullWelcome.decode_untrusted(body)
                return self._finish_untrusted(welcome, self._chains.find(welcome.chain_digest))
            case _:
                welcome = FullWelcome.decode_untrusted(self._welcome)
                return self._finish_untrusted(welcome, self._chain_untrusted(body, welcome.chain_digest))

    def _greet(self, met: Acquaintance) -> Frame:
        self._hello = HelloAgain(met.id, self._dialler_nonce, self._mac(met, dialled=True)).encode()
        self.expects = (FrameType.WELCOME_AGAIN, FrameType.HELLO_ASK)
        return FrameType.HELLO_AGAIN, self._hello

    def _introduce_in_full(self) -> Frame:
        us = self._us
        self._kem = kem.PrivateKey.generate()
        public, digest = self._kem.public, self._own_digest
        signed = self._signed(digest, us.boot, us.seed, public, _said(us), b"")
        signature = us.member.keys.signing.sign(context("lan-hello", self._realm_id), signed)
        tag = realm_tag(self._realm_id)
        hello = FullHello(tag, digest, us.boot, us.seed, self._dialler_nonce, public, _said(us), signature)
        self._hello = hello.encode()
        self.expects = (FrameType.WELCOME, FrameType.CHAIN_ASK, FrameType.REVOKED)
        return FrameType.HELLO, self._hello

    def _finish_untrusted(self, welcome: FullWelcome, chain: Chain | None) -> list[Frame]:
        if chain is None:
            self.expects = (FrameType.CHAIN,)
            return [self._ask_chain()]
        signed = self._signed(
            welcome.chain_digest, welcome.boot, welcome.seed, welcome.kem_ciphertext, welcome.features, self._hello
        )
        peer = self._prove_untrusted("lan-welcome", chain, welcome, signed)
        assert self._kem is not None
        secret = self._kem.decapsulate(welcome.kem_ciphertext)
        self._kem.erase()
        self._remember(peer, secret, self._hello, self._welcome)
        self.peer = peer
        self.expects = ()
        return [(FrameType.CHAIN_ASK, bytes((Want.NOTHING,)))]
