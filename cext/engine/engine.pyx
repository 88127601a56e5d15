# cython: language_level=3, binding=True, autotestdict=False, auto_pickle=False
# cython: boundscheck=False, wraparound=False
"""The engine behind Python's types: engine.h, function for function; the contracts stand there.  One type is one file.

Every method that takes the engine's lock gives up the interpreter's lock while it waits.  The engine's thread never
takes the interpreter's lock.  Addresses are packed bytes, times are seconds of time.monotonic().  Every method raises
LocalProtocolError once the engine is closed.
"""

cimport cython
from libc.errno cimport errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from engine_h cimport *

import os
import socket

from conflux.datapath.native.door import (
    EgressState,
    EngineCounts,
    EngineUpcall,
    ReceiverState,
    RelaySide,
    RelayState,
    SenderState,
)
from conflux.errors import LocalProtocolError


cdef extern from "openssl/crypto.h" nogil:
    void OPENSSL_cleanse(void *at, size_t size)

# The kinds of upcalls, under Python's names.
PACKET = UP_PACKET
ECHO = UP_ECHO
REFUSED = UP_REFUSED
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
ENTRY_COUNT_MAX = ENGINE_ENTRY_COUNT_MAX
DTLS_CIPHERS = (DTLS_AES_128_GCM, DTLS_AES_256_GCM, DTLS_CHACHA20_POLY1305)
DROPS = tuple((<bytes>engine_drop_name(why)).decode() for why in range(DROP_COUNT))

include "values.pxi"

cdef enum:
    RESET_COUNT_MAX = 256  # streams per call: more than the channels of 16 tethers
    LAST_FRAME_BYTES_MAX = 64  # header, one empty entry and tag take 35

ctypedef c_bool (*rekeying)(engine *self, uint32_t handle, const engine_key *key) noexcept nogil


