/*
 * A wire with a length, a width and faults: carries Ethernet frames between two devices.
 *
 *      NEAR                                                              FAR
 *        | recvmmsg   +-----------+  +---------+  +---------------+        |
 *        +----------->| bounded   |->| random  |->| delay         |------->+ sendmmsg
 *        |            | queue,    |  | loss    |  | (frames in    |        |
 *        +<-----------| one rate  |<-| (seed)  |<-|  flight)      |<-------+
 *        |            +-----------+  +---------+  +---------------+        |
 *                       the same the other way, each with a queue of its own
 *
 * Decides when a frame leaves, and which frames are lost.  It does not read them.  The time at which a frame leaves is
 * set when it arrives, as it follows from the frames before it; so one FIFO per direction holds all frames.
 *
 * A frame larger than a device's MTU is a super-packet that offloads left in one piece, so delay and loss would not
 * fall on packets.  It is counted and dropped; offloads are turned off first, on every device of the LAN.
 *
 *      wire NEAR FAR DELAY_US LOSS_PPM RATE_BIT_S QUEUE_BYTES SEED         rate 0: none;  delay: one way
 *
 * Says "ready" on standard output, runs until SIGTERM, then prints what it counted as one line of JSON.
 *
 *      wire plain DEVICE...
 *
 * Turns off the offloads that make super-packets, on devices of its namespace, and ends.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <linux/ethtool.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    FRAME_BYTES_MAX = 1518,   /* 1500, an Ethernet header and a VLAN tag */
    BATCH = 64,               /* frames per system call */
    IN_FLIGHT_MAX = 16384,    /* frames per direction: 190 ms of full frames at 1 Gbit/s */
    SOCKET_BYTES = 64 << 20,  /* room for frames while this process waits for a processor */
    TICK_NS = 100000,         /* between two looks: waking for every frame costs more than carrying it */
    NS_PER_S = 1000000000,
};

struct wire_settings {
    uint64_t delay_ns;
    uint64_t loss_ppm;
    uint64_t rate_bit_s; /* 0: no bound */
    uint64_t queue_bytes;
};

struct wire_frame {
    uint64_t due_ns;
    uint32_t size;
    unsigned char bytes[FRAME_BYTES_MAX];
};

struct wire_counts {
    uint64_t carried, carried_bytes;
    uint64_t lost;      /* by chance */
    uint64_t queue_full;
    uint64_t oversize;  /* super-packets */
    uint64_t missed;    /* the kernel dropped it, or there was no room here: the wire was too slow */
    uint64_t refused;   /* by the device it was sent to */
    uint64_t late_ns_max, late_ns_sum;
};

struct wire_direction {
    int from, to;
    uint64_t link_free_ns; /* when the link has sent every queued frame */
    uint64_t random;
    uint64_t first, end; /* in flight: ring[first % IN_FLIGHT_MAX] and on */
    struct wire_counts counts;
    struct wire_frame *ring;
};

static volatile sig_atomic_t stopped;

static void stop(int number)
{
    (void)number;
    stopped = 1;
}

