"""dtls.c and the taken-over keys against OpenSSL's own records, in memory."""

from __future__ import annotations

import ctypes

import pytest
from kit.dtls import (
    ALERT,
    APPLICATION_DATA,
    AUTH,
    HANDSHAKE,
    HEADER_BYTES,
    OK,
    OTHER_EPOCH,
    SUITES,
    Records,
    advance,
    connection,
    handshake,
    outgoing,
    pass_on,
)
from OpenSSL import SSL

from conflux.carrier.native.dtls_keys import SEQUENCE_OUT, take_keys
from conflux.errors import RemoteProtocolError

SIZES = (1, 15, 16, 17, 1159, 1400, 16384)


@pytest.fixture(params=["client", "server"])
def we_are_client(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "client")


def pair(suite: str, *, we_are_client: bool) -> tuple[SSL.Connection, SSL.Connection]:
    ours, theirs = connection(suite, is_client=we_are_client), connection(suite, is_client=not we_are_client)
    handshake(*((ours, theirs) if we_are_client else (theirs, ours)))
    return ours, theirs


@pytest.mark.parametrize("suite", SUITES)
def test_records_pass_between_taken_keys_and_an_unmodified_openssl_both_ways(
    dtls_library: ctypes.CDLL, suite: str, we_are_client: bool
) -> None:
    ours, theirs = pair(suite, we_are_client=we_are_client)
    records = Records(dtls_library, take_keys(ours, is_client=we_are_client))
    for size in SIZES:
        data = bytes([size % 251]) * size
        theirs.bio_write(records.seal(data))
        assert theirs.recv(65536) == data
        theirs.send(data)
        (datagram,) = outgoing(theirs)
        opened = records.unseal(datagram)
        assert (opened.fault, opened.type, opened.payload) == (OK, APPLICATION_DATA, data)
        assert opened.record_size == len(datagram) == size + records.overhead


@pytest.mark.parametrize("suite", SUITES)
def test_close_notify_is_understood_both_ways(dtls_library: ctypes.CDLL, suite: str, we_are_client: bool) -> None:
    ours, theirs = pair(suite, we_are_client=we_are_client)
    records = Records(dtls_library, take_keys(ours, is_client=we_are_client))
    theirs.bio_write(records.seal(b"\x01\x00", ALERT))
    with pytest.raises(SSL.ZeroReturnError):
        theirs.recv(100)
    theirs.shutdown()
    opened = [records.unseal(datagram) for datagram in outgoing(theirs)]
    assert (opened[-1].fault, opened[-1].type, opened[-1].payload) == (OK, ALERT, b"\x01\x00")


def test_peers_finished_is_left_for_the_handshakes_library(dtls_library: ctypes.CDLL) -> None:
    """The client lost the server's last flight, and sends its own again."""
    client, server = connection(SUITES[0], is_client=True), connection(SUITES[0], is_client=False)
    client_says = lose_last_flight(client, server)
    records = Records(dtls_library, take_keys(server, is_client=False))
    opened = [records.unseal(datagram) for datagram in client_says]
    assert {one.fault for one in opened} == {OTHER_EPOCH}
    assert opened[-1].type == HANDSHAKE
    assert client_says[-1][3:5] == b"\0\1"


@pytest.mark.parametrize(("suite", "early_count"), [(SUITES[0], 0), (SUITES[2], 8)])
def test_a_lost_last_flight_is_sent_again_after_the_takeover(
    dtls_library: ctypes.CDLL, suite: str, early_count: int
) -> None:
    """Also if our first records, with higher numbers, come before it."""
    client, server = connection(suite, is_client=True), connection(suite, is_client=False)
    client_says = lose_last_flight(client, server)
    records = Records(dtls_library, take_keys(server, is_client=False))
    for number in range(early_count):
        client.bio_write(records.seal(bytes([number])))
        assert not advance(client)
    for datagram in client_says:
        server.bio_write(datagram)
        with pytest.raises(SSL.WantReadError):
            server.recv(100)
    again = outgoing(server)
    used = [int.from_bytes(one[5:11], "big") for one in again if one[3:5] == b"\0\1"]
    assert used
    assert max(used) < SEQUENCE_OUT
    for datagram in again:  # one at a time: between ChangeCipherSpec and Finished it reads early records
        client.bio_write(datagram)
        done = advance(client)
    assert done
    for data in (b"one", b"two"):
        client.bio_write(records.seal(data))
    early = [bytes([number]) for number in range(early_count)]
    assert [client.recv(100) for _ in range(early_count + 2)] == [*early, b"one", b"two"]


def lose_last_flight(client: SSL.Connection, server: SSL.Connection) -> list[bytes]:
    """Shake hands until the server is done, lose its last flight, and return the client's flight that follows."""
    while not advance(server):
        pass_on(server, client)
        assert not advance(client)
        pass_on(client, server)
    assert outgoing(server)
    while not (said := outgoing(client)):  # OpenSSL has a timer of its own: a second
        client.DTLSv1_handle_timeout()
    return said


@pytest.mark.parametrize("suite", SUITES)
def test_forged_and_cut_records_of_openssl_are_refused(dtls_library: ctypes.CDLL, suite: str) -> None:
    ours, theirs = pair(suite, we_are_client=True)
    records = Records(dtls_library, take_keys(ours, is_client=True))
    theirs.send(b"some data")
    (datagram,) = outgoing(theirs)
    for at in range(HEADER_BYTES, len(datagram)):
        forged = bytearray(datagram)
        forged[at] ^= 1
        assert records.unseal(bytes(forged)).fault == AUTH
    assert records.unseal(datagram).payload == b"some data"


def test_a_suite_we_cannot_carry_is_refused_by_name() -> None:
    ours, theirs = pair("ECDHE-ECDSA-AES128-SHA", we_are_client=True)
    for side, is_client in ((ours, True), (theirs, False)):
        with pytest.raises(RemoteProtocolError, match="dtls-cipher: ECDHE-ECDSA-AES128-SHA"):
            take_keys(side, is_client=is_client)


def test_keys_before_the_handshake_are_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        take_keys(connection(SUITES[0], is_client=True), is_client=True)
