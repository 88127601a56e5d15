"""The LAN channel on loopback, with real TLS: which nodes connect, which are refused, and which connection stays."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from ipaddress import ip_network

import pytest
from kit.builders import NOW_UNIX, make_credential, make_member, make_realm, node_keys, signing_key
from kit.control import boot_id
from kit.ear import envelope, node_of
from kit.lan import LanNode, free_port, lan, stranger

from conflux.control.channel import Handoff
from conflux.control.lan import channel
from conflux.control.lan.certificate import Certificate, client_context, peer_digest
from conflux.control.lan.connection import Connection
from conflux.control.lan.frame import FrameType
from conflux.control.lan.handshake import Dialler, Hello, Ourselves
from conflux.errors import RemoteProtocolError, UserError
from conflux.realm.credential import Chain
from conflux.realm.member import Member


def ourselves(name: str, realm: str = "home", member: Member | None = None) -> Ourselves:
    found = member or make_member(make_realm(realm), name)
    return Ourselves(found, boot_id(1), os.urandom(8), lambda chain: chain.verify(found.anchor, now_unix=NOW_UNIX))


# ── connecting ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_configured_peer_is_dialled_and_both_ends_see_each_other() -> None:
    async with lan("alice", "bob") as (alice, _):
        (entry,) = alice.channel.status()
        assert (entry.name, entry.dialled, entry.address) == ("bob", False, "127.0.0.1")


async def test_configured_peer_that_comes_up_later_is_connected() -> None:
    port = free_port()
    async with LanNode("bob", port) as bob:
        await bob.drops.until("dial-failed")
        async with LanNode("alice", port=port):
            await bob.ear.sees("alice")


async def test_ipv6_neighbours_connect() -> None:
    async with lan("alice", "bob", listen=("::1",)) as nodes:
        assert len(nodes) == 2


async def test_two_that_dial_each_other_keep_the_connection_that_the_smaller_id_dialled() -> None:
    names = sorted(("alice", "bob"), key=node_of)
    async with LanNode(names[0]) as first, LanNode(names[1]) as second:
        first.channel.found(b"not real", (("127.0.0.1", second.port),))
        second.channel.found(b"nor this", (("127.0.0.1", first.port),))
        dials = [target.task for node in (first, second) for target in node.channel._targets.all()]
        await asyncio.gather(*(dial for dial in dials if dial is not None))
        await first.ear.sees(names[1])
        await second.ear.sees(names[0])
        for node in (first, second):
            (kept,) = (neighbour.connection for neighbour in node.channel._neighbours.all())
            for connection in node.channel._connections - {kept}:
                await connection.closed  # a second later: until then it still delivers
        assert first.channel.status()[0].dialled
        assert not second.channel.status()[0].dialled
        assert first.ear.changes == [(second.node_id, True)]
        assert second.ear.changes == [(first.node_id, True)]


async def test_dialling_oneself_ends_at_once() -> None:
    async with LanNode("alice") as alice:
        alice.channel.found(b"whatever", (("127.0.0.1", alice.port),))
        await alice.drops.until("self")
        assert alice.ear.changes == []
        assert alice.channel.status() == ()


async def test_killed_peer_is_noticed_and_its_next_boot_connects_by_itself() -> None:
    async with LanNode("alice") as alice, LanNode("bob", alice.port) as bob:
        await bob.ear.sees("alice")
        await alice.ear.sees("bob")
        for connection in list(alice.channel._connections):
            connection.abort("killed")  # bob sees a reset, as after SIGKILL
        await alice.channel.stop()
        await bob.ear.sees()
        async with LanNode("alice", port=alice.port, boot=2):
            await bob.ear.sees("alice")
            assert bob.send(envelope(node_of("alice"), b"again")) is Handoff.ACCEPTED


async def test_restarted_peer_replaces_the_connection_that_tcp_still_believes_in() -> None:
    async with LanNode("alice") as alice, LanNode("bob", alice.port) as bob:
        await alice.ear.sees("bob")
        # The old process neither sends nor closes: its board lost power.
        async with LanNode("bob", alice.port, boot=2) as bob_again:
            await bob_again.ear.sees("alice")
            await alice.ear.until(lambda: len(alice.ear.changes) >= 3)
            assert alice.ear.changes == [(bob.node_id, True), (bob.node_id, False), (bob.node_id, True)]
            assert alice.send(envelope(bob.node_id, b"to the living")) is Handoff.ACCEPTED
            await bob_again.ear.heard(b"to the living")
            assert bob.ear.arrivals == []


async def test_last_envelope_before_stop_arrives() -> None:
    async with lan("alice", "bob") as (alice, bob):
        bob.send(envelope(alice.node_id))
        alice.send(envelope(bob.node_id, b"last"))
        await alice.channel.stop()
        await bob.ear.heard(b"last")


async def test_peer_that_is_found_again_is_dialled_at_once() -> None:
    port = free_port()
    async with LanNode("bob") as bob:
        bob.channel.found(b"instance", (("127.0.0.1", port),))
        await bob.drops.until("dial-failed")
        (target,) = bob.channel._targets.all()
        while target.backoff._delay_s < 30:
            target.backoff.next_s()
        async with LanNode("alice", port=port) as alice:
            bob.channel.found(alice.channel._ourselves.instance, (("127.0.0.1", port),))
            await bob.ear.sees("alice")


async def test_connection_from_an_address_that_is_gone_ends_and_is_dialled_anew_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with LanNode("alice") as alice, LanNode("bob", alice.port) as bob:
        await bob.ear.sees("alice")
        bob.channel.address_changed()
        assert bob.ear.changes == [(alice.node_id, True)]
        (target,) = bob.channel._targets.all()
        while target.backoff._delay_s < 30:
            target.backoff.next_s()
        monkeypatch.setattr(channel, "is_here", lambda address: False)
        bob.channel.address_changed()
        await bob.ear.until(lambda: len(bob.ear.changes) >= 3)
        assert bob.ear.changes == [(alice.node_id, up) for up in (True, False, True)]


async def test_peer_that_could_not_be_dialled_is_tried_at_once_when_an_address_came() -> None:
    port = free_port()
    async with LanNode("bob", port) as bob:
        await bob.drops.until("dial-failed")
        (target,) = bob.channel._targets.all()
        while target.backoff._delay_s < 30:
            target.backoff.next_s()
        async with LanNode("alice", port=port):
            bob.channel.address_changed()
            await bob.ear.sees("alice")


# ── which nodes are refused ──────────────────────────────────────────────────────────────────────────────────────────


async def refused(connect: Callable[[LanNode, AsyncExitStack], Awaitable[None]], reason: str) -> None:
    """Let connect() try alice; it has to end with a counted drop and without a neighbour."""
    async with AsyncExitStack() as stack, LanNode("alice") as alice:
        await connect(alice, stack)
        await alice.drops.until(reason)
        assert alice.ear.changes == []
        assert alice.channel.status() == ()


async def test_foreign_realm_is_refused() -> None:
    async def connect(alice: LanNode, stack: AsyncExitStack) -> None:
        await stack.enter_async_context(LanNode("eve", alice.port, realm="elsewhere"))

    await refused(connect, "foreign-realm")


async def test_expired_credential_is_refused() -> None:
    realm = make_realm()
    credential = make_credential(realm, "tim", not_before=NOW_UNIX - 10, not_after=NOW_UNIX)
    tim = Member(node_keys("tim"), realm.anchor, Chain(credential, None))

    async def connect(alice: LanNode, stack: AsyncExitStack) -> None:
        await stack.enter_async_context(LanNode("tim", alice.port, member=tim, now_unix=NOW_UNIX - 5))

    await refused(connect, "expired")


async def test_credential_that_no_issuer_of_the_realm_signed_is_refused() -> None:
    realm = make_realm()
    genuine = make_credential(realm, "mallory")
    forged = genuine.sign(signing_key("not the root"), realm.anchor.realm_id)
    mallory = Member(node_keys("mallory"), realm.anchor, Chain(forged, None))

    async def connect(alice: LanNode, stack: AsyncExitStack) -> None:
        await stack.enter_async_context(LanNode("mallory", alice.port, member=mallory))

    await refused(connect, "bad-signature")


Change = Callable[[Ourselves, Connection, bytes], bytes]


def hello_frames(change: Change) -> Callable[[LanNode, AsyncExitStack], Awaitable[None]]:
    """Dial by hand, and send as HELLO what change() makes of the greeting."""

    async def connect(alice: LanNode, stack: AsyncExitStack) -> None:
        connection = await stranger(alice.port)
        _, greeting = await connection.read(FrameType.GREETING)
        connection.send(FrameType.HELLO, change(ourselves("bob"), connection, greeting))
        await connection.closed  # without an answer

    return connect


async def test_stolen_credential_without_its_key_is_refused() -> None:
    def change(us: Ourselves, connection: Connection, greeting: bytes) -> bytes:
        dialler = Dialler(us, peer_digest(connection.tls), os.urandom)
        hello = Hello.decode_untrusted(dialler.hello_untrusted(greeting))
        stolen = make_member(make_realm(), "carol").chain
        return Hello(
            hello.realm_tag, stolen, *(getattr(hello, f) for f in ("boot", "seed", "nonce", "signature"))
        ).encode()

    await refused(hello_frames(change), "bad-signature")


async def test_hello_made_for_another_connection_is_refused() -> None:
    """A node in the middle has such a one: a genuine Hello to its own certificate, or to another nonce."""

    def other_certificate(us: Ourselves, connection: Connection, greeting: bytes) -> bytes:
        return Dialler(us, Certificate.make().digest, os.urandom).hello_untrusted(greeting)

    def other_nonce(us: Ourselves, connection: Connection, greeting: bytes) -> bytes:
        other_greeting = greeting[:-1] + bytes((greeting[-1] ^ 1,))
        return Dialler(us, peer_digest(connection.tls), os.urandom).hello_untrusted(other_greeting)

    await refused(hello_frames(other_certificate), "bad-signature")
    await refused(hello_frames(other_nonce), "bad-signature")


async def test_malformed_hello_is_refused() -> None:
    await refused(hello_frames(lambda us, connection, greeting: b"\x00" * 100), "malformed")


async def test_envelope_before_the_handshake_is_refused() -> None:
    async def connect(alice: LanNode, stack: AsyncExitStack) -> None:
        connection = await stranger(alice.port)
        connection.send(FrameType.ENVELOPE, b"let me in")
        await connection.closed

    await refused(connect, "malformed")


async def test_stranger_learns_a_nonce_and_nothing_else() -> None:
    async with LanNode("alice") as alice:
        connection = await stranger(alice.port)
        _, greeting = await connection.read(FrameType.GREETING)
        assert alice.node_id not in greeting
        assert len(greeting) < 64
        certificate = connection.tls.getpeercert(binary_form=True)
        assert certificate is not None
        alice_public = make_member(make_realm(), "alice").keys.public.encode()[:32]
        assert alice_public not in certificate
        assert b"alice" not in certificate
        assert b"conflux" not in certificate
        connection.send(FrameType.PING)
        with pytest.raises(RemoteProtocolError):
            await connection.read(FrameType.WELCOME)


async def test_older_tls_is_refused() -> None:
    async def connect(alice: LanNode, stack: AsyncExitStack) -> None:
        context = client_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await stranger(alice.port, context)

    await refused(connect, "handshake")


async def test_dialler_leaves_an_acceptor_that_is_no_member() -> None:
    async with LanNode("mallory", realm="elsewhere") as mallory:
        # It claims to belong here, and welcomes with a chain of its own realm.
        mallory.channel._ourselves = Ourselves(
            make_member(make_realm("elsewhere"), "mallory"), boot_id(1), os.urandom(8), lambda chain: None
        )
        async with LanNode("bob", mallory.port) as bob:
            await bob.drops.until("closed")  # its tag is another one already
            assert bob.ear.changes == []


async def test_neighbour_whose_credential_ended_is_dropped_at_its_next_message() -> None:
    async with lan("alice", "bob") as (alice, bob):
        alice.channel._giving._clock = lambda: make_member(make_realm(), "bob").chain.not_after
        bob.send(envelope(alice.node_id, b"still here?"))
        await alice.ear.sees()
        assert alice.ear.arrivals == []


# ── floods and silence ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_accept_rate_of_one_address_is_bounded_before_tls() -> None:
    async with LanNode("alice", accept_rate_per_address=0.001, accept_burst_per_address=3.0) as alice:
        outcomes = []
        for _ in range(5):
            try:
                connection = await stranger(alice.port)
                outcomes.append(True)
                connection.abort("done")
            except OSError:
                outcomes.append(False)
        assert outcomes == [True, True, True, False, False]
        assert alice.drops["accept-rate"] == 2


async def test_oversized_frame_ends_the_connection() -> None:
    async with lan("alice", "bob") as (alice, bob):
        (connection,) = bob.channel._connections
        assert connection._transport is not None
        connection._transport.write(b"\xff\xff\x10" + bytes(10))
        await alice.ear.sees()
        await bob.ear.until(lambda: len(bob.ear.changes) >= 3)  # and bob dials again


async def test_handshake_frame_after_the_handshake_ends_the_connection() -> None:
    async with lan("alice", "bob") as (alice, bob):
        (connection,) = bob.channel._connections
        connection.send(FrameType.JOIN, b"")
        await alice.ear.sees()


async def test_envelope_that_is_none_is_a_counted_drop_and_the_connection_stays() -> None:
    async with lan("alice", "bob") as (alice, bob):
        (connection,) = bob.channel._connections
        connection.send(FrameType.ENVELOPE, b"no envelope")
        bob.send(envelope(alice.node_id, b"an envelope"))
        await alice.ear.heard(b"an envelope")
        assert alice.drops == {"malformed": 1}


async def test_acceptor_pings_later_than_the_dialler() -> None:
    async with lan("alice", "bob") as (alice, bob):
        (accepted,), (dialled,) = alice.channel._connections, bob.channel._connections
        assert (dialled._ping_s, accepted._ping_s) == (32.0, 36.0)


async def test_frames_that_came_before_the_end_of_a_connection_are_heard() -> None:
    async with lan("alice", "bob") as (alice, bob):
        (connection,) = bob.channel._connections
        for number in range(15):
            connection.send(FrameType.ENVELOPE, envelope(alice.node_id, bytes((number,))).encode())
        connection.close("done")
        await alice.ear.heard(*(bytes((number,)) for number in range(15)))


# ── ports and addresses ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_taken_port_is_named_with_its_config_key() -> None:
    async with LanNode("alice") as alice:
        bob = LanNode("bob", port=alice.port)
        with pytest.raises(UserError, match=rf"port {alice.port} is taken.*control\.lan\.port"):
            await bob.channel.start(bob.ear.inputs())
        assert not bob.channel.state.up
        await bob.channel.stop()


async def test_overlay_addresses_are_neither_dialled_nor_accepted() -> None:
    overlay = (ip_network("127.0.0.0/8"),)
    async with (
        LanNode("alice", overlay=overlay) as alice,
        LanNode("bob", alice.port) as bob,
        LanNode("carol", bob.port, overlay=overlay) as carol,
    ):
        await alice.drops.until("from-overlay")
        alice.channel.found(b"instance", (("127.0.0.1", bob.port),))
        await bob.drops.until("dial-failed")
        for node in (alice, bob, carol):
            assert node.ear.changes == []
        assert not bob.drops["closed"]


async def test_what_arrives_by_an_interface_that_is_not_named_is_not_heard() -> None:
    """Loopback is the one interface of a test; nothing else than what is named is heard, and that may be nothing."""
    port = free_port()
    async with LanNode("alice", port=port, interfaces=("none0",)) as alice:
        assert alice.channel.state.up  # the interface may come yet
        with pytest.raises(ConnectionRefusedError):
            await stranger(port)
    async with LanNode("alice", interfaces=("none0", "lo")) as alice, LanNode("bob", alice.port, interfaces=("lo",)):
        await alice.ear.sees("bob")


async def test_configured_peer_is_dialled_by_the_named_interfaces_alone() -> None:
    async with LanNode("alice") as alice, LanNode("bob", alice.port, interfaces=("none0",)) as bob:
        await bob.drops.until("dial-failed")
        assert alice.ear.changes == []


async def test_interface_that_comes_and_goes_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    named = {"lo": 1}
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(index, name) for name, index in named.items()])
    port = free_port()
    async with LanNode("alice", port=port, interfaces=("lo",)) as alice:
        assert alice.channel._up is not None
        listener = alice.channel._up.listener
        for there in ({}, {"lo": 2}):
            named.clear()
            named.update(there)
            listener._follow_interfaces()
            try:
                (await stranger(port)).abort("done")
                heard = True
            except ConnectionRefusedError:
                heard = False
            assert heard is bool(there)
