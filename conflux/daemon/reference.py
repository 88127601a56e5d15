"""A daemon whose packets Python moves, to compare the engine with: see kind.py."""

from __future__ import annotations

from conflux.carrier.rtc.carrier import RtcCarrier
from conflux.daemon.kind import Given, Parts
from conflux.datapath.reference.datapath import ReferenceDatapath
from conflux.shell.pump import Pump
from conflux.shell.shuttle import Shuttle

OFFLOADS = False
SENDS_EARLY = False
KEYS_LINKS = False


def prepare() -> None:
    """See Kind."""
    RtcCarrier.prepare()


def parts(given: Given) -> Parts:
    """See Kind."""
    datapath = ReferenceDatapath(given.limits)

    def connect(pump: Pump) -> Shuttle:
        carrier = RtcCarrier(
            on_frame=pump.frame,
            on_event=given.on_event,
            ice_servers=given.ice_servers,
            excluded=given.excluded,
            addresses=given.addresses,
        )
        return Shuttle(pump, datapath, carrier, given.tun, device_lost=given.device_lost, echo=given.echo)

    return Parts(datapath, connect)
