"""Joining and renewal, the issuer's side: validate, count, record, and only then sign.

The records outlive the process (see issuer_files.py) and may be changed by another one between two calls, so each call
is one transaction that reads them first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Protocol

from conflux.crypto.kdf import sha256
from conflux.crypto.sign import SigningKey, VerifyKey
from conflux.errors import LocalProtocolError, RemoteProtocolError
from conflux.ids import NODE_ID_BYTES, NodeId
from conflux.realm import address
from conflux.realm.anchor import RealmAnchor
from conflux.realm.credential import (
    CAPABILITY_COUNT_MAX,
    CREDENTIAL_LIFETIME_S,
    TAG_COUNT_MAX,
    UNIX_S_MAX,
    Chain,
    Credential,
    Grant,
)
from conflux.realm.identity import node_id_of
from conflux.realm.invite import Invite
from conflux.realm.join import BINDING_BYTES, JoinAnswer, JoinRequest, OfflineRequest
from conflux.realm.name import label
from conflux.realm.signed import UNSIGNED
from conflux.wire import Record, octets, sequence, text, uint

QUARANTINE_S = CREDENTIAL_LIFETIME_S  # chosen: how long the address of an expired node stays its own


@dataclass(frozen=True, slots=True)
class Issued(Record):
    """One node as its issuer remembers it."""

    BYTES_MAX = 4096
    SHAPES = (
        octets(NODE_ID_BYTES),
        label(),
        sequence(label(), TAG_COUNT_MAX),
        sequence(text(64), CAPABILITY_COUNT_MAX),
        address.ipv4(),
        uint(),
        uint(UNIX_S_MAX),
        uint(UNIX_S_MAX),
    )

    node_id: NodeId
    name: str
    tags: tuple[str, ...]
    capabilities: tuple[str, ...]
    ipv4: IPv4Address
    serial: int
    lifetime_s: int
    not_after: int  # of the newest credential


class IssuerRecords(Protocol):
    """What an issuer must not forget.  Each save is durable before it returns."""

    def transaction(self) -> AbstractContextManager[object]:
        """Keep every other issuer process out until the context ends."""

    def issued(self) -> Iterable[Issued]:
        """Every node on record."""

    def save_issued(self, entry: Issued) -> None:
        """Record a node, in place of what was recorded under its id."""

    def forget_issued(self, node_id: NodeId) -> None:
        """Drop a node's record.  No-op if unknown."""

    def invite(self, invite_id: bytes) -> Invite | None:
        """Return an invitation, or None."""

    def save_invite(self, invite: Invite) -> None:
        """Record an invitation, in place of what was recorded under its id."""


