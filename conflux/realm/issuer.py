"""The issuer's part of joining and renewal: validate, count, record, and only then sign.

The records outlive the process (see state/issuer_files.py), and another process may change them between two calls.  So
each call is one transaction, which reads them first.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from conflux.budget import BudgetTable, TokenBucket
from conflux.crypto.kdf import sha256
from conflux.crypto.sign import SigningKey, VerifyKey
from conflux.errors import LocalProtocolError, RemoteProtocolError
from conflux.ids import NodeId, format_node_id
from conflux.realm import audit, waiting
from conflux.realm.anchor import RealmAnchor
from conflux.realm.audit import Act
from conflux.realm.credential import CREDENTIAL_LIFETIME_S, ISSUER, Chain, Credential, Grant, granted_later
from conflux.realm.dates import span
from conflux.realm.invite import Invite
from conflux.realm.issued import FORMER_COUNT_MAX, End, Former, Issued, IssuerRecords
from conflux.realm.join import BINDING_BYTES, JoinAnswer, JoinRequest, OfflineRequest, RenewRequest
from conflux.realm.reason import Reason
from conflux.realm.signed import UNSIGNED
from conflux.realm.waiting import Decision, Waiting

# Chosen: in a full block, a node that ended so long ago makes room for another, the one that ended first.
QUARANTINE_S = CREDENTIAL_LIFETIME_S
# Refusals that are put on record: who holds a token can ask for years, and each is a file flushed to the disk.
REFUSAL_RATE, REFUSAL_BURST = 1 / 600, 20.0
# Renewals of one node before its newest credential is due.  It needs them if answers are lost; each is put on record,
# and a member that asked all the time would push everything else out.
EARLY_RATE, EARLY_BURST, EARLY_COUNT_MAX = 1 / 3600, 5.0, 1024


@dataclass(frozen=True, slots=True)
class Rights:
    """What a node is let in with.  replaces: the node whose place it takes; empty: none's."""

    tags: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    lifetime_s: int = CREDENTIAL_LIFETIME_S
    invite_id: bytes = b""
    replaces: bytes = b""


