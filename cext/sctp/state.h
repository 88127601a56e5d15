/* What the parts of one SCTP association share; no other part of cext/ includes this.
 *
 *     association.c  a packet in and out, time          opening.c ending.c  its beginning and its end
 *     send.c         what the next packet carries       outbox.c  the queue, and what was sent, by TSN
 *     loss.c         acknowledged or lost               pace.c timers.c  when
 *     forward.c      messages given up                  message.c streams.c answers.c  records
 *     receive.c      what came                          reset.c mtu.c  stream resets, packet size */

#ifndef CONFLUX_SCTP_PRIVATE_H
#define CONFLUX_SCTP_PRIVATE_H

#include <stdlib.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/mix.h"
#include "rate/rate.h"
#include "sctp/chunk.h"
#include "sctp/crc32c.h"
#include "sctp/ring.h"
#include "sctp/sctp.h"

/* RFC 9260 suggests 1 s and 60 s for any path.  A hop is shorter, and Linux allows TCP 200 ms as well. */
#define SCTP_RTO_INITIAL_NS (500 * MS_NS)
#define SCTP_RTO_MIN_NS (200 * MS_NS)
#define SCTP_RTO_MAX_NS (5 * SECOND_NS)
#define SCTP_SACK_DELAY_NS (5 * MS_NS) /* after one lone packet: long enough for an answer to carry the SACK */
/* Of silence.  RFC 9260 has 30 s, and lets it be off: ICE asks for consent more often, and finds a peer that is gone. */
#define SCTP_HEARTBEAT_NS (300 * SECOND_NS)
#define SCTP_HEARTBEAT_ANSWER_NS (30 * SECOND_NS) /* then it is sent again, and again after each RTO */
#define SCTP_COOKIE_LIFE_NS (60 * SECOND_NS) /* RFC 9260's figure */

enum {
    SCTP_RETRANSMITS_INIT_MAX = 8, /* RFC 9260, section 16 */
    SCTP_RETRANSMITS_MAX_ASSOCIATION = 10, /* the same; half a minute with the RTOs above */

    SCTP_TSN_SPAN_MAX = 65536, /* a SACK's gap blocks reach no further */
    SCTP_TSN_SPAN_MIN = 256, /* of a new ring; both are powers of two and multiples of 64 */

