"""Every target by name."""

from __future__ import annotations

import functools
from collections.abc import Callable

from fuzz import machines, parsers, strangers

Target = Callable[[bytes], bool]

TARGETS: dict[str, Target] = {
    **{family: functools.partial(parsers.record, family) for family in parsers.RECORDS},
    "api": parsers.api_request,
    "card-verify": parsers.card_verify,
    "carrier": parsers.carrier,
    "cbor": parsers.cbor,
    "channels": parsers.channels,
    "config": parsers.toml,
    "feedback": parsers.feedback,
    "frame": parsers.frame_codec,
    "jwt": parsers.jwt,
    "lan-frame": parsers.lan_frame,
    "lan-stranger": strangers.lan_stranger,
    "names": parsers.names,
    "nats": parsers.nats,
    "onion": parsers.onion_slot,
    "packet": parsers.ip_packet,
    "policy": parsers.policy,
    "route": parsers.route_message,
    "token": parsers.token,
    "web": parsers.web_request,
    "machine-datapath": machines.datapath,
    "machine-bridge": machines.bridge,
    "machine-crossing": machines.crossing,
    "machine-lan": machines.lan,
    "machine-link": machines.links,
    "machine-plane": machines.plane,
    "machine-route": machines.routes,
    "machine-stream": machines.streams,
}

TEXT = frozenset({"api", "carrier", "config", "jwt", "names", "policy", "token", "web"})
"""Those whose input is text: a dictionary helps."""
