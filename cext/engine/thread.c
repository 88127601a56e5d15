/* The engine's thread, its counters, its beginning and its end. */

#define _GNU_SOURCE

#include "engine/engine.h"

#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "engine/lock.h"
#include "engine/private.h"

enum { EVENT_COUNT = 64 };

#define BLOCKED_LOOK_NS (10 * MS_NS) /* between two looks at the timers of a link with a full socket */

/* epoll's data: a link's id, or one of these. */
#define EVENT_TUN (UINT64_C(1) << 32)
#define EVENT_WAKE (UINT64_C(2) << 32)

const char *engine_drop_name(enum engine_drop why)
{
    static const char *const names[] = {
        "packet-short", "packet-version", "packet-length", "packet-offload", "packet-too-big",
        "bad-source", "no-destination", "queue-full", "aged", "codel", "cleared",
        "truncated", "oversized", "version", "reserved", "unknown-label", "unknown-epoch", "replay",
        "auth", "malformed", "unknown-kind", "misplaced-entry", "upcall-full", "entry-full",
        "entry-rate", "feedback-rate",
        "relay-full", "relay-rate", "relay-aged", "relay-gone",
        "spoofed", "not-ours", "policy", "policy-unfit", "policy-piece", "policy-sent", "no-tether", "carrier-full", "text-message",
        "tun-read", "tun-full", "tun-down", "tun-refused",
        "socket-send", "socket-receive", "not-dtls-nor-stun", "stun-malformed",
        "stun-auth", "stun-rate", "stun-repeated",
        "dtls-malformed", "dtls-replay", "dtls-auth",
        "dtls-late",
        "sctp-malformed", "sctp-tag", "sctp-checksum", "sctp-window", "sctp-other",
        "memory",
    };
    _Static_assert(sizeof names / sizeof *names == DROP_COUNT, "every drop has a name");

    return names[why];
}

/* ── counters ── */

void engine_drops(struct engine *self, uint64_t out[DROP_COUNT])
{
    engine_lock(self);
    memcpy(out, self->drops, sizeof self->drops);
    for (size_t at = 0; at < self->link_count; at++)
        link_add_drops(self->links[at], out);
    engine_unlock(self);
}

struct engine_counts engine_counts(struct engine *self)
{
    engine_lock(self);
    struct engine_counts counts = self->counts;
    engine_unlock(self);
    return counts;
}

static void relay_dropped(void *context, enum relay_drop why)
{
    static const enum engine_drop reasons[] = {
        [RELAY_FULL] = DROP_RELAY_FULL,
        [RELAY_RATE] = DROP_RELAY_RATE,
        [RELAY_AGED] = DROP_RELAY_AGED,
        [RELAY_GONE] = DROP_RELAY_GONE,
    };
    drop(context, reasons[why]);
}

/* ── the thread ── */

static void handle_event(struct engine *self, const struct epoll_event *event)
{
    eventfd_t ignored;

    if (event->data.u64 == EVENT_TUN) {
        tun_read(self);
        return;
    }
    if (event->data.u64 == EVENT_WAKE) {
        eventfd_read(self->wake, &ignored);
        self->wake_written = false;
        return;
    }
    struct link *link = links_find(self, (uint32_t)event->data.u64);
    if (link == NULL) /* removed while the event was on its way */
        return;
    if (event->events & (EPOLLERR | EPOLLHUP))
        datagrams_error(link);
    if (event->events & (EPOLLIN | EPOLLHUP))
        datagrams_receive(link);
    if (event->events & EPOLLHUP)
        datagrams_hangup(link);
}

/* One turn of the loop: take what came, handle timers, send what may go.  Returns when the next turn is due. */
static uint64_t turn(struct engine *self, const struct epoll_event *events, int count)
{
    uint64_t due = NEVER;

    self->counts.wakeups++;
    for (int at = 0; at < count; at++)
        handle_event(self, &events[at]);
    if (self->age_at <= self->now)
        egress_age(self);
    for (size_t at = 0; at < self->link_count; at++) {
        struct link *link = self->links[at];
        if (link_next_timeout(link) <= self->now)
            link_handle_timeout(link);
        if (datagrams_pump(link))
            due = self->now;
        uint64_t wanted = link_next_timeout(link);
        if (link->out_bytes > 0 && wanted < self->now + BLOCKED_LOOK_NS) /* pacing waits for the socket */
            wanted = self->now + BLOCKED_LOOK_NS;
        due = wanted < due ? wanted : due;
    }
    return self->age_at < due ? self->age_at : due;
}

