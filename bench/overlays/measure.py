"""Measures one overlay, under one condition after another.

      alpha ====== bulk =====> charlie       while it flows, and before:       alpha ---- ping ----> bravo

Rates come from the receiving iperf3, times from ping, processor time and memory from the kernel.  A figure that cannot
be measured is a failure with a text and does not end the run: it is a result too.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from overlays.overlays import Overlay
from overlays.wire import Condition
from rig import gauge
from rig.topology import Host, LabFailure, Process

PINGS = 40
PING_INTERVAL_S = 0.025
LOADED_INTERVAL_S = 0.05
LOADED_AFTER_S = 2.0  # the bulk flow is alone until the queues are full
COLD_WITHIN_S = 10
SMALL_BYTES = 64  # of payload: a voice or sensor packet
SETUP_WITHIN_S = 25  # for iperf3 to connect and to report, beyond the flow itself


@dataclass(frozen=True, slots=True)
class Figure:
    """One number that is measured, and how to read it."""

    name: str
    unit: str
    text: str
    more_is_better: bool = False
    title: str = ""  # for a place without its context; empty: the text will do


FIGURES = {
    figure.name: figure
    for figure in (
        Figure("cold_ms", "ms", "first packet of a pair, until its answer", title="First packet, until its answer"),
        Figure("ping_ms", "ms", "ping, nothing else flows"),
        Figure("tcp1_mbit", "Mbit/s", "TCP, one flow", more_is_better=True),
        Figure(
            "tcp1_cpu_s_per_gbit",
            "s/Gbit",
            "processor of all daemons, meanwhile",
            title="Processor time of all daemons, TCP, one flow",
        ),
        Figure("tcp4_mbit", "Mbit/s", "TCP, four flows", more_is_better=True),
        Figure("tcp4_cpu_s_per_gbit", "s/Gbit", "processor of all daemons, meanwhile"),
        Figure("udp_small_pps", "packets/s", f"UDP, {SMALL_BYTES} bytes each, arrived", more_is_better=True),
        Figure("udp_small_cpu_us", "µs", "processor of all daemons, per packet arrived"),
        Figure(
            "ping_loaded_ms",
            "ms",
            "ping while a bulk flow goes to another host",
            title="Ping during a bulk flow elsewhere",
        ),
        Figure("ping_loaded_p95_ms", "ms", "… 95 of 100 are answered within"),
        Figure("ping_loaded_lost_percent", "%", "… lost, either way"),
        Figure("pss_mb", "MB", "memory (PSS) of the largest daemon, at the end", title="Memory (PSS) of a daemon"),
    )
}


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure, and under which conditions."""

    clean_s: int
    bad_s: int  # longer, because congestion control finds its rate slowly
    four_flows_s: int
    conditions: tuple[Condition, ...]  # the first is the clean one

    def step_count(self) -> int:
        """Return how many steps measuring one overlay takes."""
        return sum(2 if condition.clean else 2 + bool(condition.loss_percent) for condition in self.conditions) + 4


class Bulk:
    """iperf3 from one host to another, with a server of its own."""

    def __init__(self, client: Host, server: Host, address: str, *options: str, seconds: int) -> None:
        self._seconds = seconds
        self._serving = server.serve_iperf3()
        command = ["iperf3", "--client", address, "--json", "--time", str(seconds), "--connect-timeout", "8000"]
        self._client = client.spawn("iperf3", *command, *options)

    def end(self) -> dict[str, Any]:
        """Wait for the end and return iperf3's account.  Raises LabFailure with iperf3's error."""
        try:
            self._client.wait(self._seconds + SETUP_WITHIN_S)
            text = self._client.output()
            account = json.loads(text[text.index("{") :])
            if "error" in account:
                raise LabFailure(f"iperf3: {account['error']}")
            self._serving.wait(5)
        except ValueError:
            raise LabFailure(f"the output of iperf3 is not JSON{self._client.tail()}") from None
        finally:
            end(self._client)
            end(self._serving)
        figures: dict[str, Any] = account["end"]
        return figures


def end(process: Process) -> None:
    """Kill a process that still runs."""
    if process.exit_code is None:
        process.kill()


def received_mbit(figures: dict[str, Any]) -> float:
    """Return the Mbit/s that arrived, from iperf3's account."""
    return gauge.iperf3_mbit(json.dumps({"end": figures}))


