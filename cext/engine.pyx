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

from engine_h cimport *

import os
import socket

from conflux.errors import LocalProtocolError


cdef extern from "openssl/crypto.h" nogil:
    void OPENSSL_cleanse(void *at, size_t size)

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

include "engine_values.pxi"

ctypedef c_bool (*rekeying)(engine *self, uint32_t handle, const engine_key *key) noexcept nogil


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
        config.queues_bytes_max = limits.queues_bytes_max
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

    cdef int rekey(self, rekeying rekey, uint32_t handle, object key, str unknown) except -1:
        cdef engine *self_ = self.live()
        cdef engine_key key_
        cdef bint done
        read_key(key, &key_)
        with nogil:
            done = rekey(self_, handle, &key_)
        OPENSSL_cleanse(&key_, sizeof(key_))
        if not done:
            raise LocalProtocolError(unknown)
        return 0

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
        self.rekey(engine_rekey_sender, sender, key, "no such sender")

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
        self.rekey(engine_rekey_receiver, receiver, key, "no such receiver")

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
        cdef bytes entropy = os.urandom(48)
        cdef const char *problem
        memset(&config, 0, sizeof(config))
        config.link = link
        config.fd = fd
        config.address_bytes = write_address(address, config.address)
        config.port_local = port_local
        config.port_remote = port_remote
        config.datagram_bytes_max = datagram_bytes_max
        memcpy(config.entropy, <const uint8_t *>entropy, 48)
        read_dtls_keys(keys, &keys_)
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
