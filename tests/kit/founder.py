"""A node that lets others in over a real broker, and renews them late.

Servers judge dates by the true time, so here issuers do, too.
"""

from __future__ import annotations

from dataclasses import replace

from kit.builders import make_grant, make_realm, node_keys, signing_key
from kit.cluster import Broker, NatsNode, now_unix
from kit.office import Records

from conflux.control.admitting import Office as Desk
from conflux.control.admitting import Request
from conflux.realm.credential import ISSUER
from conflux.realm.identity import NodeKeys
from conflux.realm.issuer import Issuer
from conflux.realm.join import JoinAnswer, OfflineRequest, RenewRequest
from conflux.realm.member import Member

DAY_S = 86400
LATE_S = 90 * DAY_S
REALM = make_realm()


class Founder:
    """A node that issues, at a broker.  granted_at: the date of its grant; later ones count for more."""

    def __init__(self, at: Broker, name: str = "alice", *, granted_at: int = 0, late_s: int = LATE_S) -> None:
        key, granted_at = signing_key(name), granted_at or now_unix() - 200 * DAY_S
        grant = replace(make_grant(REALM, key), not_before=granted_at).sign(REALM.root, REALM.anchor.realm_id)
        self.records = Records()
        self.issuer = Issuer(key, REALM.anchor, grant, self.records, mint=at.operator.signer.mint)
        self.late_s = late_s
        desk = Desk(issue=self._issue, issuer=lambda: self.issuer.issuer_id, secret=self.issuer.secret_of)
        self.node = NatsNode(at.member(name, capabilities=(ISSUER,)), at.config(), office=desk)

    def _issue(self, request: Request, binding: bytes) -> JoinAnswer:
        assert isinstance(request, RenewRequest)
        return self.issuer.renew_at(request, binding=binding, now_unix=now_unix(), late_s=self.late_s)

    def admitted(self, name: str, days_ago: int, keys: NodeKeys | None = None) -> Member:
        """Return a member that this issuer let in so many days ago, for thirty days.  keys: None: of that name."""
        keys = keys or node_keys(name)
        request = OfflineRequest.build(keys, name, nonce=bytes(32))
        answer = self.issuer.admit(request, now_unix=now_unix() - days_ago * DAY_S)
        return Member(keys, REALM.anchor, answer.chain)
