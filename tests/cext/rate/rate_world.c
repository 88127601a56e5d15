/* A bottleneck and the flows that share it, packet by packet, by seed: senders paced by cext/rate/rate.c, CUBIC TCP,
 * plain UDP.  Prints one JSON object; test_paths.py judges it.  It is one program in one file: bottleneck, senders and
 * receivers share its clock and its events.
 *
 *     sender ─► [ drop-tail buffer │ rate ] ─► loss, delay, reordering ─► socket buffer ─► receiver ─┐
 *        ▲                                                                                           │
 *        └──────────────────── delay ◄── one acknowledgement per so many packets, or per batch ◄─────┘
 *
 * Usage: rate_world key=value... flow=kind,key=value,...    Times in ms, rates in Mbit/s; see the two tables below. */

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mix.h"
#include "rate/rate.h"

#define MS 1000000.0
#define NS_S 1e9

enum { FLOWS_MAX = 8, STEPS_MAX = 16, SPANS_MAX = 16 };

enum kind { OURS, CUBIC, UDP };

struct packet {
    struct rate_mark mark;
    uint64_t sent_at;
    uint32_t bytes;
    enum { FLYING, ARRIVED, ACKED, LOST } state;
    bool again; /* a retransmission of a packet that counted as lost */
};

struct span { double from, to, mbit, sent; }; /* what the application offers in that time; 0: without limit */

struct flow {
    enum kind kind;
    double start, stop, rtt; /* ms */
    double rtt_at, rtt_then; /* the RTT is rtt_then from then on */
    uint32_t bytes;
    int ack_every; /* packets; 0: one per batch that the receiver reads */
    double ack_delay; /* ms */
    double cpu_mbit; /* of the receiver; 0: without limit */
    double socket_kb;
    double stall_every, stall_max; /* ms, of the receiver's process */
    double slack; /* ms: how late the sender wakes at most */
    struct span spans[SPANS_MAX];
    int span_count;

    struct packet *packets;
    size_t packet_count, packet_room, oldest; /* all before `oldest` are acknowledged or lost */
    uint64_t inflight, newest_sent_at, backlog_again;
    double rtt_smooth, rtt_least;
    uint64_t rto_at, rto_event_at;
    int rto_row;
    struct rate rate;
    uint64_t pace_at, wake_at;
    bool was_idle;

    size_t *arrived; /* packet indexes in order of arrival at the application */
    size_t arrived_count, arrived_room, acked_count, told_count;
    int unacked;
    uint64_t ack_timer_at;
    size_t *socket; /* all that came; from head to tail they wait to be read */
    size_t socket_head, socket_tail, socket_room;
    uint64_t socket_bytes, cpu_free_at;
    bool cpu_busy;
    uint64_t stall_at;

    double cwnd, ssthresh, cubic_max, cubic_k, reno_cwnd; /* packets */
    uint64_t cubic_epoch;
    size_t recover;

    uint64_t good_bytes, lost_packets, dropped, sent_bytes;
};

enum what { QUEUE_SERVE, ARRIVE, ACK, WAKE, RTO, ACK_TIMER, CPU_DONE, BIN };

struct event {
    uint64_t at, order;
    enum what what;
    int flow;
    size_t value;
};

static struct {
    double seconds, bin, mbit, buffer_kb, loss, tbf_kb, aggregate, reorder, reorder_ms, jitter;
    uint64_t seed;
    struct { double at, mbit; } steps[STEPS_MAX];
    int step_count;
} world = {.seconds = 20, .bin = 5, .mbit = 50, .buffer_kb = 312.5, .reorder_ms = 2, .seed = 1};

static struct flow flows[FLOWS_MAX];
static int flow_count;
static struct event *heap;
static size_t heap_count, heap_room;
static uint64_t now, event_order, random_state;

/* The bottleneck's buffer: a ring of (flow, packet). */
static struct { int flow; size_t packet; } *queue;
static size_t queue_head, queue_tail, queue_room;
static uint64_t queue_bytes;
static bool serving;
static double tokens; /* bytes */
static uint64_t tokens_at;

static double uniform(void)
{
    return (double)(mix64_next(&random_state) >> 11) / 9007199254740992.0;
}

static void *grown(void *old, size_t bytes)
{
    void *new = realloc(old, bytes);
    if (new == NULL) {
        fprintf(stderr, "no memory\n");
        exit(2);
    }
    return new;
}

