#!/usr/bin/env python3
"""Picture the page as `docs/how-to/watch-your-network.md` shows it: `make pictures`.

A board of a small realm is made up, with an hour of traffic, and a headless Chromium looks at it.
"""

from __future__ import annotations

import math
import random
import time
from pathlib import Path
from typing import Any

from kit.answers import status
from rig.browser import browser
from rig.served import served

from conflux.web.history import SAMPLE_COUNT_MAX, STEP_S, Counters
from conflux.web.source import Source

HERE = Path(__file__).parent
DESKTOP, PHONE = (1280, 1440), (390, 1330)
MBIT_BYTES = 125_000

# Name, reach, relays.
NODES = (
    ("cellar", "lan", ()),
    ("loft", "lan", ()),
    ("shed", "lan", ()),
    ("barn", "relay", ("shed",)),
    ("greenhouse", "relay", ("shed",)),
    ("cabin", "broker", ()),
)
IDS = {name: name.ljust(26, "a") for name, _, _ in NODES}


def made_up() -> dict[str, Any]:
    """Return what the daemon of the board says."""
    now, sample = time.time(), status()
    stream, link = sample["streams"][0], sample["links"][0]

    def neighbours(way: str) -> list[dict[str, Any]]:
        return [{"node": IDS[name], "name": name} for name, by, _ in NODES if by == way]

    def destination(name: str, via: tuple[str, ...]) -> dict[str, Any]:
        hops = [*via, name]
        ways = [{"hops": [IDS[hop] for hop in hops], "why": "measured", "rtt_ms": 0.4 * len(hops), "open_ms": 31.0}]
        if via:
            ways.append({"hops": [IDS[name]], "why": "failed (dial: timeout); may be tried again", "failures": 1})
        return {"node": IDS[name], "name": name, "path": hops if via else None, "paths": ways}

    def node(name: str, reach: str, via: tuple[str, ...], number: int) -> dict[str, Any]:
        addresses = {"ipv6": f"fd29:2798:c958:fdc5:326a:12:1ff8:74f{number}", "ipv4": f"100.79.3.{number}"}
        counts = {"received_bytes": 7_300_000 * number**2, "sent_bytes": 2_100_000 * number}
        dates = {"heard_at": now - 7 * number, "expires_at": now + 86400 * (30 - number)}
        way = {"name": name, "node": IDS[name], "reach": reach, "by": via}
        return sample["nodes"][0] | way | addresses | counts | dates

    def flow(name: str, path: list[str], packets: int, rtt_ms: float) -> dict[str, Any]:
        counts = {"packets": packets, "bytes": packets * 1180, "queued_packets": 0, "rtt_ms": rtt_ms}
        return stream | {"node": IDS[name], "name": name, "path": path} | counts

    return sample | {
        "uptime_s": 4 * 86400 + 12_000.0,
        "node": {
            "id": "mfrggzdfmztwq2lknnwg23tpob",
            "name": "attic",
            "addresses": ["fd29:2798:c958:fdc5:9a01:77:1ff8:74f0", "100.79.3.1"],
        },
        "credential": {"expires_at": now + 24 * 86400},
        "control": [
            {
                "name": "lan",
                "up": True,
                "detail": "listening on port 7464, 3 neighbours",
                "neighbours": neighbours("lan"),
            },
            {"name": "nats", "up": True, "detail": "nats.example.org:4222", "neighbours": neighbours("broker")},
        ],
        "nodes": [node(name, reach, via, number) for number, (name, reach, via) in enumerate(NODES, 2)],
        "destinations": [destination(name, via) for name, _, via in NODES],
        "streams": [flow("shed", ["shed"], 12_031, 0.41), flow("barn", ["shed", "barn"], 88_803, 0.83)],
        "links": [
            link | {"node": IDS["shed"], "name": "shed"},
            link
            | {
                "link": 2,
                "node": IDS["cellar"],
                "name": "cellar",
                "age_s": 12.0,
                "sent_bytes": 1_900_000,
                "received_bytes": 240_000,
            },
        ],
        "drops": {"aged": 4},
    }


def fill(source: Source) -> None:
    """Make an hour up: a camera that sends all the time, and a backup."""
    chance, now = random.Random(7), time.time()  # noqa: S311  # the same hour each time, and no secret
    received = sent = drops = 0
    for step in range(SAMPLE_COUNT_MAX):
        backup = 34.0 if 96 <= step < 124 else 0.0
        received += int(STEP_S * MBIT_BYTES * (2.2 + math.sin(step / 23) + chance.random() + backup))
        sent += int(STEP_S * MBIT_BYTES * (6.5 + 1.5 * math.sin(step / 11) + chance.random()))
        drops += 2 if step in (97, 98) else 0
        at = now - 3600 + step * STEP_S
        source.history.add(Counters(at, now - 86400, received, sent, drops, 2 + (step // 37) % 3, len(NODES)), at=at)


def main() -> None:
    """Write both pictures."""
    with served(made_up, fill) as port, browser() as tab:
        for name, (width, height), dark in (("desktop", DESKTOP, False), ("phone", PHONE, True)):
            tab.emulate(width, height, dark=dark)
            tab.open(f"http://127.0.0.1:{port}/")
            tab.wait_until("document.querySelectorAll('#nodes tbody tr').length > 0")
            data = tab.picture("webp", height=height)
            (HERE / f"page-{name}.webp").write_bytes(data)


if __name__ == "__main__":
    main()
