"""engine.h, as Cython reads it; the contracts stand there."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "<stdbool.h>":
    ctypedef bint c_bool "bool"  # where a pointer to a function needs the exact type

cdef extern from "engine/engine.h" nogil:
    enum:
        ENGINE_CHANNEL_COUNT_MAX
        ENGINE_ENTRY_COUNT_MAX
        ENGINE_NETWORK_COUNT_MAX
        ENGINE_TAP_COUNT_MAX
        ENGINE_ADDRESS_BYTES
        DROP_COUNT
        UP_PACKET
        UP_ECHO
        UP_REFUSED
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
        uint64_t age_ns_max, bytes_per_s
    struct relay_hop:
        uint32_t link
        uint64_t tether
        uint32_t channel_count, label_out, label_in
    struct relay_status:
        relay_hop before, ahead
        uint64_t frames_ahead, bytes_ahead, frames_back, bytes_back
    enum:
        DTLS_AES_128_GCM
        DTLS_AES_256_GCM
        DTLS_CHACHA20_POLY1305
    struct dtls_keys:
        int cipher
        uint8_t key_out[32]
        uint8_t key_in[32]
        uint8_t iv_out[12]
        uint8_t iv_in[12]
        uint64_t sequence_out
    enum:
        STUN_PASSWORD_BYTES_MAX
    struct stun_password:
        uint8_t text[256]
        size_t size
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
        size_t queue_bytes_max, queue_packets_max, queues_bytes_max
        uint64_t hold_age_ns_max
        size_t upcall_count_max
        relay_limits relay
        uint8_t seed[8]
    struct upcall:
        upcall *next
        int kind
        uint32_t link, handle, a, b
        uint64_t came_at
        uint8_t address[ENGINE_ADDRESS_BYTES]
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
        uint64_t counter, route_first, bytes_sealed, frames, packets, bytes, silent_since
    struct engine_receiver:
        uint8_t epoch
        uint64_t next, received, marked, bytes, highest_at, frames, packets, frame_bytes, active_at
        uint32_t link, label
    struct engine_link_config:
        uint32_t link
        int fd
        uint8_t address[ENGINE_ADDRESS_BYTES]
        uint32_t address_bytes
        const dtls_keys *keys
        const stun_password *stun_ours
        const stun_password *stun_peers
        uint16_t port_local, port_remote
        uint32_t datagram_bytes_max
        uint8_t entropy[48]
        bint started
        uint8_t start[8]
    struct engine_moved:
        uint64_t udp_bytes_sent, udp_sent, udp_bytes_received, udp_received, stun_bytes_received, stun_received
    struct engine_link:
        sctp_state state
        sctp_counts counts
        uint32_t window_bytes_held_max
        engine_moved moved
    struct engine_counts:
        uint64_t tun_read, tun_written, wakeups
    struct engine:
        pass

    const char *engine_drop_name(int why)
    engine *engine_new(const engine_config *config)
    void engine_delete(engine *self)
    int engine_upcall_fd(const engine *self)
    upcall *engine_take_upcalls(engine *self)
    bint engine_configure(
        engine *self, const engine_network *own, size_t own_count, const engine_network *realm, size_t realm_count)
    c_bool engine_set_policy(
        engine *self, const uint8_t *incoming, size_t in_size, const uint8_t *outgoing, size_t out_size, uint64_t seed)
    void engine_clear_policy(engine *self)
    c_bool engine_tap(engine *self, const uint16_t *identifiers, size_t count)
    void engine_deliver(engine *self, const uint8_t *data, size_t size)
    uint32_t engine_add_egress(engine *self)
    bint engine_set_addresses(engine *self, uint32_t egress, const engine_network *addresses, size_t count)
    void engine_remove_egress(engine *self, uint32_t egress)
    void engine_packet(engine *self, const uint8_t *data, size_t size, uint64_t queued_at)
    bint c_egress "engine_egress"(engine *self, uint32_t egress, engine_egress *out)
    uint32_t engine_add_sender(engine *self, uint32_t egress, const engine_key *key, bint offloads)
    c_bool engine_rekey_sender(engine *self, uint32_t sender, const engine_key *key)
    bint engine_set_route(engine *self, uint32_t sender, const relay_hop *hop)
    void engine_detach_sender(engine *self, uint32_t sender)
    void engine_remove_sender(engine *self, uint32_t sender)
    bint engine_queue_entry(engine *self, uint32_t sender, uint8_t kind, const uint8_t *body, size_t size)
    size_t engine_seal_last(engine *self, uint32_t sender, uint8_t *room)
    bint c_sender "engine_sender"(engine *self, uint32_t sender, engine_sender *out)
    uint64_t engine_sender_reported(engine *self, uint32_t sender, uint64_t counter, uint64_t now)
    void engine_notify_sent(engine *self, uint32_t sender)
    uint32_t engine_add_receiver(
        engine *self, const engine_network *sources, size_t count, const engine_key *key, bint offloads)
    c_bool engine_rekey_receiver(engine *self, uint32_t receiver, const engine_key *key)
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
    bint engine_receive_frame(engine *self, uint32_t link, uint16_t stream, const uint8_t *frame, size_t size)
    bint engine_reset_streams(engine *self, uint32_t link, const uint16_t *streams, size_t count)
    enum engine_channel:
        pass
    bint engine_map(engine *self, uint32_t link, uint16_t stream, uint64_t tether, unsigned index, uint32_t lifetime_ms, engine_channel how)
    void engine_unmap(engine *self, uint32_t link, uint64_t tether)
    bint c_link "engine_link"(engine *self, uint32_t link, engine_link *out)
    void engine_drops(engine *self, uint64_t *out)
    engine_counts c_counts "engine_counts"(engine *self)
