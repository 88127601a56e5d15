"""A daemon whose packets the engine moves: see kind.py."""

from __future__ import annotations

from conflux.carrier.native.carrier import NativeCarrier
from conflux.daemon.kind import Given, Parts
from conflux.datapath.native.datapath import NativeDatapath
from conflux.shell.native import NativeMover
from conflux.shell.pump import Pump

OFFLOADS = True
SENDS_EARLY = True
KEYS_LINKS = True


def prepare() -> None:
    """See Kind."""
    NativeCarrier.prepare()


def parts(given: Given) -> Parts:
    """See Kind."""
    tun = given.tun
    datapath = NativeDatapath(
        given.limits,
        tun=tun.fd,
        segments_udp=tun.segments_udp,
        device_lost=lambda: given.device_lost(f"{tun.name} was removed"),
    )

    def connect(pump: Pump) -> NativeMover:
        carrier = NativeCarrier(
            wire=datapath.wire,
            on_event=given.on_event,
            ice_servers=given.ice_servers,
            excluded=given.excluded,
            addresses=given.addresses,
        )
        datapath.attach(carrier.wire_upcall, given.echo)
        return NativeMover(pump, datapath, carrier)

    return Parts(datapath, connect)