/* Make room for one more. */
static void *roomy(void *list, size_t count, size_t *room, size_t size)
{
    if (count < *room)
        return list;
    *room = *room * 2 + 4096;
    return grown(list, *room * size);
}

static bool sooner(const struct event *a, const struct event *b)
{
    return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void at(uint64_t when, enum what what, int flow, size_t value)
{
    heap = roomy(heap, heap_count, &heap_room, sizeof *heap);
    struct event event = {when < now ? now : when, event_order++, what, flow, value};
    size_t i = heap_count++;
    while (i > 0) {
        struct event *parent = &heap[(i - 1) / 2];
        if (sooner(parent, &event))
            break;
        heap[i] = *parent;
        i = (i - 1) / 2;
    }
    heap[i] = event;
}

static struct event next_event(void)
{
    struct event first = heap[0], last = heap[--heap_count];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= heap_count)
            break;
        if (child + 1 < heap_count && sooner(&heap[child + 1], &heap[child]))
            child++;
        if (sooner(&last, &heap[child]))
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return first;
}

static double link_mbit(void)
{
    double mbit = world.mbit;
    for (int i = 0; i < world.step_count; i++)
        if ((double)now >= world.steps[i].at * MS)
            mbit = world.steps[i].mbit;
    return mbit;
}

static double rtt_ms(const struct flow *flow)
{
    return flow->rtt_at > 0 && (double)now >= flow->rtt_at * MS ? flow->rtt_then : flow->rtt;
}

/* Bottleneck */

static void queue_serve_later(void)
{
    if (serving || queue_head == queue_tail)
        return;
    double bytes_ns = link_mbit() / 8e3;
    struct packet *packet = &flows[queue[queue_head].flow].packets[queue[queue_head].packet];
    uint64_t when;

    serving = true;
    if (world.tbf_kb > 0) { /* a token bucket, which fills while nothing is sent */
        tokens = fmin(world.tbf_kb * 1e3, tokens + (double)(now - tokens_at) * bytes_ns);
        tokens_at = now;
        when = now + (tokens >= packet->bytes ? 0 : (uint64_t)ceil((packet->bytes - tokens) / bytes_ns));
    } else
        when = now + (uint64_t)(packet->bytes / bytes_ns);
    at(when, QUEUE_SERVE, 0, 0);
}

static void queue_serve(void)
{
    int index = queue[queue_head].flow;
    size_t number = queue[queue_head].packet;
    struct flow *flow = &flows[index];
    uint32_t bytes = flow->packets[number].bytes;

    serving = false;
    if (world.tbf_kb > 0) {
        double bytes_ns = link_mbit() / 8e3;
        tokens = fmin(world.tbf_kb * 1e3, tokens + (double)(now - tokens_at) * bytes_ns) - bytes;
        tokens_at = now;
    }
    queue_head = (queue_head + 1) % queue_room;
    queue_bytes -= bytes;
    if (uniform() >= world.loss) {
        double delay = rtt_ms(flow) / 2 * MS + uniform() * world.jitter * MS;
        if (world.reorder > 0 && uniform() < world.reorder)
            delay += world.reorder_ms * MS;
        uint64_t when = now + (uint64_t)delay;
        if (world.aggregate > 0) { /* the radio passes on in batches what came */
            uint64_t every = (uint64_t)(world.aggregate * MS);
            when = (when / every + 1) * every;
        }
        at(when, ARRIVE, index, number);
    }
    queue_serve_later();
}

static void queue_offer(int flow, size_t packet)
{
    uint32_t bytes = flows[flow].packets[packet].bytes;

    if ((double)(queue_bytes + bytes) > world.buffer_kb * 1e3 && queue_bytes > 0) {
        flows[flow].dropped++;
        return;
    }
    if ((queue_tail + 1) % queue_room == queue_head) {
        fprintf(stderr, "the ring is too small\n");
        exit(2);
    }
    queue[queue_tail].flow = flow;
    queue[queue_tail].packet = packet;
    queue_tail = (queue_tail + 1) % queue_room;
    queue_bytes += bytes;
    queue_serve_later();
}

/* Sending */