class Issuer:
    """Signs credentials: as the root itself, or as a node to which the root granted a block."""

    def __init__(
        self,
        key: SigningKey,
        anchor: RealmAnchor,
        grant: Grant | None,
        records: IssuerRecords,
        mint: Callable[[Credential], str] | None = None,
        *,
        further: tuple[Grant, ...] = (),
    ) -> None:
        """mint: what makes the NATS user JWT that a credential is going to carry; None: the realm has no broker.

        further: grants of other blocks, those of issuers in whose place the root put this one.
        """
        realm_id = anchor.realm_id
        public = key.public.encode()
        if public != (anchor.root_public if grant is None else grant.issuer_public):
            raise LocalProtocolError("the key is neither the root's nor the grant's")
        self.anchor = anchor
        self.issuer_id = NodeId(realm_id) if grant is None else grant.issuer
        self._key = key
        self._grant = grant
        self._further = further
        self._records = records
        self._mint = mint
        self.elsewhere: Callable[[str], NodeId | None] = lambda name: None
        """Who has a name, of nodes that other issuers let in, as far as is known here."""
        self._refusals = TokenBucket(REFUSAL_RATE, REFUSAL_BURST)
        self._early = BudgetTable(EARLY_RATE, EARLY_BURST, EARLY_COUNT_MAX)

    @property
    def mints(self) -> bool:
        """Whether its credentials admit to the realm's broker."""
        return self._mint is not None

    def invite(self, invite: Invite, *, now_unix: int) -> None:
        """Record an invitation, which holds from now on."""
        with self._records.transaction():
            ends = f"for {invite.count}, {(invite.not_after - now_unix) // 3600} h, by {invite.invite_id.hex()}"
            self._note(Act.INVITED, now_unix, node=invite.replaces, detail=ends)
            self._records.save_invite(invite)

    def withdraw(self, invite: Invite, *, now_unix: int) -> None:
        """Drop an invitation; who joined with it stays."""
        with self._records.transaction():
            self._note(Act.WITHDREW, now_unix, detail=invite.invite_id.hex())
            self._records.forget_invite(invite.invite_id)

    def secret_of(self, invite_id: bytes) -> bytes | None:
        """Return the secret of an invitation of this issuer, even one that has ended; None if it knows none."""
        invite = self._records.invite(invite_id)
        return None if invite is None else invite.secret

    def join(self, request: JoinRequest, *, binding: bytes, now_unix: int) -> JoinAnswer:
        """Return the answer to a request that arrived on the connection with this 32-byte binding.

        Raises RemoteProtocolError: wrong-issuer, unknown-invite, bad-proof, invite-expired, used-up, bad-signature,
        name-taken, wrong-name, too-many-names, no-address, grant-expired; nothing is recorded then.  The cheap checks
        come first: a signature is verified only for a node that holds the token's secret.
        """
        if len(binding) != BINDING_BYTES:
            raise LocalProtocolError(f"binding of {len(binding)} bytes, not {BINDING_BYTES}")
        if request.issuer != self.issuer_id:
            raise RemoteProtocolError(Reason.WRONG_ISSUER)
        with self._records.transaction():
            invite = self._records.invite(request.invite_id)
            if invite is None:
                raise RemoteProtocolError(Reason.UNKNOWN_INVITE)
            request.verify_proof(invite.secret, binding=binding)
            with self._noting_refusals(request, now_unix):
                chain = self._join(request, invite, binding, now_unix)
        return self._answer(chain, request.digest, binding)

    def _join(self, request: JoinRequest, invite: Invite, binding: bytes, now_unix: int) -> Chain:
        """Return the chain of a joiner that holds the token's secret."""
        if now_unix >= invite.not_after:
            raise RemoteProtocolError(Reason.INVITE_EXPIRED, f"{span(now_unix - invite.not_after)} ago")
        entries = self._entries()
        again = request.node_id in invite.used  # the first answer was lost on its way
        made = _made_by(invite, request, entries, now_unix) if again else None
        if made is None and len(invite.used) >= invite.count:
            raise RemoteProtocolError(Reason.USED_UP)
        key = VerifyKey.decode_untrusted(request.node_public)
        request.verify_signature(key, self.anchor.realm_id, binding=binding)
        if made is not None:
            return self._sign(made, request.node_public, now_unix=now_unix, not_after=made.not_after)
        rights = Rights(invite.tags, invite.capabilities, invite.lifetime_s, invite.invite_id, invite.replaces)
        if invite.approve:
            self._require_approval(request, invite, rights, entries, now_unix)
        used = dataclasses.replace(invite, used=(*invite.used, request.node_id))
        chain = self._let_in(request, rights, entries, now_unix=now_unix, used=used)
        self._records.forget_waiting(request.node_id)
        return chain

    def _require_approval(
        self, request: JoinRequest, invite: Invite, rights: Rights, entries: dict[NodeId, Issued], now_unix: int
    ) -> None:
        """Return if a person approved of the joiner.  Raises RemoteProtocolError: waiting, refused, busy, name-taken"""
        others = _without(_replaced(rights, request, entries), entries)
        self._require_free(request.name, request.node_id, others, now_unix)
        if waiting.queue(self._records, invite, request, now_unix=now_unix):
            by = f"by invitation {invite.invite_id.hex()}"
            if self._refusals.take(now_unix):  # it can ask under ever other names
                self._note(Act.ASKED, now_unix, node=request.node_id, name=request.name, detail=by)
            raise RemoteProtocolError(Reason.WAITING)

    def decide(self, node_id: NodeId, decision: Decision, *, name: str | None, now_unix: int) -> Waiting:
        """Record what a person said of a node that waits under that name; None: under any.

        Raises RemoteProtocolError: unknown-node.
        """
        with self._records.transaction():
            decided = waiting.decide(self._records, node_id, decision, name=name)
            act = Act.REFUSED if decision is Decision.REFUSED else Act.APPROVED
            self._note(act, now_unix, node=node_id, name=decided.name, detail="by a person")
            return decided

    @contextlib.contextmanager
    def _noting_refusals(self, request: JoinRequest, now_unix: int) -> Iterator[None]:
        """Put on record that a node with a token's secret was refused; who has none leaves no trace on the disk."""
        try:
            yield
        except RemoteProtocolError as error:
            if error.reason not in (Reason.WAITING, Reason.BUSY) and self._refusals.take(now_unix):
                self._note(Act.REFUSED, now_unix, node=request.node_id, name=request.name, detail=str(error))
            raise

    def _note(self, what: Act, now_unix: int, *, node: bytes = b"", name: str = "", detail: str = "") -> None:
        log = self._records.audit(self.anchor.realm_id)
        audit.note(log, self._key, self.anchor.realm_id, what, at=now_unix, node=node, name=name, detail=detail)

    def admit(self, request: OfflineRequest, *, now_unix: int, rights: Rights = Rights()) -> JoinAnswer:
        """Return the answer to a request file, for which the caller vouches instead of a token.

        Raises RemoteProtocolError: bad-signature, name-taken, wrong-name, too-many-names, no-address, grant-expired.
        """
        request.verify()
        with self._records.transaction():
            chain = self._let_in(request, rights, self._entries(), now_unix=now_unix)
        return self._answer(chain, request.digest, b"")

    def renew(self, chain: Chain, *, now_unix: int, late_s: int | None = 0) -> Chain:
        """Return a fresh chain for a node with an authentic chain of this issuer; its address stays.

        The caller has authenticated the node.  late_s: for how long it may have expired; None: for ever.  A chain of an
        issuer whose block the root gave to this one since counts too.  Raises RemoteProtocolError: reasons of
        Chain.verify_signatures(), wrong-issuer, unknown-node, expired, expired-long-ago, ended, grant-expired,
        too-soon.
        """
        chain.verify_signatures(self.anchor)
        with self._records.transaction():
            entries = self._entries()
            entry = entries.get(chain.credential.node_id)
            if chain.credential.issuer != self.issuer_id and (entry is None or entry.not_after < chain.not_after):
                entry = self._taken_over(chain, entries, now_unix)
            entry = _member_of({} if entry is None else {entry.node_id: entry}, chain.credential.node_id)
            late = now_unix - max(entry.not_after, chain.not_after)
            if late_s == 0 and late >= 0:
                raise RemoteProtocolError(Reason.EXPIRED, f"{span(late)} ago")
            if late_s is not None and late >= late_s:
                raise RemoteProtocolError(Reason.EXPIRED_LONG_AGO, f"{span(late)} ago")
            is_due = late_s is None or now_unix >= entry.not_after - entry.lifetime_s // 3
            if not (is_due or self._early.take(entry.node_id, now_unix)):
                raise RemoteProtocolError(Reason.TOO_SOON, "its credential is not due yet")
            self._grant_of(entry.ipv4, now_unix)  # refused before anything is recorded
            self._note(Act.RENEWED, now_unix, node=entry.node_id, name=entry.name)
            return self._sign(
                entry, chain.credential.node_public, now_unix=now_unix, not_after=now_unix + entry.lifetime_s
            )

    def renew_at(self, request: RenewRequest, *, binding: bytes, now_unix: int, late_s: int) -> JoinAnswer:
        """Return the answer to a request that arrived on the connection with this 32-byte binding.

        Raises RemoteProtocolError as renew() does, and bad-signature.  A node that is not on record costs no more than
        its chain.
        """
        key = VerifyKey.decode_untrusted(request.node_public)
        if not self.renews(request.chain):
            raise RemoteProtocolError(Reason.WRONG_ISSUER)
        request.verify_signature(key, self.anchor.realm_id, binding=binding)
        return self._answer(self.renew(request.chain, now_unix=now_unix, late_s=late_s), request.digest, binding)

    def has_member(self, node_id: NodeId) -> bool:
        """Say whether a node is on record here, and its membership has not been ended."""
        entry = self._entries().get(node_id)
        return entry is not None and entry.is_member

    def renews(self, chain: Chain) -> bool:
        """Say whether a chain is of this issuer, or of one in whose place it is."""
        return chain.credential.issuer == self.issuer_id or self._grant_newer_than(chain) is not None

    def _grant_newer_than(self, chain: Chain) -> Grant | None:
        """Return the grant by which the root gave this issuer the address of another's node, or None."""
        ipv4 = chain.credential.ipv4
        grants = (self._grant, *self._further)
        held = (grant for grant in grants if grant is not None and ipv4 is not None and ipv4 in grant.ipv4_block)
        return next((grant for grant in held if granted_later(grant, chain.grant)), None)

    def _taken_over(self, chain: Chain, entries: dict[NodeId, Issued], now_unix: int) -> Issued:
        """Return the record of a node that an issuer let in whose block this one has now: its chain says all of it.

        Raises RemoteProtocolError: wrong-issuer, name-taken, no-address, ended.
        """
        credential = chain.credential
        if self._grant_newer_than(chain) is None or credential.ipv4 is None:
            raise RemoteProtocolError(Reason.WRONG_ISSUER)
        known = entries.get(credential.node_id)
        if known is not None:
            return known  # of a copy of the other's records
        _require_free(credential.name, credential.node_id, entries, now_unix)
        if any(entry.is_member and entry.ipv4 == credential.ipv4 for entry in entries.values()):
            raise RemoteProtocolError(Reason.NO_ADDRESS, f"another node has {credential.ipv4} by now")
        return Issued(
            credential.node_id,
            credential.name,
            credential.tags,
            credential.capabilities,
            credential.ipv4,
            serial=0,
            lifetime_s=credential.not_after - credential.not_before,
            not_after=chain.not_after,
        )

    def change(
        self,
        node_id: NodeId,
        *,
        now_unix: int,
        name: str | None = None,
        tags: tuple[str, ...] | None = None,
        capabilities: tuple[str, ...] | None = None,
    ) -> Issued:
        """Record a member's new name, tags or capabilities, and return its record; None: as before.

        Its next credential says so, see reissue().  Raises RemoteProtocolError: unknown-node, ended, name-taken,
        too-many-names.
        """
        with self._records.transaction():
            entries = self._entries()
            entry = _member_of(entries, node_id)
            new = dataclasses.replace(
                entry,
                name=entry.name if name is None else name,
                tags=entry.tags if tags is None else tags,
                capabilities=entry.capabilities if capabilities is None else capabilities,
            )
            if new == entry:
                return entry
            self._require_free(new.name, node_id, entries, now_unix)
            new = dataclasses.replace(new, former=_former(entry, new.name, now_unix), due=True)
            if set(entry.capabilities) - set(new.capabilities):  # the next credential may be of this very second
                new = dataclasses.replace(new, withdrawn_at=now_unix - 1, withdrawn_until=entry.not_after)
            if new.name != entry.name:
                self._note(Act.RENAMED, now_unix, node=node_id, name=new.name, detail=f"was {entry.name}")
            if ISSUER in set(new.capabilities) - set(entry.capabilities):
                self._note(Act.GRANTED, now_unix, node=node_id, name=new.name, detail="it may issue")
            elif (new.tags, new.capabilities) != (entry.tags, entry.capabilities):
                rights = ", ".join((*new.capabilities, *(f"#{tag}" for tag in new.tags)))
                self._note(Act.CHANGED, now_unix, node=node_id, name=new.name, detail=rights or "no rights")
            self._records.save_issued(new)
            return new

    def reissue(self, node_id: NodeId, *, now_unix: int) -> Chain:
        """Return a fresh chain for a member that did not ask for it, with the end that its credential has.

        Raises RemoteProtocolError: unknown-node, ended, expired, grant-expired.  unknown-node too for a record of an
        earlier version, which lacks the node's keys until it renews.
        """
        with self._records.transaction():
            entry = _member_of(self._entries(), node_id)
            if not entry.node_public:
                raise RemoteProtocolError(Reason.UNKNOWN_NODE, "its keys come with its next renewal")
            if now_unix >= entry.not_after:
                raise RemoteProtocolError(Reason.EXPIRED)
            return self._sign(entry, entry.node_public, now_unix=now_unix, not_after=entry.not_after, due=entry.due)

    def due(self) -> list[NodeId]:
        """Return the members that have not got yet what was changed last."""
        return [entry.node_id for entry in self._records.issued() if entry.due and entry.is_member]

    def delivered(self, node_id: NodeId, serial: int) -> None:
        """Take note that a member uses the credential of that serial."""
        with self._records.transaction():
            entry = self._entries().get(node_id)
            if entry is not None and entry.due and entry.serial == serial:
                self._records.save_issued(dataclasses.replace(entry, due=False))

    def end(self, node_id: NodeId, why: End, *, now_unix: int, reason: str = "") -> Issued:
        """End a membership, and return its record: no renewal and no used invitation brings it back.

        Its credential is good until its date for nodes that do not hear of it.  Raises RemoteProtocolError:
        unknown-node, ended.
        """
        with self._records.transaction():
            return self._end(_member_of(self._entries(), node_id), why, now_unix, reason)

    def revoke(self, node_id: NodeId, reason: str, *, now_unix: int) -> None:
        """End a membership for good, and put on record that it was; also that of another issuer's node.

        That no other node takes it for a member is the deny list's part.  Twice does no harm.
        """
        with self._records.transaction():
            entry = self._entries().get(node_id)
            if entry is None:
                self._note(Act.REVOKED, now_unix, node=node_id, detail=reason)
            elif entry.end != End.REVOKED:
                self._end(entry, End.REVOKED, now_unix, reason)

    def _end(self, entry: Issued, why: End, now_unix: int, reason: str = "") -> Issued:
        """End a membership inside a transaction.  Every end passes here; state/revoking.py then tells the others."""
        ended = dataclasses.replace(entry, end=str(why), ended_at=now_unix, due=False)
        self._note(_ACTS[why], now_unix, node=entry.node_id, name=entry.name, detail=reason)
        self._records.save_issued(ended)
        return ended

    def _require_free(self, name: str, node_id: NodeId, entries: dict[NodeId, Issued], now_unix: int) -> None:
        """Raise RemoteProtocolError("name-taken") if another node holds a name, here or elsewhere."""
        _require_free(name, node_id, entries, now_unix)
        if self.elsewhere(name) not in (None, node_id):
            raise RemoteProtocolError(Reason.NAME_TAKEN, f"{name}, let in by another issuer")

    def _entries(self) -> dict[NodeId, Issued]:
        return {entry.node_id: entry for entry in self._records.issued()}

    def _answer(self, chain: Chain, request_digest: bytes, binding: bytes) -> JoinAnswer:
        answer = JoinAnswer(self.anchor, chain, request_digest, UNSIGNED)
        return answer.sign(self._key, self.anchor.realm_id, binding=binding)

    def _let_in(
        self,
        request: JoinRequest | OfflineRequest,
        rights: Rights,
        entries: dict[NodeId, Issued],
        *,
        now_unix: int,
        used: Invite | None = None,
    ) -> Chain:
        """Record a node and then sign for it.  used: its invitation, with this use counted."""
        known = entries.get(request.node_id)
        known = known if known is not None and known.is_member else None
        replaced = _replaced(rights, request, entries)
        others = _without(replaced, entries)
        self._require_free(request.name, request.node_id, others, now_unix)
        if known is not None:
            ipv4 = known.ipv4
        elif replaced is not None and not any(
            other.is_member and other.ipv4 == replaced.ipv4 for other in entries.values() if other is not replaced
        ):
            ipv4 = replaced.ipv4
        else:
            ipv4 = self._free_address(request.node_id, entries, now_unix)
        self._grant_of(ipv4, now_unix)  # refused before anything is recorded
        entry = Issued(
            request.node_id,
            request.name,
            rights.tags,
            rights.capabilities,
            ipv4,
            serial=0,  # this and the end are given with the signature
            lifetime_s=rights.lifetime_s,
            not_after=0,
            admitted_at=now_unix,
            invite_id=rights.invite_id,
            former=() if known is None else _former(known, request.name, now_unix),
        )
        if replaced is not None and replaced.is_member:
            self._end(replaced, End.REPLACED, now_unix, f"by {format_node_id(request.node_id)}")
        by = f"by invitation {rights.invite_id.hex()}" if rights.invite_id else "by a request that was signed here"
        self._note(Act.ADMITTED, now_unix, node=entry.node_id, name=entry.name, detail=by)
        return self._sign(
            entry, request.node_public, now_unix=now_unix, not_after=now_unix + rights.lifetime_s, used=used
        )

    def _grant_of(self, ipv4: IPv4Address, now_unix: int) -> Grant | None:
        """Return the grant under which a node of that address is signed for; None: the root signs.

        Raises RemoteProtocolError: grant-expired, bad-address.
        """
        if self._grant is None:
            return None
        grant = next((each for each in (self._grant, *self._further) if ipv4 in each.ipv4_block), None)
        if grant is None:
            raise RemoteProtocolError(Reason.BAD_ADDRESS, f"{ipv4} is in no block of this issuer")
        if now_unix >= grant.not_after:
            raise RemoteProtocolError(Reason.GRANT_EXPIRED)
        return grant

    def _sign(
        self,
        entry: Issued,
        node_public: bytes,
        *,
        now_unix: int,
        not_after: int,
        used: Invite | None = None,
        due: bool = False,
    ) -> Chain:
        """Record, then sign: a crash in between wastes a serial, but no two nodes get the same name or address."""
        grant = self._grant_of(entry.ipv4, now_unix)
        if grant is not None:
            not_after = min(not_after, grant.not_after)
        serial = 1 + max((other.serial for other in self._records.issued()), default=0)
        entry = dataclasses.replace(entry, serial=serial, not_after=not_after, node_public=node_public, due=due)
        self._records.save_issued(entry)
        if used is not None:
            self._records.save_invite(used)
        credential = Credential(
            realm_id=self.anchor.realm_id,
            node_public=node_public,
            name=entry.name,
            tags=entry.tags,
            capabilities=entry.capabilities,
            ipv4=entry.ipv4,
            nats_jwt="",
            not_before=now_unix,
            not_after=not_after,
            serial=serial,
            issuer=self.issuer_id,
            signature=UNSIGNED,
        )
        if self._mint is not None:
            credential = dataclasses.replace(credential, nats_jwt=self._mint(credential))
        return Chain(credential.sign(self._key, self.anchor.realm_id), grant)

    def _free_address(self, node_id: NodeId, entries: dict[NodeId, Issued], now_unix: int) -> IPv4Address:
        """Return the address that the node id picks, or the next free one.

        A member keeps its address although its credential has ended, and an ended one as long as others may believe its
        credential.  If that leaves none, the node that ended first is forgotten, QUARANTINE_S later at the earliest.
        """
        held = [entry for entry in entries.values() if entry.is_member or entry.not_after > now_unix]
        for block in self._blocks(now_unix):
            try:
                return pick_address(block, node_id, {entry.ipv4 for entry in held if entry.ipv4 in block})
            except RemoteProtocolError:
                continue
        longest_ago = min(held, key=lambda entry: entry.not_after, default=None)
        if longest_ago is None or longest_ago.not_after + QUARANTINE_S > now_unix:
            raise RemoteProtocolError(Reason.NO_ADDRESS, f"all {len(held)} addresses are taken")
        self._records.forget_issued(longest_ago.node_id)
        return longest_ago.ipv4

    def _blocks(self, now_unix: int) -> list[IPv4Network]:
        """Return the blocks of the grants that hold.  Raises RemoteProtocolError: grant-expired."""
        if self._grant is None:
            return [self.anchor.ipv4_prefix]
        blocks = [each.ipv4_block for each in (self._grant, *self._further) if each.not_after > now_unix]
        if not blocks:
            raise RemoteProtocolError(Reason.GRANT_EXPIRED)
        return blocks


