/* What the parts of one SCTP association share.  sctp.c: its life and its timers; sctp_send.c: messages on their way
 * out; sctp_loss.c: what became of them; sctp_receive.c: what came; sctp_reset.c: stream resets; sctp_mtu.c: how large
 * a packet may be.  Nobody else includes this. */

#ifndef CONFLUX_SCTP_PRIVATE_H
#define CONFLUX_SCTP_PRIVATE_H

#include "crc32c.h"
#include "rate.h"
#include "sctp.h"

#define SCTP_NEVER UINT64_MAX
#define SCTP_MS_NS UINT64_C(1000000)
#define SCTP_SECOND_NS UINT64_C(1000000000)

/* RFC 9260 suggests 1 s and 60 s for any path; a hop is shorter, and Linux allows TCP 200 ms as well. */
#define SCTP_RTO_INITIAL_NS (500 * SCTP_MS_NS)
#define SCTP_RTO_MIN_NS (200 * SCTP_MS_NS)
#define SCTP_RTO_MAX_NS (5 * SCTP_SECOND_NS)
#define SCTP_SACK_DELAY_NS (5 * SCTP_MS_NS) /* for one lone packet: long enough for an answer to carry it */
#define SCTP_HEARTBEAT_NS (30 * SCTP_SECOND_NS) /* of silence; RFC 9260's own figure */
#define SCTP_COOKIE_LIFE_NS (60 * SCTP_SECOND_NS) /* RFC 9260's own figure */

enum {
    SCTP_HEADER_BYTES = 12,
    SCTP_CHUNK_HEADER_BYTES = 4,
    SCTP_DATA_HEADER_BYTES = 16,
    SCTP_RETRANSMITS_INIT_MAX = 8, /* RFC 9260, section 16 */
    SCTP_RETRANSMITS_MAX_ASSOCIATION = 10, /* the same; half a minute with the RTOs above */

    SCTP_TSN_SPAN_MAX = 65536, /* a SACK's gap blocks reach no further */
    SCTP_TSN_SPAN_MIN = 256, /* rings begin with this; both are powers of two and multiples of 64 */

    SCTP_CONTROL_BYTES_MAX = 1040, /* answers waiting; with a SACK they fit the smallest packet, more is dropped */
    SCTP_DUPLICATES_MAX = 16, /* reported in one SACK */
    SCTP_STREAMS_PER_BLOCK = 64,
    SCTP_STREAM_BLOCK_COUNT = SCTP_STREAM_COUNT_MAX / SCTP_STREAMS_PER_BLOCK,
    SCTP_RESET_STREAMS_MAX = 128, /* of one request of ours; more wait for the next */
    SCTP_OVERRUN_BYTES = 4 * SCTP_MESSAGE_BYTES_MAX, /* the chunk all others wait for may exceed the window by this */
    SCTP_SPARES_MAX = 256, /* records kept for use again */
    SCTP_COOKIE_BYTES_MAX = SCTP_PACKET_BYTES_MIN - SCTP_HEADER_BYTES - SCTP_CHUNK_HEADER_BYTES,
};

enum sctp_chunk {
    SCTP_DATA = 0,
    SCTP_INIT = 1,
    SCTP_INIT_ACK = 2,
    SCTP_SACK = 3,
    SCTP_HEARTBEAT = 4,
    SCTP_HEARTBEAT_ACK = 5,
    SCTP_ABORT = 6,
    SCTP_SHUTDOWN = 7,
    SCTP_SHUTDOWN_ACK = 8,
    SCTP_ERROR = 9,
    SCTP_COOKIE_ECHO = 10,
    SCTP_COOKIE_ACK = 11,
    SCTP_SHUTDOWN_COMPLETE = 14,
    SCTP_RECONFIG = 130,
    SCTP_PAD = 132,
    SCTP_FORWARD_TSN = 192,
};

enum { SCTP_FLAG_END = 1, SCTP_FLAG_BEGIN = 2, SCTP_FLAG_UNORDERED = 4, SCTP_FLAG_IMMEDIATE = 8 };

enum sctp_cause {
    SCTP_CAUSE_STREAM = 1,
    SCTP_CAUSE_STALE_COOKIE = 3,
    SCTP_CAUSE_CHUNK_TYPE = 6,
    SCTP_CAUSE_NO_DATA = 9,
    SCTP_CAUSE_USER = 12,
    SCTP_CAUSE_VIOLATION = 13,
};

