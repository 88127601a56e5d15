"""`make cost`: what an ephemeral link costs in bytes, message by message, and what boards at rest cost.

Leaves build/cost.json with the figures, and build/cost.md with the ledger, which docs/explanation/cost.md shows.
All bytes are counted on the wire of real daemons, in both directions; the sums are those of the kernel's counters.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Final

from rig import gauge
from rig.apart import Apart
from rig.enter import add_figures, deliver
from rig.ledger.page import cost_page
from rig.ledger.spells import Spell, Watched
from rig.narration import chapter, paint, play, tell
from rig.topology import CONFLUX, Host, Lab, LabFailure, wait_for

IDLE_S: Final = 5.0  # of exchanges that keep nothing open
LEFT_ALONE_S: Final = 5.0  # after the link's linger, until nothing of an exchange is on the wire
GONE_S: Final = IDLE_S + LEFT_ALONE_S
AGAIN_COUNT: Final = 3
DAY_MINUTES: Final = 1440
REST_S: Final = 180.0
SETTLED_S: Final = 8.0  # after the start: presence, cards and mDNS's questions are through
CONNECTED_WITHIN_S: Final = 120.0


def cold() -> tuple[dict[str, float], list[Spell]]:
    """Return the figures of exchanges between two boards that keep nothing open, and the spells."""
    apart = Apart({"stream": {"idle_timeout": IDLE_S}})
    lab = Lab({"stream": {"idle_timeout": IDLE_S}})
    watched = Watched(lab, "alpha", "bravo")
    alpha, bravo = watched.hosts
    address = bravo.overlay_addresses()[1]
    again_ms: list[float] = []
    broker_kb: list[float] = []

    def ping() -> None:
        again_ms.append(alpha.first_answer_ms(address))

    def both(title: str) -> None:
        """Ping on the LAN, and over the broker beside it."""
        apart.kb()
        apart.ping()
        watched.spell(title, ping, seconds=GONE_S)
        broker_kb.append(apart.kb())

    time.sleep(SETTLED_S)
    tell("alpha", "the first contact with bravo; two others make theirs over a broker")
    both("first contact")
    again_ms.clear()
    tell("alpha", f"{AGAIN_COUNT} exchanges with bravo, nothing open before")
    for _ in range(AGAIN_COUNT):
        both("met before")
    apart.close()
    tell("alpha", "its control connection with bravo ends, and is made anew")
    watched.spell("connection", watched.cut_control, seconds=SETTLED_S)
    tell("bravo", "restarts: nothing that they knew each other again by is left")
    watched.realm.daemons["bravo"].down()
    time.sleep(LEFT_ALONE_S)
    watched.spell("restart", lambda: watched.realm.restart(bravo), seconds=SETTLED_S)
    first, *again, connection, restart = watched.spells()
    lab.close()
    figures = {
        "cold_first_kb": first.kb,
        "cold_again_kb": statistics.median(spell.kb for spell in again),
        "cold_again_ms": statistics.median(again_ms),
        "cold_cpu_ms": statistics.median(spell.cpu_ms["alpha"] for spell in again),
        "broker_first_kb": broker_kb[0],
        "broker_again_kb": statistics.median(broker_kb[1:]),
        "on_demand_kb": control_kb(connection),
        "restart_kb": control_kb(restart),
    }
    return figures, [first, again[len(again) // 2], connection, restart]


def control_kb(spell: Spell) -> float:
    """Return the kilobytes of the control channel in a spell, TCP's own packets among them."""
    return sum(row.wire_bytes for row in spell.rows if row.group in ("control", "TCP")) / 1e3