    SCTP_CONTROL_BYTES_MAX = 1040, /* of answers that wait: with a SACK they fit the smallest packet */
    SCTP_DUPLICATES_MAX = 16, /* reported in one SACK */
    SCTP_STREAMS_PER_BLOCK = 64,
    SCTP_STREAM_BLOCK_COUNT = SCTP_STREAM_COUNT_MAX / SCTP_STREAMS_PER_BLOCK,
    SCTP_RESET_STREAMS_MAX = 128, /* in one request of ours; more wait for the next */
    SCTP_OVERRUN_BYTES = 4 * SCTP_MESSAGE_BYTES_MAX, /* the next chunk in order may exceed the window by this much */
    SCTP_RECORD_BYTES = 64, /* what a fragment or message that waits costs besides its data, at most */
    SCTP_SPARES_MAX = 256, /* records kept for the next use */
    SCTP_COOKIE_BYTES_MAX = SCTP_PACKET_BYTES_MIN - SCTP_HEADER_BYTES - SCTP_CHUNK_HEADER_BYTES,
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

/* One message on its way out.  It lives until every TSN it was given is acknowledged cumulatively. */
struct sctp_outgoing {
    struct sctp_message *message; /* NULL: given up, or the record is spare */
    struct sctp_outgoing *next; /* the next in the queue, or the next spare record */
    uint64_t expires_at; /* or when it was given up */
    uint32_t size, offset; /* bytes in all; bytes sent once */
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
    uint64_t order; /* of that packet, among all packets with data */
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
    uint16_t forward_index; /* its place in the FORWARD-TSN that is being written, if it has one */
    bool resetting;
};

/* A fragment whose predecessor has not come. */
struct sctp_fragment {
    uint32_t ppid;
    uint16_t stream, ssn, size;
    uint8_t flags;
    uint8_t data[];
};

/* A message in the making: all its fragments up to the TSN before the place in the ring where it stands. */
struct sctp_assembly {
    struct sctp_assembly *next; /* spare */
    struct sctp_message *message; /* NULL: too large; its rest is ignored */
    uint32_t ppid;
    uint16_t stream, ssn;
    bool unordered;
};

/* A TSN's place in the ring: at most one of the two stands there. */
struct sctp_place {
    struct sctp_fragment *fragment; /* it came, and waits for its predecessor */
    struct sctp_assembly *assembly; /* it waits for this TSN */
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

/* What the next packets owe the peer.  All of it ends with the association, but for the last two. */
struct sctp_due {
    bool init, init_ack, cookie_echo; /* what opens */
    bool sack, forward, reset, heartbeat, mtu; /* chunks of an open association; sack: do not wait for data */
    bool probe; /* data, to find out what became of the end of a burst */
    bool shutdown, shutdown_ack; /* what closes */
    bool shutdown_complete, abort;
};

/* When each timer fires; NEVER: it is off. */
struct sctp_timers {
    uint64_t t1_at, t2_at; /* INIT or COOKIE-ECHO, and SHUTDOWN, once more (RFC 9260, sections 4 and 9.2) */
    uint64_t t3_at; /* everything in flight is lost */
    uint64_t probe_at; /* the end of a burst was not answered */
    uint64_t loss_at; /* the oldest chunk in flight is lost, unless it is acknowledged before */
    uint64_t sack_at; /* a SACK waits no longer for data to go with it */
    uint64_t reset_at, heartbeat_at, mtu_at;
};

/* While it opens. */
struct sctp_opening {
    uint8_t *cookie; /* the peer's, until acknowledged */
    size_t cookie_size;
    uint8_t init_parameters[64]; /* of the peer's INIT: those it must be told are unknown */
    size_t init_parameters_size;
    uint8_t init_cookie[64]; /* ours, for the INIT-ACK */
    uint32_t init_tag; /* where the INIT-ACK goes */
    unsigned init_count;
};

/* Answers that wait for a packet, as whole chunks. */
struct sctp_answers {
    uint8_t bytes[SCTP_CONTROL_BYTES_MAX];
    size_t size;
};

/* Messages on their way out, and the chunks they became. */
struct sctp_out {
    struct sctp_outgoing *unsent_first, *unsent_last; /* a queue: only its first message may be sent in part */
    struct sctp_outgoing *spare;
    unsigned spare_count;
    uint64_t unsent_bytes; /* in the queue, not sent once */
    uint64_t accepted_bytes; /* of all messages kept, with their records: bounded by send_bytes_max */
    struct sctp_sent *sent; /* ring by TSN, from tsn_acked + 1 until tsn_next */
    uint64_t *open_bits; /* the same ring: in flight or lost */
    uint64_t *abandoned_bits; /* given up before it was acknowledged */
    uint32_t span; /* of the ring */
    uint32_t tsn_next, tsn_acked; /* to be given; the peer's cumulative acknowledgement */
    uint32_t abandoned_count; /* above tsn_acked */
    struct sctp_list inflight, lost;
    uint64_t inflight_bytes;
    struct sctp_stream_out *streams[SCTP_STREAM_BLOCK_COUNT];
    uint32_t tsn_forward; /* up to here nothing is owed: RFC 3758's Advanced.Peer.Ack.Point */
    uint32_t forward_told; /* how far the last FORWARD-TSN went */
    uint64_t forward_sent_at;
};

/* What tells a chunk that is late from one that is lost. */
struct sctp_loss {
    uint64_t order_next, order_acked; /* of packets with data: the next; the newest acknowledged */
    uint64_t rtt_acked_ns; /* that packet's */
    bool reordering; /* this path was seen to reorder */
    unsigned reordering_quarters; /* of the RTT: how late a packet may be */
    bool probe_used; /* since the last acknowledgement */
};

struct sctp_rtt {
    uint64_t srtt_ns, rttvar_ns; /* RFC 9260, section 6.3.1; 0: not measured yet */
    uint64_t min_ns; /* the least ever measured */
    uint64_t rto_ns;
    unsigned rto_doublings; /* by timeouts in a row */
};

struct sctp_pace {
    uint64_t at; /* when the next packet may go, if the windows let it */
    uint64_t burst_ns; /* how far `at` may lie behind */
    uint64_t ns_per_kib;
    bool holds; /* pacing stopped the last packet that wanted to go */
    bool waits; /* data has waited for it ever since: a late thread was not idle */
    bool idle_told; /* rate.h knows, since the last packet, that nothing waits */
};

/* What came, and is not handed on. */
struct sctp_in {
    uint32_t tsn_received; /* cumulative */
    uint32_t reach; /* the highest TSN received lies so far above it */
    struct sctp_place *places; /* ring by TSN */
    uint64_t *received_bits; /* the same ring: received above tsn_received */
    uint32_t span; /* of the ring */
    uint32_t fragment_count;
    uint64_t held_bytes; /* of all that waits, with its records: counted against our window */
    struct sctp_assembly *spare;
    unsigned spare_count;
    uint32_t size_hint_bytes; /* of the last message of more than one fragment */
    struct sctp_stream_in *streams[SCTP_STREAM_BLOCK_COUNT];
    bool sack_wanted; /* data came since the last SACK */
    unsigned sack_packets; /* with data since the last SACK */
    bool packet_had_data, packet_had_sack; /* the packet that is being read */
    uint32_t duplicates[SCTP_DUPLICATES_MAX];
    unsigned duplicate_count;
    bool stream_error_told; /* in this batch */
};

/* Resets of our own streams. */
struct sctp_reset {
    uint64_t wanted[SCTP_STREAM_COUNT_MAX / 64]; /* streams, as bits, that wait for a request */
    uint32_t wanted_count;
    uint16_t streams[SCTP_RESET_STREAMS_MAX]; /* of the request under way */
    unsigned count; /* 0: none is under way */
    uint32_t sequence; /* of the request under way, or of the next */
    uint32_t tsn; /* the last given before the request */
    unsigned tries;
};

/* The peer's newest request for a reset, and what we said to it. */
struct sctp_request {
    uint32_t sequence;
    uint32_t result;
    bool deferred; /* it waits until all that was sent before it has come */
    bool waited; /* it was not granted at once: the peer was told "in progress" */
    bool taken; /* one was, in this batch */
    uint32_t tsn;
    uint16_t *streams;
    size_t count;
};

/* The search for the largest packet. */
struct sctp_mtu {
    uint32_t probe_bytes; /* 0: not searching */
    uint32_t failed_bytes; /* the smallest size known not to pass, or above all */
    unsigned filled; /* packets sent as full as they may be, up to those that begin the search */
    unsigned tries, holes;
    uint64_t nonce;
    unsigned large_lost, large_timeouts; /* of packets above the base size, since one came through */
    uint64_t large_lost_at;
};

struct sctp {
    struct sctp_config config;
    const struct sctp_handler *handler;
    void *context;
    crc32c_update crc;
    struct sctp_counts counts;
    uint64_t random; /* state of mix64_next(): for nonces and jitter, nothing secret */