/* Wait until something is ready, but for wait_ns at most; NEVER: for ever. */
static int wait_for(const struct engine *self, struct epoll_event *events, uint64_t wait_ns)
{
    struct timespec timeout = {(time_t)(wait_ns / SECOND_NS), (long)(wait_ns % SECOND_NS)};
    int count = epoll_pwait2(self->epoll, events, EVENT_COUNT, wait_ns == NEVER ? NULL : &timeout, NULL);

    if (count < 0 && errno == ENOSYS) { /* a kernel before 5.11: whole milliseconds, rounded up, else it would spin */
        uint64_t milliseconds = wait_ns / MS_NS + (wait_ns % MS_NS > 0);
        count = epoll_wait(self->epoll, events, EVENT_COUNT,
                           wait_ns == NEVER ? -1 : milliseconds < INT32_MAX ? (int)milliseconds : INT32_MAX);
    }
    return count < 0 ? 0 : count; /* EINTR */
}

static void *run(void *context)
{
    struct engine *self = context;
    struct epoll_event events[EVENT_COUNT];
    int count = 0;

    pthread_setname_np(pthread_self(), "conflux-engine"); /* from outside it would need /proc, which may be closed */
    /* The rest of Conflux may run before other programs (conflux/host/priority.py).  This thread is their equal: a
     * relay at full rate does not take the board away from its owner. */
    if (getpriority(PRIO_PROCESS, 0) < 0)
        setpriority(PRIO_PROCESS, 0, 0);
    while (!atomic_load(&self->stopping)) {
        pthread_mutex_lock(&self->lock);
        self->now = engine_clock();
        uint64_t due = turn(self, events, count);
        pthread_mutex_unlock(&self->lock);
        for (int yields = 0; atomic_load(&self->lock_wanted) > 0 && yields < 64; yields++)
            sched_yield();
        if (atomic_load(&self->stopping)) /* its wake-up may have been read in this turn already */
            break;

        uint64_t now = engine_clock(); /* the callers let in may have taken long */
        uint64_t wait = due == NEVER ? NEVER : due > now ? due - now : 0;
        count = wait_for(self, events, wait);
    }
    return NULL;
}

/* ── the beginning and the end ── */

static bool start_thread(struct engine *self)
{
    sigset_t all, before;

    sigfillset(&all); /* signals go to the interpreter's threads */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    self->running = pthread_create(&self->thread, NULL, run, self) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return self->running;
}

static bool watch(struct engine *self, int fd, uint64_t what)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = what};

    return epoll_ctl(self->epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

struct engine *engine_new(const struct engine_config *config)
{
    struct engine *self = calloc(1, sizeof *self);

    if (self == NULL)
        return NULL;
#ifdef __GLIBC__
    mallopt(M_ARENA_MAX, 1); /* in an arena of the thread's own, malloc_trim() would not give back the end */
#endif
    self->config = *config;
    self->queues.bytes_max = config->queues_bytes_max;
    self->age_at = NEVER;
    self->now = engine_clock();
    pthread_mutex_init(&self->lock, NULL);
    uint64_t seed = load_be64(config->seed);
    map_init(&self->own, seed);
    map_init(&self->realm_addresses, seed);
    map_init(&self->labels, seed);
    map_init(&self->links_by_id, seed);
    self->epoll = epoll_create1(EPOLL_CLOEXEC);
    self->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    self->upcall_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    self->relay = relay_new(&config->relay, relay_dropped, self);
    self->receive_room = malloc((size_t)RECEIVE_COUNT * RECEIVE_BYTES);
    self->batch = malloc(BATCH_BYTES);
    self->piece = malloc(PACKET_BYTES_MAX);
    bool made = self->epoll >= 0 && self->wake >= 0 && self->upcall_fd >= 0 && self->relay != NULL &&
                self->receive_room != NULL && self->batch != NULL && self->piece != NULL &&
                watch(self, self->wake, EVENT_WAKE) && (config->tun < 0 || watch(self, config->tun, EVENT_TUN)) &&
                start_thread(self);
    if (!made) {
        int error = errno;
        engine_delete(self);
        errno = error;
        return NULL;
    }
    return self;
}

static void close_open(int fd)
{
    if (fd >= 0)
        close(fd);
}

void engine_delete(struct engine *self)
{
    if (self->running) {
        atomic_store(&self->stopping, true);
        eventfd_write(self->wake, 1);
        pthread_join(self->thread, NULL);
    }
    tables_free(self);
    while (self->link_count > 0)
        link_delete(self->links[--self->link_count]);
    map_free(&self->links_by_id);
    if (self->relay != NULL)
        relay_delete(self->relay);
    guard_free(self->guard);
    upcall_free_all(self);
    close_open(self->epoll);
    close_open(self->wake);
    close_open(self->upcall_fd);
    if (self->spare != NULL)
        queued_delete(self->spare);
    free(self->receive_room);
    free(self->batch);
    free(self->piece);
    pthread_mutex_destroy(&self->lock);
    free(self);
}