/* RFC 9260, section 4; ENDED is its CLOSED with a past. */
enum sctp_phase {
    SCTP_CLOSED,
    SCTP_COOKIE_WAIT,
    SCTP_COOKIE_ECHOED,
    SCTP_ESTABLISHED,
    SCTP_SHUTDOWN_PENDING,
    SCTP_SHUTDOWN_SENT,
    SCTP_SHUTDOWN_RECEIVED,
    SCTP_SHUTDOWN_ACK_SENT,
    SCTP_ENDED,
};

/* One message on its way out.  Lives until every TSN it was given is acknowledged cumulatively. */
struct sctp_outgoing {
    struct sctp_message *message; /* NULL: given up, or the record is spare */
    struct sctp_outgoing *next; /* waiting after it; or spare */
    uint64_t expires_at; /* or when it was given up */
    uint32_t size, offset; /* bytes in all; sent once */
    uint32_t ppid;
    uint32_t retransmits_max; /* UINT32_MAX: no limit */
    uint32_t tsn_first, tsn_count; /* given so far */
    uint32_t tsn_left; /* not yet acknowledged cumulatively */
    uint16_t stream, ssn;
    bool unordered, abandoned;
};

enum sctp_fate { SCTP_INFLIGHT, SCTP_LOST, SCTP_ACKED, SCTP_GONE /* given up, and not in flight */ };

/* One TSN, in a ring by TSN. */
struct sctp_sent {
    struct sctp_outgoing *outgoing;
    struct rate_mark mark; /* of the packet that carried it last */
    uint64_t order; /* of that packet, among all that carried data */
    uint32_t offset; /* in the message */
    uint32_t older, newer; /* neighbours in the list it stands in */
    uint16_t size; /* of user data */
    uint16_t wire_bytes; /* its share of the packet */
    uint16_t sent_count;
    uint8_t flags;
    uint8_t fate;
};

/* TSNs in the order in which they were sent, or lost; linked through struct sctp_sent. */
struct sctp_list {
    uint32_t oldest, newest, count;
};

struct sctp_stream_out {
    uint32_t waiting; /* messages not sent in full */
    uint16_t ssn_next;
    uint16_t forward_index; /* where it is named in the FORWARD-TSN being written, if it is */
    bool resetting;
};

/* A fragment whose predecessor has not come. */
struct sctp_fragment {
    uint32_t ppid;
    uint16_t stream, ssn, size;
    uint8_t flags;
    uint8_t data[];
};

/* A message being put together: all its fragments up to the TSN at whose place in the ring it stands. */
struct sctp_assembly {
    struct sctp_assembly *next; /* spare */
    struct sctp_message *message; /* NULL: too large, its rest is ignored */
    uint32_t ppid;
    uint16_t stream, ssn;
    bool unordered;
};

/* What stands at a TSN's place: at most one of them. */
struct sctp_place {
    struct sctp_fragment *fragment; /* came, waits for its predecessor */
    struct sctp_assembly *assembly; /* waits for this TSN */
};

struct sctp_ordered {
    struct sctp_message *message;
    uint32_t ppid;
    uint16_t ssn;
};

struct sctp_stream_in {
    struct sctp_ordered *waiting; /* a heap by SSN */
    uint32_t waiting_count, waiting_room;
    uint16_t ssn_next;
};

struct sctp {
    struct sctp_config config;
    const struct sctp_handler *handler;
    void *context;
    crc32c_update crc;
    struct sctp_counts counts;
    enum sctp_phase phase;
    enum sctp_end why;
    bool end_told, abort_due, abort_reflected;
    uint16_t abort_cause;

    /* --- the two ends --- */
    uint32_t tag_local, tag_remote;
    uint32_t tsn_first; /* of ours */
    uint16_t streams_out; /* what the peer receives */
    bool forward_supported, reset_supported;

    /* --- answers and what opens and closes --- */
    uint8_t control[SCTP_CONTROL_BYTES_MAX]; /* whole chunks */
    size_t control_size;
    uint8_t *cookie; /* the peer's, until acknowledged */
    size_t cookie_size;
    uint8_t init_parameters[64]; /* of the peer's INIT: what it must be told we do not know */
    size_t init_parameters_size;
    uint8_t init_cookie[64];
    uint32_t init_tag; /* where the INIT-ACK goes */
    bool init_due, init_ack_due, cookie_echo_due, shutdown_due, shutdown_ack_due, shutdown_complete_due;
    bool heartbeat_due;
    unsigned init_count, shutdown_count, error_count;
    uint64_t t1_at, t2_at, heartbeat_at, heard_at;
    uint64_t heartbeat_nonce;
    uint64_t random; /* state of a small generator: nonces and jitter, nothing secret */

