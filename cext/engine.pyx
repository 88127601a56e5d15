# cython: language_level=3, binding=True, autotestdict=False, auto_pickle=False
# cython: boundscheck=False, wraparound=False
"""The engine behind Python's types: engine.h, function for function.

Calls that packets may hold up give the interpreter's lock up while they wait for the engine's; the few others wait with it,
for a turn of the engine's loop at most.  The engine's thread never wants the interpreter's.  Addresses are packed bytes,
times seconds of time.monotonic().
"""

cimport cython
from libc.errno cimport errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

import os
import socket

from conflux.errors import LocalProtocolError


cdef extern from "openssl/crypto.h" nogil:
    void OPENSSL_cleanse(void *at, size_t size)

cdef extern from "engine.h" nogil:
    enum:
        ENGINE_CHANNEL_COUNT_MAX
        DROP_COUNT
        UP_PACKET
        UP_ECHO
        UP_DEVICE_LOST
        UP_SENT
        UP_ARRIVED
        UP_ENTRY
        UP_FEEDBACK
        UP_WIRE_OPENED
        UP_WIRE_CLOSED
        UP_WIRE_MESSAGE
        UP_WIRE_RESET
        UP_WIRE_DATAGRAM
        UP_WIRE_ERROR
    struct relay_limits:
        size_t route_bytes_max, link_bytes_max, bytes_max, mark_bytes
        uint64_t age_max, bytes_per_s
    struct relay_hop:
        uint32_t link
        uint64_t tether
        uint32_t channel_count, label_out, label_in
    struct relay_status:
        relay_hop before, ahead
        uint64_t frames_ahead, bytes_ahead, frames_back, bytes_back
    struct dtls_keys:
        int cipher
        uint8_t key_out[32]
        uint8_t key_in[32]
        uint8_t iv_out[12]
        uint8_t iv_in[12]
        uint64_t sequence_out
    struct sctp_state:
        bint open
        uint32_t packet_bytes
        uint64_t unsent_bytes, inflight_bytes, held_bytes, rtt_ns, rtt_min_ns, rate_bytes_s, window_bytes
        uint64_t peer_window_bytes
    struct sctp_counts:
        uint64_t packets_sent, packets_received, bytes_sent, bytes_received
        uint64_t messages_sent, messages_received, messages_abandoned
        uint64_t chunks_retransmitted, chunks_lost, probes_tail, timeouts
        uint64_t dropped_malformed, dropped_tag, dropped_checksum, dropped_window, dropped_duplicate, dropped_other
    struct engine_config:
        int tun
        bint segments_udp
        size_t queue_bytes_max, queue_packets_max
        uint64_t hold_age_max
        size_t upcall_count_max
        relay_limits relay
        uint8_t seed[8]
    struct upcall:
        upcall *next
        int kind
        uint32_t link, handle, a, b
        uint8_t address[28]
        uint32_t address_bytes, size
        uint8_t data[1]
    struct engine_network:
        uint8_t address[16]
        uint8_t mask[16]
        uint8_t address_bytes
    struct engine_egress:
        uint64_t bytes, packets, marked, active_at
    struct engine_key:
        uint8_t epoch
        int aead
        uint8_t key[32]
        uint8_t nonce_prefix[4]
    struct engine_sender:
        uint8_t epoch
        uint64_t counter, route_first, bytes_sealed, frames, packets, bytes, silent_since, used_at
    struct engine_receiver:
        uint8_t epoch
        uint64_t next, received, marked, bytes, highest_at, frames, packets, active_at
        uint32_t link, label
    struct engine_link_config:
        uint32_t link
        int fd
        uint8_t address[28]
        uint32_t address_bytes
        const dtls_keys *keys
        uint16_t port_local, port_remote
        uint32_t datagram_bytes_max
        uint8_t entropy[48]
    struct engine_link:
        sctp_state state
        sctp_counts counts
        uint32_t window_bytes_held_max
    struct engine_counts:
        uint64_t tun_read, tun_written, wakeups
    struct engine:
        pass

    const char *engine_drop_name(int why)
    engine *engine_new(const engine_config *config)
    void engine_delete(engine *self)
    int engine_upcall_fd(const engine *self)
    upcall *engine_take_upcalls(engine *self)
    bint engine_configure(engine *self, const engine_network *own, size_t own_count, const engine_network *realm, size_t realm_count)
    void engine_tap(engine *self, bint on)
    uint32_t engine_add_egress(engine *self)
    bint engine_set_addresses(engine *self, uint32_t egress, const engine_network *addresses, size_t count)
    void engine_remove_egress(engine *self, uint32_t egress)
    void engine_packet(engine *self, const uint8_t *data, size_t size, uint64_t queued_at)
    bint c_egress "engine_egress"(engine *self, uint32_t egress, engine_egress *out)
    uint32_t engine_add_sender(engine *self, uint32_t egress, const engine_key *key, bint offloads)
    bint engine_rekey_sender(engine *self, uint32_t sender, const engine_key *key)
    bint engine_set_route(engine *self, uint32_t sender, const relay_hop *hop)
    void engine_detach_sender(engine *self, uint32_t sender)
    void engine_remove_sender(engine *self, uint32_t sender)
    bint engine_queue_entry(engine *self, uint32_t sender, uint8_t kind, const uint8_t *body, size_t size)
    size_t engine_seal_last(engine *self, uint32_t sender, uint8_t *room)
    bint c_sender "engine_sender"(engine *self, uint32_t sender, engine_sender *out)
    uint64_t engine_sender_reported(engine *self, uint32_t sender, uint64_t counter, uint64_t now, uint64_t *unreported)
    void engine_notify_sent(engine *self, uint32_t sender)
    uint32_t engine_add_receiver(engine *self, const engine_network *sources, size_t count, const engine_key *key, bint offloads)
    bint engine_rekey_receiver(engine *self, uint32_t receiver, const engine_key *key)
    void engine_forget_epoch(engine *self, uint32_t receiver)
    bint engine_add_label(engine *self, uint32_t receiver, uint32_t link, uint32_t label)
    void engine_remove_label(engine *self, uint32_t link, uint32_t label)
    bint engine_holds_label(engine *self, uint32_t link, uint32_t label)
    bint engine_verify_last(engine *self, uint32_t receiver, const uint8_t *frame, size_t size)
    void engine_remove_receiver(engine *self, uint32_t receiver)
    bint c_receiver "engine_receiver"(engine *self, uint32_t receiver, bint notify, engine_receiver *out)
    const char *engine_add_relay(engine *self, const relay_hop *before, const relay_hop *ahead)
    void engine_remove_relay(engine *self, uint32_t link, uint32_t label_in)
    bint engine_relay_holds(engine *self, uint32_t link, uint32_t label, bint feedback)
    bint engine_relay(engine *self, size_t index, relay_status *out)
    const char *engine_add_link(engine *self, const engine_link_config *config)
    void engine_close_link(engine *self, uint32_t link)
    void engine_remove_link(engine *self, uint32_t link)
    bint engine_send(engine *self, uint32_t link, uint16_t stream, uint32_t ppid, const uint8_t *data, size_t size)
    bint engine_send_frame(engine *self, const relay_hop *hop, unsigned channel, const uint8_t *frame, size_t size)
    bint engine_reset_streams(engine *self, uint32_t link, const uint16_t *streams, size_t count)
    bint engine_map(engine *self, uint32_t link, uint16_t stream, uint64_t tether, unsigned index, uint32_t lifetime_ms)
    void engine_unmap(engine *self, uint32_t link, uint64_t tether)
    bint c_link "engine_link"(engine *self, uint32_t link, engine_link *out)
    void engine_drops(engine *self, uint64_t *out)
    engine_counts c_counts "engine_counts"(engine *self)


