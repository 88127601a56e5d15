"""`make demo`: shows how IP packets bring up a link between two hosts, and how nothing is left of it afterwards.

      alpha          bravo          charlie
        |              |               |         three network namespaces, a real daemon in each;
     ---+--------------+---------------+---      charlie joined the realm and then lost its power
                    one LAN

Then two LANs that only relays bridge: see demo_relays.py.  Then two sites and a broker: see demo_sites.py.

Every figure in the table and in build/demo.json is measured in this run, from outside the daemons: ping and iperf3 for
packets, /proc for sockets and memory, nftables for bytes.  With --short every act is played, with fewer and shorter
measurements, and build/demo.json stays as it is: a lane of `make test` does that.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

from rig.demo_plan import SHORT, WHOLE, Plan
from rig.demo_relays import RELAY_TABLE, RelayDemo
from rig.demo_sites import SITES_TABLE, SitesDemo
from rig.enter import deliver
from rig.gauge import Pings, machine, pings
from rig.narration import STARTED, Life, chapter, paint, play, tell
from rig.topology import Daemon, Lab, LabFailure, Process, Realm, Watch, wait_for

IDLE_GRACE_S = 5.0  # after the idle timeout, until nothing is left: what the project promises


# --- the acts ---------------------------------------------------------------------------------------------------


class Demo:
    """The lab, and the figures so far."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.figures: dict[str, Any] = {}
        self.lab = Lab(
            {
                "stream": {"idle_timeout": plan.idle_timeout_s},
                "link": {"linger": plan.linger_s},
            }
        )
        lan = self.lab.lan()
        self.alpha, self.bravo, self.charlie = (self.lab.host(name, lan) for name in ("alpha", "bravo", "charlie"))
        self.realm: Realm
        self.overlay: dict[str, str] = {}
        self.life: Life

    @property
    def daemons(self) -> tuple[Daemon, Daemon]:
        """The daemons of alpha and bravo."""
        return self.realm.daemons["alpha"], self.realm.daemons["bravo"]

    def await_idle(self, meanwhile: Callable[[], None] = lambda: None) -> float:
        """Wait until no daemon has a data-plane socket; return the seconds that took."""
        return self.realm.await_idle(within_s=self.plan.idle_timeout_s + IDLE_GRACE_S, meanwhile=meanwhile)

    def form_realm(self) -> None:
        """Make a realm of three, and take one's power away."""
        chapter("1  Three hosts become a realm")
        tell("lab", "alpha, bravo, charlie: network namespaces on one bridge")
        tell(
            "lab",
            f"conflux.toml: stream.idle_timeout = {self.plan.idle_timeout_s:g} (default: what pays), "
            f"link.linger = {self.plan.linger_s:g} (default 2)",
        )
        self.realm = Realm(self.alpha, "demo")
        tell("alpha", f"conflux realm create demo; conflux up: ready in {self.realm.daemons['alpha'].ready_s:.1f} s")
        token = self.realm.invite(2)
        tell("alpha", f"conflux realm invite: {token[:20]}... ({len(token)} characters)")
        for host in (self.bravo, self.charlie):
            started = time.monotonic()
            self.realm.admit(host, token)
            tell(host.name, f"conflux join TOKEN; conflux up: a member in {time.monotonic() - started:.1f} s")
        addresses = {name: self.lab.hosts[name].overlay_addresses() for name in self.realm.daemons}
        self.overlay = {name: ipv6 for name, (_, ipv6) in addresses.items()}
        for name, (ipv4, ipv6) in addresses.items():
            tell(name, f"conflux0 has {ipv6} and {ipv4}")
        self.realm.daemons.pop("charlie").kill()
        self.charlie.unplug()
        tell("charlie", "loses its power")

    def first_packet(self) -> None:
        """Send one packet, and watch the link come and go."""
        chapter("2  One packet, and the whole life of a link")
        self.life = Life(Watch(self.alpha), Watch(self.bravo))
        for host in (self.alpha, self.bravo):
            host.count_data_plane()
        for watch in self.life.watches:
            wait_for(watch.connected, "conflux watch connecting", within_s=5, logs=self.daemons)
        self.await_idle()
        tell("both", "no data-plane socket is open; alpha pings bravo once:")
        self.life.start()
        ping = self.spawn_ping(self.overlay["bravo"], "-c", "1", "-W", "10")
        reply = self.finish(ping)
        tell("ping", f"answered after {reply.times_ms[0]:.0f} ms; no packet follows, so:")
        idle_after_s = self.await_idle(self.life.show)
        sockets = [address for daemon in self.daemons for address in daemon.sockets()]
        before = [host.data_plane() for host in (self.alpha, self.bravo)]
        self.life.pass_time(self.plan.quiet_s)
        after = [host.data_plane() for host in (self.alpha, self.bravo)]
        quiet_bytes = sum(count.bytes for count in after) - sum(count.bytes for count in before)
        tell("both", f"{len(sockets)} data-plane sockets {idle_after_s:.1f} s after the last packet")
        tell("wire", f"{quiet_bytes} data-plane bytes in {self.plan.quiet_s:g} s of watching it")
        if quiet_bytes:
            raise LabFailure(f"an idle wire carried {quiet_bytes} data-plane bytes")
        self.figures |= {
            "idle_sockets": len(sockets),
            "idle_after_s": round(idle_after_s, 2),
            "idle_timeout_s": self.plan.idle_timeout_s,
            "idle_bytes": quiet_bytes,
        }

    def cold_rounds(self) -> None:
        """Ping from nothing, again and again."""
        rounds = self.plan.cold_rounds
        chapter(f"3  Cold, {rounds} times: every round a fresh stream on a fresh link")
        times_ms: list[float] = []
        for _ in range(rounds):
            self.await_idle()
            times_ms.append(self.alpha.first_answer_ms(self.overlay["bravo"]))
            tell("ping", f"{times_ms[-1]:.0f} ms from nothing to the answer")
        self.await_idle()
        burst = self.alpha.ping(self.overlay["bravo"], "-c", "50", "-i", "0.005", "-W", "5")
        in_order = list(burst.numbers) == sorted(burst.numbers)
        tell("ping", f"50 packets, 5 ms apart, from nothing: {burst.lost} lost, {'in' if in_order else 'OUT OF'} order")
        self.figures |= {
            "cold_direct_ms": round(statistics.median(times_ms), 1),
            "cold_direct_ms_all": times_ms,
            "lost_packets_setup": burst.lost,
            "setup_packets": burst.sent,
            "setup_in_order": in_order,
        }

    def warm(self) -> None:
        """Ping and carry TCP and UDP over an open link."""
        chapter("4  Warm: the link is open while packets flow")
        address = self.overlay["bravo"]
        reply = self.alpha.ping(address, "-c", "20", "-i", "0.05")
        tell("ping", f"{reply.median_ms:.1f} ms (median of {reply.received})")
        forward = self.alpha.iperf3(self.bravo, address, seconds=self.plan.iperf3_s)
        tell("iperf3", f"TCP, alpha to bravo: {forward:.1f} Mbit/s")
        backward = self.alpha.iperf3(self.bravo, address, "--reverse", seconds=self.plan.iperf3_s)
        tell("iperf3", f"TCP, bravo to alpha: {backward:.1f} Mbit/s")
        udp = self.alpha.iperf3(
            self.bravo,
            address,
            "--udp",
            "--bitrate",
            f"{forward / 2:.2f}M",
            "--length",
            "1100",
            seconds=min(2, self.plan.iperf3_s),
        )
        tell("iperf3", f"UDP, {forward / 2:.1f} Mbit/s offered: {udp:.1f} Mbit/s arrived")
        self.figures |= {
            "warm_ms": round(reply.median_ms, 2),
            "throughput_direct_mbit": round(forward, 2),
            "throughput_reverse_mbit": round(backward, 2),
            "udp_offered_mbit": round(forward / 2, 2),
            "udp_arrived_mbit": round(udp, 2),
        }

    def dead_beside(self) -> None:
        """Send to a dead destination beside a flow at full rate."""
        chapter("5  A dead destination beside one at full speed")
        dead = self.alpha.spawn("ping-charlie", "ping", "-n", "-i", "0.2", self.overlay["charlie"])
        tell("alpha", "pings charlie, which has no power, five times a second")
        beside = self.alpha.iperf3(self.bravo, self.overlay["bravo"], seconds=self.plan.iperf3_s)
        dead.kill()
        alone = self.figures["throughput_direct_mbit"]
        tell("iperf3", f"meanwhile, TCP to bravo: {beside:.1f} Mbit/s (alone: {alone:.1f})")
        self.figures["throughput_beside_dead_mbit"] = round(beside, 2)
        if beside < alone / 2:
            raise LabFailure("a dead destination slowed another down" + self.tails())

    def killed(self) -> None:
        """Kill a peer under a stream, and start it again."""
        chapter("6  A peer is killed in mid-stream, and returns")
        address = self.overlay["bravo"]
        stream = self.alpha.spawn("stream", "ping", "-n", "-i", "0.02", address)
        wait_for(lambda: stream.output().count("time=") > 25, "a running stream", within_s=10, logs=self.daemons)
        self.life.start()
        daemon = self.realm.daemons["bravo"]
        daemon.kill()
        killed = time.time()
        tell("bravo", "SIGKILL; alpha goes on sending, fifty packets a second:")

        def noticed() -> float | None:
            self.life.show()
            return self.life.when("alpha", "suspect", "closed", "unreachable", "failed")

        notice_s = wait_for(noticed, "alpha noticing", within_s=30, logs=self.daemons[:1]) - killed
        tell("alpha", f"noticed after {notice_s * 1000:.0f} ms")

        def torn_down() -> float | None:
            self.life.show()
            return self.life.when("alpha", "closed")

        teardown_s = wait_for(torn_down, "the link closed", within_s=30, logs=self.daemons[:1]) - killed
        self.life.pass_time(1.0)
        answers = stream.output().count("time=")
        self.realm.restart(self.bravo)
        up = time.monotonic()
        tell("bravo", "is started again, without further help")

        def answered() -> bool:
            self.life.show()
            return stream.output().count("time=") > answers

        wait_for(answered, "traffic flowing again", within_s=30, logs=self.daemons)
        recover_s = time.monotonic() - up
        stream.kill()
        tell("alpha", f"traffic flows {recover_s * 1000:.0f} ms after bravo's daemon was ready")
        self.figures |= {
            "notice_ms": round(notice_s * 1000),
            "teardown_ms": round(teardown_s * 1000),
            "recover_ms": round(recover_s * 1000),
        }

    def the_end(self) -> None:
        """See that nothing is left, and stop the daemons."""
        chapter("7  All is quiet again")
        self.await_idle()
        alpha, bravo = self.daemons
        memory = alpha.memory()
        sockets = len(alpha.sockets()) + len(bravo.sockets())
        tell(
            "both", f"{sockets} data-plane sockets; alpha's daemon: {memory.rss_mb:.0f} MB, {memory.pss_mb:.0f} MB PSS"
        )
        self.figures["idle_sockets"] = max(self.figures["idle_sockets"], sockets)
        self.figures |= {"rss_mb": round(memory.rss_mb, 1), "pss_mb": round(memory.pss_mb, 1)}
        drops = dict(alpha.status().drops)
        tell("alpha", f"drops counted: {drops}")
        for host, daemon in ((self.alpha, alpha), (self.bravo, bravo)):
            host.conflux("down")
            if code := daemon.wait(10):
                raise LabFailure(f"{host.name}: the daemon ended with {code}{daemon.tail()}")
            if host.run("ip", "link", "show", "dev", "conflux0", check=False).returncode == 0:
                raise LabFailure(f"{host.name}: conflux0 is still there after `conflux down`")
        tell("both", "conflux down: no process, no device, no route left")

    # --- small things ---

    def spawn_ping(self, address: str, *options: str) -> Process:
        """Start ping on alpha."""
        return self.alpha.spawn("ping", "ping", "-n", *options, address)

    def finish(self, ping: Process) -> Pings:
        """Show the nodes' lives until ping ends; it must have been answered."""

        def ended() -> bool:
            self.life.show()
            return ping.exit_code is not None

        wait_for(ended, "ping ending", within_s=20, logs=self.daemons)
        self.life.show()
        if ping.exit_code:
            raise LabFailure(f"ping had no answer{ping.tail()}{self.tails()}")
        return pings(ping.output())

    def tails(self) -> str:
        """The ends of all daemons' logs."""
        return self.realm.tails()


