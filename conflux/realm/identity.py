"""A node's identity is its keys: its id is part of their fingerprint, so no node can take the id of another."""

from __future__ import annotations

from typing import Self

from conflux.crypto.kdf import sha256
from conflux.crypto.sign import SigningKey, VerifyKey
from conflux.ids import NODE_ID_BYTES, REALM_ID_BYTES, NodeId, RealmId, format_node_id


def node_id_of(public: bytes) -> NodeId:
    """Return the node id of 1984 bytes of public keys."""
    return NodeId(sha256(public)[:NODE_ID_BYTES])


def realm_id_of(root_public: bytes) -> RealmId:
    """Return the realm id of the root's 1984 bytes of public keys."""
    return RealmId(sha256(root_public)[:REALM_ID_BYTES])


class NodeKeys:
    """The keys that a node makes for itself; they never leave the device."""

    __slots__ = ("node_id", "signing")

    def __init__(self, signing: SigningKey) -> None:
        self.signing = signing
        self.node_id = NodeId(signing.public.fingerprint[:NODE_ID_BYTES])

    @classmethod
    def generate(cls) -> Self:
        """Return fresh keys from the operating system's randomness."""
        return cls(SigningKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes | bytearray) -> Self:
        """Return the keys that 64 bytes determine."""
        return cls(SigningKey.from_seed(seed))

    @property
    def public(self) -> VerifyKey:
        """Both public keys."""
        return self.signing.public

    def __repr__(self) -> str:
        return f"NodeKeys({format_node_id(self.node_id)})"  # never the seed
