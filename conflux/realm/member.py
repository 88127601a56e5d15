"""This node as a member: its keys, its realm, and what the realm says of it."""

from __future__ import annotations

from dataclasses import dataclass

from conflux.errors import LocalProtocolError
from conflux.ids import IPAddress, NodeId, RealmId
from conflux.realm.anchor import RealmAnchor
from conflux.realm.credential import Chain
from conflux.realm.identity import NodeKeys


@dataclass(frozen=True, slots=True)
class Member:
    """Renewal makes a new Member with another chain; the keys stay."""

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
        return self.keys.node_id

    @property
    def realm_id(self) -> RealmId:
        return self.anchor.realm_id

    @property
    def name(self) -> str:
        return self.chain.credential.name

    @property
    def addresses(self) -> tuple[IPAddress, ...]:
        return self.chain.credential.addresses