# Python's names of the upcalls, for who takes them.
PACKET = UP_PACKET
ECHO = UP_ECHO
DEVICE_LOST = UP_DEVICE_LOST
SENT = UP_SENT
ARRIVED = UP_ARRIVED
ENTRY = UP_ENTRY
FEEDBACK = UP_FEEDBACK
WIRE_OPENED = UP_WIRE_OPENED
WIRE_CLOSED = UP_WIRE_CLOSED
WIRE_MESSAGE = UP_WIRE_MESSAGE
WIRE_RESET = UP_WIRE_RESET
WIRE_DATAGRAM = UP_WIRE_DATAGRAM
WIRE_ERROR = UP_WIRE_ERROR
CHANNEL_COUNT_MAX = ENGINE_CHANNEL_COUNT_MAX

cdef enum:
    NETWORK_COUNT_MAX = 64


cdef uint64_t nanoseconds(double seconds):
    return <uint64_t>(seconds * 1e9)


cdef double seconds(uint64_t nanoseconds):
    return <double>nanoseconds / 1e9


cdef int read_networks(object networks, engine_network *out) except -1:
    """Read (packed address, packed mask) pairs; return how many."""
    cdef int count = 0
    cdef bytes address, mask
    for address, mask in networks:
        if count == NETWORK_COUNT_MAX:
            raise LocalProtocolError("too many networks")
        if len(address) not in (4, 16) or len(mask) != len(address):
            raise LocalProtocolError("an address has 4 or 16 bytes")
        memset(&out[count], 0, sizeof(engine_network))
        memcpy(out[count].address, <const uint8_t *>address, len(address))
        memcpy(out[count].mask, <const uint8_t *>mask, len(mask))
        out[count].address_bytes = <uint8_t>len(address)
        count += 1
    return count