_ACTS = {End.LEFT: Act.LEFT, End.REPLACED: Act.REPLACED, End.REVOKED: Act.REVOKED}


def _made_by(invite: Invite, request: JoinRequest, entries: dict[NodeId, Issued], now_unix: int) -> Issued:
    """Return the record that a used invitation made for a node, or raise RemoteProtocolError("used-up").

    Only that very record is answered again, and with its own end: the invitation gives no other name, nothing that was
    taken back, and not a second longer.
    """
    entry = entries.get(request.node_id)
    if entry is None or not entry.is_member or (entry.invite_id, entry.name) != (invite.invite_id, request.name):
        raise RemoteProtocolError(Reason.USED_UP)
    if now_unix >= entry.not_after:
        raise RemoteProtocolError(Reason.USED_UP, "the credential that it gave has ended")
    return entry


def _member_of(entries: dict[NodeId, Issued], node_id: NodeId) -> Issued:
    """Return the record of a member, or raise RemoteProtocolError: unknown-node, ended."""
    entry = entries.get(node_id)
    if entry is None:
        raise RemoteProtocolError(Reason.UNKNOWN_NODE)
    if not entry.is_member:
        raise RemoteProtocolError(Reason.ENDED, entry.end)
    return entry


def _require_free(name: str, node_id: NodeId, entries: dict[NodeId, Issued], now_unix: int) -> None:
    """Raise RemoteProtocolError("name-taken") if another node holds a name."""
    if any(entry.holds(name, now_unix) for entry in entries.values() if entry.node_id != node_id):
        raise RemoteProtocolError(Reason.NAME_TAKEN, name)


