"""An answer to `conflux status` as a daemon gives it, with one of everything, for what draws it."""

from __future__ import annotations

import copy
from typing import Any

HOSTILE = "<img src=x onerror=alert(1)>\x1b[2J\u202e"
"""What a peer could call itself if no other part of the program looked at names."""

_CELLAR, _BARN, _BOAT = (letter * 26 for letter in "cbo")


def _node(name: str, node: str, number: int, reach: str | None, by: list[str], heard_at: float) -> dict[str, Any]:
    return {
        "name": name,
        "node": node,
        "ipv6": f"fd29:2798:c958:fdc5::{number}",
        "ipv4": f"100.79.3.{number}",
        "reach": reach,
        "by": by,
        "state": None,
        "heard_at": heard_at,
        "left_at": None if reach else heard_at,
        "received_bytes": 4_200_000 * number,
        "sent_bytes": 1_300_000,
        "expires_at": 1_800_000_000,
        "named": True,
    }


_STATUS: dict[str, Any] = {
    "version": "0.1.0",
    "pid": 7,
    "uptime_s": 7260.0,
    "node": {"id": "a" * 26, "name": "attic", "addresses": ["fd29:2798:c958:fdc5::1", "100.79.3.9"]},
    "realm": {"name": "home", "id": "h" * 26},
    "credential": {"expires_at": 1_800_000_000, "renew_at": 1_799_000_000, "serial": 1, "issuer": "a" * 26},
    "device": {"name": "conflux0", "mtu_bytes": 4000, "up": True, "read_packets": 12, "written_packets": 34},
    "control": [
        {
            "name": "lan",
            "up": True,
            "detail": "port 7464, 1 neighbour",
            "neighbours": [{"node": _CELLAR, "name": "cellar"}],
        }
    ],
    "relaying": "on",
    "memory": {"rss_bytes": 62_000_000, "pss_bytes": 36_000_000},
    "budget": {
        "state": "near",
        "day_limit_bytes": 50_000_000,
        "month_limit_bytes": 1_000_000_000,
        "month_starts": 1,
        "today_bytes": 41_000_000,
        "month_bytes": 312_000_000,
        "days": [
            {"date": "2026-11-30", "sent_bytes": 9_000_000, "received_bytes": 14_000_000},
            {"date": "2026-12-01", "sent_bytes": 20_000_000, "received_bytes": 21_000_000},
        ],
    },
    "warnings": [],
    "sockets": 1,
    "tasks": ["pump"],
    "nodes": [
        _node("barn", _BARN, 2, "relay", ["cellar"], 1_795_000_000.0),
        _node("boat", _BOAT, 3, None, [], 1_794_000_000.0),
        _node("cellar", _CELLAR, 1, "lan", [], 1_795_000_000.0),
    ],
    "streams": [
        {
            "direction": "out",
            "node": _BARN,
            "name": "barn",
            "state": "flowing",
            "path": ["cellar", "barn"],
            "packets": 803,
            "bytes": 1_020_000,
            "queued_packets": 2,
            "rtt_ms": 4.52,
        },
        {"direction": "in", "node": _BARN, "name": "barn", "state": "receiving", "packets": 700, "path": None},
    ],
    "links": [
        {
            "link": 1,
            "node": _CELLAR,
            "name": "cellar",
            "state": "open",
            "age_s": 812.0,
            "rtt_ms": 0.38,
            "rate_mbit": 943.2,
            "sent_bytes": 95_000_000,
            "received_bytes": 310_000_000,
        },
        {
            "link": None,
            "node": _BOAT,
            "name": "boat",
            "state": "waiting",
            "age_s": None,
            "rtt_ms": None,
            "rate_mbit": None,
            "sent_bytes": None,
            "received_bytes": None,
        },
    ],
    "relays": [
        {
            "before": {"name": "cellar"},
            "ahead": {"name": "barn"},
            "ahead_bytes": 53_000,
            "back_bytes": 812,
            "expires_in_s": 80.2,
        }
    ],
    "destinations": [
        {
            "node": _BARN,
            "name": "barn",
            "addresses": ["fd29:2798:c958:fdc5::2", "100.79.3.2"],
            "path": ["cellar", "barn"],
            "paths": [{"hops": [_CELLAR, _BARN], "why": "measured", "rtt_ms": 4.52, "open_ms": 58.0}],
        },
        {"node": _BOAT, "name": "boat", "addresses": ["fd29:2798:c958:fdc5::3"], "path": None, "paths": []},
    ],
    "drops": {"aged": 12, "spoofed": 3},
}


def status(**changes: Any) -> dict[str, Any]:
    """Return a status, with other values for some of its keys."""
    return copy.deepcopy(_STATUS) | changes