    /* --- out --- */
    struct sctp_outgoing *unsent_first, *unsent_last, *outgoing_spare;
    unsigned outgoing_spare_count;
    uint64_t unsent_bytes, accepted_bytes;
    struct sctp_sent *sent; /* ring by TSN */
    uint64_t *open_bits; /* the same ring: in flight or lost */
    uint64_t *abandoned_bits; /* given up before it was acknowledged */
    uint32_t sent_span;
    uint32_t tsn_next, tsn_acked; /* to be given; the peer's cumulative acknowledgement */
    uint32_t tsn_forward; /* up to here nothing is owed: RFC 3758's Advanced.Peer.Ack.Point */
    uint32_t abandoned_count; /* above tsn_acked */
    struct sctp_list inflight, lost;
    uint64_t inflight_bytes;
    uint64_t peer_window;
    struct sctp_stream_out *out_blocks[SCTP_STREAM_BLOCK_COUNT];
    bool forward_due, probe_due, probe_used;
    uint32_t forward_told; /* how far the last FORWARD-TSN went */
    uint64_t forward_sent_at;

    /* --- loss and pace --- */
    struct rate rate;
    bool idle_told; /* to rate.h, since the last packet */
    uint64_t order_next, order_acked; /* of packets with data; the newest acknowledged */
    uint64_t rtt_acked; /* that packet's */
    bool reordering;
    unsigned reordering_quarters; /* of the RTT: how late a packet may be */
    uint64_t srtt, rttvar, rtt_min, rto;
    unsigned rto_doublings;
    uint64_t t3_at, probe_at, loss_at;
    uint64_t pace_at; /* when the next packet may go, if the window lets it */
    uint64_t burst_ns; /* how far pace_at may lie behind */
    bool pace_holds; /* it stopped the last packet that wanted to go */
    bool pace_waits; /* data has waited for it ever since: what comes late was not idle */
    uint64_t ns_per_kib; /* pacing */

    /* --- in --- */
    uint32_t tsn_received; /* cumulative */
    uint32_t received_reach; /* the highest TSN received lies so far above it */
    struct sctp_place *places; /* ring by TSN */
    uint64_t *received_bits; /* the same ring: received above tsn_received */
    uint32_t received_span;
    uint32_t fragment_count;
    uint64_t held_bytes;
    struct sctp_assembly *assembly_spare;
    unsigned assembly_spare_count;
    uint32_t size_hint; /* of the last message of more than one fragment */
    struct sctp_stream_in *in_blocks[SCTP_STREAM_BLOCK_COUNT];
    uint16_t streams_in; /* what the peer may use */
    bool sack_wanted, sack_now;
    unsigned sack_packets; /* with data since the last one */
    bool packet_had_data, packet_had_sack;
    uint64_t sack_at;
    uint32_t duplicates[SCTP_DUPLICATES_MAX];
    unsigned duplicate_count;
    bool stream_error_told; /* in this batch */

    /* --- stream resets --- */
    uint64_t reset_wanted[SCTP_STREAM_COUNT_MAX / 64]; /* ours to be asked for */
    uint32_t reset_wanted_count;
    uint16_t reset_streams[SCTP_RESET_STREAMS_MAX]; /* of the request under way */
    unsigned reset_count; /* 0: none */
    uint32_t reset_sequence; /* of the request under way, or the next */
    uint32_t reset_tsn;
    bool reset_due;
    unsigned reset_tries;
    uint64_t reset_at;
    uint32_t request_last; /* of the peer: the newest sequence number and what we said to it */
    uint32_t request_result;
    bool request_deferred;
    bool request_waited; /* it was not granted at once: the peer was told "in progress" */
    bool request_taken; /* in this batch */
    uint32_t request_tsn;
    uint16_t *request_streams;
    size_t request_count;

    /* --- packet size --- */
    uint32_t packet_bytes, packet_bytes_max;
    uint32_t mtu_probe; /* bytes; 0: not searching */
    uint32_t mtu_failed; /* the smallest size known not to pass, or above all */
    unsigned mtu_tries, mtu_holes;
    bool mtu_due;
    uint64_t mtu_at, mtu_nonce;
    unsigned large_lost, large_timeouts; /* of packets above the base size, since one came through */
    uint64_t large_lost_at;
};

/* --- numbers on the wire --------------------------------------------------------------------------------------- */

static inline uint16_t load_be16(const uint8_t *at) { return (uint16_t)(at[0] << 8 | at[1]); }

