"""Who owns a name or an address that several cards claim.

One issuer gives no name or address to two nodes, but two issuers do not ask each other about names.  All nodes have to
agree on the owner without asking anyone, so the cards themselves decide:

1. the issuer to which the root granted its block first: that of the founder, as a rule;
2. of two granted in the same second, the smaller issuer id;
3. of one issuer, the newest credential: that is its last word.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Hashable, Iterator
from typing import Generic, NamedTuple, TypeVar

from conflux.ids import NodeId
from conflux.realm.credential import Chain

K = TypeVar("K", bound=Hashable)


class Claim(NamedTuple):
    """A node's claim; of two the smaller one counts."""

    granted_at: int  # to its issuer, in unix seconds; 0: the root itself signed
    issuer: NodeId
    serial_down: int  # the serial of its credential, negative
    node: NodeId


def claim_of(chain: Chain) -> Claim:
    """Return the claim of a node to what its credential says."""
    credential = chain.credential
    granted_at = 0 if chain.grant is None else chain.grant.not_before
    return Claim(granted_at, credential.issuer, -credential.serial, credential.node_id)


class Claims(Generic[K]):
    """The claims to keys of one kind."""

    def __init__(self) -> None:
        self._claims: dict[K, list[Claim]] = {}  # of each key, the one that counts first

    def add(self, key: K, claim: Claim) -> None:
        """Add a node's claim.  The node has none to that key yet."""
        insort(self._claims.setdefault(key, []), claim)

    def remove(self, key: K, node: NodeId) -> None:
        """Forget a node's claim."""
        left = [claim for claim in self._claims.get(key, ()) if claim.node != node]
        if left:
            self._claims[key] = left
        else:
            self._claims.pop(key, None)

    def owner(self, key: K) -> NodeId | None:
        """Return the node whose claim counts, or None if there is no claim."""
        claims = self._claims.get(key)
        return claims[0].node if claims else None

    def contested(self) -> Iterator[tuple[K, tuple[NodeId, ...]]]:
        """Yield every key with more than one claim, and the nodes; the first one owns it."""
        for key, claims in self._claims.items():
            if len(claims) > 1:
                yield key, tuple(claim.node for claim in claims)