def rhythms() -> tuple[dict[str, float], list[Spell]]:
    """Return the figures of a ping a minute and of one every 20 s, with the defaults, once the rhythm is known."""
    apart = Apart({})
    lab = Lab({})
    watched = Watched(lab, "alpha", "bravo")
    alpha, bravo = watched.hosts
    address = bravo.overlay_addresses()[1]
    broker_mb_day: dict[str, float] = {}

    def pings(count: int, pause_s: float) -> None:
        for _ in range(count):
            began = time.monotonic()
            alpha.first_answer_ms(address)
            apart.ping()
            time.sleep(max(0.0, began + pause_s - time.monotonic()))

    time.sleep(SETTLED_S)
    for title, count, pause_s in (("one ping a minute", 3, 60.0), ("one ping every 20 s", 6, 20.0)):
        pings(2, pause_s)
        tell("alpha", f"{title}, {count} times")
        apart.kb()
        began = time.monotonic()
        watched.spell(title, partial(pings, count, pause_s))
        broker_mb_day[title] = apart.kb() / 1e3 * 60 * DAY_MINUTES / (time.monotonic() - began)
    apart.close()
    spells = {spell.title: spell for spell in watched.spells()}
    lab.close()
    figures = {
        "ping_minute_mb_day": _mb_day(spells["one ping a minute"]),
        "ping_20s_mb_day": _mb_day(spells["one ping every 20 s"]),
        "broker_ping_minute_mb_day": broker_mb_day["one ping a minute"],
    }
    return figures, list(spells.values())


def _mb_day(spell: Spell) -> float:
    return spell.kb / 1e3 * 60 * DAY_MINUTES / spell.seconds


def kept() -> tuple[dict[str, float], list[Spell]]:
    """Return the figures of a link that is kept, per minute: idle, and with one ping."""
    lab = Lab({"stream": {"idle_timeout": 120.0}})
    watched = Watched(lab, "alpha", "bravo")
    alpha, bravo = watched.hosts
    address = bravo.overlay_addresses()[1]

    def ping() -> None:
        alpha.first_answer_ms(address)

    time.sleep(SETTLED_S)
    ping()
    time.sleep(LEFT_ALONE_S)
    tell("alpha", "a link that is kept, a minute without a packet")
    watched.spell("link kept, nothing sent", lambda: None, seconds=60)
    tell("alpha", "a link that is kept, one ping a minute, twice")
    watched.spell("link kept, one ping", ping, seconds=60)
    watched.spell("link kept, one ping", ping, seconds=60)
    spells = watched.spells()
    lab.close()
    rest, *busy = spells
    figures = {"kept_idle_kb_min": rest.kb, "kept_ping_kb_min": statistics.mean(spell.kb for spell in busy)}
    return figures, [rest, busy[-1]]


def at_rest(count: int) -> tuple[dict[str, float], list[Spell]]:
    """Return the figures of so many boards on one LAN: per board and minute, and a name that no node has."""
    lab = Lab({})
    watched = Watched(lab, *(f"b{number}" for number in range(count)))
    daemons = watched.realm.daemons

    def connected() -> bool:
        return all(gauge.established(daemon.pid) >= count - 1 for daemon in daemons.values())

    if count <= 64:  # above it, boards need not be neighbours of all
        wait_for(connected, f"{count} boards, each the neighbour of all", within_s=CONNECTED_WITHIN_S)
    time.sleep(2 * SETTLED_S)
    tell(f"{count}", f"boards at rest for {REST_S:g} s")
    before, began = [host.wire() for host in watched.hosts], time.monotonic()
    watched.spell(f"{count} boards at rest", lambda: None, seconds=REST_S)
    minutes = (time.monotonic() - began) / 60
    rest_kb = [_kb(host, earlier) for host, earlier in zip(watched.hosts, before, strict=True)]
    tell(f"{count}", "boards are asked for a name that no node has")
    before = [host.wire() for host in watched.hosts]

    def unknown() -> None:
        if watched.alpha.conflux("ping", "nobody", "-c", "1", check=False).returncode == 0:
            raise LabFailure("nobody answered")

    watched.spell("a name that no node has", unknown, seconds=SETTLED_S)
    asked_kb = sum(_kb(host, earlier) for host, earlier in zip(watched.hosts, before, strict=True)) / 2
    connections = max(gauge.established(daemon.pid) for daemon in daemons.values())
    spells = watched.spells()
    lab.close()
    figures = {
        f"rest_kb_min_{count}": statistics.mean(rest_kb) / minutes,
        f"unknown_name_kb_{count}": asked_kb,
        f"tls_per_board_max_{count}": float(connections),
    }
    return figures, spells