static inline uint32_t load_be32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static inline void store_be16(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static inline void store_be32(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 24);
    at[1] = (uint8_t)(value >> 16);
    at[2] = (uint8_t)(value >> 8);
    at[3] = (uint8_t)value;
}

static inline uint8_t *store_chunk_header(uint8_t *at, uint8_t type, uint8_t flags, size_t size)
{
    at[0] = type;
    at[1] = flags;
    store_be16(at + 2, (uint16_t)size);
    return at + SCTP_CHUNK_HEADER_BYTES;
}

static inline size_t padded(size_t size) { return (size + 3) & ~(size_t)3; }

/* Serial number arithmetic (RFC 1982). */
static inline bool tsn_after(uint32_t a, uint32_t b) { return (int32_t)(a - b) > 0; }
static inline bool ssn_after(uint16_t a, uint16_t b) { return (int16_t)(a - b) > 0; }

static inline uint64_t earlier(uint64_t a, uint64_t b) { return a < b ? a : b; }
static inline uint64_t later(uint64_t a, uint64_t b) { return a > b ? a : b; }

/* --- rings of bits by TSN; span is a power of two and a multiple of 64 ------------------------------------------- */

static inline bool bit_test(const uint64_t *bits, uint32_t span, uint32_t tsn)
{
    return bits[(tsn & (span - 1)) >> 6] >> (tsn & 63) & 1;
}

static inline void bit_set(uint64_t *bits, uint32_t span, uint32_t tsn)
{
    bits[(tsn & (span - 1)) >> 6] |= UINT64_C(1) << (tsn & 63);
}

static inline void bit_clear(uint64_t *bits, uint32_t span, uint32_t tsn)
{
    bits[(tsn & (span - 1)) >> 6] &= ~(UINT64_C(1) << (tsn & 63));
}

/* The first TSN from tsn on whose bit is as wanted, or limit if there is none before it.  limit - tsn <= span. */
static inline uint32_t bit_next(const uint64_t *bits, uint32_t span, uint32_t tsn, uint32_t limit, bool wanted)
{
    while (tsn != limit) {
        uint64_t word = bits[(tsn & (span - 1)) >> 6];
        uint32_t left = 64 - (tsn & 63);

        word = (wanted ? word : ~word) >> (tsn & 63);
        if (word != 0) {
            uint32_t skip = (uint32_t)__builtin_ctzll(word);
            return skip < limit - tsn ? tsn + skip : limit;
        }
        if (left >= limit - tsn)
            return limit;
        tsn += left;
    }
    return limit;
}

/* The last TSN from tsn on, and before limit, whose bit is set; tsn - 1 if there is none.  limit - tsn <= span. */
static inline uint32_t bit_last(const uint64_t *bits, uint32_t span, uint32_t tsn, uint32_t limit)
{
    while (tsn != limit) {
        uint32_t last = limit - 1, left = (last & 63) + 1;
        uint64_t word = bits[(last & (span - 1)) >> 6] << (64 - left);

        if (word != 0) {
            uint32_t skip = (uint32_t)__builtin_clzll(word);
            return skip < limit - tsn ? last - skip : tsn - 1;
        }
        if (left >= limit - tsn)
            return tsn - 1;
        limit -= left;
    }
    return tsn - 1;
}

/* --- what was sent, by TSN -------------------------------------------------------------------------------------- */

static inline struct sctp_sent *sent_at(const struct sctp *self, uint32_t tsn)
{
    return &self->sent[tsn & (self->sent_span - 1)];
}

static inline uint32_t sent_ring_used(const struct sctp *self) { return self->tsn_next - self->tsn_acked - 1; }

static inline void list_append(struct sctp *self, struct sctp_list *list, uint32_t tsn)
{
    sent_at(self, tsn)->older = list->newest;
    if (list->count++ == 0)
        list->oldest = tsn;
    else
        sent_at(self, list->newest)->newer = tsn;
    list->newest = tsn;
}

static inline void list_remove(struct sctp *self, struct sctp_list *list, uint32_t tsn)
{
    const struct sctp_sent *sent = sent_at(self, tsn);

    if (tsn == list->oldest)
        list->oldest = sent->newer;
    else
        sent_at(self, sent->older)->newer = sent->newer;
    if (tsn == list->newest)
        list->newest = sent->older;
    else
        sent_at(self, sent->newer)->older = sent->older;
    list->count--;
}

static inline void set_abandoned(struct sctp *self, uint32_t tsn)
{
    bit_set(self->abandoned_bits, self->sent_span, tsn);
    self->abandoned_count++;
}