static void wake(int index, uint64_t when)
{
    struct flow *flow = &flows[index];
    if (flow->wake_at > now && flow->wake_at <= when)
        return;
    when += (uint64_t)(uniform() * flow->slack * MS);
    flow->wake_at = when > now ? when : now + 1;
    at(flow->wake_at, WAKE, index, 0);
}

static uint64_t rto_ns(const struct flow *flow)
{
    double rto = flow->rtt_smooth > 0 ? 2 * flow->rtt_smooth + 200 * MS : 1000 * MS;
    return (uint64_t)(rto * (1 << (flow->rto_row < 6 ? flow->rto_row : 6)));
}

static void rto_arm(int index)
{
    struct flow *flow = &flows[index];
    flow->rto_at = now + rto_ns(flow);
    if (flow->rto_event_at <= now || flow->rto_event_at > flow->rto_at)
        at(flow->rto_event_at = flow->rto_at, RTO, index, 0);
}

static size_t packet_new(struct flow *flow)
{
    flow->packets = roomy(flow->packets, flow->packet_count, &flow->packet_room, sizeof *flow->packets);
    struct packet *packet = &flow->packets[flow->packet_count];
    memset(packet, 0, sizeof *packet);
    packet->sent_at = now;
    packet->bytes = flow->bytes;
    return flow->packet_count++;
}

static void packet_send(int index)
{
    struct flow *flow = &flows[index];
    size_t number = packet_new(flow);
    struct packet *packet = &flow->packets[number];

    if (flow->backlog_again >= packet->bytes) {
        flow->backlog_again -= packet->bytes;
        packet->again = true;
    }
    if (flow->kind == OURS)
        rate_sent(&flow->rate, &packet->mark, packet->bytes, flow->inflight, now);
    if (flow->inflight == 0 && flow->kind != UDP)
        rto_arm(index);
    flow->inflight += packet->bytes;
    flow->sent_bytes += packet->bytes;
    for (int i = 0; i < flow->span_count && !packet->again; i++)
        if ((double)now >= flow->spans[i].from * MS && (double)now < flow->spans[i].to * MS)
            flow->spans[i].sent += packet->bytes;
    queue_offer(index, number);
}

/* How many bytes the application has offered by now; without limit outside of its spans. */
static bool app_has_more(const struct flow *flow, uint64_t *next)
{
    double time = (double)now / MS, offered = 0;
    bool endless = flow->span_count == 0;

    *next = UINT64_MAX;
    for (int i = 0; i < flow->span_count; i++) {
        const struct span *span = &flow->spans[i];
        if (time < span->from) {
            uint64_t when = (uint64_t)(span->from * MS);
            *next = when < *next ? when : *next;
            continue;
        }
        if (time < span->to && span->mbit == 0)
            endless = true;
        else if (time < span->to && span->mbit > 0) {
            offered = span->mbit * (time - span->from) * 125;
            if (span->sent + flow->bytes <= offered)
                return true;
            *next = now + (uint64_t)((span->sent + flow->bytes - offered) / (span->mbit * 125) * MS) + 1000;
            return flow->backlog_again >= flow->bytes;
        }
    }
    return endless || flow->backlog_again >= flow->bytes;
}

static void ours_send(int index)
{
    struct flow *flow = &flows[index];
    uint64_t app_next;

    for (;;) {
        uint64_t pacing = rate_pacing_bytes_s(&flow->rate), burst = rate_burst_bytes(&flow->rate);
        uint64_t burst_ns = burst * 1000000000 / pacing;

        if (!app_has_more(flow, &app_next)) {
            rate_app_limited(&flow->rate, flow->inflight);
            flow->was_idle = true;
            if (app_next != UINT64_MAX)
                wake(index, app_next);
            return;
        }
        if (flow->inflight + flow->bytes > rate_window_bytes(&flow->rate) && flow->inflight > 0)
            return; /* an acknowledgement wakes us */
        /* A delay of at most a burst is caught up, else a slow timer would make a slow link. */
        if (flow->pace_at + burst_ns < now)
            flow->pace_at = flow->was_idle ? now : now - burst_ns;
        flow->was_idle = false;
        if (flow->pace_at >= now + burst_ns || (flow->pace_at > now && flow->wake_at > now)) {
            wake(index, flow->pace_at);
            return;
        }
        packet_send(index);
        flow->pace_at += flow->bytes * UINT64_C(1000000000) / pacing;
        if (flow->pace_at >= now + burst_ns) {
            wake(index, flow->pace_at);
            return;
        }
    }
}

