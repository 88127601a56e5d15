/* One link's datagrams: UDP in trains (UDP_SEGMENT, UDP_GRO), DTLS records, SCTP, and whose turn it is to send.  Decides
 * the order in which destinations and relayed routes use a link; knows no stream's key. */

#define _GNU_SOURCE

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include <openssl/crypto.h>

#include "engine_lock.h"
#include "engine_private.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

enum {
    WINDOW_BYTES_MAX = 8 << 20, /* what a peer may have us hold: 32 ms at 2 Gbit/s, 1.3 s at 50 Mbit/s */
    WINDOW_BYTES_MIN = 128 << 10, /* however many links there are: 50 ms of 20 Mbit/s */
    WINDOWS_BYTES_MAX = 64 << 20, /* of all links together, but for those that get the least: a board has 512 MB */
    SEND_BYTES_MAX = 32 << 20, /* twice the largest window, for what waits for its repair */
    QUANTUM_BYTES = 65536, /* of a turn: one frame of the largest size */
    FRAME_COST_BYTES = 256, /* what a frame costs beside its bytes; as conflux/datapath/relay.py charges it */
    DTLS_ALERT_BYTES = 2,
    HANDSHAKE_COUNT_MAX = 32, /* twice what the handshake's library looks at; anybody can forge one in 13 bytes */
    ADDRESS_BYTES = 28,
};

struct link *link_find(const struct engine *self, uint32_t id)
{
    return map_find(&self->links_by_id, (struct map_key){0, id});
}

struct tether *link_tether(const struct link *self, uint64_t id)
{
    return map_find(&self->tethers, (struct map_key){0, id});
}

/* ── whose turn it is ── */

static void turns_append(struct turns *self, struct turn *turn)
{
    turn->next = NULL;
    if (self->last != NULL)
        self->last->next = turn;
    else
        self->first = turn;
    self->last = turn;
}

static void turns_pop(struct turns *self)
{
    self->first = self->first->next;
    if (self->first == NULL)
        self->last = NULL;
}

static void turns_remove(struct turns *self, struct turn *turn)
{
    struct turn *before = NULL;

    for (struct turn *at = self->first; at != NULL; before = at, at = at->next) {
        if (at != turn)
            continue;
        if (before != NULL)
            before->next = turn->next;
        else
            self->first = turn->next;
        if (self->last == turn)
            self->last = before;
        return;
    }
}

void link_wait(struct link *self, struct turn *turn)
{
    if (turn->waiting)
        return;
    turn->waiting = true;
    turn->deficit = QUANTUM_BYTES;
    turns_append(&self->quiet, turn);
}

void link_forget(struct link *self, struct turn *turn)
{
    if (!turn->waiting)
        return;
    turn->waiting = false;
    turns_remove(&self->quiet, turn);
    turns_remove(&self->waiting, turn);
}

/* Send the next frame passed on; bytes, or 0. */
static size_t relay_send_frame(struct link *self)
{
    struct relay_frame frame;

    if (!relay_next(self->engine->relay, self->id, &frame, self->engine->now))
        return 0;
    size_t bytes = frame.message->size;
    struct tether *tether = link_tether(self, frame.hop->tether);
    if (tether == NULL || !tether->mapped[frame.channel]) {
        sctp_message_delete(frame.message);
        drop(self->engine, DROP_NO_TETHER);
        return bytes;
    }
    struct sctp_sending how = {
        .stream = tether->streams[frame.channel],
        .unordered = frame.unordered,
        .ppid = PPID_BINARY,
        .reliability = SCTP_LIFETIME_MS_MAX,
        .reliability_value = tether->lifetime_ms,
    };
    if (!sctp_send(self->sctp, frame.message, &how, self->engine->now))
        drop(self->engine, DROP_CARRIER_FULL);
    return bytes;
}

