"""What the native datapath's parts that hold packets cost: reading, splitting, queueing, passing on.

python bench/datapath_tables.py
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = HERE.parent / "cext"
MEANINGS = {
    "parse_ipv4_ns": "packet_parse(), IPv4",
    "parse_ipv6_ns": "packet_parse(), IPv6",
    "check_offload_ns": "offload_check_untrusted(), TCP",
    "copy_65000_ns": "memcpy() of 65,000 bytes, for comparison",
    "split_65000_plain_ns": "a super-packet of 65,000 bytes into 49 plain packets, checksums and all",
    "split_65000_into_16384_ns": "the same into super-packets of at most 16,384 bytes",
    "queue_push_take_ns": "queue_push() and queue_take(), 64 packets of 8 flows waiting",
    "queue_new_push_take_delete_ns": "the same with the packet's memory made and freed",
    "relay_add_ns": "relay_add(), 10,000 routes, each",
    "relay_route_bytes": "memory of a route among 10,000 (bytes), tables included",
    "relay_one_of_10000_routes_ns": "a frame in and out, each of another route",
    "relay_one_route_ns": "a frame in and out, always the same route",
}


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory) / "datapath_tables"
        parts = (HERE / "datapath_tables.c", *(SOURCES / name for name in ("packet.c", "queue.c", "relay.c", "map.c")))
        options = ("-std=gnu11", "-O3", "-Wall", "-Wextra", f"-I{SOURCES}")
        subprocess.run(["gcc", *options, *map(str, parts), "-o", str(program)], check=True)
        said = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    print("nanoseconds, least of 15 rounds")
    for line in said.splitlines():
        name, figure = line.split()
        print(f"{float(figure):10.1f}  {MEANINGS[name]}")


if __name__ == "__main__":
    main()