static void tcp_send(int index)
{
    struct flow *flow = &flows[index];
    while (flow->inflight + flow->bytes <= flow->cwnd * flow->bytes)
        packet_send(index);
}

static void udp_send(int index)
{
    struct flow *flow = &flows[index];
    uint64_t next;

    while (app_has_more(flow, &next))
        packet_send(index);
    if (next != UINT64_MAX)
        wake(index, next);
}

static void flow_send(int index)
{
    struct flow *flow = &flows[index];
    if ((double)now < flow->start * MS || (double)now >= flow->stop * MS)
        return;
    if (flow->kind == OURS)
        ours_send(index);
    else if (flow->kind == CUBIC)
        tcp_send(index);
    else
        udp_send(index);
}

/* Cubic, RFC 9438, without HyStart */

static void tcp_acked(struct flow *flow, double packets)
{
    if (flow->cwnd < flow->ssthresh) {
        flow->cwnd += packets;
        return;
    }
    double rtt = flow->rtt_least / NS_S;
    if (flow->cubic_epoch == 0) {
        flow->cubic_epoch = now;
        flow->reno_cwnd = flow->cwnd;
        if (flow->cubic_max < flow->cwnd) {
            flow->cubic_max = flow->cwnd;
            flow->cubic_k = 0;
        } else
            flow->cubic_k = cbrt((flow->cubic_max - flow->cwnd) / 0.4);
    }
    double t = (double)(now - flow->cubic_epoch) / NS_S + rtt - flow->cubic_k;
    double target = fmin(fmax(flow->cubic_max + 0.4 * t * t * t, flow->cwnd), 1.5 * flow->cwnd);
    flow->cwnd += (target - flow->cwnd) / flow->cwnd * packets;
    flow->reno_cwnd += 3 * 0.3 / 1.7 * packets / flow->cwnd;
    flow->cwnd = fmax(flow->cwnd, flow->reno_cwnd);
}

static void tcp_lost(struct flow *flow)
{
    flow->cubic_max = flow->cwnd < flow->cubic_max ? flow->cwnd * 0.85 : flow->cwnd;
    flow->cwnd = flow->ssthresh = fmax(2, flow->cwnd * 0.7);
    flow->cubic_epoch = 0;
    flow->recover = flow->packet_count;
}

/* Receiving and acknowledging */

static void acknowledge(int index)
{
    struct flow *flow = &flows[index];
    flow->unacked = 0;
    flow->ack_timer_at = 0;
    if (flow->told_count < flow->arrived_count)
        at(now + (uint64_t)(rtt_ms(flow) / 2 * MS), ACK, index, flow->told_count = flow->arrived_count);
}

static void deliver(int index, size_t number)
{
    struct flow *flow = &flows[index];
    struct packet *packet = &flow->packets[number];

    if (packet->state == LOST) /* it was sent again already */
        return;
    packet->state = ARRIVED;
    flow->good_bytes += packet->bytes;
    if (flow->kind == UDP)
        return;
    flow->arrived = roomy(flow->arrived, flow->arrived_count, &flow->arrived_room, sizeof *flow->arrived);
    flow->arrived[flow->arrived_count++] = number;
    flow->unacked++;
}

static void cpu_start(int index)
{
    struct flow *flow = &flows[index];
    uint64_t begin = now, bytes = 0;

    if (flow->cpu_busy || flow->socket_head == flow->socket_tail)
        return;
    flow->cpu_busy = true;
    if (flow->stall_every > 0 && now >= flow->stall_at) {
        begin += (uint64_t)(flow->stall_max * pow(uniform(), 3) * MS); /* mostly short ones */
        flow->stall_at = now + (uint64_t)(flow->stall_every * 2 * uniform() * MS);
    }
    /* A batch is what is there at its beginning, as with recvmmsg(). */
    size_t batch = 0;
    for (size_t i = flow->socket_head; i != flow->socket_tail && batch < 64; i++, batch++)
        bytes += flow->packets[flow->socket[i]].bytes;
    at(begin + (uint64_t)((double)bytes * 8e3 / flow->cpu_mbit), CPU_DONE, index, batch);
}