/* Hand frames to the association until it has enough for now. */
static void link_fill(struct link *self)
{
    struct sctp_state state = sctp_state(self->sctp);
    size_t bundle_bytes_max = state.rate_bytes_s / 1000; /* one millisecond of the link's rate */

    if (bundle_bytes_max < 2 * state.packet_bytes)
        bundle_bytes_max = 2 * state.packet_bytes;
    if (bundle_bytes_max > BUNDLE_BYTES_MAX)
        bundle_bytes_max = BUNDLE_BYTES_MAX;
    self->rtt_min = state.rtt_min_ns;
    self->searching = state.searching;
    if (relay_waits(self->engine->relay, self->id))
        link_wait(self, &self->relay);
    while ((self->quiet.first != NULL || self->waiting.first != NULL) && sctp_room(self->sctp, self->engine->now) > 0) {
        struct turns *turns = self->quiet.first != NULL ? &self->quiet : &self->waiting;
        struct turn *turn = turns->first;
        size_t bytes = 0;
        if (turn->deficit > 0)
            bytes = turn->egress != NULL ? egress_send_frame(turn->egress, bundle_bytes_max) : relay_send_frame(self);
        if (bytes > 0) {
            turn->deficit -= (int64_t)bytes + FRAME_COST_BYTES;
        } else if (turn->deficit <= 0) {
            turn->deficit += QUANTUM_BYTES;
            turns_pop(turns);
            turns_append(&self->waiting, turn);
        } else {
            turns_pop(turns);
            if (turns == &self->quiet)
                turns_append(&self->waiting, turn); /* before it counts as quiet again, everybody else has a turn */
            else
                turn->waiting = false;
        }
    }
}

/* ── out ── */

static void watch(struct link *self, bool out)
{
    struct epoll_event event = {.events = EPOLLIN | (out ? EPOLLOUT : 0), .data.u64 = self->id};

    if (self->watches_out != out && epoll_ctl(self->engine->epoll, EPOLL_CTL_MOD, self->fd, &event) == 0)
        self->watches_out = out;
}

