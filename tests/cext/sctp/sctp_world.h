/* Two associations and the network between them, in simulated time and by seed.  A test describes a world, runs it,
 * and reads the result. */

#ifndef SCTP_WORLD_H
#define SCTP_WORLD_H

#include <stdint.h>

#include "sctp/sctp.h"

enum { WORLD_STREAMS_MAX = 64 };

/* One direction of the wire.  ppm: parts per million. */
struct world_wire {
    uint64_t delay_ns, jitter_ns; /* jitter reorders */
    uint32_t loss_ppm, duplicate_ppm, flip_ppm;
    uint64_t rate_bytes_s; /* 0: no bottleneck */
    uint64_t queue_bytes; /* before the bottleneck; more is dropped */
    uint32_t packet_bytes_max; /* larger packets are lost; 0: none are */
    uint64_t cut_from_ns, cut_until_ns; /* every packet is lost */
    uint64_t narrow_from_ns; /* from then on packet_bytes_narrow holds */
    uint32_t packet_bytes_narrow;
};

/* What one side sends. */
struct world_load {
    uint32_t messages; /* how many */
    uint32_t size_min, size_max;
    uint16_t streams;
    uint8_t unordered; /* 0: none, 1: all, 2: every other */
    int32_t reliability;
    uint32_t reliability_value;
    uint64_t gap_ns; /* between two messages; 0: as fast as sctp_room() says */
    uint32_t pings, ping_bytes; /* the first messages have this size, */
    uint64_t ping_gap_ns; /* and this time passes after each of them */
};

struct world_config {
    uint64_t seed;
    uint64_t until_ns; /* the world ends then, or when all is delivered and quiet */
    uint32_t packet_bytes_max, window_bytes, send_bytes_max;
    uint8_t connect; /* bit 0: a, bit 1: b */
    uint8_t close_at_end; /* 0: no, 1: a shuts down, 2: a aborts */
    uint8_t reset_at_end; /* a resets its streams when all was sent */
    uint8_t stop_when_done;
    uint64_t stall_from_ns, stall_until_ns; /* b is not run, like a peer that hangs */
    uint64_t turn_ns[2]; /* a, b: the least time between two turns, as on a busy processor */
    struct world_wire wire[2]; /* a to b, b to a */
    struct world_load load[2];
};

struct world_side {
    uint32_t opened, closed, end; /* how often; why */
    uint32_t resets_in, resets_out, resets_refused;
    uint32_t sent, delivered; /* messages */
    uint32_t twice, misordered, corrupted; /* of those that came here */
    uint64_t delivered_bytes, delivered_last_ns, opened_ns;
    uint64_t latency_sum_ns, latency_max_ns;
    uint64_t held_bytes_max, unsent_bytes_max;
    uint64_t wire_packets, wire_dropped;
    struct sctp_counts counts;
    struct sctp_state state;
};

struct world_result {
    uint64_t now_ns;
    uint64_t events;
    struct world_side side[2];
};

/* False: no memory, or the events do not end. */
bool world_run(const struct world_config *config, struct world_result *result);

#endif
