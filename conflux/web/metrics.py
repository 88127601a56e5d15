"""What the daemon says, for Prometheus: every metric, its meaning, and its values of now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from conflux.web.answer import Answer
from conflux.web.request import Turned
from conflux.web.source import Seen, device_bytes

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"  # of what generate_latest() writes
SERIES_COUNT_MAX: Final = 256  # of one metric: a board of a large realm must not fill Prometheus' disk


class Family(NamedTuple):
    """A metric.  name: with the ending "_total" it is a counter, else a gauge.  text: its meaning, a sentence."""

    name: str
    text: str
    labels: tuple[str, ...] = ()


FAMILIES: Final = (
    Family("conflux_up", "1 if the daemon answers, 0 if not."),
    Family("conflux_info", "Always 1; what this board is stands in the labels.", ("version", "node", "name", "realm")),
    Family("conflux_uptime_seconds", "For how long the daemon has been running."),
    Family("conflux_credential_expiry_timestamp_seconds", "When this node's credential ends, in Unix seconds."),
    Family("conflux_device_up", "1 if packets pass the TUN device."),
    Family("conflux_device_received_bytes_total", "Bytes of packets that came out of the overlay to this host."),
    Family("conflux_device_sent_bytes_total", "Bytes of packets of this host that went into the overlay."),
    Family("conflux_device_received_packets_total", "Packets that came out of the overlay to this host."),
    Family("conflux_device_sent_packets_total", "Packets of this host that went into the overlay."),
    Family("conflux_control_up", "1 if a control channel works.", ("channel",)),
    Family("conflux_control_neighbours", "Neighbours that a control channel reaches.", ("channel",)),
    Family("conflux_nodes", "Other nodes that this one knows of."),
    Family("conflux_nodes_reached", "Those of them that are reached now."),
    Family("conflux_node_received_bytes_total", "Bytes of frames that came from a node.", ("name",)),
    Family("conflux_node_sent_bytes_total", "Bytes of frames that went to a node.", ("name",)),
    Family("conflux_node_heard_timestamp_seconds", "When a node said something last, in Unix seconds.", ("name",)),
    Family("conflux_links", "Links to neighbours that are open or being opened."),
    Family("conflux_link_rtt_seconds", "Round trip to the neighbour at the other end of a link.", ("neighbour",)),
    Family("conflux_link_rate_bytes_per_second", "The most that a link sends, as measured.", ("neighbour",)),
    Family("conflux_streams", "Streams by their direction, `in` or `out`.", ("direction",)),
    Family("conflux_stream_rtt_seconds", "Round trip of a stream from here.", ("destination",)),
    Family("conflux_queued_packets", "Packets that wait for a destination.", ("destination",)),
    Family("conflux_relayed_routes", "Routes of other nodes that pass through this one."),
    Family("conflux_relayed_route_bytes", "Bytes that the routes passing now have carried, both ways."),
    Family("conflux_memory_resident_bytes", "Memory of the daemon, resident."),
    Family("conflux_memory_proportional_bytes", "The same, pages shared with other programs by their share."),
    Family("conflux_usage_today_bytes", "Bytes of IP packets that this daemon sent and received today."),
    Family("conflux_usage_month_bytes", "The same of this month."),
    Family("conflux_budget_day_bytes", "What the configuration allows a day."),
    Family("conflux_budget_month_bytes", "What the configuration allows a month."),
    Family("conflux_budget_over", "1 if more passed than is allowed."),
    Family("conflux_warnings", "Warnings that `conflux status` shows."),
    Family("conflux_page_turned_away_total", "Readers of the page that got no answer, by reason.", ("reason",)),
    Family("conflux_drops_total", "What was dropped, by reason; each reason is documented.", ("reason",)),
)
_BY_NAME: Final = {family.name: family for family in FAMILIES}

Point = tuple[str, tuple[str, ...], float | None]
"""A metric's name, its labels' values, and its value; None: not known, and left out."""


def metrics(seen: Seen, turned: Mapping[Turned, int]) -> Answer:
    """Return all metrics in the text format of Prometheus.  turned: readers of the page turned away, by reason."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(points(seen, turned)))
    return Answer(200, CONTENT_TYPE, generate_latest(registry))


