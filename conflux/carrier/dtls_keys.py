"""The keys of a finished DTLS 1.2 handshake (RFC 5246, section 6.3), so that another may seal and open its records.

    master secret ─► key_block = client key ‖ server key ‖ client IV ‖ server IV        (AEAD suites have no MAC keys)

Only suites with an AEAD that cext/dtls.h carries; everything else is refused by name.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from conflux.carrier.wire import AES_128_GCM, AES_256_GCM, CHACHA20_POLY1305, DtlsKeys
from conflux.errors import RemoteProtocolError

if TYPE_CHECKING:
    from OpenSSL import SSL

DTLS_1_2: Final = 0xFEFD

# The first sequence number of epoch 1 that is ours.  The handshake's library keeps those below: one for its Finished,
# and one more whenever the peer, having lost our last flight, makes it send that again; who passes its records on sees
# to it that it uses no other (SEQUENCE_OUT is the bound there too).  Not much larger either: a peer that still waits
# for our Finished may have kept our first records, and opens them before the Finished; its replay window (64 wide in
# OpenSSL) must then still hold the numbers below.
SEQUENCE_OUT: Final = 32


@dataclass(frozen=True, slots=True)
class Suite:
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

    The connection keeps its own copy until it is dropped, and Python cannot wipe bytes: drop what this returns as soon
    as the engine has it.  Raises RemoteProtocolError("dtls-version") and ("dtls-cipher").
    """
    if connection.get_protocol_version() != DTLS_1_2:
        raise RemoteProtocolError("dtls-version", connection.get_protocol_version_name())
    name = connection.get_cipher_name()
    suite = SUITES.get(name) if name is not None else None
    if suite is None:
        raise RemoteProtocolError("dtls-cipher", str(name))
    master, client, server = connection.master_key(), connection.client_random(), connection.server_random()
    if master is None or client is None or server is None:  # only before a handshake
        raise RemoteProtocolError("dtls", "the handshake is not done")
    block = expand(master, b"key expansion" + server + client, 2 * (suite.key_bytes + suite.iv_bytes), suite.prf)
    of_client, of_server = block[: suite.key_bytes], block[suite.key_bytes : 2 * suite.key_bytes]
    ivs = block[2 * suite.key_bytes :]
    iv_of_client, iv_of_server = ivs[: suite.iv_bytes], ivs[suite.iv_bytes :]
    if is_client:
        return DtlsKeys(suite.cipher, of_client, of_server, iv_of_client, iv_of_server, SEQUENCE_OUT)
    return DtlsKeys(suite.cipher, of_server, of_client, iv_of_server, iv_of_client, SEQUENCE_OUT)


def expand(secret: bytes, seed: bytes, size: int, digest: str) -> bytes:
    """Return size bytes of P_hash (RFC 5246, section 5); seed: label and seed of the PRF, joined."""
    made, link = b"", seed
    while len(made) < size:
        link = hmac.digest(secret, link, digest)
        made += hmac.digest(secret, link + seed, digest)
    return made[:size]
