"""A node as a member: its keys, its realm, and its credential."""

from __future__ import annotations

from dataclasses import dataclass

from conflux.errors import LocalProtocolError
from conflux.ids import IPAddress, NodeId, RealmId
from conflux.realm.anchor import RealmAnchor
from conflux.realm.credential import Chain
from conflux.realm.identity import NodeKeys


@dataclass(frozen=True, slots=True)
class Member:
    """This node.  A renewal makes a new Member with another chain; the keys stay.

    Raises LocalProtocolError if keys, realm and chain do not belong together.
    """

    keys: NodeKeys
    anchor: RealmAnchor
    chain: Chain

    def __post_init__(self) -> None:
        if self.chain.credential.node_public != self.keys.public.encode():
            raise LocalProtocolError("the credential is for other keys")
        if self.chain.credential.realm_id != self.anchor.realm_id:
            raise LocalProtocolError("the credential is of another realm")

    @property
    def node_id(self) -> NodeId:
        """The node's id, which follows from its keys."""
        return self.keys.node_id

    @property
    def realm_id(self) -> RealmId:
        """The realm's id."""
        return self.anchor.realm_id

    @property
    def name(self) -> str:
        """The node's name in the realm."""
        return self.chain.credential.name

    @property
    def addresses(self) -> tuple[IPAddress, ...]:
        """Every overlay address of the node, IPv6 first."""
        return self.chain.credential.addresses
