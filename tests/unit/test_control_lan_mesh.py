"""The LAN mesh on loopback, with real TLS: who gets in, who does not, and which connection stays."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from ipaddress import ip_network
from typing import Any

import pytest
from builders import NOW_UNIX, make_credential, make_member, make_realm, node_keys, signing_key
from control_ear import WAIT_S, Ear, counted, lan_channel, node_of, start_lan
from control_world import boot_id

from conflux.control.channel import Handoff
from conflux.control.lan import connection as connection_module
from conflux.control.lan.certificate import Certificate, client_context, peer_digest
from conflux.control.lan.connection import Connection
from conflux.control.lan.dial import open_connection, resolve
from conflux.control.lan.frame import FrameType, encode_frame
from conflux.control.lan.handshake import Dialler, Hello, Ourselves
from conflux.control.lan.mesh import LanChannel
from conflux.errors import RemoteProtocolError, UserError
from conflux.realm.credential import Chain
from conflux.realm.member import Member

Scene = Callable[[], Coroutine[Any, Any, None]]


def run(scene: Scene) -> None:
    asyncio.run(asyncio.wait_for(scene(), 3 * WAIT_S))


async def stop(*channels: LanChannel) -> None:
    for channel in channels:
        await channel.stop()


async def stranger(port: int) -> Connection:
    """A TLS connection with nobody behind it yet."""
    connection, _ = await open_connection(await resolve("127.0.0.1", port), client_context())
    return connection


def ourselves(name: str, realm: str = "home", member: Member | None = None) -> Ourselves:
    found = member or make_member(make_realm(realm), name)
    return Ourselves(found, boot_id(1), os.urandom(8), lambda chain: chain.verify(found.anchor, now_unix=NOW_UNIX))


# ── connecting ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_static_peer_is_dialled_and_both_sides_see_each_other() -> None:
    async def scene() -> None:
        alice, alice_ear = await start_lan("alice")
        bob, bob_ear = await start_lan("bob", alice.port)
        await bob_ear.until(lambda: bob_ear.up == {node_of("alice")})
        await alice_ear.until(lambda: alice_ear.up == {node_of("bob")})
        (entry,) = alice.status()
        assert (entry["name"], entry["dialled"], entry["address"]) == ("bob", False, "127.0.0.1")
        await stop(alice, bob)

    run(scene)


def test_static_peer_that_comes_up_later_is_connected() -> None:
    async def scene() -> None:
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", 0))
            port = holder.getsockname()[1]
        bob, bob_ear = await start_lan("bob", port)
        await counted(bob, "dial-failed")
        alice, _ = await start_lan("alice", port=port)
        await bob_ear.until(lambda: bob_ear.up == {node_of("alice")})
        await stop(alice, bob)

    run(scene)


def test_ipv6_neighbours_connect() -> None:
    async def scene() -> None:
        alice, _ = await start_lan("alice", listen=("::1",))
        bob, bob_ear = await start_lan("bob", alice.port, listen=("::1",))
        await bob_ear.until(lambda: bob_ear.up == {node_of("alice")})
        await stop(alice, bob)

    run(scene)


def test_two_that_dial_each_other_keep_one_connection_the_smaller_ids() -> None:
    async def scene() -> None:
        names = sorted(("alice", "bob"), key=node_of)
        first, first_ear = await start_lan(names[0])
        second, second_ear = await start_lan(names[1])
        first.found(b"not real", (("127.0.0.1", second.port),))
        second.found(b"nor this", (("127.0.0.1", first.port),))
        dials = [target.task for channel in (first, second) for target in channel._targets]
        await asyncio.gather(*(dial for dial in dials if dial is not None))
        await first_ear.until(lambda: bool(first_ear.up))
        await second_ear.until(lambda: bool(second_ear.up))
        for channel in (first, second):
            (kept,) = (neighbour.connection for neighbour in channel._neighbours.all())
            for connection in channel._connections - {kept}:
                await connection.closed  # a second later: what was on its way is still delivered
        assert first.status()[0]["dialled"]
        assert not second.status()[0]["dialled"]
        assert (first_ear.changes, second_ear.changes) == ([(node_of(names[1]), True)], [(node_of(names[0]), True)])
        await stop(first, second)

    run(scene)


def test_dialling_oneself_ends_at_once() -> None:
    async def scene() -> None:
        alice, alice_ear = await start_lan("alice")
        alice.found(b"whatever", (("127.0.0.1", alice.port),))
        await counted(alice, "self")
        assert alice_ear.changes == []
        assert alice.status() == []
        await stop(alice)

    run(scene)


def test_killed_peer_is_noticed_and_its_next_boot_connects_by_itself() -> None:
    async def scene() -> None:
        alice, alice_ear = await start_lan("alice")
        bob, bob_ear = await start_lan("bob", alice.port)
        await bob_ear.until(lambda: bool(bob_ear.up))
        await alice_ear.until(lambda: bool(alice_ear.up))
        for connection in list(alice._connections):
            connection.abort("killed")  # what SIGKILL looks like from outside: a reset
        port = alice.port
        await alice.stop()
        await bob_ear.until(lambda: not bob_ear.up)
        alice, _ = await start_lan("alice", port=port, boot=2)
        await bob_ear.until(lambda: bool(bob_ear.up))
        assert await bob.send(node_of("alice"), b"again") is Handoff.ACCEPTED
        await stop(alice, bob)

    run(scene)


def test_restarted_peer_replaces_the_connection_tcp_still_believes_in() -> None:
    async def scene() -> None:
        alice, alice_ear = await start_lan("alice")
        bob, bob_ear = await start_lan("bob", alice.port)
        await alice_ear.until(lambda: bool(alice_ear.up))
        # The old process neither sends nor closes: its board lost power.
        bob_again, again_ear = await start_lan("bob", alice.port, boot=2)
        await again_ear.until(lambda: bool(again_ear.up))
        await alice_ear.until(lambda: len(alice_ear.changes) >= 3)
        node = node_of("bob")
        assert alice_ear.changes == [(node, True), (node, False), (node, True)]
        assert await alice.send(node, b"to the living") is Handoff.ACCEPTED
        await again_ear.until(lambda: again_ear.envelopes() == [b"to the living"])
        assert bob_ear.arrivals == []
        await stop(bob, bob_again, alice)

    run(scene)


def test_last_words_before_stop_arrive() -> None:
    async def scene() -> None:
        alice, _ = await start_lan("alice")
        bob, bob_ear = await start_lan("bob", alice.port)
        await bob_ear.until(lambda: bool(bob_ear.up))
        await bob.send(node_of("alice"), b"")
        await alice.send(node_of("bob"), b"last words")
        await alice.stop()
        await bob_ear.until(lambda: bob_ear.envelopes() == [b"last words"])
        await stop(bob)

    run(scene)


def test_peer_found_again_is_dialled_at_once() -> None:
    async def scene() -> None:
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", 0))
            port = holder.getsockname()[1]
        bob, bob_ear = await start_lan("bob")
        bob.found(b"instance", (("127.0.0.1", port),))
        await counted(bob, "dial-failed")
        (target,) = bob._targets
        while target.backoff._delay_s < 30:
            target.backoff.next_s()
        alice, _ = await start_lan("alice", port=port)
        bob.found(alice._ourselves.instance, (("127.0.0.1", port),))
        await bob_ear.until(lambda: bool(bob_ear.up))
        await stop(alice, bob)

    run(scene)


# ── who does not get in ──────────────────────────────────────────────────────────────────────────────────────────────


def refused(connect: Callable[[LanChannel], Awaitable[LanChannel | None]], reason: str) -> None:
    """Let somebody try to get in at alice's; it has to end with a count and no neighbour."""

    async def scene() -> None:
        alice, alice_ear = await start_lan("alice")
        other = await connect(alice)
        await counted(alice, reason)
        assert alice_ear.changes == []
        assert alice.status() == []
        await stop(alice, *([other] if other is not None else []))

    run(scene)