static void arrive(int index, size_t number)
{
    struct flow *flow = &flows[index];

    if (flow->cpu_mbit > 0) {
        if ((double)flow->socket_bytes + flow->packets[number].bytes > flow->socket_kb * 1e3) {
            flow->dropped++;
            return;
        }
        flow->socket = roomy(flow->socket, flow->socket_tail, &flow->socket_room, sizeof *flow->socket);
        flow->socket[flow->socket_tail++] = number;
        flow->socket_bytes += flow->packets[number].bytes;
        cpu_start(index);
        return;
    }
    deliver(index, number);
    if (flow->unacked >= flow->ack_every)
        acknowledge(index);
    else if (flow->ack_timer_at == 0 && flow->unacked > 0)
        at(flow->ack_timer_at = now + (uint64_t)(flow->ack_delay * MS), ACK_TIMER, index, 0);
}

static void cpu_done(int index, size_t batch)
{
    struct flow *flow = &flows[index];

    flow->cpu_busy = false;
    while (batch-- > 0) {
        flow->socket_bytes -= flow->packets[flow->socket[flow->socket_head]].bytes;
        deliver(index, flow->socket[flow->socket_head++]);
    }
    acknowledge(index);
    cpu_start(index);
}

static void packet_lost(struct flow *flow, struct packet *packet, uint64_t *lost)
{
    if (packet->state == ARRIVED) /* its acknowledgement is on the way */
        flow->good_bytes -= packet->bytes;
    packet->state = LOST;
    flow->inflight -= packet->bytes;
    flow->backlog_again += packet->bytes;
    flow->lost_packets++;
    *lost += packet->bytes;
}

static void acked(int index, size_t count)
{
    struct flow *flow = &flows[index];
    struct rate_ack ack = {.now = now};
    struct packet *newest = NULL;
    double packets = 0;

    for (; flow->acked_count < count; flow->acked_count++) {
        struct packet *packet = &flow->packets[flow->arrived[flow->acked_count]];
        if (packet->state != ARRIVED)
            continue;
        packet->state = ACKED;
        flow->inflight -= packet->bytes;
        ack.acked_bytes += packet->bytes;
        packets++;
        if (newest == NULL || packet->sent_at >= newest->sent_at)
            newest = packet;
    }
    if (newest != NULL) {
        double rtt = (double)(now - newest->sent_at);
        flow->rtt_smooth = flow->rtt_smooth > 0 ? flow->rtt_smooth * 7 / 8 + rtt / 8 : rtt;
        flow->rtt_least = flow->rtt_least > 0 ? fmin(flow->rtt_least, rtt) : rtt;
        ack.rtt_ns = (uint64_t)rtt;
        ack.newest = &newest->mark;
        if (newest->sent_at > flow->newest_sent_at)
            flow->newest_sent_at = newest->sent_at;
        flow->rto_row = 0;
        rto_arm(index);
    }
    /* A packet is lost if one sent a quarter of an RTT later arrived (RFC 8985). */
    uint64_t grace = (uint64_t)(flow->rtt_least / 4) + (uint64_t)MS;
    bool cubic_loss = false;
    for (size_t i = flow->oldest; i < flow->packet_count; i++) {
        struct packet *packet = &flow->packets[i];
        if (packet->sent_at + grace >= flow->newest_sent_at)
            break;
        if (packet->state == FLYING) {
            packet_lost(flow, packet, &ack.lost_bytes);
            cubic_loss |= i >= flow->recover;
        }
    }
    while (flow->oldest < flow->packet_count && flow->packets[flow->oldest].state >= ACKED)
        flow->oldest++;
    ack.inflight_bytes = flow->inflight;
    if (flow->kind == OURS)
        rate_ack(&flow->rate, &ack);
    else if (cubic_loss)
        tcp_lost(flow);
    else
        tcp_acked(flow, packets);
    flow_send(index);
}

static void timed_out(int index)
{
    struct flow *flow = &flows[index];
    uint64_t lost = 0;

    flow->rto_event_at = 0;
    if (flow->inflight == 0)
        return;
    if (now < flow->rto_at) {
        at(flow->rto_event_at = flow->rto_at, RTO, index, 0);
        return;
    }
    for (size_t i = flow->oldest; i < flow->packet_count; i++)
        if (flow->packets[i].state <= ARRIVED)
            packet_lost(flow, &flow->packets[i], &lost);
    flow->oldest = flow->packet_count;
    flow->rto_row++;
    if (flow->kind == OURS)
        rate_timeout(&flow->rate, now);
    else if (flow->kind == CUBIC) {
        tcp_lost(flow);
        flow->cwnd = 1;
    }
    flow->pace_at = now;
    flow_send(index);
}

