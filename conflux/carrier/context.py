"""What a carrier gives each of its links.  Apart from link.py, which loads aiortc."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple

from conflux.carrier.ice.server import IceServer
from conflux.carrier.interface import CarrierEvent
from conflux.ids import LinkId


class LinkContext(NamedTuple):
    """One link's number and side, and what all links of a carrier share.

    initiator: see Describe.  emit: gets every event of the link.  addresses, excluded: see Carrier.
    """

    link: LinkId
    initiator: bool
    emit: Callable[[CarrierEvent], None]
    drop_counts: Counter[str]
    addresses: Callable[[], Sequence[str]]
    excluded: Sequence[IPv4Network | IPv6Network]
    ice_servers: Sequence[IceServer]