class Issuer:
    """The one that signs credentials: the root itself, or whom the root has granted a block."""

    def __init__(self, key: SigningKey, anchor: RealmAnchor, grant: Grant | None, records: IssuerRecords) -> None:
        realm_id = anchor.realm_id
        public = key.public.encode()
        if public != (anchor.root_public if grant is None else grant.issuer_public):
            raise LocalProtocolError("the key is neither the root's nor the grant's")
        self.anchor = anchor
        self.issuer_id = NodeId(realm_id) if grant is None else grant.issuer
        self._key = key
        self._grant = grant
        self._records = records
        self._block = anchor.ipv4_prefix if grant is None else grant.ipv4_block

    def join(self, request: JoinRequest, *, binding: bytes, now_unix: int) -> JoinAnswer:
        """Return the answer to a request that arrived on the connection with this 32-byte binding.

        Raises RemoteProtocolError: wrong-issuer, unknown-invite, bad-proof, invite-expired, used-up, bad-signature,
        name-taken, no-address, grant-expired; nothing is recorded then.  The cheap checks come first: without the
        token's secret nobody makes us verify a signature.
        """
        if len(binding) != BINDING_BYTES:
            raise LocalProtocolError(f"binding of {len(binding)} bytes, not {BINDING_BYTES}")
        if request.issuer != self.issuer_id:
            raise RemoteProtocolError("wrong-issuer")
        with self._records.transaction():
            invite = self._records.invite(request.invite_id)
            if invite is None:
                raise RemoteProtocolError("unknown-invite")
            request.verify_proof(invite.secret, binding=binding)
            if now_unix >= invite.not_after:
                raise RemoteProtocolError("invite-expired", f"{now_unix - invite.not_after} s ago")
            again = request.node_id in invite.used  # our first answer was lost on its way
            if not again and len(invite.used) >= invite.count:
                raise RemoteProtocolError("used-up")
            key = VerifyKey.decode_untrusted(request.node_public)
            request.verify_signature(key, self.anchor.realm_id, binding=binding)
            chain = self._issue(
                request.node_public,
                request.name,
                tags=invite.tags,
                capabilities=invite.capabilities,
                lifetime_s=invite.lifetime_s,
                now_unix=now_unix,
                before_signing=None if again else dataclasses.replace(invite, used=(*invite.used, request.node_id)),
            )
        return self._answer(chain, request.digest, binding)

    def admit(
        self,
        request: OfflineRequest,
        *,
        now_unix: int,
        tags: tuple[str, ...] = (),
        capabilities: tuple[str, ...] = (),
        lifetime_s: int = CREDENTIAL_LIFETIME_S,
    ) -> JoinAnswer:
        """Return the answer to a request file: the caller's own word stands in for a token.

        Raises RemoteProtocolError: bad-signature, name-taken, no-address, grant-expired.
        """
        request.verify()
        with self._records.transaction():
            chain = self._issue(
                request.node_public,
                request.name,
                tags=tags,
                capabilities=capabilities,
                lifetime_s=lifetime_s,
                now_unix=now_unix,
            )
        return self._answer(chain, request.digest, b"")

    def renew(self, chain: Chain, *, now_unix: int) -> Chain:
        """Return a fresh chain for a node that still holds a valid one of ours; address and name stay.

        The caller has authenticated the node.  Raises RemoteProtocolError: Chain.verify()'s reasons, wrong-issuer,
        unknown-node, grant-expired.
        """
        chain.verify(self.anchor, now_unix=now_unix)
        if chain.credential.issuer != self.issuer_id:
            raise RemoteProtocolError("wrong-issuer")
        with self._records.transaction():
            entry = {entry.node_id: entry for entry in self._records.issued()}.get(chain.credential.node_id)
            if entry is None:
                raise RemoteProtocolError("unknown-node")
            return self._issue(
                chain.credential.node_public,
                entry.name,
                tags=entry.tags,
                capabilities=entry.capabilities,
                lifetime_s=entry.lifetime_s,
                now_unix=now_unix,
            )

    def _answer(self, chain: Chain, request_digest: bytes, binding: bytes) -> JoinAnswer:
        answer = JoinAnswer(self.anchor, chain, request_digest, UNSIGNED)
        return answer.sign(self._key, self.anchor.realm_id, binding=binding)

    def _issue(
        self,
        node_public: bytes,
        name: str,
        *,
        tags: tuple[str, ...],
        capabilities: tuple[str, ...],
        lifetime_s: int,
        now_unix: int,
        before_signing: Invite | None = None,
    ) -> Chain:
        """Record, then sign: a crash in between wastes a serial, never gives two nodes one name or address."""
        not_after = now_unix + lifetime_s
        if self._grant is not None:
            if now_unix >= self._grant.not_after:
                raise RemoteProtocolError("grant-expired")
            not_after = min(not_after, self._grant.not_after)
        node_id = node_id_of(node_public)
        entries = {entry.node_id: entry for entry in self._records.issued()}
        for other in entries.values():
            if other.name == name and other.node_id != node_id and other.not_after > now_unix:
                raise RemoteProtocolError("name-taken", name)
        known = entries.get(node_id)
        ipv4 = self._free_address(node_id, entries, now_unix) if known is None else known.ipv4
        serial = 1 + max((entry.serial for entry in entries.values()), default=0)
        self._records.save_issued(Issued(node_id, name, tags, capabilities, ipv4, serial, lifetime_s, not_after))
        if before_signing is not None:
            self._records.save_invite(before_signing)
        credential = Credential(
            realm_id=self.anchor.realm_id,
            node_public=node_public,
            name=name,
            tags=tags,
            capabilities=capabilities,
            ipv4=ipv4,
            nats_jwt="",
            not_before=now_unix,
            not_after=not_after,
            serial=serial,
            issuer=self.issuer_id,
            signature=UNSIGNED,
        )
        return Chain(credential.sign(self._key, self.anchor.realm_id), self._grant)

    def _free_address(self, node_id: NodeId, entries: dict[NodeId, Issued], now_unix: int) -> IPv4Address:
        """Return the address the node id picks, or the next free one; forget nodes that expired long ago on the way."""
        taken = set()
        for entry in entries.values():
            if entry.not_after + QUARANTINE_S > now_unix:
                taken.add(entry.ipv4)
            else:
                self._records.forget_issued(entry.node_id)
        return pick_address(self._block, node_id, taken)


def pick_address(block: IPv4Network, node_id: NodeId, taken: set[IPv4Address]) -> IPv4Address:
    """Return a host address of block that is not taken.  Raises RemoteProtocolError("no-address")."""
    count = block.num_addresses - 2  # the first and the last are the network's own
    if count <= len(taken):
        raise RemoteProtocolError("no-address", f"all {count} addresses of {block} are taken")
    start = int.from_bytes(sha256(b"conflux/1/address", node_id)[:8])
    return next(found for step in range(count) if (found := block[1 + (start + step) % count]) not in taken)