static ssize_t socket_send(struct link *self, const uint8_t *data, size_t size, size_t segment)
{
    struct iovec part = {(void *)data, size};
    union {
        char room[CMSG_SPACE(sizeof(uint16_t))];
        struct cmsghdr align;
    } control;
    struct msghdr message = {
        .msg_name = self->address_bytes > 0 ? self->address : NULL,
        .msg_namelen = self->address_bytes,
        .msg_iov = &part,
        .msg_iovlen = 1,
    };

    if (segment < size) {
        memset(&control, 0, sizeof control);
        message.msg_control = control.room;
        message.msg_controllen = sizeof control.room;
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_UDP;
        header->cmsg_type = UDP_SEGMENT;
        header->cmsg_len = CMSG_LEN(sizeof(uint16_t));
        memcpy(CMSG_DATA(header), &(uint16_t){(uint16_t)segment}, sizeof(uint16_t));
    }
    return sendmsg(self->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* Send one train; false: the socket is full, and what is left waits in self->out.  Whatever else goes wrong costs these
 * packets, which SCTP repairs or gives up. */
static bool train_send(struct link *self, const uint8_t *data, size_t size, size_t segment)
{
    bool retried = false;

    while (size > 0) {
        size_t now = self->segments && size > segment ? size : size < segment ? size : segment;
        if (socket_send(self, data, now, segment) >= 0) {
            data += now;
            size -= now;
            continue;
        }
        if (errno == EAGAIN || errno == EWOULDBLOCK) {
            if (self->out == NULL && (self->out = malloc(BATCH_BYTES)) == NULL) {
                drop(self->engine, DROP_MEMORY);
                return true;
            }
            memmove(self->out, data, size);
            self->out_bytes = size;
            self->out_segment = segment;
            watch(self, true);
            return false;
        }
        if (errno == EINTR)
            continue;
        if (self->segments && now > segment && (errno == EIO || errno == EINVAL || errno == EOPNOTSUPP)) {
            self->segments = false; /* this interface cannot: one by one from now on */
            continue;
        }
        if (!retried) { /* an ICMP error about an earlier datagram is told by failing this one */
            retried = true;
            link_error(self);
            continue;
        }
        drop(self->engine, DROP_SOCKET_SEND);
        data += now;
        size -= now;
        retried = false;
    }
    return true;
}

/* Seal what may go now into one train and send it.  0: nothing to send; -1: the socket is full; else the bytes. */
static int64_t link_send_train(struct link *self)
{
    size_t offset = dtls_payload_offset(self->dtls), overhead = dtls_overhead(self->dtls);
    size_t largest_record = SCTP_PACKET_BYTES_MAX + overhead;
    uint8_t *batch = self->engine->batch;
    size_t size = 0, segment = 0, count = 0;

    while (count < BATCH_SEGMENT_COUNT_MAX && size + largest_record <= BATCH_BYTES_MAX) {
        uint8_t *record = batch + size;
        size_t packet = sctp_next_packet(self->sctp, record + offset, SCTP_PACKET_BYTES_MAX, self->engine->now);
        if (packet == 0)
            break;
        size_t sealed = dtls_seal(self->dtls, DTLS_APPLICATION_DATA, record, packet);
        if (sealed == 0) {
            sctp_close(self->sctp, true, self->engine->now); /* 2**48 records, or libcrypto is broken */
            break;
        }
        if (count > 0 && sealed > segment) { /* all of a train are equal but the last: this one begins another */
            if (!train_send(self, batch, size, segment)) {
                /* The full socket keeps what is before; this record joins it as a loss. */
                drop(self->engine, DROP_SOCKET_SEND);
                return -1;
            }
            memmove(batch, record, sealed);
            size = count = 0;
        }
        if (count == 0)
            segment = sealed;
        size += sealed;
        count++;
        if (sealed < segment || !self->is_udp)
            break;
    }
    if (size == 0)
        return 0;
    return train_send(self, batch, size, segment) ? (int64_t)size : -1;
}

static bool link_flush(struct link *self)
{
    if (self->out_bytes > 0) {
        size_t size = self->out_bytes;
        self->out_bytes = 0;
        if (!train_send(self, self->out, size, self->out_segment))
            return false;
    }
    watch(self, false);
    return true;
}

bool link_pump(struct link *self)
{
    if (!link_flush(self))
        return false;
    for (int count = 0; count < PUMP_BATCH_COUNT_MAX; count++) {
        if (!self->closed)
            link_fill(self);
        if (link_send_train(self) <= 0)
            return false;
    }
    return true;
}

/* ── in ── */

static void upcall_address(struct upcall *upcall, const struct msghdr *message)
{
    if (upcall != NULL && message->msg_name != NULL && message->msg_namelen <= ADDRESS_BYTES) {
        memcpy(upcall->address, message->msg_name, message->msg_namelen);
        upcall->address_bytes = message->msg_namelen;
    }
}

static void link_upcall_datagram(struct link *self, const uint8_t *data, size_t size, const struct msghdr *message)
{
    struct upcall *upcall = up_of_link(self, UP_WIRE_DATAGRAM, size);

    if (upcall == NULL)
        return;
    memcpy(upcall->data, data, size);
    upcall_address(upcall, message);
}

static void link_end(struct link *self, const char *why)
{
    if (self->closed)
        return;
    self->closed = true;
    size_t size = strlen(why);
    struct upcall *upcall = up(self->engine, UP_WIRE_CLOSED, size, false);
    if (upcall != NULL) {
        upcall->link = self->id;
        memcpy(upcall->data, why, size);
    }
}

/* The socket will carry nothing any more, and would be ready for ever. */
static void link_lost(struct link *self)
{
    link_end(self, "socket");
    epoll_ctl(self->engine->epoll, EPOLL_CTL_DEL, self->fd, NULL);
}

/* One datagram, opened in place. */
static void datagram_receive_untrusted(struct link *self, uint8_t *data, size_t size, const struct msghdr *message)
{
    if (size == 0 || (data[0] > 3 && (data[0] < 20 || data[0] > 63))) { /* RFC 7983 */
        drop(self->engine, DROP_NOT_DTLS_NOR_STUN);
        return;
    }
    if (data[0] <= 3) {
        link_upcall_datagram(self, data, size, message);
        return;
    }
    while (size > 0 && !self->closed) {
        struct dtls_record record;
        enum dtls_fault fault = dtls_unseal_untrusted(self->dtls, data, size, &record);
        switch (fault) {
        case DTLS_OK:
            if (record.type == DTLS_APPLICATION_DATA)
                sctp_receive_untrusted(self->sctp, record.payload, record.payload_size, self->engine->now);
            else if (record.type == DTLS_ALERT)
                link_end(self, "alert"); /* close_notify, or a fatal one: after either there is nothing to say */
            break;
        case DTLS_OTHER_EPOCH: /* who has opened the association has our last flight and wants no other */
            if (self->opened || self->handshake_count == HANDSHAKE_COUNT_MAX) {
                drop(self->engine, DROP_DTLS_LATE);
            } else {
                self->handshake_count++;
                link_upcall_datagram(self, data, record.record_size, message);
            }
            break;
        case DTLS_REPLAY:
            drop(self->engine, DROP_DTLS_REPLAY);
            break;
        case DTLS_AUTH:
            drop(self->engine, DROP_DTLS_AUTH);
            break;
        default:
            drop(self->engine, DROP_DTLS_MALFORMED);
            return;
        }
        data += record.record_size;
        size -= record.record_size;
    }
}

static size_t segment_bytes(struct msghdr *message, size_t size)
{
    for (struct cmsghdr *at = CMSG_FIRSTHDR(message); at != NULL; at = CMSG_NXTHDR(message, at)) {
        int segment;
        if (at->cmsg_level != SOL_UDP || at->cmsg_type != UDP_GRO || at->cmsg_len < CMSG_LEN(sizeof segment))
            continue;
        memcpy(&segment, CMSG_DATA(at), sizeof segment);
        if (segment > 0)
            return (size_t)segment;
    }
    return size > 0 ? size : 1;
}

void link_receive(struct link *self)
{
    struct mmsghdr messages[RECEIVE_COUNT];
    struct iovec parts[RECEIVE_COUNT];
    uint8_t addresses[RECEIVE_COUNT][ADDRESS_BYTES];
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } controls[RECEIVE_COUNT];

    memset(messages, 0, sizeof messages);
    for (size_t at = 0; at < RECEIVE_COUNT; at++) {
        parts[at] = (struct iovec){self->engine->receive_room + at * RECEIVE_BYTES, RECEIVE_BYTES};
        messages[at].msg_hdr = (struct msghdr){
            .msg_name = self->is_udp ? addresses[at] : NULL,
            .msg_namelen = self->is_udp ? ADDRESS_BYTES : 0,
            .msg_iov = &parts[at],
            .msg_iovlen = 1,
            .msg_control = controls[at].room,
            .msg_controllen = sizeof controls[at].room,
        };
    }
    int count = recvmmsg(self->fd, messages, RECEIVE_COUNT, MSG_DONTWAIT, NULL);
    if (count < 0) {
        if (errno == EAGAIN || errno == EINTR)
            return;
        drop(self->engine, DROP_SOCKET_RECEIVE);
        link_error(self);
        return;
    }
    for (int at = 0; at < count; at++) {
        uint8_t *data = parts[at].iov_base;
        size_t size = messages[at].msg_len, segment = segment_bytes(&messages[at].msg_hdr, size);
        if (!self->is_udp && size == 0) { /* the other end of the pair was closed */
            link_lost(self);
            return;
        }
        do {
            size_t now = segment < size ? segment : size;
            datagram_receive_untrusted(self, data, now, &messages[at].msg_hdr);
            data += now;
            size -= now;
        } while (size > 0);
    }
    if (!self->closed)
        sctp_receive_done(self->sctp, self->engine->now);
}

void link_hangup(struct link *self)
{
    if (self->is_udp) /* of a socket pair's end the last datagrams are read first */
        link_lost(self);
}

/* Read what the kernel says about datagrams it could not deliver, or the socket stays ready for ever. */
void link_error(struct link *self)
{
    uint8_t address[ADDRESS_BYTES], data[64];

    if (!self->is_udp)
        return;
    for (int count = 0; count < 16; count++) {
        struct iovec part = {data, sizeof data};
        struct msghdr message = {.msg_name = address, .msg_namelen = sizeof address, .msg_iov = &part, .msg_iovlen = 1};
        if (recvmsg(self->fd, &message, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
            break;
        upcall_address(up_of_link(self, UP_WIRE_ERROR, 0), &message);
    }
    int error;
    socklen_t size = sizeof error;
    getsockopt(self->fd, SOL_SOCKET, SO_ERROR, &error, &size); /* reading it clears it */
}

/* ── the association's events ── */

static void on_opened(void *context)
{
    struct link *self = context;
    struct upcall *upcall = up(self->engine, UP_WIRE_OPENED, 0, false);

    self->opened = true;
    if (upcall != NULL)
        upcall->link = self->id;
}

static void on_message(void *context, struct sctp_arrival *arrival)
{
    struct link *self = context;
    const struct channel *channel = arrival->stream < self->channel_count ? &self->channels[arrival->stream] : NULL;

    if (channel != NULL && channel->tether != NULL) {
        if (arrival->ppid == PPID_BINARY) {
            struct sctp_message *message = arrival->message;
            arrival->message = NULL;
            frame_receive_untrusted(self, message, channel->index, arrival->unordered);
            return;
        }
        if (arrival->ppid != 50) { /* DCEP goes up: the acknowledgement of a channel mapped when it was opened */
            drop(self->engine, DROP_TEXT_MESSAGE);
            return;
        }
    }
    struct upcall *upcall = up_of_link(self, UP_WIRE_MESSAGE, arrival->message->size);
    if (upcall == NULL)
        return;
    upcall->a = arrival->stream;
    upcall->b = arrival->ppid;
    memcpy(upcall->data, arrival->message->data, arrival->message->size);
}

static void on_streams_reset(void *context, bool incoming, bool accepted, const uint16_t *streams, size_t count)
{
    struct link *self = context;
    size_t size = count * sizeof *streams;
    struct upcall *upcall = incoming ? up_of_link(self, UP_WIRE_RESET, size) : up(self->engine, UP_WIRE_RESET, size, false);

    if (upcall == NULL) { /* nobody would ever hear which streams are free again */
        link_end(self, "flood");
        sctp_close(self->sctp, true, self->engine->now);
        return;
    }
    upcall->link = self->id;
    upcall->a = incoming;
    upcall->b = accepted;
    memcpy(upcall->data, streams, count * sizeof *streams);
}

static void on_closed(void *context, enum sctp_end why) { link_end(context, sctp_end_name(why)); }

static const struct sctp_handler handler = {on_opened, on_message, on_streams_reset, on_closed};

uint64_t link_next_timeout(const struct link *self) { return self->closed ? NEVER : sctp_next_timeout(self->sctp); }

void link_handle_timeout(struct link *self) { sctp_handle_timeout(self->sctp, self->engine->now); }

/* ── tables ── */

static bool is_udp(int fd)
{
    int domain = 0;
    socklen_t size = sizeof domain;

    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && (domain == AF_INET || domain == AF_INET6);
}

/* A quarter of what is left of all windows: one link has all it can use, the hundredth still has some. */
static uint32_t window_grant(const struct engine *self)
{
    size_t left = self->window_bytes < WINDOWS_BYTES_MAX ? WINDOWS_BYTES_MAX - self->window_bytes : 0;
    size_t grant = left / 4;

    if (grant > WINDOW_BYTES_MAX)
        return WINDOW_BYTES_MAX;
    return (uint32_t)(grant > WINDOW_BYTES_MIN ? grant : WINDOW_BYTES_MIN);
}

static struct link *link_new(struct engine *self, const struct engine_link_config *config)
{
    struct link *link = calloc(1, sizeof *link);

    if (link == NULL)
        return NULL;
    link->engine = self;
    link->id = config->link;
    link->fd = config->fd;
    link->is_udp = is_udp(config->fd);
    link->segments = link->is_udp;
    link->window_bytes = window_grant(self);
    self->window_bytes += link->window_bytes;
    memcpy(link->address, config->address, sizeof link->address);
    link->address_bytes = config->address_bytes;
    map_init(&link->tethers, self->own.seed);
    link->dtls = dtls_new(config->keys);
    struct sctp_config association = {
        .port_local = config->port_local,
        .port_remote = config->port_remote,
        .window_bytes = link->window_bytes,
        .send_bytes_max = SEND_BYTES_MAX,
    };
    memcpy(association.entropy, config->entropy, sizeof association.entropy);
    if (link->dtls != NULL) {
        size_t overhead = dtls_overhead(link->dtls);
        size_t packet = config->datagram_bytes_max > overhead ? config->datagram_bytes_max - overhead : 0;
        packet = packet > SCTP_PACKET_BYTES_MAX ? SCTP_PACKET_BYTES_MAX : packet & ~(size_t)3;
        association.packet_bytes_max = (uint32_t)(packet < SCTP_PACKET_BYTES_MIN ? SCTP_PACKET_BYTES_MIN : packet);
        link->sctp = sctp_new(&association, &handler, link);
    }
    OPENSSL_cleanse(&association, sizeof association);
    if (link->sctp == NULL) {
        link_delete(link);
        return NULL;
    }
    return link;
}

void link_add_drops(const struct link *self, uint64_t drops[DROP_COUNT])
{
    const struct sctp_counts *counts = sctp_counts(self->sctp);

    drops[DROP_SCTP_MALFORMED] += counts->dropped_malformed;
    drops[DROP_SCTP_TAG] += counts->dropped_tag;
    drops[DROP_SCTP_CHECKSUM] += counts->dropped_checksum;
    drops[DROP_SCTP_WINDOW] += counts->dropped_window;
    drops[DROP_SCTP_OTHER] += counts->dropped_other; /* duplicates are no drop: they are the repair's price */
}

void link_delete(struct link *self)
{
    self->engine->window_bytes -= self->window_bytes;
    if (self->sctp != NULL)
        sctp_delete(self->sctp);
    dtls_delete(self->dtls);
    for (size_t at = 0; at < self->tethers.room; at++)
        free(self->tethers.slots[at].value);
    map_free(&self->tethers);
    free(self->channels);
    free(self->out);
    free(self);
}

const char *engine_add_link(struct engine *self, const struct engine_link_config *config)
{
    const char *problem = NULL;
    struct link *link = NULL;

    engine_lock(self);
    if (link_find(self, config->link) != NULL) {
        problem = "the link is there";
    } else if (self->link_count == ENGINE_LINK_COUNT_MAX) {
        problem = "too many links";
    } else if ((link = link_new(self, config)) == NULL) {
        problem = "keys that fit no cipher, or no memory";
    } else {
        struct epoll_event event = {.events = EPOLLIN, .data.u64 = link->id};
        if (link->is_udp)
            setsockopt(link->fd, SOL_UDP, UDP_GRO, &(int){1}, sizeof(int));
        if (!map_set(&self->links_by_id, (struct map_key){0, link->id}, link) ||
            epoll_ctl(self->epoll, EPOLL_CTL_ADD, link->fd, &event) < 0) {
            map_remove(&self->links_by_id, (struct map_key){0, link->id});
            link_delete(link);
            problem = "the socket cannot be watched";
        } else {
            link->place = self->link_count;
            self->links[self->link_count++] = link;
            sctp_connect(link->sctp, self->now);
            streams_reroute(self, link->id);
        }
    }
    engine_unlock_and_wake(self);
    return problem;
}

void engine_close_link(struct engine *self, uint32_t id)
{
    engine_lock(self);
    struct link *link = link_find(self, id);
    if (link != NULL && !link->closed) {
        sctp_close(link->sctp, true, self->now);
        if (link_flush(link))
            link_send_train(link);
        uint8_t record[DTLS_OVERHEAD_BYTES_MAX + DTLS_ALERT_BYTES];
        memcpy(record + dtls_payload_offset(link->dtls), (uint8_t[]){1, 0}, DTLS_ALERT_BYTES); /* warning, close_notify */
        size_t size = dtls_seal(link->dtls, DTLS_ALERT, record, DTLS_ALERT_BYTES);
        if (size > 0 && link->out_bytes == 0)
            train_send(link, record, size, size);
        link_end(link, "asked");
    }
    engine_unlock_and_wake(self);
}

void engine_remove_link(struct engine *self, uint32_t id)
{
    engine_lock(self);
    struct link *link = map_remove(&self->links_by_id, (struct map_key){0, id});
    if (link != NULL) {
        epoll_ctl(self->epoll, EPOLL_CTL_DEL, link->fd, NULL);
        if (link->is_udp)
            setsockopt(link->fd, SOL_UDP, UDP_GRO, &(int){0}, sizeof(int));
        for (size_t at = 1; at < self->egresses.room; at++) {
            struct egress *egress = self->egresses.items[at];
            if (egress != NULL && egress->link == link)
                egress_detach_link(egress); /* packets wait until the node has another route */
        }
        struct link *moved = self->links[--self->link_count];
        self->links[link->place] = moved;
        moved->place = link->place;
        link_add_drops(link, self->drops);
        link_delete(link);
#ifdef __GLIBC__
        if (self->link_count == 0)
            malloc_trim(0); /* what a flow at full rate needed is the board's again while nothing is up */
#endif
    }
    engine_unlock(self);
}

bool engine_send(struct engine *self, uint32_t id, uint16_t stream, uint32_t ppid, const uint8_t *data, size_t size)
{
    bool sent = false;

    engine_lock(self);
    struct link *link = link_find(self, id);
    struct sctp_message *message = link != NULL && !link->closed ? sctp_message_new(size) : NULL;
    if (message != NULL) {
        struct sctp_sending how = {.stream = stream, .ppid = ppid, .reliability = SCTP_RELIABLE};
        memcpy(message->data, data, size);
        sent = sctp_send(link->sctp, message, &how, self->now);
    }
    engine_unlock_and_wake(self);
    return sent;
}

bool engine_send_frame(struct engine *self, const struct relay_hop *hop, unsigned channel, const uint8_t *frame, size_t size)
{
    bool sent = false;

    engine_lock(self);
    struct link *link = link_find(self, hop->link);
    struct tether *tether = link != NULL && !link->closed ? link_tether(link, hop->tether) : NULL;
    if (tether == NULL || channel >= ENGINE_CHANNEL_COUNT_MAX || !tether->mapped[channel]) {
        drop(self, DROP_NO_TETHER);
    } else {
        struct sctp_message *message = sctp_message_new(size);
        struct sctp_sending how = {
            .stream = tether->streams[channel],
            .unordered = true,
            .ppid = PPID_BINARY,
            .reliability = SCTP_LIFETIME_MS_MAX,
            .reliability_value = tether->lifetime_ms,
        };
        if (message != NULL) {
            memcpy(message->data, frame, size);
            sent = sctp_send(link->sctp, message, &how, self->now);
        }
        if (!sent)
            drop(self, DROP_CARRIER_FULL);
    }
    engine_unlock_and_wake(self);
    return sent;
}

bool engine_reset_streams(struct engine *self, uint32_t id, const uint16_t *streams, size_t count)
{
    engine_lock(self);
    struct link *link = link_find(self, id);
    bool accepted = link != NULL && !link->closed && sctp_reset_streams(link->sctp, streams, count, self->now);
    engine_unlock_and_wake(self);
    return accepted;
}

static bool channels_reach(struct link *self, size_t count)
{
    if (count <= self->channel_count)
        return true;
    size_t room = self->channel_count > 0 ? self->channel_count : 32;
    while (room < count)
        room *= 2;
    struct channel *channels = realloc(self->channels, room * sizeof *channels);
    if (channels == NULL)
        return false;
    memset(channels + self->channel_count, 0, (room - self->channel_count) * sizeof *channels);
    self->channels = channels;
    self->channel_count = room;
    return true;
}

bool engine_map(struct engine *self, uint32_t id, uint16_t stream, uint64_t tether_id, unsigned index, uint32_t lifetime_ms)
{
    bool mapped = false;

    engine_lock(self);
    struct link *link = link_find(self, id);
    if (link != NULL && index < ENGINE_CHANNEL_COUNT_MAX && stream < SCTP_STREAM_COUNT_MAX &&
        channels_reach(link, (size_t)stream + 1)) {
        struct tether *tether = link_tether(link, tether_id);
        if (tether == NULL && link->tethers.count < ENGINE_TETHER_COUNT_MAX && (tether = calloc(1, sizeof *tether)) != NULL) {
            tether->id = tether_id;
            if (!map_set(&link->tethers, (struct map_key){0, tether_id}, tether)) {
                free(tether);
                tether = NULL;
            }
        }
        if (tether != NULL) {
            if (tether->mapped[index] && link->channels[tether->streams[index]].tether == tether)
                link->channels[tether->streams[index]].tether = NULL; /* unmap() would not find it any more */
            tether->streams[index] = stream;
            tether->mapped[index] = true;
            tether->lifetime_ms = lifetime_ms;
            link->channels[stream] = (struct channel){tether, (uint8_t)index};
            mapped = true;
            streams_reroute(self, id);
        }
    }
    engine_unlock_and_wake(self);
    return mapped;
}

void engine_unmap(struct engine *self, uint32_t id, uint64_t tether_id)
{
    engine_lock(self);
    struct link *link = link_find(self, id);
    struct tether *tether = link != NULL ? map_remove(&link->tethers, (struct map_key){0, tether_id}) : NULL;
    for (unsigned index = 0; tether != NULL && index < ENGINE_CHANNEL_COUNT_MAX; index++)
        if (tether->mapped[index] && link->channels[tether->streams[index]].tether == tether)
            link->channels[tether->streams[index]].tether = NULL;
    free(tether);
    engine_unlock(self);
}

bool engine_link(struct engine *self, uint32_t id, struct engine_link *out)
{
    engine_lock(self);
    const struct link *link = link_find(self, id);
    if (link != NULL)
        *out = (struct engine_link){sctp_state(link->sctp), *sctp_counts(link->sctp), link->window_bytes};
    engine_unlock(self);
    return link != NULL;
}