class Measuring:
    """Measures the figures of one overlay and passes each on: note(condition, figure, value)."""

    def __init__(
        self,
        overlay: Overlay,
        plan: Plan,
        note: Callable[[Condition, str, float], None],
        step: Callable[[str], None],
        fail: Callable[[str], None],
    ) -> None:
        self._overlay = overlay
        self._plan = plan
        self._note = note
        self._step = step
        self._fail = fail
        self._hosts = overlay.ground

    def run(self) -> None:
        """Measure under every condition of the plan."""
        for condition in self._plan.conditions:
            if condition.clean:
                self._cold(condition)
                self._idle(condition)
                self._tcp(condition, 1, self._plan.clean_s)
                self._tcp(condition, 4, self._plan.clean_s)
                self._small_packets(condition)
            else:
                with self._may_fail(f"{condition}"):
                    self._hosts.wire.impair(condition)
                self._idle(condition)
                self._loaded(condition)
                if condition.loss_percent:
                    self._tcp(condition, 4, self._plan.four_flows_s)
                with self._may_fail(f"{condition}"):
                    self._hosts.wire.counts()
        with self._may_fail("memory"):
            if daemons := self._overlay.daemons():
                self._note(self._plan.conditions[0], "pss_mb", max(gauge.memory(d.pid).pss_mb for d in daemons))

    @contextmanager
    def _may_fail(self, what: str) -> Iterator[None]:
        try:
            yield
        except LabFailure as failure:
            self._fail(f"{what}: {failure}")

    def _cold(self, condition: Condition) -> None:
        self._step(f"{condition}: first packets")
        times = []
        for one, other in (("alpha", "bravo"), ("bravo", "charlie"), ("charlie", "alpha")):
            with self._may_fail(f"cold, {one} to {other}"):
                times.append(cold_ms(self._hosts[one], self._overlay.address(other)))
        if times:
            self._note(condition, "cold_ms", statistics.median(times))

    def _idle(self, condition: Condition) -> None:
        self._step(f"{condition}: ping")
        with self._may_fail(f"{condition}, ping"):
            self._hosts["alpha"].ping(self._overlay.address("bravo"), "-c", "3", "-i", "0.2", "-W", "3")  # warm
            pings = self._hosts["alpha"].ping(
                self._overlay.address("bravo"), "-c", str(PINGS), "-i", str(PING_INTERVAL_S), "-W", "3"
            )
            if not pings.received:
                raise LabFailure("no answer")
            self._note(condition, "ping_ms", pings.median_ms)

    def _tcp(self, condition: Condition, flows: int, seconds: int) -> None:
        self._step(f"{condition}: TCP, {flows} flow{'s' * (flows > 1)}")
        with self._may_fail(f"{condition}, TCP, {flows} flows"):
            before = self._cpu_s()
            bulk = self._bulk("bravo", "--parallel", str(flows), seconds=seconds)
            self._note_rate(condition, f"tcp{flows}", bulk.end(), before, seconds)

    def _small_packets(self, condition: Condition) -> None:
        self._step(f"{condition}: UDP, small packets")
        with self._may_fail(f"{condition}, UDP"):
            before = self._cpu_s()
            options = ("--udp", "--bitrate", "0", "--length", str(SMALL_BYTES))
            account = self._bulk("bravo", *options, seconds=self._plan.clean_s).end()["sum"]
            arrived = account["packets"] - account["lost_packets"]
            if arrived < 1:
                raise LabFailure("none arrived")
            self._note(condition, "udp_small_pps", arrived / account["seconds"])
            if self._overlay.daemons():
                self._note(condition, "udp_small_cpu_us", (self._cpu_s() - before) / arrived * 1e6)

    def _loaded(self, condition: Condition) -> None:
        """Measure a flow to charlie, and pings to bravo beside it."""
        self._step(f"{condition}: TCP, 1 flow, and ping beside it")
        seconds = self._plan.bad_s
        with self._may_fail(f"{condition}, TCP and ping"):
            before = self._cpu_s()
            bulk = self._bulk("charlie", seconds=seconds)
            try:
                time.sleep(LOADED_AFTER_S)
                count = int((seconds - LOADED_AFTER_S - 0.5) / LOADED_INTERVAL_S)
                options = ("-c", str(count), "-i", str(LOADED_INTERVAL_S), "-W", "2")
                pings = self._hosts["alpha"].ping(self._overlay.address("bravo"), *options, within_s=seconds + 60)
            finally:
                account = bulk.end()
            self._note_rate(condition, "tcp1", account, before, seconds)
            if not pings.received:
                raise LabFailure("no ping was answered")
            self._note(condition, "ping_loaded_ms", pings.median_ms)
            self._note(condition, "ping_loaded_p95_ms", sorted(pings.times_ms)[len(pings.times_ms) * 95 // 100])
            self._note(condition, "ping_loaded_lost_percent", 100 * pings.lost / pings.sent)

    # --- parts of them ---

    def _bulk(self, to: str, *options: str, seconds: int) -> Bulk:
        tcp = () if "--udp" in options else ("--congestion", "cubic")
        address = self._overlay.address(to)
        return Bulk(self._hosts["alpha"], self._hosts[to], address, *tcp, *options, seconds=seconds)

    def _note_rate(self, condition: Condition, name: str, account: dict[str, Any], before: float, seconds: int) -> None:
        mbit = received_mbit(account)
        self._note(condition, f"{name}_mbit", mbit)
        if self._overlay.daemons() and mbit:
            self._note(condition, f"{name}_cpu_s_per_gbit", (self._cpu_s() - before) / (mbit * seconds / 1000))

    def _cpu_s(self) -> float:
        return sum(gauge.cpu_s(daemon.pid) for daemon in self._overlay.daemons())


def cold_ms(host: Host, address: str) -> float:
    """Ping every 20 ms until the first answer, and return the time since the first ping; lost ones count as waiting."""
    interval_s = 0.02
    options = ("-c", "1", "-w", str(COLD_WITHIN_S), "-i", str(interval_s))
    pings = host.ping(address, *options, within_s=COLD_WITHIN_S + 5)
    if not pings.received:
        raise LabFailure(f"no answer in {COLD_WITHIN_S} s")
    return (pings.numbers[0] - 1) * interval_s * 1000 + pings.times_ms[0]


def machine() -> dict[str, Any]:
    """Describe this machine."""
    return {
        "processor": gauge.processor(),
        "cores": os.cpu_count(),
        "kernel": os.uname().release,
        "load_before": os.getloadavg()[0],
    }