def at_once(count: int) -> tuple[dict[str, float], list[Spell]]:
    """Return how long so many boards on one LAN take, all started at once, until each pair finds one another.

    A pair counts once by each of the two that reaches the other, whether on the LAN, by a relay or by a broker.
    """
    lab = Lab({})
    lan = lab.lan()
    hosts = [lab.host(f"b{number}", lan) for number in range(count)]
    realm = lab.realm(*hosts)
    tell(f"{count}", "boards start at once")
    for daemon in realm.daemons.values():
        daemon.down()
    programs = [host.spawn("again", CONFLUX, "up", "--foreground", "--config", host.configured()) for host in hosts]
    began = time.monotonic()
    pairs = count * (count - 1)
    known = dict.fromkeys((host.name for host in hosts), 0)
    while sum(known.values()) < pairs and time.monotonic() - began < CONNECTED_WITHIN_S:
        time.sleep(0.2)
        for host in hosts:
            if known[host.name] < count - 1:  # who has all is asked no more: a question takes the processor from boards
                known[host.name] = _known(host)
    found = sum(known.values())
    took_s = time.monotonic() - began
    for program in programs:
        program.signal(signal.SIGTERM)
    lab.close()
    return {f"start_{count}_s": took_s, f"pairs_missing_{count}": float((pairs - found) / 2)}, []


def _known(host: Host) -> int:
    """Return how many nodes a host reaches; 0 while its daemon does not answer."""
    done = host.conflux("status", "--json", check=False)
    if done.returncode:
        return 0
    return sum(node["reach"] is not None for node in json.loads(done.stdout)["nodes"])


def _kb(host: Host, earlier: gauge.Traffic) -> float:
    passed = host.wire().since(earlier)
    return (passed.rx_bytes + passed.tx_bytes) / 1e3


def faults(spells: Sequence[Spell]) -> list[str]:
    """Return what does not hold: one sentence each."""
    return [
        f"{spell.title}: the ledger has {spell.ledger_bytes:.0f} bytes, the kernel counted {spell.counted_bytes}"
        for spell in spells
        if round(spell.ledger_bytes) != spell.counted_bytes
    ]


def main() -> int:
    """Measure, show and judge; return 1 if a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boards", type=int, nargs="*", default=[2, 10], help="how many are at rest, in turn (2 10)")
    parser.add_argument("--start", type=int, nargs="*", default=[], help="how many start at once, in turn (80 150)")
    parser.add_argument("--only", choices=("cold", "rhythms", "kept", "rest"), nargs="*", help="measure only this")
    options = parser.parse_args()
    chosen = ["cold", "rhythms", "kept", "rest"] if options.only is None else options.only
    print(paint("1", "What an ephemeral link costs"))
    figures: dict[str, float] = {}
    spells: list[Spell] = []
    labs = [(name, lab) for name, lab in (("cold", cold), ("rhythms", rhythms), ("kept", kept)) if name in chosen]
    labs += [("rest", partial(at_rest, count)) for count in options.boards if "rest" in chosen]
    labs += [("start", partial(at_once, count)) for count in options.start]
    for name, measure in labs:
        chapter(name)
        found, passed = measure()
        spells += passed
        figures |= {key: round(value, 3) for key, value in found.items()}
        for key, value in found.items():
            tell("", f"{key:<24} {value:10.2f}")
        add_figures("cost.json", figures)
    if chosen:
        deliver("cost.md", cost_page(spells, figures, gauge.machine()))
    print("\nbuild/cost.json has the figures, build/cost.md every message.", flush=True)
    for fault in faults(spells):
        print(f"{paint('31', 'cost: failed')}: {fault}", flush=True)
    return int(bool(faults(spells)))


if __name__ == "__main__":
    sys.exit(play("cost", main))