def test_foreign_realm_is_refused() -> None:
    async def connect(alice: LanChannel) -> LanChannel:
        return (await start_lan("eve", alice.port, realm="elsewhere"))[0]

    refused(connect, "foreign-realm")


def test_expired_credential_is_refused() -> None:
    realm = make_realm()
    credential = make_credential(realm, "tim", not_before=NOW_UNIX - 10, not_after=NOW_UNIX)
    tim = Member(node_keys("tim"), realm.anchor, Chain(credential, None))

    async def connect(alice: LanChannel) -> LanChannel:
        return (await start_lan("tim", alice.port, member=tim, now_unix=NOW_UNIX - 5))[0]

    refused(connect, "expired")


def test_credential_nobody_of_the_realm_signed_is_refused() -> None:
    realm = make_realm()
    genuine = make_credential(realm, "mallory")
    forged = genuine.sign(signing_key("not the root"), realm.anchor.realm_id)
    mallory = Member(node_keys("mallory"), realm.anchor, Chain(forged, None))

    async def connect(alice: LanChannel) -> LanChannel:
        return (await start_lan("mallory", alice.port, member=mallory))[0]

    refused(connect, "bad-signature")


def hello_frames(change: Callable[[Ourselves, Connection, bytes], bytes]) -> Callable[[LanChannel], Awaitable[None]]:
    """Dial by hand and send what change() makes of the greeting."""

    async def connect(alice: LanChannel) -> None:
        connection = await stranger(alice.port)
        _, greeting = await connection.read(FrameType.GREETING)
        connection.send(FrameType.HELLO, change(ourselves("bob"), connection, greeting))
        await connection.closed  # without a word

    return connect