@cython.final
cdef class Engine:
    """One engine with its thread.

    tun: a descriptor with offload headers, or -1.  segments_udp: the device takes UDP super-packets.  limits: a
    DatapathConfig.  entropy(n): n random bytes, for the tables' hashes and each association's secrets.
    """

    cdef engine *self_
    cdef object entropy

    def __cinit__(self, int tun, bint segments_udp, limits, entropy):
        cdef engine_config config
        self.entropy = entropy
        memset(&config, 0, sizeof(config))
        config.tun = tun
        config.segments_udp = segments_udp
        config.queue_bytes_max = limits.queue_bytes_max
        config.queue_packets_max = limits.queue_packets_max
        config.queues_bytes_max = limits.queues_bytes_max
        config.hold_age_ns_max = nanoseconds(limits.hold_age_s_max)
        config.upcall_count_max = limits.upcall_count_max
        config.relay.route_bytes_max = limits.relay_route_bytes_max
        config.relay.link_bytes_max = limits.relay_link_bytes_max
        config.relay.bytes_max = limits.relay_bytes_max
        config.relay.mark_bytes = limits.relay_mark_bytes
        config.relay.age_ns_max = nanoseconds(limits.relay_age_s_max)
        config.relay.bytes_per_s = limits.relay_bytes_per_s or 0
        read_entropy(entropy, config.seed, sizeof(config.seed))
        self.self_ = engine_new(&config)
        if self.self_ == NULL:
            raise OSError(errno, os.strerror(errno))

    def close(self):
        """Stop the thread and wipe every key.  May be called again."""
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
        """A descriptor that is readable while upcalls wait."""
        return engine_upcall_fd(self.live())

    def take_upcalls(self):
        """Return the upcalls that wait, oldest first."""
        cdef engine *self_ = self.live()
        cdef upcall *at
        cdef upcall *done
        cdef list out = []
        with nogil:
            at = engine_take_upcalls(self_)
        try:
            while at != NULL:
                data = (<const uint8_t *>at.data)[: at.size]
                address = read_address(at.address, at.address_bytes)
                out.append(
                    EngineUpcall(at.kind, at.link, at.handle, at.a, at.b, seconds(at.came_at), data, address)
                )
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
        """Say which addresses are ours and which networks the realm spans, as (packed address, packed mask)."""
        cdef engine_network own_[ENGINE_NETWORK_COUNT_MAX]
        cdef engine_network realm_[ENGINE_NETWORK_COUNT_MAX]
        cdef int own_count = read_networks(own, own_), realm_count = read_networks(realm, realm_)
        cdef engine *self_ = self.live()
        cdef bint kept
        with nogil:
            kept = engine_configure(self_, own_, own_count, realm_, realm_count)
        if not kept:
            raise MemoryError

    def tap(self, identifiers):
        """Say which ICMPv6 echo replies come up as ECHO, by identifier; all others go to the device."""
        cdef uint16_t list_[ENGINE_TAP_COUNT_MAX]
        cdef size_t count = len(identifiers)
        cdef engine *self_ = self.live()
        if count > ENGINE_TAP_COUNT_MAX:
            raise LocalProtocolError("too many pings")
        for at in range(count):
            list_[at] = identifiers[at]
        with nogil:
            engine_tap(self_, list_, count)

    def set_policy(self, bytes incoming not None, bytes outgoing not None, seed):
        """Judge every packet by a pair of encoded tables from now on."""
        cdef engine *self_ = self.live()
        cdef const uint8_t *in_ = incoming
        cdef const uint8_t *out_ = outgoing
        cdef size_t in_size = len(incoming), out_size = len(outgoing)
        cdef uint64_t seed_ = seed
        cdef bint loaded
        with nogil:
            loaded = engine_set_policy(self_, in_, in_size, out_, out_size, seed_)
        if not loaded:
            raise LocalProtocolError("no tables of a policy, or no memory for them")

    def clear_policy(self):
        """Let every packet pass again."""
        cdef engine *self_ = self.live()
        with nogil:
            engine_clear_policy(self_)

    def deliver(self, bytes data not None):
        """Give the device the packet of an ECHO that was not asked for, its offload header first."""
        cdef engine *self_ = self.live()
        cdef const uint8_t *at = data
        cdef size_t size = len(data)
        with nogil:
            engine_deliver(self_, at, size)

    # ── egress ──

    def add_egress(self):
        """Return the handle of a new destination, whose packets wait for a sender."""
        cdef engine *self_ = self.live()
        cdef uint32_t handle
        with nogil:
            handle = engine_add_egress(self_)
        if handle == 0:
            raise MemoryError
        return handle

    def set_addresses(self, uint32_t egress, addresses):
        """Have the packets for these addresses, and no others, be the destination's."""
        cdef engine_network list_[ENGINE_NETWORK_COUNT_MAX]
        cdef int count = read_networks(addresses, list_)
        cdef engine *self_ = self.live()
        cdef bint done
        with nogil:
            done = engine_set_addresses(self_, egress, list_, count)
        if not done:
            raise LocalProtocolError("no such egress")

    def remove_egress(self, uint32_t egress):
        """Forget a destination; return how many packets its queue held."""
        cdef engine *self_ = self.live()
        cdef engine_egress state
        cdef bint known
        with nogil:
            known = c_egress(self_, egress, &state)
            engine_remove_egress(self_, egress)
        return state.packets if known else 0

    def packet(self, bytes data not None, double queued_at):
        """Take one packet with its offload header, as from the device."""
        cdef engine *self_ = self.live()
        cdef const uint8_t *at = data
        cdef size_t size = len(data)
        cdef uint64_t time = nanoseconds(queued_at)
        with nogil:
            engine_packet(self_, at, size, time)

    def egress(self, uint32_t egress):
        """Return the EgressState.  Raises LocalProtocolError for an unknown handle."""
        cdef engine *self_ = self.live()
        cdef engine_egress out
        cdef bint known
        with nogil:
            known = c_egress(self_, egress, &out)
        if not known:
            raise LocalProtocolError("no such egress")
        return EgressState(out.bytes, out.packets, out.marked, seconds(out.active_at))

    # ── sender ──

    def add_sender(self, uint32_t egress, key, bint offloads):
        """Return the handle of a new sender, which seals the destination's packets from now on."""
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
        """Send over hop from the next frame on; None holds the packets back."""
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
        """Send an entry in the next frame.  Raises LocalProtocolError if no frame could hold it."""
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
        cdef uint8_t room[LAST_FRAME_BYTES_MAX]
        cdef engine *self_ = self.live()
        cdef size_t size
        with nogil:
            size = engine_seal_last(self_, sender, room)
        if size == 0:
            raise LocalProtocolError("no such sender, or its key is gone")
        return room[:size]

    def sender(self, uint32_t sender):
        """Return the SenderState.  Raises LocalProtocolError for an unknown handle."""
        cdef engine *self_ = self.live()
        cdef engine_sender out
        cdef bint known
        with nogil:
            known = c_sender(self_, sender, &out)
        if not known:
            raise LocalProtocolError("no such sender")
        return SenderState(
            out.epoch, out.counter, out.route_first, out.bytes_sealed, out.frames, out.packets, out.bytes,
            seconds(out.silent_since) if out.silent_since else None,
        )

    def sender_reported(self, uint32_t sender, uint64_t counter, double now):
        """Take all counters up to this one as reported; return when it was sent, None if unknown."""
        cdef engine *self_ = self.live()
        cdef uint64_t sent_at, time = nanoseconds(now)
        with nogil:
            sent_at = engine_sender_reported(self_, sender, counter, time)
        return seconds(sent_at) if sent_at else None

    def notify_sent(self, uint32_t sender):
        """Arm the notice SENT for the next frame."""
        cdef engine *self_ = self.live()
        with nogil:
            engine_notify_sent(self_, sender)

    # ── receiver ──

    def add_receiver(self, sources, key, bint offloads):
        """Return the handle of a new receiver.  sources: networks that its packets may come from."""
        cdef engine *self_ = self.live()
        cdef engine_network sources_[ENGINE_NETWORK_COUNT_MAX]
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
        """Accept no more frames of the epoch before the present."""
        cdef engine *self_ = self.live()
        with nogil:
            engine_forget_epoch(self_, receiver)

    def add_label(self, uint32_t receiver, uint32_t link, uint32_t label):
        """Accept frames under a label; return False if the label is another receiver's."""
        cdef engine *self_ = self.live()
        cdef bint answer
        with nogil:
            answer = engine_add_label(self_, receiver, link, label)
        return answer

    def remove_label(self, uint32_t link, uint32_t label):
        """Accept no more frames under a label.  No-op if unknown."""
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
        """Wipe its keys.  Its labels must have been removed before."""
        cdef engine *self_ = self.live()
        with nogil:
            engine_remove_receiver(self_, receiver)

    def receiver(self, uint32_t receiver, bint notify):
        """Return the ReceiverState.  notify: arm the notice ARRIVED for the next frame.

        Raises LocalProtocolError for an unknown handle.
        """
        cdef engine *self_ = self.live()
        cdef engine_receiver out
        cdef bint known
        with nogil:
            known = c_receiver(self_, receiver, notify, &out)
        if not known:
            raise LocalProtocolError("no such receiver")
        return ReceiverState(
            out.epoch, int(out.next) - 1, out.received, out.marked, out.bytes, seconds(out.highest_at), out.frames,
            out.packets, out.frame_bytes, seconds(out.active_at), out.link, out.label,
        )

    # ── relays ──

    def add_relay(self, before, ahead):
        """Pass frames on between two hops.  Raises LocalProtocolError if that is impossible."""
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
        """Say whether data (or feedback) under a label is passed on."""
        cdef engine *self_ = self.live()
        cdef bint answer
        with nogil:
            answer = engine_relay_holds(self_, link, label, feedback)
        return answer

    def relays(self):
        """Return a RelayState per route."""
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
            rows.append(RelayState(
                RelaySide(out.before.link, out.before.label_in, out.before.label_out),
                RelaySide(out.ahead.link, out.ahead.label_in, out.ahead.label_out),
                out.frames_ahead, out.bytes_ahead, out.frames_back, out.bytes_back,
            ))
        return rows

    # ── links ──

    def add_link(
        self, uint32_t link, int fd, address, keys, stun, uint16_t port_local, uint16_t port_remote,
        uint32_t datagram_bytes_max, start=None,
    ):
        """Take over a link's socket; see conflux.carrier.wire.Wire.add().  Raises LocalProtocolError."""
        cdef engine *self_ = self.live()
        cdef engine_link_config config
        cdef dtls_keys keys_
        cdef stun_password ours, peers
        cdef const char *problem
        memset(&config, 0, sizeof(config))
        config.link = link
        config.fd = fd
        config.address_bytes = write_address(address, config.address)
        config.port_local = port_local
        config.port_remote = port_remote
        config.datagram_bytes_max = datagram_bytes_max
        read_password(stun.ours, &ours)
        read_password(stun.peers, &peers)
        read_entropy(self.entropy, config.entropy, sizeof(config.entropy))
        if start is not None:
            read_start(start.ours, config.entropy)
            read_start(start.theirs, config.start)
            config.started = True
        read_dtls_keys(keys, &keys_)
        config.keys = &keys_
        config.stun_ours, config.stun_peers = &ours, &peers
        with nogil:
            problem = engine_add_link(self_, &config)
        OPENSSL_cleanse(&keys_, sizeof(keys_))
        OPENSSL_cleanse(&ours, sizeof(ours))
        OPENSSL_cleanse(&peers, sizeof(peers))
        OPENSSL_cleanse(config.entropy, sizeof(config.entropy))
        if problem != NULL:
            raise LocalProtocolError((<bytes>problem).decode())

    def close_link(self, uint32_t link):
        """Say goodbye."""
        cdef engine *self_ = self.live()
        with nogil:
            engine_close_link(self_, link)

    def remove_link(self, uint32_t link):
        """Forget the link and wipe its keys; its socket is not touched any more.  No-op if unknown."""
        cdef engine *self_ = self.live()
        with nogil:
            engine_remove_link(self_, link)

    def send(self, uint32_t link, uint16_t stream, uint32_t ppid, bytes data not None):
        """Send one message, reliable and ordered; return False if the link is gone or too much waits."""
        cdef engine *self_ = self.live()
        cdef const uint8_t *at = data
        cdef size_t size = len(data)
        cdef bint sent
        with nogil:
            sent = engine_send(self_, link, stream, ppid, at, size)
        return sent

    def send_frame(self, hop, unsigned channel, bytes frame not None):
        """Send one frame on a tether; a frame that cannot be sent is dropped and counted."""
        cdef engine *self_ = self.live()
        cdef relay_hop hop_ = read_hop(hop)
        cdef const uint8_t *at = frame
        cdef size_t size = len(frame)
        cdef bint sent
        with nogil:
            sent = engine_send_frame(self_, &hop_, channel, at, size)
        return sent

    def receive_frame(self, uint32_t link, uint16_t stream, bytes frame not None):
        """Take a frame that came up, as it came before its stream was mapped; return False if it still is not."""
        return engine_receive_frame(self.live(), link, stream, <const uint8_t *>frame, len(frame))

    def reset_streams(self, uint32_t link, streams):
        """Reset our side of streams; return False if the link is gone or not open, or has no such stream."""
        cdef uint16_t list_[RESET_COUNT_MAX]
        cdef size_t count = 0
        for stream in streams:
            if count == RESET_COUNT_MAX:
                raise LocalProtocolError("too many streams at once")
            list_[count] = stream
            count += 1
        cdef engine *self_ = self.live()
        cdef bint answer
        with nogil:
            answer = engine_reset_streams(self_, link, list_, count)
        return answer

    def map(self, uint32_t link, uint16_t stream, bytes tether not None, unsigned index, uint32_t lifetime_ms, int how=0):
        """Take messages on the stream as frames of the tether's channel; return False if the link is gone."""
        cdef engine *self_ = self.live()
        cdef uint64_t id_ = int.from_bytes(tether, "big")
        cdef bint mapped
        with nogil:
            mapped = engine_map(self_, link, stream, id_, index, lifetime_ms, <engine_channel>how)
        return mapped

    def unmap(self, uint32_t link, bytes tether not None):
        """Take no more frames of the tether.  No-op if unknown."""
        cdef engine *self_ = self.live()
        cdef uint64_t id_ = int.from_bytes(tether, "big")
        with nogil:
            engine_unmap(self_, link, id_)

    def link(self, uint32_t link):
        """Return the association's state and counters by their names in sctp.h, or None if the link is gone."""
        cdef engine *self_ = self.live()
        cdef engine_link out
        cdef bint known
        with nogil:
            known = c_link(self_, link, &out)
        if not known:
            return None
        return {**out.state, **out.counts, **out.moved, "window_bytes_held_max": out.window_bytes_held_max}

    # ── counters ──

    def drops(self):
        """Return every drop so far, by reason."""
        cdef uint64_t counts[DROP_COUNT]
        cdef engine *self_ = self.live()
        with nogil:
            engine_drops(self_, counts)
        return {DROPS[at]: counts[at] for at in range(DROP_COUNT) if counts[at]}

    def counts(self):
        """Return the EngineCounts."""
        cdef engine *self_ = self.live()
        cdef engine_counts out
        with nogil:
            out = c_counts(self_)
        return EngineCounts(out.tun_read, out.tun_written, out.wakeups)
