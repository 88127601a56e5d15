"""The keys of a finished DTLS 1.2 handshake (RFC 5246, section 6.3), for an engine that seals and opens its records.

    master secret ─► key_block = client key ‖ server key ‖ client IV ‖ server IV        (AEAD suites have no MAC keys)

Only suites with an AEAD that cext/dtls/dtls.h has; every other is refused by name.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from conflux.anchor import frame
from conflux.carrier.interface import CarrierEnd, LinkKeys
from conflux.carrier.wire import AES_128_GCM, AES_256_GCM, CHACHA20_POLY1305, DtlsKeys
from conflux.errors import RemoteProtocolError

if TYPE_CHECKING:
    from OpenSSL import SSL

DTLS_1_2: Final = 0xFEFD

# The engine's first sequence number in epoch 1.  OpenSSL has those below: one for its Finished, and one more for each
# repetition of our last flight; handshake.py holds it to them.  The number is not much larger, because a peer that
# waits for our Finished may have kept our first records and open them before the Finished: then its replay window (64
# wide in OpenSSL) must still hold the numbers below.
SEQUENCE_OUT: Final = 32


@dataclass(frozen=True, slots=True)
class Suite:
    """The parts of a cipher suite that matter to its keys."""

    cipher: int
    key_bytes: int
    iv_bytes: int
    prf: str


SUITES: Final = {  # by OpenSSL's names; our certificates are ECDSA
    "ECDHE-ECDSA-AES128-GCM-SHA256": Suite(AES_128_GCM, 16, 4, "sha256"),
    "ECDHE-ECDSA-AES256-GCM-SHA384": Suite(AES_256_GCM, 32, 4, "sha384"),
    "ECDHE-ECDSA-CHACHA20-POLY1305": Suite(CHACHA20_POLY1305, 32, 12, "sha256"),
}


def take_keys(connection: SSL.Connection, *, is_client: bool) -> DtlsKeys:
    """Return the keys of a connection whose handshake is done.

    The connection keeps its own copy until it is dropped.  Python cannot wipe bytes, so drop the result as soon as the
    engine has it.  Raises RemoteProtocolError("dtls-version") and ("dtls-cipher").
    """
    if connection.get_protocol_version() != DTLS_1_2:
        raise RemoteProtocolError(CarrierEnd.DTLS_VERSION, connection.get_protocol_version_name())
    name = connection.get_cipher_name()
    suite = SUITES.get(name) if name is not None else None
    if suite is None:
        raise RemoteProtocolError(CarrierEnd.DTLS_CIPHER, str(name))
    master, client, server = connection.master_key(), connection.client_random(), connection.server_random()
    if master is None or client is None or server is None:  # only before a handshake
        raise RemoteProtocolError(CarrierEnd.DTLS, "the handshake is not done")
    block = expand(master, b"key expansion" + server + client, 2 * (suite.key_bytes + suite.iv_bytes), suite.prf)
    of_client, of_server = block[: suite.key_bytes], block[suite.key_bytes : 2 * suite.key_bytes]
    ivs = block[2 * suite.key_bytes :]
    iv_of_client, iv_of_server = ivs[: suite.iv_bytes], ivs[suite.iv_bytes :]
    if is_client:
        return DtlsKeys(suite.cipher, of_client, of_server, iv_of_client, iv_of_server, SEQUENCE_OUT)
    return DtlsKeys(suite.cipher, of_server, of_client, iv_of_server, iv_of_client, SEQUENCE_OUT)


def given_keys(keys: LinkKeys) -> DtlsKeys:
    """Return keys that both ends agreed on as those of a connection: the same records, numbered alike."""
    if keys.aead == frame.AES_256_GCM:
        cipher, iv_bytes = AES_256_GCM, 4
    else:
        cipher, iv_bytes = CHACHA20_POLY1305, 12
    return DtlsKeys(cipher, keys.key_out, keys.key_in, keys.iv_out[:iv_bytes], keys.iv_in[:iv_bytes], SEQUENCE_OUT)


def expand(secret: bytes, seed: bytes, size: int, digest: str) -> bytes:
    """Return size bytes of P_hash (RFC 5246, section 5); seed: label and seed of the PRF, joined."""
    made, link = b"", seed
    while len(made) < size:
        link = hmac.digest(secret, link, digest)
        made += hmac.digest(secret, link + seed, digest)
    return made[:size]