    enum sctp_phase phase;
    enum sctp_end why; /* it has ended */
    bool end_told;
    uint16_t abort_cause;

    uint32_t tag_local, tag_remote;
    uint32_t tsn_first; /* of ours */
    uint16_t streams_out, streams_in; /* what the peer receives; what it may use */
    bool forward_supported, reset_supported;
    uint64_t peer_window; /* bytes, as the peer's newest SACK says */
    uint32_t packet_bytes, packet_bytes_max; /* of one packet: as the path is known to carry; as is worth a probe */
    uint64_t heard_at;
    uint64_t heartbeat_nonce; /* of the one that is not answered; 0: none */
    unsigned shutdown_count; /* of T2's retransmissions */
    unsigned error_count; /* of timeouts in a row, of data or of heartbeats */

    struct sctp_due due;
    struct sctp_timers timers;
    struct sctp_opening opening;
    struct sctp_answers answers;
    struct sctp_out out;
    struct sctp_loss loss;
    struct sctp_rtt rtt;
    struct sctp_pace pace;
    struct rate rate;
    struct sctp_in in;
    struct sctp_reset reset;
    struct sctp_request request;
    struct sctp_mtu mtu;
};

/* --- what was sent, by TSN -------------------------------------------------------------------------------------- */

static inline struct sctp_sent *sent_at(const struct sctp *self, uint32_t tsn)
{
    return &self->out.sent[tsn & (self->out.span - 1)];
}

static inline uint32_t sent_ring_used(const struct sctp *self) { return self->out.tsn_next - self->out.tsn_acked - 1; }

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