# --- the table --------------------------------------------------------------------------------------------------

# Figure, unit, meaning, and the aim if the project has one.
TABLE = (
    ("cold_direct_ms", "ms", "first ping through a fresh stream and link, median", "< 150"),
    ("warm_ms", "ms", "ping while the link is open, median", ""),
    ("lost_packets_setup", "", "packets lost of 50 sent while the link came up", "0"),
    ("idle_after_s", "s", "from the last packet to no socket", f"< {WHOLE.idle_timeout_s + IDLE_GRACE_S:g}"),
    ("idle_sockets", "", "data-plane sockets when idle, both hosts", "0"),
    ("idle_bytes", "", "data-plane bytes while a wire was watched", "0"),
    ("throughput_direct_mbit", "Mbit/s", "TCP, one flow", ""),
    ("throughput_reverse_mbit", "Mbit/s", "TCP, one flow, the other way", ""),
    ("throughput_beside_dead_mbit", "Mbit/s", "TCP, beside a dead destination", ""),
    ("notice_ms", "ms", "until a killed peer is noticed", ""),
    ("teardown_ms", "ms", "until the link to it is gone", ""),
    ("recover_ms", "ms", "from its return to traffic", ""),
    ("rss_mb", "MB", "memory of a daemon, resident", ""),
    ("pss_mb", "MB", "memory of a daemon, its share", ""),
)


