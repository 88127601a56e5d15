"""The demo's third part: two sites behind home routers, which know each other by a broker.

alpha ── a-router ── line ──┬── line ── b-router ── bravo      each line 20 ms there and back
                            └── broker, charlie
"""

from __future__ import annotations

import statistics
from typing import Any

from rig.demo_plan import Plan
from rig.home import Mapping
from rig.narration import Life, chapter, tell
from rig.sites import TwoSites
from rig.topology import Lab, LabFailure, Watch, wait_for

LINE_MS = 20.0

SITES_TABLE = (
    ("cold_sites_ms", "ms", "first ping between homes 40 ms apart, median", "< 400"),
    ("cold_sites_relayed_ms", "ms", "the same by a public relay, median", ""),
    ("throughput_sites_mbit", "Mbit/s", "TCP between two sites", ""),
    ("outage_lost_packets", "", "lost while the broker was gone", "0"),
    ("broker_back_s", "s", "from the broker's return to all connected", "< 5"),
)


class SitesDemo:
    """Two labs, one for each sort of router, and their figures."""

    def __init__(self, lab: Lab, plan: Plan, figures: dict[str, Any]) -> None:
        """lab: of the first part; its settings hold here too.  figures: where the figures go."""
        self.plan = plan
        self.figures = figures
        self.settings = lab.settings

    def run(self) -> None:
        """Play every act."""
        self.direct()
        self.relayed()

    def direct(self) -> None:
        """Show a link between two homes, and what the broker's end means to it."""
        chapter("14  Two sites behind home routers, and a broker between them")
        tell("lab", f"alpha and bravo are at home, behind routers that masquerade and lines of {LINE_MS:g} ms")
        tell("lab", "a NATS server, a STUN server and charlie are public; no router lets anything in unasked")
        sites = TwoSites(Lab(self.settings), Mapping.ENDPOINT_INDEPENDENT, rtt_ms=LINE_MS)
        life = self.watch(sites)
        self.figures["cold_sites_ms"] = self.cold(sites, life)
        address = sites.bravo.overlay_addresses()[1]
        rate = sites.alpha.iperf3(sites.bravo, address, seconds=self.plan.iperf3_s)
        tell("iperf3", f"TCP, alpha to bravo: {rate:.1f} Mbit/s")
        self.figures["throughput_sites_mbit"] = round(rate, 2)
        self.outage(sites, life, address)
        idle_s = sites.await_idle()
        tell("both", f"no data-plane socket is open any more, {idle_s:.1f} s later")
        self.end(sites)

    def outage(self, sites: TwoSites, life: Life, address: str) -> None:
        """Kill the broker under a stream, and let it come back."""
        chapter("15  The broker is killed under a stream, and returns")
        count = int((self.plan.outage_s + 4) / 0.05)
        life.start()
        flow = sites.alpha.spawn("flow", "ping", "-n", "-i", "0.05", "-c", str(count), "-W", "2", address)
        wait_for(lambda: flow.output().count("time=") > 10, "a stream", within_s=10, logs=sites.realm.logs())
        sites.server.kill()
        sites.await_broker(up=False)
        tell("broker", "SIGKILL; alpha goes on sending, twenty packets a second")
        life.pass_time(self.plan.outage_s)
        sites.server.start()
        back_s = sites.await_broker()
        tell("broker", f"is back; every node is connected again after {back_s:.1f} s")
        flow.wait(30)
        lost = count - flow.output().count("time=")
        tell("ping", f"{lost} of {count} packets lost meanwhile")
        self.figures |= {"outage_lost_packets": lost, "broker_back_s": round(back_s, 2)}
        if lost:
            raise LabFailure(f"the broker's end cost a stream {lost} packets{sites.realm.tails()}")

    def relayed(self) -> None:
        """Show two homes that cannot meet, and the relay between them."""
        chapter("16  Routers that choose another port for each destination")
        tell("lab", "now no port that a STUN server sees is the one for bravo: the boards cannot meet")
        sites = TwoSites(Lab(self.settings), Mapping.BY_DESTINATION, rtt_ms=LINE_MS)
        self.figures["cold_sites_relayed_ms"] = self.cold(sites, self.watch(sites))
        self.end(sites)

    # --- small things ---

    def watch(self, sites: TwoSites) -> Life:
        """Return the lives of alpha and bravo."""
        tell("charlie", "conflux realm create sites; relay.public = true; requests and answers were carried as files")
        life = Life(Watch(sites.alpha), Watch(sites.bravo))
        for watch in life.watches:
            wait_for(watch.connected, "conflux watch connecting", within_s=5, logs=sites.realm.logs())
        return life

    def cold(self, sites: TwoSites, life: Life) -> float:
        """Ping from nothing, again and again; return the median."""
        address = sites.bravo.overlay_addresses()[1]
        times_ms: list[float] = []
        for number in range(min(3, self.plan.cold_rounds)):
            sites.await_idle()
            life.start()
            times_ms.append(sites.alpha.first_answer_ms(address))
            relays = sites.relays(sites.alpha, sites.bravo)
            if not number:
                life.show()
            way = f"by {' and '.join(relays)}" if relays else "directly"
            tell("ping", f"{times_ms[-1]:.0f} ms from nothing to the answer, {way}")
        return round(statistics.median(times_ms), 1)

    def end(self, sites: TwoSites) -> None:
        """Stop the daemons."""
        for daemon in sites.realm.daemons.values():
            daemon.down()
        sites.close()
        sites.lab.close()
