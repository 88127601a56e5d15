"""The limits a datapath works within, each with its reason beside it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DatapathConfig:
    """Times in seconds, sizes in bytes."""

    idle_timeout_s: float = 15.0  # stream.idle_timeout: a pause in a conversation, not a tunnel
    receiver_grace_s: float = 5.0  # a receiver outwaits its sender's idle timeout, so a lost end is the only cause

    # Room for 2 s of a 4 Mbit/s uplink, or 0.2 s at 40 Mbit/s; on a faster way what leaves in 50 ms, up to four times
    # as much (served.py).  One destination may have as much as is still free of what all have: 15 have 4 MiB,
    # 63 have one.
    queue_bytes_max: int = 1024 * 1024
    queues_bytes_max: int = 64 * 1024 * 1024
    queue_packets_max: int = 2048  # small packets cost their objects, about 150 bytes each
    hold_age_s_max: float = 10.0  # a stream handshake gives up after 10 s; older packets have been sent again

    pending_address_count_max: int = 256  # addresses asked for at once; a scan of the realm must not fill memory
    pending_bytes_max: int = 65536  # per address: the first flight of a TCP connection or two, for one search

    # One frame stalls the others of its channel for its own sending time: 3.3 ms at 40 Mbit/s.  Larger frames gain
    # little: at 16 KiB a frame itself is a tenth of what its packets cost (bench/test_datapath.py).
    bundle_bytes_max: int = 16384

    feedback_interval_s_min: float = 0.1  # below this reports cost more than they tell
    feedback_interval_s_max: float = 2.0  # an RTT of 1 s; beyond it silence would go unnoticed for too long
    suspect_interval_count: int = 5  # reports lost in a row by chance: 1 in 10**5 at 10 % loss
    suspect_s_min: float = 0.5  # a Wi-Fi roam or a GC pause is shorter
    suspect_unmeasured_s_min: float = 1.0  # before the route's first RTT: the initial RTO of RFC 6298, section 2.1

    epoch_s: float = 120.0  # of use; what a stolen key opens
    epoch_bytes_max: int = 2**40  # far below what AES-GCM may seal under one key
    epoch_grace_s: float = 10.0  # frames of the epoch before may still be under way

    delivery_bytes_max: int = 4 * 1024 * 1024  # packets for a TUN device that does not take them
    upcall_count_max: int = 1024  # those a peer can cause; the node drains after every input
    entry_count_max: int = 16  # entries that wait for a stream's next frame

    # What waits in a relay delays what follows: 200 ms at 40 Mbit/s for one route.  That much comes at once where a
    # link of 50 ms and 150 Mbit/s repaired a loss and the frames behind it were waiting for their turn.  Over a faster
    # link what leaves in 50 ms, up to four times as much, and the link's bound grows with it (served.py).  That is
    # divided among its routes, and the last one among all: a board of 512 MB has 16 to spare.  A frame counts 256 bytes
    # more (relay.py).
    relay_route_bytes_max: int = 1024 * 1024
    relay_link_bytes_max: int = 2 * 1024 * 1024
    relay_bytes_max: int = 16 * 1024 * 1024
    relay_mark_bytes: int = 128 * 1024  # of one link: 26 ms at 40 Mbit/s; above one burst of the hop before
    relay_age_s_max: float = 2.0  # after a link stalled; by then the ends have sent again or gone elsewhere
    relay_bytes_per_s: int | None = None  # passed on for one neighbour, all its routes together; None: no bound
