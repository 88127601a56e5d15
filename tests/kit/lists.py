"""Signed lists of the tests' realm."""

from __future__ import annotations

from kit.builders import NOW_UNIX, make_grant, make_realm, node_keys

from conflux.ids import NodeId
from conflux.realm.denying import Signer
from conflux.realm.lists import Denial, DenyList, SignedList

REALM = make_realm()
ROOT = Signer(REALM.root, None)
GATE = Signer(node_keys("gate").signing, make_grant(REALM, node_keys("gate").signing))


def deny_list(*nodes: NodeId, number: int = 1, signer: Signer = GATE, reason: str = "stolen") -> SignedList:
    """Return a deny list of the tests' realm, by the issuer "gate" unless another signer is given."""
    content = DenyList(tuple(Denial(node, NOW_UNIX, reason) for node in sorted(nodes)))
    return SignedList.make(signer.key, REALM.anchor, signer.grant, number, content)