def points(seen: Seen, turned: Mapping[Turned, int]) -> list[Point]:
    """Return every value of now."""
    status = seen.status
    own: list[Point] = [("conflux_page_turned_away_total", (reason,), count) for reason, count in turned.items()]
    if status is None or seen.silent_at is not None:
        return [("conflux_up", (), 0), *own]
    return [("conflux_up", (), 1), *own, *_board(status), *_ways(status)]


def _board(status: dict[str, Any]) -> Iterator[Point]:
    node, device, memory = status["node"], status["device"], status["memory"]
    yield "conflux_info", (status["version"], node["id"], node["name"], status["realm"]["name"]), 1
    yield "conflux_uptime_seconds", (), status["uptime_s"]
    yield "conflux_credential_expiry_timestamp_seconds", (), status["credential"]["expires_at"]
    yield "conflux_device_up", (), device["up"]
    received, sent = device_bytes(device["name"]) or (None, None)
    yield "conflux_device_received_bytes_total", (), received
    yield "conflux_device_sent_bytes_total", (), sent
    yield "conflux_device_received_packets_total", (), device["written_packets"]
    yield "conflux_device_sent_packets_total", (), device["read_packets"]
    yield "conflux_memory_resident_bytes", (), memory["rss_bytes"]
    yield "conflux_memory_proportional_bytes", (), memory["pss_bytes"]
    budget = status["budget"]
    yield "conflux_usage_today_bytes", (), budget["today_bytes"]
    yield "conflux_usage_month_bytes", (), budget["month_bytes"]
    yield "conflux_budget_day_bytes", (), budget["day_limit_bytes"]
    yield "conflux_budget_month_bytes", (), budget["month_limit_bytes"]
    yield "conflux_budget_over", (), budget["state"] == "over"
    yield "conflux_warnings", (), len(status["warnings"])
    for reason, count in status["drops"].items():
        yield "conflux_drops_total", (reason,), count


def _ways(status: dict[str, Any]) -> Iterator[Point]:
    for channel in status["control"]:
        yield "conflux_control_up", (channel["name"],), channel["up"]
        yield "conflux_control_neighbours", (channel["name"],), len(channel["neighbours"])
    nodes = status["nodes"]
    yield "conflux_nodes", (), len(nodes)
    yield "conflux_nodes_reached", (), sum(node["reach"] is not None for node in nodes)
    for node in nodes:
        if node["named"]:  # of two with one name, the one that has it
            yield "conflux_node_received_bytes_total", (node["name"],), node["received_bytes"]
            yield "conflux_node_sent_bytes_total", (node["name"],), node["sent_bytes"]
            yield "conflux_node_heard_timestamp_seconds", (node["name"],), node["heard_at"]
    links = [link for link in status["links"] if link["link"] is not None]
    yield "conflux_links", (), len(links)
    for link in links:
        yield "conflux_link_rtt_seconds", (link["name"],), _seconds(link["rtt_ms"])
        rate = link["rate_mbit"]
        yield "conflux_link_rate_bytes_per_second", (link["name"],), None if rate is None else rate * 125_000
    for direction in ("in", "out"):
        count = sum(stream["direction"] == direction for stream in status["streams"])
        yield "conflux_streams", (direction,), count
    for stream in status["streams"]:
        if stream["direction"] == "out":
            yield "conflux_stream_rtt_seconds", (stream["name"],), _seconds(stream["rtt_ms"])
            yield "conflux_queued_packets", (stream["name"],), stream["queued_packets"]
    relays = status["relays"]
    yield "conflux_relayed_routes", (), len(relays)
    yield "conflux_relayed_route_bytes", (), sum(each["ahead_bytes"] + each["back_bytes"] for each in relays)


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


class _Collector:
    """Hands points to prometheus_client's writer, those of one metric together and each once."""

    def __init__(self, of: list[Point]) -> None:
        self._points = of

    def collect(self) -> Iterator[Metric]:
        """Yield every metric that has a value."""
        values: dict[str, dict[tuple[str, ...], float]] = {}
        for name, labels, value in self._points:
            series = values.setdefault(name, {})
            if value is not None and (labels in series or len(series) < SERIES_COUNT_MAX):
                series[labels] = float(value)
        for name, series in values.items():
            family = _BY_NAME[name]
            kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            metric = kind(name, family.text, labels=family.labels)
            for labels, value in series.items():
                metric.add_metric(labels, value)
            if series:
                yield metric
