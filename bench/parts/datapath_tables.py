"""What the native datapath pays per packet to read, split, queue and pass it on.  Run by `make bench-parts`."""

from __future__ import annotations

from compiled import output_of

PARTS = ("packet/packet.c", "queue/queue.c", "relay/relay.c", "base/map.c")
MEANINGS = {
    "parse_ipv4_ns": "packet_parse(), IPv4",
    "parse_ipv6_ns": "packet_parse(), IPv6",
    "check_offload_ns": "offload_check_untrusted(), TCP",
    "copy_65000_ns": "memcpy() of 65,000 bytes, for comparison",
    "split_65000_plain_ns": "a super-packet of 65,000 bytes into 49 plain packets, with checksums",
    "split_65000_into_16384_ns": "the same into super-packets of at most 16,384 bytes",
    "queue_push_take_ns": "queue_push() and queue_take(), 64 packets of 8 flows waiting",
    "queue_new_push_take_delete_ns": "the same, with the packet's memory allocated and freed",
    "relay_add_ns": "relay_add(), each of 10,000 routes",
    "relay_route_bytes": "memory of a route among 10,000 (bytes), tables included",
    "relay_one_of_10000_routes_ns": "a frame in and out, each of another route",
    "relay_one_route_ns": "a frame in and out, always the same route",
}


def main() -> None:
    """Print one line per figure."""
    print("the native datapath's tables: nanoseconds, least of 15 rounds")
    for line in output_of("datapath_tables", parts=PARTS).splitlines():
        name, figure = line.split()
        print(f"{float(figure):10.1f}  {MEANINGS[name]}")


if __name__ == "__main__":
    main()