def test_stolen_credential_without_its_key_is_refused() -> None:
    def change(us: Ourselves, connection: Connection, greeting: bytes) -> bytes:
        dialler = Dialler(us, peer_digest(connection.tls), os.urandom)
        hello = Hello.decode_untrusted(dialler.hello_untrusted(greeting))
        stolen = make_member(make_realm(), "carol").chain
        return Hello(
            hello.realm_tag, stolen, *(getattr(hello, f) for f in ("boot", "instance", "nonce", "signature"))
        ).encode()

    refused(hello_frames(change), "bad-signature")


def test_hello_made_for_another_connection_is_refused() -> None:
    """What somebody in the middle has: a genuine Hello to a certificate of his own, or to another nonce."""

    def other_certificate(us: Ourselves, connection: Connection, greeting: bytes) -> bytes:
        return Dialler(us, Certificate.make().digest, os.urandom).hello_untrusted(greeting)

    def other_nonce(us: Ourselves, connection: Connection, greeting: bytes) -> bytes:
        other_greeting = greeting[:-1] + bytes((greeting[-1] ^ 1,))
        return Dialler(us, peer_digest(connection.tls), os.urandom).hello_untrusted(other_greeting)

    refused(hello_frames(other_certificate), "bad-signature")
    refused(hello_frames(other_nonce), "bad-signature")


def test_malformed_hello_is_refused() -> None:
    refused(hello_frames(lambda us, connection, greeting: b"\x00" * 100), "malformed")


def test_envelope_before_the_handshake_is_refused() -> None:
    async def connect(alice: LanChannel) -> None:
        connection = await stranger(alice.port)
        connection.send(FrameType.ENVELOPE, b"let me in")
        await connection.closed

    refused(connect, "malformed")


def test_stranger_learns_a_nonce_and_nothing_else() -> None:
    async def scene() -> None:
        alice, _ = await start_lan("alice")
        connection = await stranger(alice.port)
        _, greeting = await connection.read(FrameType.GREETING)
        assert node_of("alice") not in greeting
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
        await stop(alice)

    run(scene)