cdef int read_key(object key, engine_key *out) except -1:
    """Read an interface.EpochKey."""
    cdef bytes secret = key.key, prefix = key.nonce_prefix
    if len(secret) != 32 or len(prefix) != 4:
        raise LocalProtocolError("a key has 32 bytes, a nonce prefix 4")
    out.epoch = key.epoch
    out.aead = key.aead
    memcpy(out.key, <const uint8_t *>secret, 32)
    memcpy(out.nonce_prefix, <const uint8_t *>prefix, 4)
    return 0


cdef relay_hop read_hop(object hop) except *:
    """Read an interface.Hop."""
    cdef relay_hop out
    out.link = hop.link
    out.tether = int.from_bytes(hop.tether, "big")
    out.channel_count = hop.channel_count
    out.label_out = hop.label_out
    out.label_in = hop.label_in
    return out


cdef object read_address(const uint8_t *data, uint32_t size):
    """Return (host, port) of a struct sockaddr, or None."""
    cdef uint16_t family = 0
    if size < 2:
        return None
    memcpy(&family, data, 2)
    cdef int port = data[2] << 8 | data[3]
    if family == socket.AF_INET and size >= 8:
        return socket.inet_ntop(socket.AF_INET, data[4:8]), port
    if family == socket.AF_INET6 and size >= 24:
        return socket.inet_ntop(socket.AF_INET6, data[8:24]), port
    return None


cdef uint32_t write_address(object address, uint8_t *out) except *:
    """Write (host, port[, flow, scope]) as a struct sockaddr; return its size, 0 for None."""
    cdef uint16_t family
    cdef bytes packed
    cdef uint32_t scope
    if address is None:
        return 0
    host, port = address[0], address[1]
    memset(out, 0, 28)
    out[2], out[3] = port >> 8 & 255, port & 255
    if ":" in host:
        host, _, zone = host.partition("%")
        family = socket.AF_INET6
        packed = socket.inet_pton(socket.AF_INET6, host)
        memcpy(out + 8, <const uint8_t *>packed, 16)
        scope = address[3] if len(address) > 3 else (socket.if_nametoindex(zone) if zone else 0)
        memcpy(out + 24, &scope, 4)
        memcpy(out, &family, 2)
        return 28
    family = socket.AF_INET
    packed = socket.inet_pton(socket.AF_INET, host)
    memcpy(out + 4, <const uint8_t *>packed, 4)
    memcpy(out, &family, 2)
    return 16