static void die(const char *what)
{
    fprintf(stderr, "wire: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

/* xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled", 2016 */
static bool by_chance(uint64_t *state, uint64_t ppm)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (*state * UINT64_C(2685821657736338717) >> 32) % 1000000 < ppm;
}

/* Decide when the frame in the ring's next slot leaves; false: never. */
static bool admit(struct wire_direction *way, const struct wire_settings *set, uint32_t size, uint64_t now)
{
    struct wire_frame *frame = &way->ring[way->end % IN_FLIGHT_MAX];
    uint64_t leaves = now;

    if (size > FRAME_BYTES_MAX) {
        way->counts.oversize++;
        return false;
    }
    if (set->rate_bit_s) {
        if (way->link_free_ns < now)
            way->link_free_ns = now;
        uint64_t queued_bytes = (way->link_free_ns - now) * set->rate_bit_s / (8 * (uint64_t)NS_PER_S);
        if (queued_bytes + size > set->queue_bytes) {
            way->counts.queue_full++;
            return false;
        }
        way->link_free_ns += (uint64_t)size * 8 * NS_PER_S / set->rate_bit_s;
        leaves = way->link_free_ns;
    }
    if (by_chance(&way->random, set->loss_ppm)) { /* after its place is set: a lost frame takes the link's time too */
        way->counts.lost++;
        return false;
    }
    frame->size = size;
    frame->due_ns = leaves + set->delay_ns;
    return true;
}

/* Take in the frames that have arrived, at most a batch.  Returns whether there may be more. */
static bool take(struct wire_direction *way, const struct wire_settings *set)
{
    struct mmsghdr messages[BATCH];
    struct iovec parts[BATCH];
    uint64_t room = IN_FLIGHT_MAX - (way->end - way->first);
    unsigned int wanted = room < BATCH ? (unsigned int)room : BATCH;
    uint64_t base = way->end;

    if (!wanted) { /* no room for it; it is counted as missed */
        unsigned char byte;
        if (recv(way->from, &byte, 1, MSG_DONTWAIT | MSG_TRUNC) > 0)
            way->counts.missed++;
        return true;
    }
    memset(messages, 0, sizeof messages);
    for (unsigned int i = 0; i < wanted; i++) {
        parts[i].iov_base = way->ring[(base + i) % IN_FLIGHT_MAX].bytes;
        parts[i].iov_len = FRAME_BYTES_MAX;
        messages[i].msg_hdr.msg_iov = &parts[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    int count = recvmmsg(way->from, messages, wanted, MSG_DONTWAIT | MSG_TRUNC, NULL);
    if (count < 0) {
        if (errno != EAGAIN && errno != EINTR && errno != ENETDOWN)
            die("recvmmsg");
        return false;
    }
    uint64_t now = now_ns();
    for (int i = 0; i < count; i++) {
        struct wire_frame *slot = &way->ring[way->end % IN_FLIGHT_MAX];
        if (!admit(way, set, messages[i].msg_len, now))
            continue;
        if (way->end != base + (uint64_t)i) /* a frame before it was dropped: close the gap */
            memcpy(slot->bytes, way->ring[(base + (uint64_t)i) % IN_FLIGHT_MAX].bytes, slot->size);
        way->end++;
    }
    return (unsigned int)count == wanted;
}

/* Send the frames that are due. */
static void give(struct wire_direction *way)
{
    struct mmsghdr messages[BATCH];
    struct iovec parts[BATCH];
    uint64_t now = now_ns();

    while (way->first != way->end && way->ring[way->first % IN_FLIGHT_MAX].due_ns <= now) {
        unsigned int count = 0;
        memset(messages, 0, sizeof messages);
        for (uint64_t at = way->first; at != way->end && count < BATCH; at++, count++) {
            struct wire_frame *frame = &way->ring[at % IN_FLIGHT_MAX];
            if (frame->due_ns > now)
                break;
            uint64_t late = now - frame->due_ns;
            way->counts.late_ns_sum += late;
            if (late > way->counts.late_ns_max)
                way->counts.late_ns_max = late;
            parts[count].iov_base = frame->bytes;
            parts[count].iov_len = frame->size;
            messages[count].msg_hdr.msg_iov = &parts[count];
            messages[count].msg_hdr.msg_iovlen = 1;
        }
        int sent = sendmmsg(way->to, messages, count, MSG_DONTWAIT);
        if (sent < 1) { /* the first of them; none is tried twice, a wire has no memory */
            way->counts.refused++;
            way->first++;
            continue;
        }
        way->counts.carried += (uint64_t)sent;
        for (int i = 0; i < sent; i++)
            way->counts.carried_bytes += parts[i].iov_len;
        way->first += (uint64_t)sent;
    }
}

static int packet_socket(const char *device)
{
    int one = 1, bytes = SOCKET_BYTES;
    struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = __builtin_bswap16(ETH_P_ALL)};
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);

    address.sll_ifindex = (int)if_nametoindex(device);
    if (fd < 0 || !address.sll_ifindex)
        die(device);
    if (setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof one) ||
        setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof one))
        die("PACKET_IGNORE_OUTGOING, PACKET_QDISC_BYPASS");
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes))
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes); /* what a user may have; "missed" tells */
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes))
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    if (bind(fd, (struct sockaddr *)&address, sizeof address))
        die("bind");
    return fd;
}

static void count_missed(struct wire_direction *way)
{
    struct tpacket_stats stats = {0};
    socklen_t size = sizeof stats;
    if (!getsockopt(way->from, SOL_PACKET, PACKET_STATISTICS, &stats, &size))
        way->counts.missed += stats.tp_drops;
}