/* What is printed */

static double *series_queue;
static double *series_good[FLOWS_MAX], *series_rate[FLOWS_MAX], *series_window[FLOWS_MAX], *series_lost[FLOWS_MAX];
static int *series_phase[FLOWS_MAX];
static size_t bin_count;

static void bin(void)
{
    static uint64_t good_before[FLOWS_MAX];
    static uint64_t lost_before[FLOWS_MAX];
    size_t b = bin_count++;

    series_queue[b] = (double)queue_bytes * 8e-3 / link_mbit();
    for (int i = 0; i < flow_count; i++) {
        struct flow *flow = &flows[i];
        series_good[i][b] = (double)(int64_t)(flow->good_bytes - good_before[i]) * 8e-3 / world.bin;
        series_lost[i][b] = (double)(flow->lost_packets - lost_before[i]);
        good_before[i] = flow->good_bytes;
        lost_before[i] = flow->lost_packets;
        series_rate[i][b] = flow->kind == OURS ? (double)rate_bandwidth_bytes_s(&flow->rate) * 8e-6 : 0;
        series_window[i][b] = flow->kind == OURS ? (double)rate_window_bytes(&flow->rate) : flow->cwnd * flow->bytes;
        series_phase[i][b] = flow->kind == OURS ? (int)flow->rate.phase + 10 * flow->rate.crowded : -1;
    }
    at(now + (uint64_t)(world.bin * MS), BIN, 0, 0);
}

static void print_series(const char *name, const double *values, const char *format)
{
    printf("\"%s\":[", name);
    for (size_t b = 0; b < bin_count; b++) {
        if (b > 0)
            putchar(',');
        printf(format, values[b]);
    }
    putchar(']');
}

static void print_all(void)
{
    printf("{\"bin_ms\":%g,", world.bin);
    print_series("queue_ms", series_queue, "%.2f");
    printf(",\"flows\":[");
    for (int i = 0; i < flow_count; i++) {
        struct flow *flow = &flows[i];
        printf("%s{\"packet_bytes\":%u,\"sent_bytes\":%llu,\"lost\":%llu,", i > 0 ? "," : "", flow->bytes,
               (unsigned long long)flow->sent_bytes, (unsigned long long)flow->lost_packets);
        printf("\"good_bytes\":%llu,\"dropped\":%llu,", (unsigned long long)flow->good_bytes,
               (unsigned long long)flow->dropped);
        print_series("good_mbit", series_good[i], "%.2f");
        putchar(',');
        print_series("estimate_mbit", series_rate[i], "%.2f");
        putchar(',');
        print_series("window", series_window[i], "%.0f");
        putchar(',');
        print_series("lost_packets", series_lost[i], "%.0f");
        printf(",\"phase\":[");
        for (size_t b = 0; b < bin_count; b++)
            printf("%s%d", b > 0 ? "," : "", series_phase[i][b]);
        printf("]}");
    }
    printf("]}\n");
}

/* Arguments */

static void bad(const char *word)
{
    fprintf(stderr, "not understood: %s\n", word);
    exit(2);
}

static void world_set(const char *key, const char *value)
{
    static const struct { const char *name; double *to; } keys[] = {
        {"seconds", &world.seconds}, {"bin", &world.bin}, {"mbit", &world.mbit}, {"buffer_kb", &world.buffer_kb},
        {"loss", &world.loss}, {"tbf_kb", &world.tbf_kb}, {"aggregate", &world.aggregate},
        {"reorder", &world.reorder}, {"reorder_ms", &world.reorder_ms}, {"jitter", &world.jitter},
    };
    if (strcmp(key, "seed") == 0) {
        world.seed = strtoull(value, NULL, 10);
        return;
    }
    if (strcmp(key, "step") == 0 && world.step_count < STEPS_MAX) { /* step=ms:mbit */
        if (sscanf(value, "%lf:%lf", &world.steps[world.step_count].at, &world.steps[world.step_count].mbit) != 2)
            bad(value);
        world.step_count++;
        return;
    }
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strcmp(key, keys[i].name) == 0) {
            *keys[i].to = atof(value);
            return;
        }
    bad(key);
}

