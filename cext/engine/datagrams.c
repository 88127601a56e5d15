/* A link's datagrams: UDP in trains (UDP_SEGMENT, UDP_GRO), or one end of a socket pair.  DTLS records are sealed
 * and opened in place.  Decides by its first byte what a datagram is.  Its content is the association's; turns.c
 * says what goes next. */

#define _GNU_SOURCE

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "engine/private.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

enum {
    DTLS_ALERT_BYTES = 2,
    HANDSHAKE_COUNT_MAX = 32, /* twice what the handshake's library reads; a forged one takes 13 bytes */
    ADDRESS_BYTES = ENGINE_ADDRESS_BYTES,
    STUN_BURST = 50, /* of a link, at once: all pairs that an agent checks before it settles, and their answers */
    STUN_BURST_ALL = 500, /* of all links */
};

/* Between two STUN messages that Python reads, at 50 us each.  A link needs one in 2.5 s: a consent check of each
 * side in 5 s, and their answers (RFC 7675).  All links together cost a fortieth of a core at most. */
#define STUN_INTERVAL_NS (50 * MS_NS)
#define STUN_INTERVAL_ALL_NS (2 * MS_NS)

/* From a refused train to the next try, doubled while trains are refused.  Chosen: a host that moves to another
 * network has trains again soon, and where they never pass, one try in ten minutes costs nothing. */
#define TRAINS_PAUSE_NS_MIN (10 * SECOND_NS)
#define TRAINS_PAUSE_NS_MAX (640 * SECOND_NS)

/* ── the socket ── */

static bool is_udp(int fd)
{
    int domain = 0;
    socklen_t size = sizeof domain;

    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && (domain == AF_INET || domain == AF_INET6);
}

bool datagrams_open(struct link *self)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = self->id};

    self->is_udp = is_udp(self->fd);
    if (self->is_udp)
        setsockopt(self->fd, SOL_UDP, UDP_GRO, &(int){1}, sizeof(int));
    return epoll_ctl(self->engine->epoll, EPOLL_CTL_ADD, self->fd, &event) == 0;
}

void datagrams_close(struct link *self)
{
    epoll_ctl(self->engine->epoll, EPOLL_CTL_DEL, self->fd, NULL);
    if (self->is_udp)
        setsockopt(self->fd, SOL_UDP, UDP_GRO, &(int){0}, sizeof(int));
}

static void watch(struct link *self, bool out)
{
    struct epoll_event event = {.events = EPOLLIN | (out ? EPOLLOUT : 0), .data.u64 = self->id};

    if (self->watches_out != out && epoll_ctl(self->engine->epoll, EPOLL_CTL_MOD, self->fd, &event) == 0)
        self->watches_out = out;
}

/* ── out ── */

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

/* Whether the kernel refuses trains here, but may take single datagrams: the segments are larger than the device's
 * present MTU (EMSGSIZE; until 2025 EINVAL), the device computes no checksums (EIO, before Linux 6.11), IPsec is on
 * the way (EIO), or the kernel has no UDP_SEGMENT. */
static bool refuses_trains(int error)
{
    return error == EMSGSIZE || error == EINVAL || error == EIO || error == EOPNOTSUPP;
}

static void trains_rest(struct link *self)
{
    uint64_t pause_ns = self->trains_pause_ns == 0 ? TRAINS_PAUSE_NS_MIN : 2 * self->trains_pause_ns;

    self->trains_pause_ns = pause_ns < TRAINS_PAUSE_NS_MAX ? pause_ns : TRAINS_PAUSE_NS_MAX;
    self->trains_at = self->engine->now + self->trains_pause_ns;
}

/* Send one train.  False: the socket is full, and the rest waits in self->out.  Any other error loses these packets,
 * which SCTP repairs or gives up. */
