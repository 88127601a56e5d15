"""The two kinds of daemon: what moves its packets is the engine, or Python to compare it with.

A kind is a module, native.py or reference.py; the second is loaded only if it is configured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple, Protocol

from conflux.carrier.ice.server import IceServer
from conflux.carrier.interface import CarrierEvent
from conflux.datapath.config import DatapathConfig
from conflux.datapath.interface import EchoListener, Tables
from conflux.host.tun import Tun
from conflux.shell.mover import Mover
from conflux.shell.pump import Pump


class Given(NamedTuple):
    """What the parts of a kind are made with.

    excluded: networks that no link runs over.  addresses: returns this host's addresses that a link may use.  on_event:
    takes the carrier's events.  device_lost: called once, with the reason, if the TUN device was taken away.
    """

    limits: DatapathConfig
    tun: Tun
    echo: EchoListener
    ice_servers: Sequence[IceServer]
    excluded: Sequence[IPv4Network | IPv6Network]
    addresses: Callable[[], Sequence[str]]
    on_event: Callable[[CarrierEvent], None]
    device_lost: Callable[[str], None]


class Parts(NamedTuple):
    """The parts of a kind.  connect: makes the mover of a node that has the datapath; see Pump."""

    datapath: Tables
    connect: Callable[[Pump], Mover]


class Kind(Protocol):
    """What the module of a kind has."""

    OFFLOADS: bool  # it takes super-packets from the TUN device
    SENDS_EARLY: bool  # it keeps frames for a tether that is being made: see NodeConfig
    KEYS_LINKS: bool  # its carrier takes a link's keys in the place of a handshake

    def prepare(self) -> None:
        """Import what is otherwise imported for the first link.  Raises ImportError."""

    def parts(self, given: Given) -> Parts:
        """Make the datapath, and say how to make its mover."""
