"""Measures a tunnel: sockets of programs, a TUN device, two engines, a TUN device, sockets.  Run as its own process.

      namespace "near"                                       namespace "far"
      source ─► TUN ─► engine ══ UDP on near's loopback ══ engine ─► TUN ─► sink
      pings  ◄──────────────────────────────────────────────────────────►  the kernel answers

Both engines run in this process, so its processor time is theirs; load.py makes the traffic in other processes.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from ipaddress import IPv4Address
from typing import Final

from conflux.bench import child, namespace
from conflux.bench.figure import LESS, MORE, Figure, PartFailed, PartSkipped, Plan, Recorder
from conflux.bench.load import UDP_BYTES, Worker
from conflux.bench.pair import FAR, NEAR, NETWORK, Pair
from conflux.config.settings import TunSettings
from conflux.errors import UserError
from conflux.host import netlink
from conflux.host.tun import Tun

_HEADER_BYTES: Final = 28  # IPv4 and UDP
_PING_INTERVAL_S = 0.005  # long enough for the processor to sleep between two, which is part of the figure
_SETTLE_S = 0.2  # after a flow's end queues are empty within this


def measure(plan: Plan, recorder: Recorder) -> None:
    """Make the devices, join them, measure."""
    recorder.step("tunnel", "devices in two namespaces")
    namespace.enter()
    namespace.loopback_up()
    with contextlib.ExitStack() as stack:
        near_tun = _device("bench-near", NEAR)
        stack.callback(near_tun.close)
        near = namespace.another()
        stack.callback(os.close, near)
        far_tun = _device("bench-far", FAR)
        stack.callback(far_tun.close)
        sink = Worker()
        stack.callback(sink.close)
        with namespace.inside(near):
            source, pinger = Worker(), Worker()
            stack.callback(source.close)
            stack.callback(pinger.close)
            pair = Pair((near_tun.fd, far_tun.fd), segments_udp=near_tun.segments_udp and far_tun.segments_udp)
        stack.enter_context(pair)
        sink.call("listen")
        recorder.setting("tun_mtu", TunSettings().mtu)
        recorder.setting("tun_udp_super_packets", near_tun.segments_udp)
        pinger.call("ping", address=str(FAR), count=10, interval=_PING_INTERVAL_S)  # warms up
        _pings(plan, recorder, pinger)
        _tcp(plan, recorder, source, sink, pinger, pair)
        _udp(plan, recorder, source, pair)
        recorder.setting("tunnel_drops", pair.drops())


def _device(name: str, own: IPv4Address) -> Tun:
    """Make a device as a daemon does.  Raises PartSkipped."""
    try:
        tun = Tun.create(name, offloads=True)
        try:
            netlink.Child().configure(netlink.DeviceConfig(name, TunSettings().mtu, (own,), (NETWORK,)))
        except UserError:
            tun.close()
            raise
    except UserError as error:
        raise PartSkipped(str(error)) from None
    return tun


def _pings(plan: Plan, recorder: Recorder, pinger: Worker) -> None:
    recorder.step("tunnel", f"ping, nothing else going on, {plan.ping_count} times")
    rounds = [
        pinger.call("ping", address=str(FAR), count=plan.ping_count, interval=_PING_INTERVAL_S)
        for _ in range(plan.round_count)
    ]
    recorder.figure(_ping_figure("tunnel_ping_idle", "ping, idle", [each["times_ms"] for each in rounds]))


def _ping_figure(name: str, title: str, rounds: list[list[float]]) -> Figure:
    answered = [statistics.median(times) for times in rounds if times]
    if not answered:
        raise PartFailed(f"{title}: no answer")
    return Figure("tunnel", name, title, "ms", LESS, tuple(answered))


def _tcp(plan: Plan, recorder: Recorder, source: Worker, sink: Worker, pinger: Worker, pair: Pair) -> None:
    recorder.step("tunnel", f"TCP, one flow, {plan.flow_round_s:g} s")
    rates, costs, supers, control = [], [], [], ""
    for _ in range(plan.round_count):
        cpu, written = time.process_time(), pair.far.engine.counts().tun_written
        flow, control = _flow(plan, source, sink)
        supers.append(flow["bytes"] / max(1, pair.far.engine.counts().tun_written - written) / 1e3)
        gigabits = flow["bytes"] * 8 / 1e9
        costs.append((time.process_time() - cpu) / gigabits)
        rates.append(gigabits / flow["seconds"])
        time.sleep(_SETTLE_S)
    recorder.setting("tcp_congestion_control", control)
    recorder.figure(Figure("tunnel", "tunnel_tcp", "TCP, one flow", "Gbit/s", MORE, tuple(rates)))
    title = "TCP: processor time, both engines"
    recorder.figure(Figure("tunnel", "tunnel_tcp_cpu", title, "CPU-s/Gbit", LESS, tuple(costs)))
    title = "TCP: in a super-packet, on average"
    recorder.figure(Figure("tunnel", "tunnel_tcp_super", title, "kB/super-packet", MORE, tuple(supers)))
    recorder.step("tunnel", f"ping beside that flow, {plan.flow_round_s:g} s")
    rounds = []
    for _ in range(plan.round_count):
        sink.ask("tcp-receive")
        source.ask("tcp-send", address=str(FAR), seconds=plan.flow_round_s)
        time.sleep(_SETTLE_S)  # the flow has found its rate
        count = int((plan.flow_round_s - 2 * _SETTLE_S) / 0.02)
        rounds.append(pinger.call("ping", address=str(FAR), count=max(5, count), interval=0.01)["times_ms"])
        source.answer()
        sink.answer()
        time.sleep(_SETTLE_S)
    recorder.figure(_ping_figure("tunnel_ping_loaded", "ping, beside that flow", rounds))


def _flow(plan: Plan, source: Worker, sink: Worker) -> tuple[dict[str, float], str]:
    """Run one flow; return what the sink received, and the congestion control of the source."""
    sink.ask("tcp-receive")
    control = str(source.call("tcp-send", address=str(FAR), seconds=plan.flow_round_s)["control"])
    got = sink.answer()
    if not got["bytes"] or not got["seconds"]:
        raise PartFailed("nothing of a TCP flow got through")
    return got, control


def _udp(plan: Plan, recorder: Recorder, source: Worker, pair: Pair) -> None:
    size = UDP_BYTES + _HEADER_BYTES
    recorder.step("tunnel", f"UDP, packets of {size} bytes, {plan.flow_round_s:g} s")
    rates, costs, offered, bundles = [], [], [], []
    for _ in range(plan.round_count):
        written, cpu, began = pair.far.engine.counts().tun_written, time.process_time(), time.perf_counter()
        arrived, frames = pair.far.arrived, pair.far.frames
        sent = source.call("udp-send", address=str(FAR), seconds=plan.flow_round_s)["sent"]
        child.until(lambda: not pair.near.queued, "the end of a UDP flood", within_s=10.0, pause_s=0.001)
        seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu
        delivered = pair.far.engine.counts().tun_written - written
        if not delivered:
            raise PartFailed("no UDP packet got through")
        rates.append(delivered / seconds / 1e3)
        costs.append(cpu_s / delivered * 1e6)
        offered.append(sent / seconds / 1e3)
        bundles.append((pair.far.arrived - arrived) / max(1, pair.far.frames - frames))
        time.sleep(_SETTLE_S)
    recorder.figure(Figure("tunnel", "tunnel_udp", f"UDP, {size}-byte packets", "k packets/s", MORE, tuple(rates)))
    title = "UDP: processor time, both engines"
    recorder.figure(Figure("tunnel", "tunnel_udp_cpu", title, "CPU-µs/packet", LESS, tuple(costs)))
    title = "UDP: in a frame, on average"
    recorder.figure(Figure("tunnel", "tunnel_udp_bundle", title, "packets/frame", MORE, tuple(bundles)))
    recorder.setting("tunnel_udp_offered_k_packets_s", round(statistics.median(offered), 1))


if __name__ == "__main__":
    child.serve(measure)