    CHECK(list->count > 0);
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
    bit_set(self->out.abandoned_bits, self->out.span, tsn);
    self->out.abandoned_count++;
}

static inline uint64_t rto_now(const struct sctp *self)
{
    return earlier(self->rtt.rto_ns << self->rtt.rto_doublings, SCTP_RTO_MAX_NS);
}

static inline bool sctp_carries(const struct sctp *self) /* data may come or go */
{
    return self->phase >= SCTP_ESTABLISHED && self->phase < SCTP_SHUTDOWN_ACK_SENT;
}

/* --- ending.c ---------------------------------------------------------------------------------------------------- */

void sctp_end(struct sctp *self, enum sctp_end why); /* closed() is called later, when no caller is inside a message */
void sctp_end_abort(struct sctp *self, uint16_t cause, enum sctp_end why); /* the same, after an ABORT */
void sctp_end_violation(struct sctp *self, uint16_t cause); /* the peer broke a rule: ABORT */

/* --- opening.c --------------------------------------------------------------------------------------------------- */

void sctp_opening_done(struct sctp *self, uint64_t now); /* the peer has our cookie: established */
void sctp_opening_receive_init_untrusted(struct sctp *self, const uint8_t *chunk, size_t size, uint64_t now);
void sctp_opening_receive_init_ack_untrusted(struct sctp *self, const uint8_t *chunk, size_t size, uint64_t now);
void sctp_opening_receive_cookie_untrusted(struct sctp *self, const uint8_t *chunk, size_t size, uint64_t now);
void sctp_opening_receive_error_untrusted(struct sctp *self, const uint8_t *chunk, size_t size);
/* Write the chunk that is due; returns its end. */
uint8_t *sctp_opening_put_init(struct sctp *self, uint8_t *at);
uint8_t *sctp_opening_put_init_ack(struct sctp *self, uint8_t *at);
void sctp_opening_timeout(struct sctp *self, uint64_t now);

/* --- answers.c --------------------------------------------------------------------------------------------------- */

/* Room for the body of an answer; NULL: too many wait. */
uint8_t *sctp_answers_add(struct sctp *self, uint8_t type, uint8_t flags, size_t body);
void sctp_answers_heartbeat_untrusted(struct sctp *self, const uint8_t *chunk, size_t size);
void sctp_answers_unknown_untrusted(struct sctp *self, const uint8_t *chunk, size_t size);

/* --- streams.c --------------------------------------------------------------------------------------------------- */

/* NULL: above SCTP_STREAM_COUNT_MAX, not there and not to be made, or no memory. */
struct sctp_stream_out *sctp_streams_out(struct sctp *self, uint16_t stream, bool make);
struct sctp_stream_in *sctp_streams_in(struct sctp *self, uint16_t stream, bool make);
void sctp_streams_in_clear(struct sctp *self, struct sctp_stream_in *stream); /* drop what waits; SSNs begin anew */
void sctp_streams_in_reset(struct sctp *self, uint16_t stream); /* the same by number, if the stream is there */
bool sctp_streams_push(struct sctp_stream_in *stream, struct sctp_ordered item); /* false: no memory */
struct sctp_ordered sctp_streams_pop(struct sctp_stream_in *stream); /* the message whose turn is next */

/* --- outbox.c ---------------------------------------------------------------------------------------------------- */

bool sctp_outbox_grow(struct sctp *self); /* double the ring; false: no memory */
void sctp_outbox_drop(struct sctp *self); /* all that waits or is in flight */
void sctp_outbox_recycle(struct sctp *self, struct sctp_outgoing *outgoing); /* no TSN and no queue holds it */
/* The first message of the queue is sent in full, or given up.  True: its stream can be reset now. */
bool sctp_outbox_shift(struct sctp *self);

static inline bool outbox_exhausted(const struct sctp *self) { return sent_ring_used(self) >= SCTP_TSN_SPAN_MAX - 1; }

/* Make room for one TSN more.  False: there is none; without memory the association is over as well. */
static inline bool outbox_reserve(struct sctp *self)
{
    if (outbox_exhausted(self))
        return false;
    if (sent_ring_used(self) < self->out.span || sctp_outbox_grow(self))
        return true;
    sctp_end(self, SCTP_END_MEMORY);
    return false;
}

/* What a message counts for in send_bytes_max: its record too, or a million messages of one byte would be free. */
static inline uint64_t outbox_cost(const struct sctp_outgoing *outgoing) { return outgoing->size + sizeof *outgoing; }

static inline struct sctp_outgoing *outbox_new(struct sctp *self) /* NULL: no memory */
{
    struct sctp_outgoing *outgoing = self->out.spare;

    if (outgoing == NULL)
        return malloc(sizeof *outgoing);
    self->out.spare = outgoing->next;
    self->out.spare_count--;
    return outgoing;
}

/* Give a message its next TSN; there is room. */
static inline uint32_t outbox_give_tsn(struct sctp *self, struct sctp_outgoing *outgoing)
{
    uint32_t tsn = self->out.tsn_next++;

    if (outgoing->tsn_count++ == 0)
        outgoing->tsn_first = tsn;
    outgoing->tsn_left++;
    *sent_at(self, tsn) = (struct sctp_sent){.outgoing = outgoing};
    CHECK(sent_ring_used(self) <= self->out.span);
    return tsn;
}

/* --- send.c ------------------------------------------------------------------------------------------------------ */

bool sctp_send_start(struct sctp *self, uint64_t now); /* false: no memory */
bool sctp_send_wanted(const struct sctp *self); /* data wants to go, and the windows have room */
size_t sctp_send_put(struct sctp *self, uint8_t *packet, size_t used, size_t room, uint64_t now);

/* --- pace.c ------------------------------------------------------------------------------------------------------ */

void sctp_pace_refresh(struct sctp *self); /* the rate may have changed */
void sctp_pace_sent(struct sctp *self, uint64_t bytes, uint64_t inflight_before, uint64_t now);

/* --- forward.c --------------------------------------------------------------------------------------------------- */

void sctp_forward_abandon(struct sctp *self, struct sctp_outgoing *outgoing, uint64_t now);
void sctp_forward_refresh(struct sctp *self, uint64_t now);
void sctp_forward_expire(struct sctp *self, uint64_t now);
size_t sctp_forward_put(struct sctp *self, uint8_t *at, size_t room, uint64_t now);

/* --- loss.c ------------------------------------------------------------------------------------------------------ */

void sctp_loss_receive_sack_untrusted(struct sctp *self, const uint8_t *chunk, size_t size, uint64_t now);
void sctp_loss_acknowledge(struct sctp *self, uint32_t tsn, uint64_t now); /* cumulatively, as SHUTDOWN does */
void sctp_loss_timeout(struct sctp *self, uint64_t now);
void sctp_loss_probe_timeout(struct sctp *self, uint64_t now);
void sctp_loss_t3_timeout(struct sctp *self, uint64_t now);

/* --- timers.c ---------------------------------------------------------------------------------------------------- */

void sctp_timers_stop(struct sctp *self); /* all of them */
void sctp_timers_start(struct sctp *self); /* nothing is in flight, and no round trip is measured */
void sctp_timers_rtt(struct sctp *self, uint64_t rtt_ns); /* one measured round trip */
void sctp_timers_restart(struct sctp *self, uint64_t now); /* those of what is in flight */

/* --- receive.c --------------------------------------------------------------------------------------------------- */

bool sctp_receive_start(struct sctp *self); /* false: no memory */
void sctp_receive_drop(struct sctp *self);
void sctp_receive_data_untrusted(struct sctp *self, const uint8_t *chunk, size_t size);
void sctp_receive_forward_untrusted(struct sctp *self, const uint8_t *chunk, size_t size);
size_t sctp_receive_put_sack(struct sctp *self, uint8_t *at, size_t room);
uint32_t sctp_receive_window(const struct sctp *self); /* what we advertise */

/* --- reset.c ----------------------------------------------------------------------------------------------------- */

void sctp_reset_receive_untrusted(struct sctp *self, const uint8_t *chunk, size_t size, uint64_t now);
void sctp_reset_prepare(struct sctp *self); /* make a request, if one is wanted and may go */
size_t sctp_reset_put(struct sctp *self, uint8_t *at, size_t room, uint64_t now);
void sctp_reset_timeout(struct sctp *self, uint64_t now);
void sctp_reset_deferred(struct sctp *self); /* more has come: grant the request that waited for it */

/* --- mtu.c ------------------------------------------------------------------------------------------------------- */

bool sctp_mtu_waits(const struct sctp *self); /* the search has not begun: little was sent */
void sctp_mtu_filled(struct sctp *self, uint64_t now); /* a packet went that had room for no more */
void sctp_mtu_timeout(struct sctp *self, uint64_t now);
size_t sctp_mtu_put_probe(struct sctp *self, uint8_t *packet, size_t room, uint64_t now);
bool sctp_mtu_answered(struct sctp *self, uint64_t nonce, uint64_t now); /* false: not our probe's nonce */
void sctp_mtu_lost(struct sctp *self, uint32_t bytes, uint64_t sent_at, uint64_t now);
void sctp_mtu_timed_out(struct sctp *self, uint64_t now);

#endif
