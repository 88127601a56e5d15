"""How many bytes peers may have one engine hold, over all links together."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack

from conflux.carrier.wire import AES_128_GCM, DtlsKeys, StunKeys
from conflux.datapath.native.datapath import NativeDatapath
from conflux.ids import LinkId

LINK_COUNT = 200
PORTS = {"port_local": 5000, "port_remote": 5000}
STUN_KEYS = StunKeys(b"ours", b"peers")


def test_with_many_links_each_has_a_smaller_window_and_none_has_none() -> None:
    datapath = NativeDatapath()
    keys = DtlsKeys(AES_128_GCM, os.urandom(16), os.urandom(16), os.urandom(4), os.urandom(4), 32)
    with ExitStack() as stack:
        stack.callback(datapath.stop)
        windows = []
        for number in range(LINK_COUNT):
            near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            for end in (near, far):
                end.setblocking(False)
                stack.callback(end.close)
            datapath.wire.add(
                LinkId(number),
                near.fileno(),
                None,
                keys,
                STUN_KEYS,
                port_local=5000,
                port_remote=5000,
                datagram_bytes_max=1280,
            )
            windows.append(datapath._engine.link(number)["window_bytes_held_max"])
        assert windows[0] == 8 << 20
        assert windows == sorted(windows, reverse=True)
        assert windows[-1] == 128 << 10
        assert sum(windows) < (64 << 20) + LINK_COUNT * (128 << 10)
        for number in range(LINK_COUNT):
            datapath.wire.remove(LinkId(number))
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (near, far):
            stack.callback(end.close)
        datapath.wire.add(
            LinkId(LINK_COUNT),
            near.fileno(),
            None,
            keys,
            STUN_KEYS,
            port_local=5000,
            port_remote=5000,
            datagram_bytes_max=1280,
        )
        assert datapath._engine.link(LINK_COUNT)["window_bytes_held_max"] == 8 << 20
