"""One target per machine that peers talk to: a script decides what the peers say, and when.

The machine has to end in a state from which it can go on.  A method that takes a peer's bytes may raise
RemoteProtocolError, and nothing else; the other methods may raise nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import random

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from fuzz.script import Script
from kit.builders import FIRST_BOOT, NOW_UNIX, hop_key, make_card, make_member, make_realm, seed_of
from kit.datapath import FORWARD, LINK_A, LINK_B, REVERSE, Pair, keys, udp
from kit.recorder import Recorder

from conflux.anchor import frame
from conflux.carrier.interface import (
    CarrierEnd,
    Closed,
    Connect,
    Describe,
    Described,
    Description,
    Opened,
    OpenTether,
)
from conflux.control.channel import Arrival
from conflux.control.crossing import Crossing
from conflux.control.envelope import BODY_BYTES_MAX, Envelope, Inner, Kind, signed_message
from conflux.control.event import Message
from conflux.control.lan.bridge import Bridge
from conflux.control.lan.handshake import Acceptor, Dialler, Hello, Ourselves, Welcome, _signed
from conflux.control.plane import ControlPlane
from conflux.control.who import Question, Who
from conflux.crypto import kem, seal
from conflux.crypto.kdf import sha256
from conflux.crypto.sign import SigningKey, context
from conflux.errors import RemoteProtocolError
from conflux.ids import BootId, LinkId, NodeId, StreamId, TetherId
from conflux.link.links import Links
from conflux.realm.card import Card, hop_key_id_of
from conflux.realm.identity import NodeKeys
from conflux.realm.member import Member
from conflux.route.event import LinkWanted, RouteFailed
from conflux.route.message import Confirm, Refuse, Setup, Teardown, decode_message_untrusted, encode_message
from conflux.route.onion import ONION_BYTES, SLOT_BYTES, HopKey, tag
from conflux.route.routes import Routes
from conflux.stream.event import ReceiverReady, SenderReady
from conflux.stream.handshake import Accept, Open
from conflux.stream.streams import Streams

STEP_COUNT_MAX = 24  # per script: enough to get anywhere, few enough to be quick
REALM = make_realm()
BRAVO = make_member(REALM, "bravo")
_KEM = kem.PrivateKey.generate()


class _Remembering(SigningKey):
    """Signs the same bytes once: else most of a run would go into what a machine signs when it starts."""

    __slots__ = ()
    sign = functools.lru_cache(maxsize=64)(SigningKey.sign)


ALPHA = dataclasses.replace(make_member(REALM, "alpha"), keys=NodeKeys(_Remembering.from_seed(seed_of("alpha"))))


def boot_id(number: int) -> BootId:
    return BootId(bytes((0, 0, 0, 0, number)) + b"abc")


def plane(data: bytes) -> bool:
    """A control plane.  The neighbour is a member of the realm, so it can sign and seal what it says."""
    script, now = Script(data), 1000.0
    machine = ControlPlane(
        ALPHA,
        boot=FIRST_BOOT,
        entropy=random.Random(1).randbytes,
        rng=random.Random(1),
        clock=lambda: NOW_UNIX,
        now=now,
        new_hop_key=lambda: hop_key("alpha"),
    )
    token = machine.request(BRAVO.node_id, Kind.OPEN, b"", now=now)
    accepted = False
    for step in range(STEP_COUNT_MAX):
        if not script:
            break
        match script.byte() % 6:
            case 0:
                now += script.byte() / 8
                machine.handle_timeout(now=now)
            case 1:
                _hear(machine, script.chunk(), now)
            case 2:
                _hear(machine, _envelope(machine, step, script.chunk() or b"\0", None), now)
            case 3:
                machine.request(BRAVO.node_id, Kind(script.byte() % 3 + 10), script.chunk()[:1000], now=now)
            case 4:
                _hear(machine, _envelope(machine, step, _said(script, token, script.chunk()), None), now)
            case 5:
                key_id, said = machine.own_card.hop_key_id, _said(script, token, script.chunk())
                info = context("control-seal", ALPHA.realm_id) + key_id + ALPHA.node_id
                sealed = seal.seal(machine.own_card.hop_public, said, info)
                _hear(machine, _envelope(machine, step, sealed, key_id), now)
        while (transmit := machine.next_transmit()) is not None:
            assert Envelope.decode_untrusted(transmit.envelope.encode()) == transmit.envelope
        while (event := machine.next_event()) is not None:
            accepted = True
            if isinstance(event, Message) and script.byte() & 1:
                machine.reply(event, Kind.ACCEPT, b"", now=now)
    return accepted


def _hear(machine: ControlPlane, envelope: bytes, now: float) -> None:
    with contextlib.suppress(RemoteProtocolError):
        machine.receive_untrusted(Arrival(Envelope.decode_untrusted(envelope), BRAVO.node_id, "fuzz"), now=now)


def _envelope(machine: ControlPlane, number: int, payload: bytes, key_id: bytes | None) -> bytes:
    return Envelope(machine.me, number.to_bytes(16), 1, key_id, payload[: 28 * 1024]).encode()


def _said(script: Script, token: int, body: bytes) -> bytes:
    """A message that the neighbour signed.  Its card may hold anything that a card has room for."""
    kind, seq, boot, re = script.byte(), script.byte(), boot_id(script.byte() & 3), script.byte() & 1
    if kind in (Kind.WHO, Kind.CARD):
        hop_public = (hop_key("bravo").public[: -len(body) or None] + body)[-seal.PUBLIC_BYTES :]
        card = _card(BRAVO, boot, hop_public, seq).encode()
        body = Question(Who(node=ALPHA.node_id), card).encode() if kind == Kind.WHO else card
    fields = (BRAVO.node_id, boot, seq, kind, token * re, body[:BODY_BYTES_MAX])
    signature = BRAVO.keys.signing.sign_ed25519(
        context("control", ALPHA.realm_id), signed_message(ALPHA.node_id, *fields)
    )
    return Inner(*fields, signature).encode()


@functools.lru_cache(maxsize=64)
def _card(member: Member, boot: BootId, hop_public: bytes, serial: int) -> Card:
    card = Card(member.chain, boot, hop_key_id_of(hop_public), hop_public, serial, (), b"")
    return card.sign(member.keys.signing, member.realm_id)


SIGNALS = (Kind.OFFER, Kind.ANSWER, Kind.CANDIDATES, Kind.LINK_REFUSED)
DESCRIPTION = Description("ufrag", "password" * 3, bytes(32), 5000, 65536, ())


def lan(data: bytes) -> bool:
    """Both sides of a handshake with a member, whose signature is good over any content."""
    script = Script(data)
    us = Ourselves(ALPHA, FIRST_BOOT, bytes(8), lambda chain: chain.verify(REALM.anchor, now_unix=NOW_UNIX))
    digest, nonce = bytes(32), bytes(32)
    accepts, raw = script.byte() & 1, script.byte() & 1
    try:
        if accepts:
            hello = Hello.decode_untrusted(script.chunk())
            acceptor = Acceptor(us, digest, bytes)
            if raw:
                acceptor.answer_untrusted(hello.encode())
            signed = _signed(digest, nonce, hello.nonce, BRAVO.chain, hello.boot, hello.seed)
            signature = BRAVO.keys.signing.sign(context("lan-dial", ALPHA.realm_id), signed)
            hello = dataclasses.replace(hello, chain=BRAVO.chain, signature=signature)
            peer, answer = acceptor.answer_untrusted(hello.encode())
            Welcome.decode_untrusted(answer)
        else:
            dialler = Dialler(us, digest, bytes)
            said = dialler.hello_untrusted(script.chunk())
            welcome = Welcome.decode_untrusted(script.chunk())
            if raw:
                dialler.finish_untrusted(welcome.encode())
            greeted = Hello.decode_untrusted(said).nonce
            signed = _signed(digest, greeted, nonce, BRAVO.chain, welcome.boot, welcome.seed, sha256(said))
            signature = BRAVO.keys.signing.sign(context("lan-accept", ALPHA.realm_id), signed)
            peer = dialler.finish_untrusted(
                dataclasses.replace(welcome, chain=BRAVO.chain, signature=signature).encode()
            )
    except RemoteProtocolError:
        return False
    assert (peer.node, peer.name) == (BRAVO.node_id, "bravo")
    return True


def links(data: bytes) -> bool:
    """A link machine, two peers, and a carrier that obeys commands or does not."""
    script, now, accepted = Script(data), 1000.0, False
    rng = random.Random(1)
    machine = Links(NodeId(b"m" * 16), rng=rng, entropy=lambda size: bytes(size - 1) + bytes((rng.randrange(4),)))
    peers = (NodeId(b"a" * 16), NodeId(b"z" * 16))
    last: LinkId | None = None
    describing: list[LinkId] = []
    for seq in range(STEP_COUNT_MAX):
        if not script:
            break
        choice = script.byte()
        peer = peers[choice >> 7]
        match choice % 8:
            case 0:
                machine.acquire(peer, "user", now=now)
            case 1:
                machine.release(peer, "user", now=now)
            case 2:
                now += script.byte() / 4
                machine.handle_timeout(now=now)
            case 3 if describing:
                machine.carrier_event(Described(describing.pop(), DESCRIPTION), now=now)
            case 4 if last is not None:
                machine.carrier_event(Opened(last), now=now)
            case 5 if last is not None:
                machine.carrier_event(Closed(last, CarrierEnd.PEER), now=now)
                last = None
            case _:
                with contextlib.suppress(RemoteProtocolError):
                    machine.receive_signal(peer, SIGNALS[script.byte() % 4], script.chunk(), seq, now=now)
                    accepted = True
        while (command := machine.next_command()) is not None:
            describing += [command.link] if isinstance(command, Describe) else []
            last = command.link if isinstance(command, Connect) else last
        while machine.next_signal() is not None or machine.next_event() is not None:
            pass
        assert (machine.next_timeout() or 1.0) > 0
    return accepted


LINKS = (LinkId(1), LinkId(2))


def routes(data: bytes) -> bool:
    """Routes through, from and to here.  Slots and seals of two neighbours open with any content."""
    script, now, accepted = Script(data), 0.0, False
    slot = b""

    def seal_tag(stream: StreamId, said: bytes) -> bytes:
        return said

    machine = Routes(
        ALPHA.realm_id,
        entropy=random.Random(1).randbytes,
        unseal_slot=lambda key_id, sealed, info: slot,
        accepts=lambda stream: stream[0] < 128,
        seal_confirmation=seal_tag,
        unseal_confirmation=seal_tag,
        relaying=True,
    )
    hop = HopKey(BRAVO.node_id, bytes(8), hop_key("bravo").public)
    wanted: list[int] = []
    opened: list[TetherId] = []
    asked: list[bytes] = []
    labels = [0]
    for step in range(STEP_COUNT_MAX):
        if not script:
            break
        choice = script.byte()
        link = LINKS[choice >> 7]
        with contextlib.suppress(RemoteProtocolError):
            match choice % 10:
                case 0:
                    tail = bytes(ONION_BYTES - SLOT_BYTES)
                    plain = bytes((script.byte(),)) + bytes((script.byte(),)) * 16 + script.byte().to_bytes(4)
                    slot = plain + bytes(32) + sha256(tail)
                    onion = step.to_bytes(SLOT_BYTES) + tail
                    setup = Setup(step.to_bytes(8), script.byte().to_bytes(8), 4, script.byte(), onion)
                    machine.receive_untrusted(link, encode_message(setup), now=now)
                    accepted = True
                case 1:
                    machine.receive_untrusted(link, script.chunk(), now=now)
                case 2 if asked:
                    confirm = Confirm(asked[-1], script.byte(), script.chunk()[:512] or tag(bytes(32)))
                    machine.receive_untrusted(link, encode_message(confirm), now=now)
                case 3 if asked:
                    refuse = Refuse(asked[-1], script.chunk()[:512], script.chunk()[:32])
                    machine.receive_untrusted(link, encode_message(refuse), now=now)
                case 4:
                    teardown = Teardown(labels[script.byte() % len(labels)], script.chunk()[:512])
                    machine.receive_untrusted(link, encode_message(teardown), now=now)
                case 5 if wanted:
                    machine.relays.link_open(wanted[-1], link)
                case 6 if opened:
                    (machine.tether_down if script.byte() & 1 else machine.tether_up)(link, opened[-1])
                case 7:
                    machine.build(StreamId(bytes(16)), [hop], link, now=now)
                case 8:
                    now += script.byte()
                    machine.handle_timeout(now=now)
                case 9:
                    machine.link_down(link)
        while (transmit := machine.next_transmit()) is not None:
            said = decode_message_untrusted(transmit.data)
            asked += [said.request] if isinstance(said, Setup) else []
            labels += [said.label] if isinstance(said, Confirm) else []
        while (command := machine.next_command()) is not None:
            opened += [command.tether] if isinstance(command, OpenTether) else []
        while (passed := machine.relays.next_event()) is not None:
            wanted += [passed.relay] if isinstance(passed, LinkWanted) else []
        while (event := machine.next_event()) is not None:
            assert not isinstance(event, RouteFailed) or event.refusal is None or event.refusal.said.isprintable()
        machine.status()
    return accepted


def bridge(data: bytes) -> bool:
    """A bridge between LANs passes on what came, with one hop less, and never to the LAN that it came from."""
    script, accepted = Script(data), False
    machine = Bridge(ALPHA.node_id, lambda reason: None)
    nodes = [NodeId(bytes((number,)) * 16) for number in range(4)]
    for number, node in enumerate(nodes):
        machine.place(node, ("red", "blue", "blue", None)[number])
        machine.hear(node, joins=number == 2)
    for step in range(STEP_COUNT_MAX):
        if not script:
            break
        via, said = nodes[script.byte() % 4], script.chunk()
        passage = machine.receive_untrusted(said, via, now=float(step))
        if passage.to:
            came, goes = Envelope.decode_untrusted(said), Envelope.decode_untrusted(passage.onward)
            assert goes == dataclasses.replace(came, hop_limit=came.hop_limit - 1)
            assert via not in passage.to
            assert not machine.receive_untrusted(said, via, now=float(step)).to
            accepted = True
    return accepted


def crossing(data: bytes) -> bool:
    """A crossing passes on what came, once and with one hop less, and never to the side that it came from."""
    script, accepted = Script(data), False
    sides = [Recorder("lan", far=False, buckets=frozenset({1})), Recorder("nats", far=True)]
    machine = Crossing(sides[0], sides[1], allowed=True, seek=lambda node, arrival: None, drop=lambda reason: None)
    machine.look()
    for step in range(STEP_COUNT_MAX):
        if not script:
            break
        source, said = script.byte() % 4, script.chunk()
        try:
            came = Envelope.decode_untrusted(said)
        except RemoteProtocolError:
            continue
        side, other = sides[source % 2], sides[1 - source % 2]
        key = bytes((source,)) * 32
        arrival = Arrival(came, None if side.far else NodeId(key[:16]), side.name, key if side.far else None)
        before = len(side.passed), len(other.passed)
        machine.transit_untrusted(arrival, now=float(step))
        machine.transit_untrusted(arrival, now=float(step))
        assert len(side.passed) == before[0]
        assert len(other.passed) <= before[1] + 1
        if len(other.passed) > before[1]:
            assert other.passed[-1][0] == dataclasses.replace(came, hop_limit=came.hop_limit - 1)
            accepted = True
    return accepted


def streams(data: bytes) -> bool:
    """A stream machine with one peer, whose identity is known.  A key of zeros stands for a good one."""
    script, card = Script(data), make_card(BRAVO)
    machine = Streams(ALPHA, boot=FIRST_BOOT, aead=frame.CHACHA20_POLY1305, entropy=random.Random(1).randbytes)
    ours = machine.open(card, now=0.0)
    sent = machine.next_transmit()
    assert sent is not None
    ours_open = Open.decode_untrusted(sent.body)
    accepted = False
    for _ in range(STEP_COUNT_MAX):
        if not script:
            break
        with contextlib.suppress(RemoteProtocolError):
            match script.byte() % 6:
                case 0:
                    machine.receive_open(card, script.chunk(), None, now=0.0)
                case 1:
                    machine.receive_open(card, _open(Open.decode_untrusted(script.chunk())), None, now=0.0)
                case 2:
                    accept = Accept.decode_untrusted(script.chunk())
                    machine.receive_accept(BRAVO.node_id, _accept(accept, ours_open, sent.body), now=0.0)
                case 3:
                    machine.receive_refused(BRAVO.node_id, script.chunk())
                case 4:
                    stream = (StreamId(bytes(16)), ours)[script.byte() & 1]
                    machine.receive_entry(stream, frame.REKEY, script.chunk(), epoch=script.byte(), now=0.0)
                case 5:
                    machine.rekey(ours, now=0.0)
                    machine.handle_timeout(now=script.byte())
        while (event := machine.next_event()) is not None or machine.next_transmit() is not None:
            accepted |= isinstance(event, SenderReady | ReceiverReady)
    return accepted


def _open(said: Open) -> bytes:
    said = dataclasses.replace(
        said,
        kem_public=said.kem_public if any(said.kem_public) else _KEM.public,
        sender=BRAVO.node_id,
        receiver=ALPHA.node_id,
        sender_chain_hash=sha256(BRAVO.chain.encode()),
    )
    return said.sign(BRAVO.keys.signing, ALPHA.realm_id).encode()


def _accept(said: Accept, ours: Open, encoded: bytes) -> bytes:
    ciphertext = said.ciphertext if any(said.ciphertext) else kem.encapsulate(ours.kem_public)[0]
    said = dataclasses.replace(said, stream=ours.stream, open_hash=sha256(encoded), ciphertext=ciphertext)
    return said.sign(BRAVO.keys.signing, ALPHA.realm_id).encode()


def datapath(data: bytes) -> bool:
    """Frames with any header, and with any bundle under the right key: data to B, feedback to A."""
    script, now = Script(data), 0.0
    pair = Pair()
    data_key, feedback_key = keys()
    for counter in range(STEP_COUNT_MAX):
        if not script:
            break
        choice, said = script.byte(), script.chunk()[: frame.BUNDLE_BYTES_MAX]
        now += (choice >> 4) / 8
        if choice & 4:
            pair.a.packet(udp(body=said), now=now)
            pair.carry(now)
            continue
        ours = choice & 1
        label, key = (FORWARD, data_key) if ours else (REVERSE, feedback_key)
        header = (
            bytes((frame.VERSION, 0 if ours else frame.FEEDBACK, 0, 0))
            + label.to_bytes(4)
            + (counter + 1000).to_bytes(8)
        )
        nonce, additional = key.nonce_prefix + header[8:], header[:4] + bytes(4) + header[8:]
        sealed = header + ChaCha20Poly1305(key.key).encrypt(nonce, said, additional)
        to, link = (pair.b, LINK_B) if ours else (pair.a, LINK_A)
        to.frame_untrusted(link, said if choice & 2 else sealed, now=now)
        pair.a.handle_timeout(now=now)
        pair.carry(now)
        pair.report(now)
    return not pair.a.drop_counts() and not pair.b.drop_counts()
