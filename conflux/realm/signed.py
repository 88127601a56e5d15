"""A record whose last field is a hybrid signature over the fields before it."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Self

from conflux import wire
from conflux.crypto.sign import SIGNATURE_BYTES, SigningKey, VerifyKey, context
from conflux.errors import AuthError, RemoteProtocolError
from conflux.ids import RealmId
from conflux.wire import Record, octets

SIGNATURE = octets(SIGNATURE_BYTES)
UNSIGNED = b""  # what stands in the field until sign(); no decoder accepts it


@dataclasses.dataclass(frozen=True, slots=True)
class Signed(Record):
    """Base of signed records: name a PURPOSE and end the fields with signature."""

    PURPOSE: ClassVar[str]

    def sign(self, key: SigningKey, realm_id: RealmId, *, binding: bytes = b"") -> Self:
        """Return the record signed by key.

        binding: bytes both sides know and the record does not carry, such as the hash of the channel it crosses.
        """
        signature = key.sign(context(self.PURPOSE, realm_id), binding + self._signed_bytes())
        return dataclasses.replace(self, signature=signature)  # type: ignore[call-arg]  # every subclass ends in it

    def verify_signature(self, key: VerifyKey, realm_id: RealmId, *, binding: bytes = b"") -> None:
        """Raise RemoteProtocolError("bad-signature") unless key signed exactly this record for this realm."""
        signature: bytes = self._to_item()[-1]
        try:
            key.verify(context(self.PURPOSE, realm_id), binding + self._signed_bytes(), signature)
        except AuthError:
            raise RemoteProtocolError("bad-signature", self.PURPOSE) from None

    def _signed_bytes(self) -> bytes:
        return wire.encode(self._to_item()[:-1])