static inline uint64_t rto_now(const struct sctp *self)
{
    return earlier(self->rto << self->rto_doublings, SCTP_RTO_MAX_NS);
}

/* --- sctp.c ----------------------------------------------------------------------------------------------------- */

void sctp_end(struct sctp *self, enum sctp_end why); /* over; closed() is called when it is safe */
void sctp_violation(struct sctp *self, uint16_t cause); /* the peer's: ABORT, and over */
uint8_t *sctp_control(struct sctp *self, uint8_t type, uint8_t flags, size_t body); /* room for an answer, or NULL */
uint64_t sctp_random(struct sctp *self);
void sctp_shutdown_if_drained(struct sctp *self, uint64_t now);
static inline bool sctp_carries(const struct sctp *self) /* data may come or go */
{
    return self->phase >= SCTP_ESTABLISHED && self->phase < SCTP_SHUTDOWN_ACK_SENT;
}

/* --- sctp_send.c ------------------------------------------------------------------------------------------------ */

bool sctp_send_start(struct sctp *self, uint64_t now); /* false: no memory */
void sctp_send_drop(struct sctp *self); /* all that waits or flies */
size_t sctp_put_forward(struct sctp *self, uint8_t *at, size_t room, uint64_t now);
size_t sctp_put_data(struct sctp *self, uint8_t *packet, size_t used, size_t room, uint64_t now);
bool sctp_data_wanted(const struct sctp *self); /* and the window has room */
void sctp_pace_refresh(struct sctp *self);
void sctp_expire(struct sctp *self, uint64_t now);
void sctp_abandon(struct sctp *self, struct sctp_outgoing *outgoing, uint64_t now);
void sctp_forward_refresh(struct sctp *self, uint64_t now);
void sctp_outgoing_recycle(struct sctp *self, struct sctp_outgoing *outgoing); /* no TSN and no queue holds it */
struct sctp_stream_out *sctp_stream_out(struct sctp *self, uint16_t stream, bool make);

/* --- sctp_loss.c ------------------------------------------------------------------------------------------------ */

void sctp_loss_start(struct sctp *self);
void sctp_receive_sack_untrusted(struct sctp *self, const uint8_t *chunk, size_t size, uint64_t now);
void sctp_acknowledge(struct sctp *self, uint32_t tsn, uint64_t now); /* cumulatively, as SHUTDOWN does */
void sctp_rtt_sample(struct sctp *self, uint64_t rtt);
void sctp_timers_restart(struct sctp *self, uint64_t now); /* of what is in flight */
void sctp_loss_timeout(struct sctp *self, uint64_t now);
void sctp_probe_timeout(struct sctp *self, uint64_t now);
void sctp_t3_timeout(struct sctp *self, uint64_t now);

/* --- sctp_receive.c --------------------------------------------------------------------------------------------- */

bool sctp_receive_start(struct sctp *self); /* false: no memory */
void sctp_receive_drop(struct sctp *self);
void sctp_receive_data_untrusted(struct sctp *self, const uint8_t *chunk, size_t size, uint64_t now);
void sctp_receive_forward_untrusted(struct sctp *self, const uint8_t *chunk, size_t size, uint64_t now);
size_t sctp_put_sack(struct sctp *self, uint8_t *at, size_t room);
void sctp_stream_in_reset(struct sctp *self, uint16_t stream);
uint32_t sctp_window_advertised(const struct sctp *self);

/* --- sctp_reset.c ----------------------------------------------------------------------------------------------- */

void sctp_receive_reconfig_untrusted(struct sctp *self, const uint8_t *chunk, size_t size, uint64_t now);
void sctp_reset_prepare(struct sctp *self); /* make a request, if one is wanted and may go */
size_t sctp_put_reset(struct sctp *self, uint8_t *at, size_t room, uint64_t now);
void sctp_reset_timeout(struct sctp *self, uint64_t now);
void sctp_reset_deferred(struct sctp *self); /* more has come: is it all the peer's request waits for? */

/* --- sctp_mtu.c ------------------------------------------------------------------------------------------------- */

void sctp_mtu_start(struct sctp *self, uint64_t now);
void sctp_mtu_timeout(struct sctp *self, uint64_t now);
size_t sctp_put_mtu_probe(struct sctp *self, uint8_t *packet, size_t room, uint64_t now);
bool sctp_mtu_answered(struct sctp *self, uint64_t nonce, uint64_t now); /* false: not ours */
void sctp_mtu_lost(struct sctp *self, uint32_t bytes, uint64_t sent_at, uint64_t now);
void sctp_mtu_timed_out(struct sctp *self, uint64_t now);

#endif