def test_older_tls_is_refused() -> None:
    async def connect(alice: LanChannel) -> None:
        context = client_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await open_connection(await resolve("127.0.0.1", alice.port), context)

    refused(connect, "handshake")


def test_acceptor_that_is_no_member_is_left_by_the_dialler() -> None:
    async def scene() -> None:
        mallory, _ = await start_lan("mallory", realm="elsewhere")
        # It pretends to belong here, and welcomes with a chain of its own realm.
        mallory._ourselves = Ourselves(
            make_member(make_realm("elsewhere"), "mallory"), boot_id(1), os.urandom(8), lambda chain: None
        )
        bob, bob_ear = await start_lan("bob", mallory.port)
        await counted(bob, "closed")  # its tag differs already
        assert bob_ear.changes == []
        await stop(mallory, bob)

    run(scene)


def test_neighbour_whose_credential_ran_out_is_dropped_at_the_next_message() -> None:
    async def scene() -> None:
        alice, alice_ear = await start_lan("alice")
        bob, bob_ear = await start_lan("bob", alice.port)
        await alice_ear.until(lambda: bool(alice_ear.up))
        await bob_ear.until(lambda: bool(bob_ear.up))
        alice._clock = lambda: make_member(make_realm(), "bob").chain.not_after
        await bob.send(node_of("alice"), b"still here?")
        await alice_ear.until(lambda: not alice_ear.up)
        assert alice_ear.arrivals == []
        await stop(alice, bob)

    run(scene)


# ── floods and silence ───────────────────────────────────────────────────────────────────────────────────────────────


def test_accept_rate_of_one_address_is_bounded_before_tls() -> None:
    async def scene() -> None:
        alice, _ = await start_lan("alice", accept_rate_per_address=0.001, accept_burst_per_address=3.0)
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
        await stop(alice)

    run(scene)


def test_oversized_frame_ends_the_connection() -> None:
    async def scene() -> None:
        alice, alice_ear = await start_lan("alice")
        bob, bob_ear = await start_lan("bob", alice.port)
        await alice_ear.until(lambda: bool(alice_ear.up))
        await bob_ear.until(lambda: bool(bob_ear.up))
        (connection,) = bob._connections
        assert connection._transport is not None
        connection._transport.write(b"\xff\xff\x10" + bytes(10))
        await alice_ear.until(lambda: not alice_ear.up)
        await bob_ear.until(lambda: len(bob_ear.changes) >= 3)  # and is dialled again
        await stop(alice, bob)

    run(scene)


def test_handshake_frame_after_the_handshake_ends_the_connection() -> None:
    async def scene() -> None:
        alice, alice_ear = await start_lan("alice")
        bob, bob_ear = await start_lan("bob", alice.port)
        await alice_ear.until(lambda: bool(alice_ear.up))
        await bob_ear.until(lambda: bool(bob_ear.up))
        (connection,) = bob._connections
        connection.send(FrameType.JOIN, b"")
        await alice_ear.until(lambda: not alice_ear.up)
        await stop(alice, bob)

    run(scene)