def _without(left_out: Issued | None, entries: dict[NodeId, Issued]) -> dict[NodeId, Issued]:
    return {node: entry for node, entry in entries.items() if entry is not left_out}


def _replaced(rights: Rights, request: JoinRequest | OfflineRequest, entries: dict[NodeId, Issued]) -> Issued | None:
    """Return the record of the node whose place the joiner takes, or None.  Raises RemoteProtocolError: wrong-name."""
    entry = entries.get(NodeId(rights.replaces))
    if entry is None or entry.node_id == request.node_id:
        return None
    if entry.name != request.name:
        raise RemoteProtocolError(Reason.WRONG_NAME, f"{request.name}, not {entry.name}")
    return entry


def _former(known: Issued, name: str, now_unix: int) -> tuple[Former, ...]:
    """Return the names that a member keeps from others when it gets this one.  Raises RemoteProtocolError."""
    kept = [old for old in known.former if old.not_after > now_unix and old.name != name]
    if known.name != name and known.not_after > now_unix:
        kept.append(Former(known.name, known.not_after))
    if len(kept) > FORMER_COUNT_MAX:
        raise RemoteProtocolError(Reason.TOO_MANY_NAMES)
    return tuple(kept)


def pick_address(block: IPv4Network, node_id: NodeId, taken: set[IPv4Address]) -> IPv4Address:
    """Return a host address of block that is not taken.  Raises RemoteProtocolError("no-address")."""
    count = block.num_addresses - 2  # the first and the last belong to the network itself
    if count <= len(taken):
        raise RemoteProtocolError(Reason.NO_ADDRESS, f"all {count} addresses of {block} are taken")
    start = int.from_bytes(sha256(b"conflux/1/address", node_id)[:8])
    return next(found for step in range(count) if (found := block[1 + (start + step) % count]) not in taken)
