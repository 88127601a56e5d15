"""The demo's second part: two LANs that only relays bridge, and a stream that moves while it flows.

                         ruth
                       /      \\
    alpha ──a── rod ──m        b── bravo        no host forwards IP; only ruth and rita are on b with bravo
                       \\      /
                         rita
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from rig.demo_plan import Plan
from rig.joined_lans import JoinedLans
from rig.knowledge import Relay, Sight, dumpable, gained, node_facts, stream_fact
from rig.narration import Life, chapter, tell
from rig.numbered import Account, Numbered
from rig.topology import Lab, LabFailure, Watch, wait_for

WIRING = {"alpha": "a", "rod": "am", "ruth": "mb", "rita": "mb", "bravo": "b"}
FAR = ("ruth", "rita")  # each can be the second relay
SETTLE_S = 15.0  # a node keeps its answers for 12 s to repeat them; then a set-up has left nothing in memory
MBIT = 10

RELAY_TABLE = (
    ("cold_relay_ms", "ms", "first ping through one relay, median", "< 300"),
    ("cold_relay2_ms", "ms", "first ping through two relays, median", "< 450"),
    ("warm_relay_ms", "ms", "warm ping through one relay, median", ""),
    ("warm_relay2_ms", "ms", "warm ping through two relays, median", ""),
    ("throughput_relay_mbit", "Mbit/s", "TCP through one relay", ""),
    ("throughput_relay2_mbit", "Mbit/s", "TCP through two relays", ""),
    ("relay_leaks", "", "facts two relays hold beyond their neighbours", "0"),
    ("move_lost_packets", "", f"lost by two moves under {MBIT} Mbit/s", "0"),
    ("heal_ms", "ms", "from a relay's end to packets by another", "< 2000"),
    ("heal_lost_packets", "", "lost meanwhile", ""),
)


class RelayDemo:
    """The second lab, and its figures."""

    def __init__(self, lab: Lab, plan: Plan, figures: dict[str, Any]) -> None:
        """lab: of the first part; its settings hold here too.  figures: where the figures go."""
        self.plan = plan
        self.cold_rounds = min(3, plan.cold_rounds)
        self.figures = figures
        self.lab = Lab(lab.settings)
        self.lans: JoinedLans
        self.life: Life
        self.relays: dict[str, Relay] = {}
        self.before: dict[str, Sight] = {}
        self.bravo = ""

    def run(self) -> None:
        """Play every act."""
        for act in (self.join_lans, self.cold, self.knowledge, self.move, self.kill, self.one_relay, self.the_end):
            act()

    def join_lans(self) -> None:
        """Make the LANs and a realm over them."""
        chapter("8  Two LANs that only relays join")
        tell("lab", "alpha is on LAN a, bravo on LAN b; rod joins a to m, ruth and rita both join m to b")
        tell("lab", "no host forwards IP, so alpha and bravo cannot reach each other")
        state = self.lab.state
        self.lans = JoinedLans(self.lab, WIRING, {name: dumpable(state / name) for name in ("rod", *FAR)})
        self.bravo = self.lans["bravo"].overlay_addresses()[1]
        tell("rod", "made the realm; requests and answers were carried as files, as rod is not on bravo's LAN")
        self.life = Life(Watch(self.lans["alpha"]), Watch(self.lans["bravo"]), rename=self.lans.with_names)
        watches = {name: Watch(self.lans[name]) for name in ("rod", *FAR)}
        for watch in (*self.life.watches, *watches.values()):
            wait_for(watch.connected, "conflux watch connecting", within_s=5, logs=self.lans.realm.logs())
        self.lans.speak("alpha", "bravo")
        for name, watch in watches.items():
            self.relays[name] = Relay(self.lans[name], self.lans.realm.daemons[name], watch)
            self.before[name] = self.relays[name].look()
        tell("relays", "the memory of rod, ruth and rita is dumped now, before there is any stream")

    def cold(self) -> None:
        """Ping from nothing through two relays."""
        chapter(f"9  Cold through two relays, {self.cold_rounds} times")
        self.life.start()
        times_ms = [self.cold_ping(self.bravo)]
        self.life.show()
        tell("ping", f"{times_ms[0]:.0f} ms from nothing to the answer, by {self.way()}")
        while len(times_ms) < self.cold_rounds:
            times_ms.append(self.cold_ping(self.bravo))
            tell("ping", f"{times_ms[-1]:.0f} ms, by {self.way()}")
        self.figures |= {"cold_relay2_ms": round(statistics.median(times_ms), 1), "cold_relay2_ms_all": times_ms}

    def knowledge(self) -> None:
        """Search the relays' memory for facts that they must not learn."""
        chapter("10  What the relays of a stream know")
        self.lans.await_idle()
        alpha, bravo = self.lans["alpha"], self.lans["bravo"]
        started = time.monotonic()
        stream = alpha.spawn("stream", "ping", "-n", "-i", "0.05", self.bravo)
        wait_for(lambda: stream.output().count("time=") > 20, "a stream", within_s=10, logs=self.lans.realm.logs())
        warm = alpha.ping(self.bravo, "-c", "20", "-i", "0.05")
        tell("ping", f"{warm.median_ms:.1f} ms through two relays (median of {warm.received})")
        rate = alpha.iperf3(bravo, self.bravo, seconds=self.plan.iperf3_s)
        tell("iperf3", f"TCP, alpha to bravo through two relays: {rate:.1f} Mbit/s")
        self.figures |= {"warm_relay2_ms": round(warm.median_ms, 2), "throughput_relay2_mbit": round(rate, 2)}
        tell("lab", f"the streams flow on until {SETTLE_S:g} s have passed since they were set up; then:")
        self.life.start()
        self.life.pass_time(started + SETTLE_S - time.monotonic())
        streams = [
            stream_fact(f"the stream of {one} to {other}", self.lans.stream(one, other).stream)
            for one, other in (("alpha", "bravo"), ("bravo", "alpha"))
        ]
        second = sorted({self.lans.path("alpha", "bravo")[1], self.lans.path("bravo", "alpha")[0]})
        facts = {name: node_facts(self.lans.nodes[name]) for name in ("alpha", "bravo")}
        leaks: list[str] = []
        for name in ("rod", *second):
            after = self.relays[name].look()
            near, far = ("alpha", "bravo") if name == "rod" else ("bravo", "alpha")
            found = gained(name, self.before[name], after, facts[near], facts[far], streams)
            found += self.relays[name].remembers(streams)
            self.show_relay(name, after, near, far, found)
            leaks += found
        stream.kill()
        self.figures["relay_leaks"] = len(leaks)
        if leaks:
            raise LabFailure("\n".join(leaks))

    def show_relay(self, name: str, after: Sight, near: str, far: str, found: list[str]) -> None:
        """Print what a relay holds of the routes through it, and what it has learned."""
        for route in self.lans[name].status().relays:
            sides = " and ".join(
                f"link {side.link} to {side.name} (labels {side.label_in}, {side.label_out})"
                for side in (route.before, route.ahead)
            )
            tell(name, f"a route: {sides}; {route.ahead_frames} frames ahead, {route.back_frames} back")
        own = ", ".join(
            f"{fact.what} {len(after.dump.holding(fact))} times" for fact in node_facts(self.lans.nodes[near])
        )
        tell(name, f"{len(after.dump.objects)} objects in its memory searched: {own}: its neighbour")
        tell(name, f"learned of {far}, of the pair of ends, of either stream's name: {'; '.join(found) or 'nothing'}")

    def move(self) -> None:
        """Move a stream between relays while it flows."""
        chapter(f"11  A live stream moves, under {MBIT} Mbit/s of UDP")
        flow = self.flow(self.plan.flow_s)
        for _ in range(2):
            before = self.way()
            took_ms = self.lans.move("alpha", "bravo", "rod", self.other())
            self.life.show()
            tell("alpha", f"conflux route move bravo: from {before} to {self.way()} in {took_ms:.0f} ms")
            self.life.pass_time(1.0)
        account = self.account(flow)
        self.figures |= {"move_lost_packets": len(account.lost), "move_packets": len(account.sent_at)}
        tell(
            "bravo", f"{len(account.sent_at)} packets were sent, {len(account.lost)} lost, {account.repeated} repeated"
        )
        if account.lost:
            raise LabFailure(f"a planned move lost packets: {account.lost[:20]}{self.lans.realm.tails()}")

    def kill(self) -> None:
        """Kill the relay that a stream uses."""
        chapter("12  A relay is killed under the stream")
        flow = self.flow(self.plan.flow_s)
        self.life.pass_time(1.0)
        stream, (_, used) = self.lans.stream("alpha", "bravo").stream, self.lans.path("alpha", "bravo")
        self.life.start()
        killed_at = time.monotonic()
        self.lans.realm.daemons[used].kill()
        tell(used, "SIGKILL; alpha is not its neighbour and goes on sending:")

        def healed() -> bool:
            self.life.show()
            return self.lans.path("alpha", "bravo")[1:] == [other]

        other = next(name for name in FAR if name != used)
        wait_for(healed, "another path", within_s=10, logs=self.lans.realm.logs())
        same, way = self.lans.stream("alpha", "bravo").stream == stream, self.way()  # while it flows
        account = self.account(flow)
        heal_ms = account.healed_ms(killed_at)
        tell("alpha", f"packets arrive again {heal_ms:.0f} ms after the kill, by {way}")
        tell("alpha", f"{'the same' if same else 'ANOTHER'} stream; {len(account.lost)} of {len(account.sent_at)} lost")
        self.figures |= {
            "heal_ms": round(heal_ms),
            "heal_lost_packets": len(account.lost),
            "heal_lost_ms": round(account.lost_ms),
            "heal_same_stream": same,
        }

    def one_relay(self) -> None:
        """Ping and carry TCP through one relay."""
        to = next(name for name in FAR if self.lans.realm.daemons[name].exit_code is None)
        chapter(f"13  Through one relay: alpha to {to}")
        address = self.lans[to].overlay_addresses()[1]
        times_ms = [self.cold_ping(address) for _ in range(self.cold_rounds)]
        tell("ping", f"cold, {self.cold_rounds} times: {', '.join(f'{each:.0f} ms' for each in times_ms)}")
        warm = self.lans["alpha"].ping(address, "-c", "20", "-i", "0.05")
        rate = self.lans["alpha"].iperf3(self.lans[to], address, seconds=self.plan.iperf3_s)
        tell("ping", f"warm: {warm.median_ms:.1f} ms (median of {warm.received})")
        tell("iperf3", f"TCP, alpha to {to} through rod: {rate:.1f} Mbit/s")
        self.figures |= {
            "cold_relay_ms": round(statistics.median(times_ms), 1),
            "cold_relay_ms_all": times_ms,
            "warm_relay_ms": round(warm.median_ms, 2),
            "throughput_relay_mbit": round(rate, 2),
        }

    def the_end(self) -> None:
        """See that no route is left, and stop the daemons."""
        self.lans.await_idle()
        left = {name: len(host.status().relays) for name, host in self.running()}
        tell("all", f"quiet again: no data-plane socket anywhere, {sum(left.values())} routes left on relays")
        if any(left.values()):
            raise LabFailure(f"routes outlive their streams: {left}{self.lans.realm.tails()}")
        for name, _ in self.running():
            self.lans.realm.daemons[name].down()

    # --- small things ---

    def running(self) -> list[tuple[str, Any]]:
        """Return the hosts whose daemon runs, by name."""
        daemons = self.lans.realm.daemons
        return [(name, host) for name, host in self.lans.hosts.items() if daemons[name].exit_code is None]

    def cold_ping(self, address: str) -> float:
        """Wait until nothing is left, send one packet and return how long its answer took."""
        self.lans.await_idle()
        return self.lans["alpha"].first_answer_ms(address)

    def flow(self, seconds: float) -> Numbered:
        """Start a flow of numbered packets, and wait until its stream is set up."""
        self.lans["alpha"].ping(self.bravo, "-c", "1", "-W", "10")
        self.life.start()
        flow = Numbered(self.lans["alpha"], self.lans["bravo"], self.bravo, mbit=MBIT, seconds=seconds)
        self.life.pass_time(1.0)
        return flow

    def account(self, flow: Numbered) -> Account:
        """Wait for the end of a flow and return its account."""
        wait_for(lambda: self.shown(flow.ended()), "the last packet", within_s=30, logs=self.lans.realm.logs())
        return flow.account()

    def shown(self, fact: bool) -> bool:
        """Show what happened, and return the fact."""
        self.life.show()
        return fact

    def way(self) -> str:
        """Name the relays of alpha's stream to bravo."""
        return " and ".join(self.lans.path("alpha", "bravo"))

    def other(self) -> str:
        """Return the second relay that alpha's stream does not take."""
        used = self.lans.path("alpha", "bravo")
        return next(name for name in FAR if name not in used)