class Pipe(asyncio.Transport):
    """A transport that keeps what is written, and never gets rid of it unless told."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.held = 0
        self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return self.held

    def abort(self) -> None:
        self.aborted = True


class Clockwork(asyncio.SelectorEventLoop):
    """An event loop whose time is ours: timers run when time() has come to them."""

    offset = 0.0

    def time(self) -> float:
        return self.offset


def test_silent_peer_is_pinged_and_given_up_after_45_seconds() -> None:
    with asyncio.Runner(loop_factory=Clockwork) as runner:

        async def scene() -> None:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, Clockwork)
            connection, pipe = Connection(), Pipe()
            connection.connection_made(pipe)
            connection.run(lambda envelope: None)
            pings = []
            for _ in range(60):
                loop.offset += 1.0
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                pings.append(len(pipe.written))
                if pipe.aborted:
                    break
            assert pipe.written == [encode_frame(FrameType.PING)] * 2
            assert [pings.index(count) + 1 for count in (1, 2)] == [15, 30]
            assert (len(pings), connection.reason) == (45, "silent")

        runner.run(scene())


def test_talking_peer_is_not_pinged_and_a_ping_is_answered() -> None:
    with asyncio.Runner(loop_factory=Clockwork) as runner:

        async def scene() -> None:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, Clockwork)
            connection, pipe = Connection(), Pipe()
            connection.connection_made(pipe)
            connection.run(lambda envelope: None)
            for _ in range(10):
                loop.offset += 14.0
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                connection.data_received(encode_frame(FrameType.PONG))
            assert pipe.written == []
            connection.data_received(encode_frame(FrameType.PING))
            assert pipe.written == [encode_frame(FrameType.PONG)]
            connection.abort("done")

        runner.run(scene())


@pytest.mark.parametrize("answers", [True, False])
def test_probed_peer_has_two_seconds_to_be_heard_of(answers: bool) -> None:
    with asyncio.Runner(loop_factory=Clockwork) as runner:

        async def scene() -> None:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, Clockwork)
            connection, pipe = Connection(), Pipe()
            connection.connection_made(pipe)
            connection.run(lambda envelope: None)
            for _ in range(3):
                connection.probe()
            assert pipe.written == [encode_frame(FrameType.PING)]
            loop.offset += 1.0
            if answers:
                connection.data_received(encode_frame(FrameType.PONG))
            loop.offset += 1.1
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert pipe.aborted is not answers
            connection.abort("done")

        runner.run(scene())


def test_acceptor_pings_later_than_the_dialler() -> None:
    async def scene() -> None:
        alice, alice_ear = await start_lan("alice")
        bob, bob_ear = await start_lan("bob", alice.port)
        await alice_ear.until(lambda: bool(alice_ear.up))
        await bob_ear.until(lambda: bool(bob_ear.up))
        (accepted,), (dialled,) = alice._connections, bob._connections
        assert (dialled._ping_s, accepted._ping_s) == (15.0, 18.0)
        await stop(alice, bob)

    run(scene)


def test_peer_that_does_not_keep_up_is_dropped() -> None:
    async def scene() -> None:
        connection, pipe = Connection(), Pipe()
        connection.connection_made(pipe)
        connection.run(lambda envelope: None)
        assert connection.send(FrameType.ENVELOPE, bytes(1000))
        pipe.held = connection_module.WRITE_BUFFER_BYTES_MAX
        assert not connection.send(FrameType.ENVELOPE, bytes(1000))
        assert pipe.aborted
        assert connection.reason == "slow"
        assert not connection.send(FrameType.ENVELOPE, b"")

    run(scene)


# ── ports and addresses ──────────────────────────────────────────────────────────────────────────────────────────────


def test_taken_port_is_named_with_its_config_key() -> None:
    async def scene() -> None:
        alice, _ = await start_lan("alice")
        bob, ear = lan_channel("bob", port=alice.port), Ear()
        with pytest.raises(UserError, match=rf"port {alice.port} is taken.*control\.lan\.port"):
            await bob.start(ear.deliver, ear.changed)
        assert not bob.state.up
        await stop(bob, alice)

    run(scene)


def test_overlay_addresses_are_neither_dialled_nor_accepted() -> None:
    async def scene() -> None:
        overlay = (ip_network("127.0.0.0/8"),)
        alice, alice_ear = await start_lan("alice", overlay=overlay)
        bob, bob_ear = await start_lan("bob", alice.port)
        await counted(alice, "from-overlay")
        carol, carol_ear = await start_lan("carol", bob.port, overlay=overlay)
        alice.found(b"instance", (("127.0.0.1", bob.port),))
        await counted(bob, "dial-failed")
        for ear in (alice_ear, bob_ear, carol_ear):
            assert ear.changes == []
        assert not bob.drops["closed"]
        await stop(alice, bob, carol)

    run(scene)
