"""Grants that this node knows by their digest, so that the cards of one issuer's members need not carry theirs."""

from __future__ import annotations

from collections import OrderedDict

from conflux.control.drop import Drop
from conflux.crypto.kdf import sha256
from conflux.errors import RemoteProtocolError
from conflux.realm.credential import Chain, Grant

GRANT_COUNT_MAX = 64  # 5 kB each; as many as signed lists are kept; the one not used for longest goes first


class Grants:
    """Grants whose signatures verified."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, Grant] = OrderedDict()

    def learn(self, chain: Chain) -> None:
        """Keep the grant of a chain that verified."""
        grant = chain.grant
        if grant is None or grant in self._known.values():
            return
        self._known[sha256(grant.encode())] = grant
        if len(self._known) > GRANT_COUNT_MAX:
            self._known.popitem(last=False)

    def shared(self, grant: Grant) -> Grant:
        """Return the one object that stands for an equal grant here, so that members of one issuer share 5 kB."""
        return next((known for known in self._known.values() if known == grant), grant)

    def find_untrusted(self, digest: bytes) -> Grant:
        """Return the grant of that SHA-256.  Raises RemoteProtocolError("unknown-grant")."""
        grant = self._known.get(digest)
        if grant is None:
            raise RemoteProtocolError(Drop.UNKNOWN_GRANT)
        self._known.move_to_end(digest)
        return grant

    @property
    def is_one(self) -> bool:
        """Whether the realm has one issuer, as far as is known: then others know its grant too."""
        return len(self._known) == 1