def table(figures: dict[str, Any]) -> str:
    """Return the table of figures."""
    rows = [f"  {'figure':<28} {'measured':>14}  {'aim':<7}  what it is"]
    for name, unit, text, aim in (*TABLE, *RELAY_TABLE, *SITES_TABLE):
        rows.append(f"  {name:<28} {f'{figures[name]:g} {unit}'.strip():>14}  {aim:<7}  {text}")
    return "\n".join(rows)


def main() -> int:
    """Play every act, deliver the figures and show them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="fewer and shorter measurements, which are not kept")
    short: bool = parser.parse_args().short
    plan = SHORT if short else WHOLE
    print(paint("1", "Conflux demo: an IP packet brings a link into being, and then there is nothing again"))
    demo = Demo(plan)
    acts: tuple[Callable[[], None], ...] = (
        demo.form_realm,
        demo.first_packet,
        demo.cold_rounds,
        demo.warm,
        demo.dead_beside,
        demo.killed,
        demo.the_end,
        lambda: RelayDemo(demo.lab, plan, demo.figures).run(),
        lambda: SitesDemo(demo.lab, plan, demo.figures).run(),
    )
    for act in acts:
        act()
    demo.figures |= {
        "demo_s": round(time.monotonic() - STARTED, 1),
        "machine": machine(),
        "python": platform.python_version(),
    }
    if not short:
        deliver("demo.json", json.dumps(demo.figures, indent=2) + "\n")
    chapter(f"What was measured ({demo.figures['machine']}, {demo.figures['demo_s']} s)")
    print(table(demo.figures))
    print("\nbuild/demo.json has all of it.", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(play("demo", main))