static void report(const char *name, const struct wire_direction *way)
{
    const struct wire_counts *c = &way->counts;
    printf("\"%s\": {\"carried\": %" PRIu64 ", \"carried_bytes\": %" PRIu64 ", \"lost\": %" PRIu64
           ", \"queue_full\": %" PRIu64 ", \"oversize\": %" PRIu64 ", \"missed\": %" PRIu64 ", \"refused\": %" PRIu64
           ", \"late_us_mean\": %.1f, \"late_us_max\": %.1f}",
           name, c->carried, c->carried_bytes, c->lost, c->queue_full, c->oversize, c->missed, c->refused,
           c->carried ? (double)c->late_ns_sum / (double)c->carried / 1e3 : 0.0, (double)c->late_ns_max / 1e3);
}

/* Have a device send and receive packets one by one, and whole: the wire carries bytes, not what was still to be done
 * to them.  Without checksums there is neither TSO nor UDP segmentation, by the kernel's own rules. */
static void make_plain(const char *device)
{
    static const uint32_t off[] = {ETHTOOL_STXCSUM, ETHTOOL_SSG, ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_SGRO};
    struct ifreq request = {0};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", device);
    for (size_t i = 0; i < sizeof off / sizeof *off; i++) {
        struct ethtool_value value = {.cmd = off[i], .data = 0};
        request.ifr_data = (void *)&value;
        if (fd < 0 || ioctl(fd, SIOCETHTOOL, &request))
            die(device);
    }
    close(fd);
}

int main(int argc, char **argv)
{
    if (argc > 2 && !strcmp(argv[1], "plain")) {
        for (int i = 2; i < argc; i++)
            make_plain(argv[i]);
        return 0;
    }
    if (argc != 8) {
        fprintf(stderr, "usage: wire NEAR FAR DELAY_US LOSS_PPM RATE_BIT_S QUEUE_BYTES SEED | wire plain DEVICE...\n");
        return 2;
    }
    struct wire_settings set = {
        .delay_ns = strtoull(argv[3], NULL, 10) * 1000,
        .loss_ppm = strtoull(argv[4], NULL, 10),
        .rate_bit_s = strtoull(argv[5], NULL, 10),
        .queue_bytes = strtoull(argv[6], NULL, 10),
    };
    uint64_t seed = strtoull(argv[7], NULL, 10) * 2 + 1; /* never 0, where the generator would stay */
    int near = packet_socket(argv[1]), far = packet_socket(argv[2]);
    struct wire_direction ways[2] = {
        {.from = near, .to = far, .random = seed * UINT64_C(0x9E3779B97F4A7C15)},
        {.from = far, .to = near, .random = seed * UINT64_C(0xBF58476D1CE4E5B9)},
    };
    for (int i = 0; i < 2; i++)
        if (!(ways[i].ring = calloc(IN_FLIGHT_MAX, sizeof *ways[i].ring)))
            die("memory");

    sigset_t blocked, open;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    sigprocmask(SIG_BLOCK, &blocked, &open);
    sigaction(SIGTERM, &(struct sigaction){.sa_handler = stop}, NULL);
    prctl(PR_SET_TIMERSLACK, 1UL);
    /* A wire does not wait for a processor.  Where that is not allowed, "late" shows what it cost. */
    if (sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){.sched_priority = 1}))
        setpriority(PRIO_PROCESS, 0, -20);
    puts("ready");
    fflush(stdout);

    struct pollfd polled[2] = {{.fd = near, .events = POLLIN}, {.fd = far, .events = POLLIN}};
    while (!stopped) {
        bool more = false, in_flight = false;
        for (int i = 0; i < 2; i++) {
            more |= take(&ways[i], &set); /* one batch: a flood from one side does not hold the other up */
            give(&ways[i]);
            in_flight |= ways[i].first != ways[i].end;
        }
        if (more)
            continue;
        /* SIGTERM is let in here and nowhere else. */
        const struct timespec tick = {.tv_nsec = TICK_NS};
        if (ppoll(polled, in_flight ? 0 : 2, in_flight ? &tick : NULL, &open) < 0 && errno != EINTR)
            die("ppoll");
    }
    printf("{");
    for (int i = 0; i < 2; i++) {
        count_missed(&ways[i]);
        report(i ? "to_near" : "to_far", &ways[i]);
        printf(i ? "}\n" : ", ");
    }
    return 0;
}
