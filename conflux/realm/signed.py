"""A record whose last field is a hybrid signature over the fields before it."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Self

from conflux import record
from conflux.crypto.sign import SIGNATURE_BYTES, SigningKey, VerifyKey, context
from conflux.errors import AuthError, RemoteProtocolError
from conflux.ids import RealmId
from conflux.realm.reason import Reason
from conflux.record import Record, octets

SIGNATURE = octets(SIGNATURE_BYTES)
UNSIGNED = b""  # in the place of the signature until sign(); no decoder accepts it


@dataclasses.dataclass(frozen=True, slots=True)
class Signed(Record):
    """Base of signed records.  A subclass names a PURPOSE, and its last field is the signature."""

    PURPOSE: ClassVar[str]

    def sign(self, key: SigningKey, realm_id: RealmId, *, binding: bytes = b"") -> Self:
        """Return the record signed by key.

        binding: bytes that both ends know and the record does not carry, such as the hash of its connection.
        """
        signature = key.sign(context(self.PURPOSE, realm_id), binding + self._signed_bytes())
        return dataclasses.replace(self, signature=signature)  # type: ignore[call-arg]  # every subclass ends in it

    def verify_signature(self, key: VerifyKey, realm_id: RealmId, *, binding: bytes = b"") -> None:
        """Raise RemoteProtocolError("bad-signature") unless key signed exactly this record for this realm."""
        signature: bytes = self._to_item()[-1]
        try:
            key.verify(context(self.PURPOSE, realm_id), binding + self._signed_bytes(), signature)
        except AuthError:
            raise RemoteProtocolError(Reason.BAD_SIGNATURE, self.PURPOSE) from None

    def _signed_bytes(self) -> bytes:
        return record.encode(self._to_item()[:-1])