static bool train_send(struct link *self, const uint8_t *data, size_t size, size_t segment)
{
    bool retried = false;

    while (size > 0) {
        bool train = size > segment && self->engine->now >= self->trains_at;
        size_t now = train || size < segment ? size : segment;
        if (socket_send(self, data, now, segment) >= 0) {
            if (train)
                self->trains_pause_ns = 0;
            self->moved.udp_bytes_sent += now;
            self->moved.udp_sent += (now + segment - 1) / segment;
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
        if (train && refuses_trains(errno)) {
            trains_rest(self);
            continue;
        }
        if (!retried) { /* the error may be an ICMP message about an earlier datagram */
            retried = true;
            datagrams_error(self);
            continue;
        }
        drop(self->engine, DROP_SOCKET_SEND);
        data += now;
        size -= now;
        retried = false;
    }
    return true;
}

/* Seal the packets that may go now into one train, and send it.  Returns its bytes; 0: there is nothing to send; -1:
 * the socket is full. */
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
            sctp_close(self->sctp, true, self->engine->now); /* 2**48 records are used up, or libcrypto is broken */
            break;
        }
        if (count > 0 && sealed > segment) { /* only the last of a train may differ in size: this one begins another */
            if (!train_send(self, batch, size, segment)) {
                /* What is before it waits for the socket; this record is lost. */
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

bool datagrams_pump(struct link *self)
{
    if (!link_flush(self))
        return false;
    for (int count = 0; count < PUMP_BATCH_COUNT_MAX; count++) {
        if (!self->closed)
            turns_fill(self);
        if (link_send_train(self) <= 0)
            return false;
    }
    return true;
}

void datagrams_send_goodbye(struct link *self)
{
    size_t offset = dtls_payload_offset(self->dtls), size = 0;
    uint8_t *batch = self->engine->batch;

    if (!link_flush(self))
        return;
    size_t packet = sctp_next_packet(self->sctp, batch + offset, SCTP_PACKET_BYTES_MAX, self->engine->now); /* ABORT */
    if (packet > 0)
        size = dtls_seal(self->dtls, DTLS_APPLICATION_DATA, batch, packet);
    memcpy(batch + size + offset, (uint8_t[]){1, 0}, DTLS_ALERT_BYTES); /* warning, close_notify */
    size += dtls_seal(self->dtls, DTLS_ALERT, batch + size, DTLS_ALERT_BYTES);
    if (size > 0)
        train_send(self, batch, size, size); /* in one datagram: the peer may close its socket at the first */
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
    struct upcall *upcall = upcall_push_of_link(self, UP_WIRE_DATAGRAM, size);

    if (upcall == NULL)
        return;
    memcpy(upcall->data, data, size);
    upcall_address(upcall, message);
}

/* The socket is dead, and would be ready for ever. */
static void link_lost(struct link *self)
{
    links_end(self, "socket");
    epoll_ctl(self->engine->epoll, EPOLL_CTL_DEL, self->fd, NULL);
}

/* Python reads what the peer made.  A stranger's flood costs an HMAC each, and takes nothing from the peer; nor does a
 * message of the peer that a stranger heard and sends again and again. */
static void stun_receive_untrusted(struct link *self, const uint8_t *data, size_t size, const struct msghdr *message)
{
    struct engine *engine = self->engine;

    switch (stun_check_untrusted(self->stun, data, size)) {
    case STUN_OK:
        if (!stun_count_untrusted(self->stun, data))
            drop(engine, DROP_STUN_REPEATED);
        else if (bucket_take(&self->stun_bucket, STUN_INTERVAL_NS, STUN_BURST, engine->now) &&
                 bucket_take(&engine->stun_bucket, STUN_INTERVAL_ALL_NS, STUN_BURST_ALL, engine->now))
            link_upcall_datagram(self, data, size, message);
        else
            drop(engine, DROP_STUN_RATE);
        break;
    case STUN_AUTH:
        drop(engine, DROP_STUN_AUTH);
        break;
    default:
        drop(engine, DROP_STUN_MALFORMED);
    }
}

/* One datagram, opened in place.  It is left at its first bad record: who has the key makes none, so the rest is no
 * better, and 39 records in a datagram would cost as much as 39 datagrams. */
static void datagram_receive_untrusted(struct link *self, uint8_t *data, size_t size, const struct msghdr *message)
{
    if (size == 0 || (data[0] > 3 && (data[0] < 20 || data[0] > 63))) { /* RFC 7983 */
        drop(self->engine, DROP_NOT_DTLS_NOR_STUN);
        return;
    }
    if (data[0] <= 3) {
        self->moved.stun_bytes_received += size;
        self->moved.stun_received++;
        stun_receive_untrusted(self, data, size, message);
        return;
    }
    while (size > 0 && !self->closed) {
        struct dtls_record record;
        enum dtls_fault fault = dtls_unseal_untrusted(self->dtls, data, size, &record);
        switch (fault) {
        case DTLS_OK:
            if (record.type == DTLS_APPLICATION_DATA) {
                self->heard = true;
                sctp_receive_untrusted(self->sctp, record.payload, record.payload_size, self->engine->now);
            } else if (record.type == DTLS_ALERT)
                links_end(self, "alert"); /* close_notify, or a fatal one: either ends the link */
            break;
        case DTLS_OTHER_EPOCH: /* a peer that seals packets has our last flight, and needs no other record */
            if (self->heard || self->handshake_count == HANDSHAKE_COUNT_MAX) {
                drop(self->engine, DROP_DTLS_LATE);
                return;
            }
            self->handshake_count++;
            link_upcall_datagram(self, data, record.record_size, message);
            break;
        case DTLS_REPLAY:
            drop(self->engine, DROP_DTLS_REPLAY);
            return;
        case DTLS_AUTH:
            drop(self->engine, DROP_DTLS_AUTH);
            return;
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

void datagrams_receive(struct link *self)
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
        datagrams_error(self);
        return;
    }
    for (int at = 0; at < count; at++) {
        uint8_t *data = parts[at].iov_base;
        size_t size = messages[at].msg_len, segment = segment_bytes(&messages[at].msg_hdr, size);
        if (!self->is_udp && size == 0) { /* the pair's other end was closed */
            link_lost(self);
            return;
        }
        self->moved.udp_bytes_received += size;
        self->moved.udp_received += size > 0 ? (size + segment - 1) / segment : 1;
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

void datagrams_hangup(struct link *self)
{
    if (self->is_udp) /* of a socket pair, the last datagrams are read first */
        link_lost(self);
}

/* Read the kernel's errors about datagrams that it could not deliver; else the socket stays ready for ever. */
void datagrams_error(struct link *self)
{
    uint8_t address[ADDRESS_BYTES], data[64];

    if (!self->is_udp)
        return;
    for (int count = 0; count < 16; count++) {
        struct iovec part = {data, sizeof data};
        struct msghdr message = {.msg_name = address, .msg_namelen = sizeof address, .msg_iov = &part, .msg_iovlen = 1};
        if (recvmsg(self->fd, &message, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
            break;
        upcall_address(upcall_push_of_link(self, UP_WIRE_ERROR, 0), &message);
    }
    int error;
    socklen_t size = sizeof error;
    getsockopt(self->fd, SOL_SOCKET, SO_ERROR, &error, &size); /* reading it clears it */
}
