"""An issuer at a real broker, and tokens that lead there."""

from __future__ import annotations

import os
import ssl
from typing import Any

from kit.builders import NOW_UNIX, make_grant, make_realm, signing_key
from kit.cluster import Broker, NatsNode, now_unix
from kit.office import Records

from conflux.control.admitting import Office as Desk
from conflux.control.admitting import Request
from conflux.crypto.kdf import sha256
from conflux.realm.broker.users import JoinPass
from conflux.realm.credential import ISSUER
from conflux.realm.invite import Token, make_invite
from conflux.realm.issuer import Issuer
from conflux.realm.join import JoinAnswer, JoinRequest


class FarOffice:
    """alice, who issues, at a broker.  lists: what a new member gets.  floor_unix: the newest date of its realm."""

    def __init__(self, at: Broker, *, lists: tuple[bytes, ...] = (), floor_unix: int = 0) -> None:
        realm = make_realm()
        self.at = at
        self.records = Records()
        key = signing_key("alice")
        self.issuer = Issuer(key, realm.anchor, make_grant(realm, key), self.records)
        desk = Desk(
            issue=self._issue,
            issuer=lambda: self.issuer.issuer_id,
            secret=self.issuer.secret_of,
            lists=lambda: lists,
        )
        member = at.member("alice", capabilities=(ISSUER,))
        self.node = NatsNode(member, at.config(), office=desk, floor_unix=floor_unix)

    def _issue(self, request: Request, binding: bytes) -> JoinAnswer:
        assert isinstance(request, JoinRequest)
        return self.issuer.join(request, binding=binding, now_unix=NOW_UNIX)

    def invite(self, **options: Any) -> Token:
        """Return the token of a new invitation."""
        invite, token = make_invite(
            self.issuer.anchor, self.issuer.issuer_id, now_unix=NOW_UNIX, entropy=os.urandom, **options
        )
        self.records.save_invite(invite)
        return over_broker(self.at, token)


def over_broker(at: Broker, token: Token, *, admission: JoinPass | None = None) -> Token:
    """Return a token with the way over a broker.  NOW_UNIX is the issuer's present, and a server has the true one."""
    ends_at = now_unix() + token.not_after - NOW_UNIX
    made = at.operator.signer.join_pass(token.invite_id, token.secret, issued_at=now_unix(), expires_at=ends_at)
    ca = ssl.PEM_cert_to_DER_cert(at.certificates.ca)
    return token.with_broker([f"{host}:{port}" for host, port in at.addresses], sha256(ca), admission or made)
