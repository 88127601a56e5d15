"""Chains of other nodes that verified, by their digest: who has one need not be sent it again.

A chain is 11 kB, two thirds of every hello and card.  Its holders know it by the SHA-256 of its bytes, so that digest
travels in its place, and the chain itself when it is asked for.  What is kept here is never believed because of that:
dates and revocation are looked at whenever a chain counts for something.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from conflux.control.drop import Drop
from conflux.control.grants import Grants
from conflux.crypto.kdf import sha256
from conflux.errors import RemoteProtocolError
from conflux.realm.credential import Chain, Grant
from conflux.record import decode_untrusted, encode

CHAIN_COUNT_MAX = 256  # about 6 kB each, as grants are shared; the one not used for longest goes first
ITEM_COUNT = 3  # of a chain: version, credential, grant


def digest_of(chain: Chain) -> bytes:
    """Return the 32 bytes that stand for a chain: SHA-256 of its encoding."""
    return sha256(chain.encode())


def short_chain(chain: Chain) -> bytes:
    """Return the chain with the SHA-256 of its grant in the grant's place, for who knows the grant."""
    if chain.grant is None:
        return chain.encode()
    item = chain._to_item()
    return encode([*item[:2], sha256(chain.grant.encode())])


def whole_chain_untrusted(data: bytes, find: Callable[[bytes], Grant]) -> Chain:
    """Return the chain that data is, or is short for.  Raises RemoteProtocolError.

    find: returns the grant of a SHA-256, or raises RemoteProtocolError.
    """
    item = decode_untrusted(data, bytes_max=Chain.BYTES_MAX)
    if type(item) is list and len(item) == ITEM_COUNT and type(item[2]) is bytes:
        item[2] = find(item[2])._to_item()
    return Chain._from_item(item)


class Chains:
    """Chains whose signatures verified, and their grants."""

    def __init__(self, grants: Grants | None = None) -> None:
        self.grants = Grants() if grants is None else grants
        self._known: OrderedDict[bytes, Chain] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def learn(self, chain: Chain) -> Chain:
        """Keep a chain that verified; return it, with the grant that others of its issuer share."""
        digest = digest_of(chain)
        held = self._known.get(digest)
        if held is None:
            self.grants.learn(chain)
            held = chain if chain.grant is None else Chain(chain.credential, self.grants.shared(chain.grant))
            self._known[digest] = held
            if len(self._known) > CHAIN_COUNT_MAX:
                self._known.popitem(last=False)
        self._known.move_to_end(digest)
        return held

    def find(self, digest: bytes) -> Chain | None:
        """Return the chain of that digest, if it is here."""
        chain = self._known.get(digest)
        if chain is not None:
            self._known.move_to_end(digest)
        return chain

    def find_untrusted(self, digest: bytes) -> Chain:
        """Return the chain of that digest.  Raises RemoteProtocolError("unknown-chain")."""
        chain = self.find(digest)
        if chain is None:
            raise RemoteProtocolError(Drop.UNKNOWN_CHAIN)
        return chain
