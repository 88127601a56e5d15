"""The limits a datapath works within, each with its reason beside it."""

from typing import NamedTuple

from conflux.anchor.key import EPOCH_BYTES_LOG2_MAX, EPOCH_S_MAX

IDLE_S_MAX = 120.0  # a sender chooses no more for a stream; a receiver waits for it
RECEIVER_IDLE_S = IDLE_S_MAX + 5.0


class DatapathConfig(NamedTuple):
    """Times in seconds, sizes in bytes."""

    idle_timeout_s: float = 15.0  # a pause in a conversation; `stream.idle_timeout` in conflux.toml
    receiver_grace_s: float = 5.0  # a receiver waits so much longer than its sender: then only a lost END is the cause
    receiver_idle_s: float = 0.0  # a receiver waits so long at least: each sender chooses its own idle timeout

    # 1 MiB is 2 s of a 4 Mbit/s uplink, or 0.2 s at 40 Mbit/s.  On a faster path the bound is what leaves in 50 ms, up
    # to four times as much (reference/served.py).  A destination may queue as much as all queues together leave free:
    # 15 destinations have 4 MiB each, 63 have 1 MiB each.
    queue_bytes_max: int = 1024 * 1024
    queues_bytes_max: int = 64 * 1024 * 1024
    queue_packets_max: int = 2048  # small packets cost their objects, about 150 bytes each
    hold_age_s_max: float = 10.0  # a stream's handshake gives up after 10 s; older packets have been sent again

    pending_address_count_max: int = 256  # addresses asked for at once: a scan of the realm must not fill memory
    pending_bytes_max: int = 65536  # per address: the first flight of a TCP connection or two, for one search

    # A frame delays the others of its channel for its own sending time: 3.3 ms at 40 Mbit/s.  Larger frames gain
    # little: at 16 KiB the frame itself costs a tenth of what its packets cost (bench/parts/test_datapath.py).
    bundle_bytes_max: int = 16384

    feedback_interval_s_min: float = 0.1  # below it, reports cost more than they tell
    feedback_interval_s_max: float = 2.0  # twice an RTT of 1 s; above it, silence would go unnoticed for too long
    suspect_interval_count: int = 5  # reports lost in a row by chance: 1 in 10**5 at 10 % loss
    suspect_s_min: float = 0.5  # a Wi-Fi roam or a pause of the garbage collector is shorter
    suspect_unmeasured_s_min: float = 1.0  # before the route's first RTT: the initial RTO of RFC 6298, section 2.1

    epoch_s: float = EPOCH_S_MAX
    # An exchange of keys is 2.7 kB: more than an hour of a ping a minute.  So the key of a stream with fewer frames is
    # looked at again after epoch_s, until it is so old.
    epoch_frames_min: int = 64
    epoch_quiet_s: float = 1800.0
    epoch_bytes_max: int = 2**EPOCH_BYTES_LOG2_MAX
    epoch_grace_s: float = 10.0  # frames of the epoch before may still be under way

    delivery_bytes_max: int = 4 * 1024 * 1024  # packets that wait for the TUN device
    upcall_count_max: int = 1024  # of those a peer can cause; the node drains them after every input
    entry_count_max: int = 16  # entries that wait for a stream's next frame

    # What waits in a relay delays what follows: 1 MiB is 200 ms at 40 Mbit/s for one route.  That much arrives at once
    # where a link of 50 ms and 150 Mbit/s repaired a loss: the frames behind the gap waited for it.  On a faster link
    # the bound is what leaves in 50 ms, up to four times as much, and the link's bound grows with it
    # (reference/served.py).  A link's room is divided among its routes, and that of the relay among all links: a board
    # of 512 MB has 16 MiB to spare.  A frame counts 256 bytes more than its size (reference/relay.py).
    relay_route_bytes_max: int = 1024 * 1024
    relay_link_bytes_max: int = 2 * 1024 * 1024
    relay_bytes_max: int = 16 * 1024 * 1024
    relay_mark_bytes: int = 128 * 1024  # of one link: 26 ms at 40 Mbit/s; more than one burst of the hop before
    relay_age_s_max: float = 2.0  # after a link stalled; by then the ends have sent again or gone elsewhere
    relay_bytes_per_s: int | None = None  # passed on for one neighbour, all its routes together; None: no bound
