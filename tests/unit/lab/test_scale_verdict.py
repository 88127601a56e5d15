"""The verdict of `make control-full` on its rows, and their picture."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace

from rig.scale import Row, percentile
from rig.scale_chart import PANELS, chart
from scale import COUNTS, faults

SVG = "{http://www.w3.org/2000/svg}"
ROW = Row(
    nodes=100,
    areas=1,
    connections=100,
    joined_s=2.0,
    join_kb_per_node=30.0,
    join_presences_heard_per_node=99.0,
    ping_bytes=300.0,
    presence_bytes=36000.0,
    idle_kb_per_min=0.4,
    idle_measured_kb_per_min=0.41,
    streams=300,
    streams_failed=0,
    messages_per_stream=7.0,
    retries=0,
    kb_per_stream=84.0,
    stream_ms_median=20.0,
    stream_ms_p99=60.0,
    server_cpu_ms_per_join=4.0,
    server_cpu_ms_per_stream=3.0,
    server_rest_cpu_percent=0.5,
    server_mb=(14.0, 13.0, 12.0),
    server_kb_per_node=260.0,
    generator_busy=0.2,
    drops={},
)
ROWS = [replace(ROW, nodes=count) for count in COUNTS]


def test_rows_that_are_alike_have_no_fault() -> None:
    assert faults(ROWS) == []


def test_node_that_costs_more_in_a_larger_crowd_is_a_fault() -> None:
    for figure, value in (("idle_kb_per_min", 0.55), ("messages_per_stream", 9.0), ("kb_per_stream", 120.0)):
        found = faults([*ROWS[:-1], replace(ROWS[-1], **{figure: value})])
        assert len(found) == 1
        assert figure in found[0]


def test_ten_nodes_may_cost_less() -> None:
    assert faults([replace(ROWS[0], idle_kb_per_min=0.2), *ROWS[1:]]) == []


def test_failed_stream_and_a_costly_rest_are_faults() -> None:
    assert len(faults([replace(ROW, streams_failed=1)])) == 1
    assert len(faults([replace(ROW, idle_measured_kb_per_min=0.8)])) == 1


def test_percentile_is_one_of_the_values() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.99) == 3.0
    assert percentile([float(value) for value in range(200)], 0.99) == 198.0


def test_the_picture_shows_every_figure_of_every_row() -> None:
    drawn = ElementTree.fromstring(chart(ROWS, "a machine"))
    assert len(list(drawn.iter(f"{SVG}circle"))) == len(PANELS) * len(ROWS)
    assert len(list(drawn.iter(f"{SVG}polyline"))) == len(PANELS)