static void flow_add(char *words)
{
    if (flow_count == FLOWS_MAX)
        bad("too many flows");
    struct flow *flow = &flows[flow_count++];
    *flow = (struct flow){.stop = 1e9, .rtt = 50, .bytes = 1400, .ack_every = 2, .ack_delay = 10, .socket_kb = 4000,
                          .cwnd = 10, .ssthresh = 1e9};
    const struct { const char *name; double *to; } keys[] = {
        {"start", &flow->start}, {"stop", &flow->stop}, {"rtt", &flow->rtt}, {"ack_delay", &flow->ack_delay},
        {"cpu_mbit", &flow->cpu_mbit}, {"socket_kb", &flow->socket_kb}, {"stall_every", &flow->stall_every},
        {"stall_max", &flow->stall_max}, {"slack", &flow->slack},
    };
    char *word = strtok(words, ",");
    flow->kind = strcmp(word, "ours") == 0 ? OURS : strcmp(word, "cubic") == 0 ? CUBIC : UDP;
    while ((word = strtok(NULL, ",")) != NULL) {
        char *value = strchr(word, '=');
        if (value == NULL)
            bad(word);
        *value++ = 0;
        bool known = true;
        if (strcmp(word, "bytes") == 0)
            flow->bytes = (uint32_t)atoi(value);
        else if (strcmp(word, "ack_every") == 0)
            flow->ack_every = atoi(value);
        else if (strcmp(word, "rtt_step") == 0) { /* rtt_step=ms:rtt */
            if (sscanf(value, "%lf:%lf", &flow->rtt_at, &flow->rtt_then) != 2)
                bad(value);
        } else if (strcmp(word, "span") == 0 && flow->span_count < SPANS_MAX) { /* span=from:to:mbit; 0: endless */
            struct span *span = &flow->spans[flow->span_count++];
            if (sscanf(value, "%lf:%lf:%lf", &span->from, &span->to, &span->mbit) != 3)
                bad(value);
        } else {
            known = false;
            for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
                if (strcmp(word, keys[i].name) == 0) {
                    *keys[i].to = atof(value);
                    known = true;
                }
        }
        if (!known)
            bad(word);
    }
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        char *value = strchr(argv[i], '=');
        if (value == NULL)
            bad(argv[i]);
        *value++ = 0;
        if (strcmp(argv[i], "flow") == 0)
            flow_add(value);
        else
            world_set(argv[i], value);
    }
    random_state = world.seed * 7919 + 1;
    queue_room = 1 << 18;
    queue = grown(NULL, queue_room * sizeof *queue);
    tokens = world.tbf_kb * 1e3;
    size_t bins = (size_t)(world.seconds * 1000 / world.bin) + 2;
    series_queue = grown(NULL, bins * sizeof(double));
    for (int i = 0; i < flow_count; i++) {
        series_good[i] = grown(NULL, bins * sizeof(double));
        series_lost[i] = grown(NULL, bins * sizeof(double));
        series_rate[i] = grown(NULL, bins * sizeof(double));
        series_window[i] = grown(NULL, bins * sizeof(double));
        series_phase[i] = grown(NULL, bins * sizeof(int));
        uint64_t start = (uint64_t)(flows[i].start * MS);
        rate_init(&flows[i].rate, flows[i].bytes, world.seed * 31 + (uint64_t)i + 1, start);
        flows[i].pace_at = start;
        at(start, WAKE, i, 0);
    }
    at((uint64_t)(world.bin * MS), BIN, 0, 0);
    while (heap_count > 0) {
        struct event event = next_event();
        struct flow *flow = &flows[event.flow];
        now = event.at;
        if ((double)now > world.seconds * NS_S)
            break;
        switch (event.what) {
        case QUEUE_SERVE:
            queue_serve();
            break;
        case ARRIVE:
            arrive(event.flow, event.value);
            break;
        case ACK:
            acked(event.flow, event.value);
            break;
        case WAKE:
            if (flow->wake_at <= now)
                flow_send(event.flow);
            break;
        case RTO:
            timed_out(event.flow);
            break;
        case ACK_TIMER:
            if (flow->ack_timer_at == now)
                acknowledge(event.flow);
            break;
        case CPU_DONE:
            cpu_done(event.flow, event.value);
            break;
        case BIN:
            bin();
            break;
        }
    }
    print_all();
    return 0;
}