@cython.final
cdef class Engine:
    """One engine with its thread.  tun: a descriptor with offload headers, or -1.  limits: a DatapathConfig."""

    cdef engine *self_

    def __cinit__(self, int tun, bint segments_udp, limits):
        cdef engine_config config
        memset(&config, 0, sizeof(config))
        config.tun = tun
        config.segments_udp = segments_udp
        config.queue_bytes_max = limits.queue_bytes_max
        config.queue_packets_max = limits.queue_packets_max
        config.hold_age_max = nanoseconds(limits.hold_age_s_max)
        config.upcall_count_max = limits.upcall_count_max
        config.relay.route_bytes_max = limits.relay_route_bytes_max
        config.relay.link_bytes_max = limits.relay_link_bytes_max
        config.relay.bytes_max = limits.relay_bytes_max
        config.relay.mark_bytes = limits.relay_mark_bytes
        config.relay.age_max = nanoseconds(limits.relay_age_s_max)
        config.relay.bytes_per_s = limits.relay_bytes_per_s or 0
        cdef bytes seed = os.urandom(8)
        memcpy(config.seed, <const uint8_t *>seed, 8)
        self.self_ = engine_new(&config)
        if self.self_ == NULL:
            raise OSError(errno, os.strerror(errno))

    def close(self):
        """Stop the thread and wipe every key.  May be called again; nothing else may be called afterwards."""
        cdef engine *self_ = self.self_
        self.self_ = NULL
        if self_ != NULL:
            with nogil:
                engine_delete(self_)

    def __dealloc__(self):
        if self.self_ != NULL:
            engine_delete(self.self_)

    cdef engine *live(self) except NULL:
        if self.self_ == NULL:
            raise LocalProtocolError("the engine is closed")
        return self.self_

    @property
    def fd(self):
        """Readable while upcalls wait."""
        return engine_upcall_fd(self.live())

    def take_upcalls(self):
        """Return all that wait, oldest first: (kind, link, handle, a, b, data, address)."""
        cdef engine *self_ = self.live()
        cdef upcall *at
        cdef upcall *done
        cdef list out = []
        with nogil:
            at = engine_take_upcalls(self_)
        try:
            while at != NULL:
                data = (<const uint8_t *>at.data)[: at.size]
                out.append((at.kind, at.link, at.handle, at.a, at.b, data, read_address(at.address, at.address_bytes)))
                done = at
                at = at.next
                free(done)
        finally:
            while at != NULL:
                done = at
                at = at.next
                free(done)
        return out

    # ── addresses ──

    def configure(self, own, realm):
        """Our addresses, and the networks the realm spans, as (packed address, packed mask)."""
        cdef engine_network own_[NETWORK_COUNT_MAX]
        cdef engine_network realm_[NETWORK_COUNT_MAX]
        cdef int own_count = read_networks(own, own_), realm_count = read_networks(realm, realm_)
        cdef engine *self_ = self.live()
        cdef bint kept
        with nogil:
            kept = engine_configure(self_, own_, own_count, realm_, realm_count)
        if not kept:
            raise MemoryError

    def tap(self, bint on):
        """Have ICMPv6 echo replies come up as ECHO instead of going to the device."""
        cdef engine *self_ = self.live()
        with nogil:
            engine_tap(self_, on)

    # ── egress ──

    def add_egress(self):
        """Return the handle of a new destination, whose packets wait."""
        cdef engine *self_ = self.live()
        cdef uint32_t handle
        with nogil:
            handle = engine_add_egress(self_)
        if handle == 0:
            raise MemoryError
        return handle

    def set_addresses(self, uint32_t egress, addresses):
        """Packets for these addresses are the destination's."""
        cdef engine_network list_[NETWORK_COUNT_MAX]
        cdef int count = read_networks(addresses, list_)
        cdef engine *self_ = self.live()
        cdef bint done
        with nogil:
            done = engine_set_addresses(self_, egress, list_, count)
        if not done:
            raise LocalProtocolError("no such egress")

    def remove_egress(self, uint32_t egress):
        """Forget a destination; return how many packets were dropped with it."""
        cdef engine *self_ = self.live()
        cdef engine_egress state
        cdef bint known
        with nogil:
            known = c_egress(self_, egress, &state)
            engine_remove_egress(self_, egress)
        return state.packets if known else 0

    def packet(self, bytes data not None, double queued_at):
        """Take one packet with its offload header, as the device would give it."""
        cdef engine *self_ = self.live()
        cdef const uint8_t *at = data
        cdef size_t size = len(data)
        cdef uint64_t time = nanoseconds(queued_at)
        with nogil:
            engine_packet(self_, at, size, time)

    def egress(self, uint32_t egress):
        """Return (bytes, packets, packets marked, active at)."""
        cdef engine *self_ = self.live()
        cdef engine_egress out
        cdef bint known
        with nogil:
            known = c_egress(self_, egress, &out)
        if not known:
            raise LocalProtocolError("no such egress")
        return out.bytes, out.packets, out.marked, seconds(out.active_at)

    # ── sender ──

    def add_sender(self, uint32_t egress, key, bint offloads):
        """Return the handle of a sender that seals the destination's packets from now on."""
        cdef engine *self_ = self.live()
        cdef engine_key key_
        cdef uint32_t handle
        read_key(key, &key_)
        with nogil:
            handle = engine_add_sender(self_, egress, &key_, offloads)
        OPENSSL_cleanse(&key_, sizeof(key_))
        if handle == 0:
            raise LocalProtocolError("a sender for no egress, or a cipher libcrypto does not offer")
        return handle

    def rekey_sender(self, uint32_t sender, key):
        """Start the next epoch."""
        cdef engine *self_ = self.live()
        cdef engine_key key_
        cdef bint done
        read_key(key, &key_)
        with nogil:
            done = engine_rekey_sender(self_, sender, &key_)
        OPENSSL_cleanse(&key_, sizeof(key_))
        if not done:
            raise LocalProtocolError("no such sender")

    def set_route(self, uint32_t sender, hop):
        """Send over hop from the next frame on; None: hold the packets back."""
        cdef engine *self_ = self.live()
        cdef relay_hop hop_
        cdef relay_hop *to = NULL
        cdef bint done
        if hop is not None:
            hop_ = read_hop(hop)
            to = &hop_
        with nogil:
            done = engine_set_route(self_, sender, to)
        if not done:
            raise LocalProtocolError("no such sender, or a hop of no channels")

    def detach_sender(self, uint32_t sender):
        """Send nothing more; the key stays for seal_last()."""
        cdef engine *self_ = self.live()
        with nogil:
            engine_detach_sender(self_, sender)

    def remove_sender(self, uint32_t sender):
        """Wipe the key."""
        cdef engine *self_ = self.live()
        with nogil:
            engine_remove_sender(self_, sender)

    def queue_entry(self, uint32_t sender, uint8_t kind, bytes body not None):
        """Send an entry in the next frame.  Raises LocalProtocolError for one no frame could hold."""
        cdef const uint8_t *at = body
        cdef engine *self_ = self.live()
        cdef size_t size = len(body)
        cdef bint done
        with nogil:
            done = engine_queue_entry(self_, sender, kind, at, size)
        if not done:
            raise LocalProtocolError("no such sender, or an entry larger than a frame's bundle")

    def seal_last(self, uint32_t sender):
        """Return the stream's last frame."""
        cdef uint8_t room[64]
        cdef engine *self_ = self.live()
        cdef size_t size
        with nogil:
            size = engine_seal_last(self_, sender, room)
        if size == 0:
            raise LocalProtocolError("no such sender, or its key is gone")
        return room[:size]

    def sender(self, uint32_t sender):
        """Return (epoch, counter, route_first, bytes_sealed, frames, packets, bytes, silent_since, used_at).

        silent_since and used_at are seconds, 0.0 for none.
        """
        cdef engine *self_ = self.live()
        cdef engine_sender out
        cdef bint known
        with nogil:
            known = c_sender(self_, sender, &out)
        if not known:
            raise LocalProtocolError("no such sender")
        return (
            out.epoch, out.counter, out.route_first, out.bytes_sealed, out.frames, out.packets, out.bytes,
            seconds(out.silent_since), seconds(out.used_at),
        )

    def sender_reported(self, uint32_t sender, uint64_t counter, double now):
        """Return when counter was sent (None: unknown) and how many frames were sent after it."""
        cdef engine *self_ = self.live()
        cdef uint64_t unreported, sent_at, time = nanoseconds(now)
        with nogil:
            sent_at = engine_sender_reported(self_, sender, counter, time, &unreported)
        return (seconds(sent_at) if sent_at else None), unreported

    def notify_sent(self, uint32_t sender):
        """Say SENT with the next frame."""
        cdef engine *self_ = self.live()
        with nogil:
            engine_notify_sent(self_, sender)

    # ── receiver ──

    def add_receiver(self, sources, key, bint offloads):
        """Return the handle of a receiver; sources: the networks its packets may come from."""
        cdef engine *self_ = self.live()
        cdef engine_network sources_[NETWORK_COUNT_MAX]
        cdef int count = read_networks(sources, sources_)
        cdef engine_key key_
        cdef uint32_t handle
        read_key(key, &key_)
        with nogil:
            handle = engine_add_receiver(self_, sources_, count, &key_, offloads)
        OPENSSL_cleanse(&key_, sizeof(key_))
        if handle == 0:
            raise LocalProtocolError("a cipher libcrypto does not offer, or no memory")
        return handle

    def rekey_receiver(self, uint32_t receiver, key):
        """Accept the next epoch too."""
        cdef engine *self_ = self.live()
        cdef engine_key key_
        cdef bint done
        read_key(key, &key_)
        with nogil:
            done = engine_rekey_receiver(self_, receiver, &key_)
        OPENSSL_cleanse(&key_, sizeof(key_))
        if not done:
            raise LocalProtocolError("no such receiver")

    def forget_epoch(self, uint32_t receiver):
        """Accept the epoch before the present no more."""
        cdef engine *self_ = self.live()
        with nogil:
            engine_forget_epoch(self_, receiver)

    def add_label(self, uint32_t receiver, uint32_t link, uint32_t label):
        """Accept frames under a label; False: it is another's."""
        cdef engine *self_ = self.live()
        cdef bint answer
        with nogil:
            answer = engine_add_label(self_, receiver, link, label)
        return answer

    def remove_label(self, uint32_t link, uint32_t label):
        """Accept none under it.  No-op if unknown."""
        cdef engine *self_ = self.live()
        with nogil:
            engine_remove_label(self_, link, label)

    def holds_label(self, uint32_t link, uint32_t label):
        """Say whether a receiver accepts frames under a label."""
        cdef engine *self_ = self.live()
        cdef bint answer
        with nogil:
            answer = engine_holds_label(self_, link, label)
        return answer

    def verify_last(self, uint32_t receiver, bytes frame not None):
        """Say whether frame is a valid END that was not seen before."""
        cdef const uint8_t *at = frame
        cdef engine *self_ = self.live()
        cdef size_t size = len(frame)
        cdef bint last
        with nogil:
            last = engine_verify_last(self_, receiver, at, size)
        return last

    def remove_receiver(self, uint32_t receiver):
        """Wipe its keys; its labels were removed before."""
        cdef engine *self_ = self.live()
        with nogil:
            engine_remove_receiver(self_, receiver)

    def receiver(self, uint32_t receiver, bint notify):
        """Return (epoch, highest, received, marked, bytes, highest_at, frames, packets, active_at, link, label).

        highest is -1 before the first frame.  notify: say ARRIVED with the next frame.
        """
        cdef engine *self_ = self.live()
        cdef engine_receiver out
        cdef bint known
        with nogil:
            known = c_receiver(self_, receiver, notify, &out)
        if not known:
            raise LocalProtocolError("no such receiver")
        return (
            out.epoch, int(out.next) - 1, out.received, out.marked, out.bytes, seconds(out.highest_at), out.frames,
            out.packets, seconds(out.active_at), out.link, out.label,
        )

    # ── relays ──

    def add_relay(self, before, ahead):
        """Pass frames on between two hops.  Raises LocalProtocolError."""
        cdef relay_hop before_ = read_hop(before), ahead_ = read_hop(ahead)
        cdef engine *self_ = self.live()
        cdef const char *problem
        with nogil:
            problem = engine_add_relay(self_, &before_, &ahead_)
        if problem != NULL:
            raise LocalProtocolError((<bytes>problem).decode())

    def remove_relay(self, uint32_t link, uint32_t label_in):
        """Pass nothing on any more.  No-op if unknown."""
        cdef engine *self_ = self.live()
        with nogil:
            engine_remove_relay(self_, link, label_in)

    def relay_holds(self, uint32_t link, uint32_t label, bint feedback):
        """Say whether frames under a label are passed on."""
        cdef engine *self_ = self.live()
        cdef bint answer
        with nogil:
            answer = engine_relay_holds(self_, link, label, feedback)
        return answer

    def relays(self):
        """Return, per route: (link, label_in, label_out) before and ahead, frames and bytes ahead and back."""
        cdef relay_status out
        cdef list rows = []
        cdef engine *self_ = self.live()
        cdef size_t index = 0
        cdef bint found
        while True:
            with nogil:
                found = engine_relay(self_, index, &out)
            if not found:
                break
            index += 1
            rows.append((
                (out.before.link, out.before.label_in, out.before.label_out),
                (out.ahead.link, out.ahead.label_in, out.ahead.label_out),
                out.frames_ahead, out.bytes_ahead, out.frames_back, out.bytes_back,
            ))
        return rows

    # ── links ──

    def add_link(
        self, uint32_t link, int fd, address, keys, uint16_t port_local, uint16_t port_remote, uint32_t datagram_bytes_max
    ):
        """Take over a link's socket; see conflux.carrier.wire.Wire.add().  Raises LocalProtocolError."""
        cdef engine *self_ = self.live()
        cdef engine_link_config config
        cdef dtls_keys keys_
        cdef bytes part, entropy = os.urandom(48)
        cdef const char *problem
        memset(&config, 0, sizeof(config))
        memset(&keys_, 0, sizeof(keys_))
        config.link = link
        config.fd = fd
        config.address_bytes = write_address(address, config.address)
        config.port_local = port_local
        config.port_remote = port_remote
        config.datagram_bytes_max = datagram_bytes_max
        memcpy(config.entropy, <const uint8_t *>entropy, 48)
        if max(len(keys.key_out), len(keys.key_in)) > 32 or max(len(keys.iv_out), len(keys.iv_in)) > 12:
            raise LocalProtocolError("keys that fit no cipher")
        keys_.cipher = keys.cipher
        keys_.sequence_out = keys.sequence_out
        part = keys.key_out
        memcpy(keys_.key_out, <const uint8_t *>part, len(part))
        part = keys.key_in
        memcpy(keys_.key_in, <const uint8_t *>part, len(part))
        part = keys.iv_out
        memcpy(keys_.iv_out, <const uint8_t *>part, len(part))
        part = keys.iv_in
        memcpy(keys_.iv_in, <const uint8_t *>part, len(part))
        config.keys = &keys_
        with nogil:
            problem = engine_add_link(self_, &config)
        OPENSSL_cleanse(&keys_, sizeof(keys_))
        OPENSSL_cleanse(config.entropy, sizeof(config.entropy))
        if problem != NULL:
            raise LocalProtocolError((<bytes>problem).decode())

    def close_link(self, uint32_t link):
        """Say goodbye."""
        cdef engine *self_ = self.live()
        with nogil:
            engine_close_link(self_, link)

    def remove_link(self, uint32_t link):
        """Forget the link; its socket is not touched any more.  No-op if unknown."""
        cdef engine *self_ = self.live()
        with nogil:
            engine_remove_link(self_, link)

    def send(self, uint32_t link, uint16_t stream, uint32_t ppid, bytes data not None):
        """Send one message, reliable and ordered; False if the link is gone or too much waits."""
        cdef engine *self_ = self.live()
        cdef const uint8_t *at = data
        cdef size_t size = len(data)
        cdef bint sent
        with nogil:
            sent = engine_send(self_, link, stream, ppid, at, size)
        return sent

    def send_frame(self, hop, unsigned channel, bytes frame not None):
        """Send one frame on a tether; what cannot go is dropped and counted."""
        cdef engine *self_ = self.live()
        cdef relay_hop hop_ = read_hop(hop)
        cdef const uint8_t *at = frame
        cdef size_t size = len(frame)
        cdef bint sent
        with nogil:
            sent = engine_send_frame(self_, &hop_, channel, at, size)
        return sent

    def reset_streams(self, uint32_t link, streams):
        """Reset our side of streams; False: the link is gone, or too many wait."""
        cdef uint16_t list_[256]
        cdef size_t count = 0
        for stream in streams:
            if count == 256:
                raise LocalProtocolError("too many streams at once")
            list_[count] = stream
            count += 1
        cdef engine *self_ = self.live()
        cdef bint answer
        with nogil:
            answer = engine_reset_streams(self_, link, list_, count)
        return answer

    def map(self, uint32_t link, uint16_t stream, bytes tether not None, unsigned index, uint32_t lifetime_ms):
        """Messages on the stream are frames of the tether's channel from now on; False if the link is gone."""
        cdef engine *self_ = self.live()
        cdef uint64_t id_ = int.from_bytes(tether, "big")
        cdef bint mapped
        with nogil:
            mapped = engine_map(self_, link, stream, id_, index, lifetime_ms)
        return mapped

    def unmap(self, uint32_t link, bytes tether not None):
        """The tether is no more.  No-op if unknown."""
        cdef engine *self_ = self.live()
        cdef uint64_t id_ = int.from_bytes(tether, "big")
        with nogil:
            engine_unmap(self_, link, id_)

    def link(self, uint32_t link):
        """Return the association's state and counters as one dict, or None if the link is gone."""
        cdef engine *self_ = self.live()
        cdef engine_link out
        cdef bint known
        with nogil:
            known = c_link(self_, link, &out)
        if not known:
            return None
        return {**out.state, **out.counts, "window_bytes_held_max": out.window_bytes_held_max}

    # ── what came of it ──

    def drops(self):
        """Return every drop so far, by reason."""
        cdef uint64_t counts[DROP_COUNT]
        cdef engine *self_ = self.live()
        with nogil:
            engine_drops(self_, counts)
        return {(<bytes>engine_drop_name(at)).decode(): counts[at] for at in range(DROP_COUNT) if counts[at]}

    def counts(self):
        """Return how many packets the device gave and took, and how often the thread woke."""
        cdef engine *self_ = self.live()
        cdef engine_counts out
        with nogil:
            out = c_counts(self_)
        return out.tun_read, out.tun_written, out.wakeups
