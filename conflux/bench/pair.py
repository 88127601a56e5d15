"""Two engines joined over loopback UDP, with a stream each way.

    near ──packet()──► egress, sender ─► link ~~~UDP, 127.0.0.1~~~ link ─► receiver ──► TUN, or nowhere
         ◄──────────── receiver, link ~~~                          far, likewise

There is no handshake: keys, labels and channels are made up here, and the engines get them as from a daemon's node and
carrier.  The engines then carry packets as in a daemon.
"""

from __future__ import annotations

import os
import select
import socket
import time
from ipaddress import IPv4Address, IPv4Network
from typing import Final, Self

from conflux.anchor import frame
from conflux.anchor.key import EpochKey
from conflux.anchor.speed import best_aead
from conflux.bench.figure import PartFailed
from conflux.carrier.ice.sockets import ENGINE_BUFFER_BYTES, set_buffers
from conflux.carrier.interface import LIFETIME_MS_MIN, SCTP_PORT, TETHER_CHANNEL_COUNT, Hop
from conflux.carrier.native.dtls_keys import SEQUENCE_OUT
from conflux.carrier.wire import AES_128_GCM, CHACHA20_POLY1305, DtlsKeys, StunKeys
from conflux.datapath.config import DatapathConfig
from conflux.datapath.native import _engine
from conflux.ids import LinkId, TetherId

NETWORK: Final = IPv4Network("100.64.0.0/24")
NEAR: Final = IPv4Address("100.64.0.1")
FAR: Final = IPv4Address("100.64.0.2")

DATAGRAM_BYTES_MAX: Final = 1472  # what Ethernet carries; loopback would carry more
NO_TUN: Final = -1

_LINK, _TETHER = LinkId(1), TetherId(b"bench\0\0\0")
_LABEL_NEAR, _LABEL_FAR, _LABEL_BACK = 1, 2, 100
_OPEN_S_MAX = 5.0
_HOST_MASK = b"\xff" * 4


class End:
    """One engine, its socket, and its handles."""

    def __init__(self, own: IPv4Address, tun: int, config: DatapathConfig, *, segments_udp: bool) -> None:
        self.socket = _udp_socket()
        self.engine = _engine.Engine(tun, segments_udp, config, os.urandom)
        self.engine.configure([(own.packed, _HOST_MASK)], [(NETWORK.network_address.packed, NETWORK.netmask.packed)])
        self.own = own
        self.egress = 0
        self.receiver = 0
        self._sender = 0
        self._hop: Hop | None = None

    def link(self, other: End, keys: DtlsKeys) -> None:
        """Add the link to other; the association opens once both ends have it."""
        self.engine.add_link(
            _LINK,
            self.socket.fileno(),
            other.socket.getsockname(),
            keys,
            StunKeys(b"no STUN comes", b"no STUN comes"),
            SCTP_PORT,
            SCTP_PORT,
            DATAGRAM_BYTES_MAX,
        )

    def send_to(self, other: End, key: EpochKey, *, label: int) -> None:
        """Make the stream from here to other, whose frames carry the label."""
        other.receiver = other.engine.add_receiver([(self.own.packed, _HOST_MASK)], key, True)
        other.engine.add_label(other.receiver, _LINK, label)
        self.egress = self.engine.add_egress()
        self.engine.set_addresses(self.egress, [(other.own.packed, _HOST_MASK)])
        self._sender = self.engine.add_sender(self.egress, key, True)
        self._hop = Hop(_LINK, _TETHER, TETHER_CHANNEL_COUNT, label_out=label, label_in=label + _LABEL_BACK)
        self.release()

    def hold(self) -> None:
        """Let what is sent from here wait in its queue."""
        self.engine.set_route(self._sender, None)

    def release(self) -> None:
        """Let what waits leave."""
        self.engine.set_route(self._sender, self._hop)

    @property
    def arrived(self) -> int:
        """How many packets arrived here."""
        return self.engine.receiver(self.receiver, False).packets

    @property
    def frames(self) -> int:
        """How many frames brought them."""
        return self.engine.receiver(self.receiver, False).frames

    @property
    def queued(self) -> int:
        """How many packets wait to be sent from here."""
        return self.engine.egress(self.egress).packets

    def close(self) -> None:
        """Stop the engine and close its socket."""
        self.engine.close()
        self.socket.close()


class Pair:
    """near and far, joined.  tuns: descriptors of their devices.  segments_udp: the devices take UDP super-packets."""

    def __init__(
        self,
        tuns: tuple[int, int] = (NO_TUN, NO_TUN),
        config: DatapathConfig | None = None,
        *,
        segments_udp: bool = False,
    ) -> None:
        config = config or DatapathConfig()
        self.near = End(NEAR, tuns[0], config, segments_udp=segments_udp)
        self.far = End(FAR, tuns[1], config, segments_udp=segments_udp)
        near_keys, far_keys = _dtls_keys()
        began = time.perf_counter()
        self.near.link(self.far, near_keys)
        self.far.link(self.near, far_keys)
        self._wait_open()
        self.open_s = time.perf_counter() - began
        aead = best_aead()
        for end in (self.near, self.far):
            for index in range(TETHER_CHANNEL_COUNT):
                end.engine.map(_LINK, 2 * index, _TETHER, index, LIFETIME_MS_MIN)
        self.near.send_to(self.far, _epoch_key(aead), label=_LABEL_FAR)
        self.far.send_to(self.near, _epoch_key(aead), label=_LABEL_NEAR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.near.close()
        self.far.close()

    def _wait_open(self) -> None:
        closed = [self.near.engine, self.far.engine]
        deadline = time.monotonic() + _OPEN_S_MAX
        while closed:
            if time.monotonic() > deadline:
                raise PartFailed("the two engines did not find each other over loopback")
            select.select([engine.fd for engine in closed], [], [], 0.1)
            closed = [engine for engine in closed if not _opened(engine)]

    def drops(self) -> dict[str, int]:
        """Return how many packets each engine dropped, by reason."""
        return {
            f"{name}: {reason}": count
            for name, end in (("near", self.near), ("far", self.far))
            for reason, count in end.engine.drops().items()
        }


def _opened(engine: _engine.Engine) -> bool:
    kinds = [upcall.kind for upcall in engine.take_upcalls()]
    if _engine.WIRE_CLOSED in kinds:
        raise PartFailed("the association of the two engines was refused")
    return _engine.WIRE_OPENED in kinds


def _udp_socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    set_buffers(sock, ENGINE_BUFFER_BYTES)
    sock.bind(("127.0.0.1", 0))
    return sock


def _dtls_keys() -> tuple[DtlsKeys, DtlsKeys]:
    """Return keys for near and far as a handshake leaves them, of the suite that this machine prefers."""
    chacha = best_aead() == frame.CHACHA20_POLY1305
    cipher, key_bytes, iv_bytes = (CHACHA20_POLY1305, 32, 12) if chacha else (AES_128_GCM, 16, 4)
    key_a, key_b, iv_a, iv_b = (os.urandom(size) for size in (key_bytes, key_bytes, iv_bytes, iv_bytes))
    return (
        DtlsKeys(cipher, key_a, key_b, iv_a, iv_b, SEQUENCE_OUT),
        DtlsKeys(cipher, key_b, key_a, iv_b, iv_a, SEQUENCE_OUT),
    )


def _epoch_key(aead: int) -> EpochKey:
    return EpochKey(0, aead, os.urandom(frame.KEY_BYTES), os.urandom(4))
