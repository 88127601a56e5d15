/* A link's datagrams: UDP in trains (UDP_SEGMENT, UDP_GRO), or one end of a socket pair; DTLS records sealed and opened
 * where they lie.  Decides what a datagram is by its first byte; what is in it is the association's, and what goes next
 * engine_turns.c's to say. */

#define _GNU_SOURCE

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "engine_private.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

enum {
    DTLS_ALERT_BYTES = 2,
    HANDSHAKE_COUNT_MAX = 32, /* twice what the handshake's library looks at; anybody can forge one in 13 bytes */
    ADDRESS_BYTES = 28,
    STUN_HEADER_BYTES = 20,
    STUN_COOKIE = 0x2112A442,
};

/* From the first refused train to the next, doubled at each that is refused as well.  Chosen: who moves to another
 * network has them again soon, and where they never go one try in ten minutes costs nothing. */
#define TRAINS_PAUSE_MIN (10 * SECOND)
#define TRAINS_PAUSE_MAX (640 * SECOND)

/* ── the socket ── */

static bool is_udp(int fd)
{
    int domain = 0;
    socklen_t size = sizeof domain;

    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && (domain == AF_INET || domain == AF_INET6);
}

bool link_take_socket(struct link *self)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = self->id};

    self->is_udp = is_udp(self->fd);
    if (self->is_udp)
        setsockopt(self->fd, SOL_UDP, UDP_GRO, &(int){1}, sizeof(int));
    return epoll_ctl(self->engine->epoll, EPOLL_CTL_ADD, self->fd, &event) == 0;
}

void link_leave_socket(struct link *self)
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

/* Whether the kernel takes no train here, and may take its datagrams one by one: its segments are larger than the
 * device takes by now (EMSGSIZE; until 2025 EINVAL), the device checksums nothing (EIO, before Linux 6.11), IPsec is on
 * the way (EIO), or it knows no UDP_SEGMENT. */
static bool refuses_trains(int error)
{
    return error == EMSGSIZE || error == EINVAL || error == EIO || error == EOPNOTSUPP;
}

static void trains_rest(struct link *self)
{
    uint64_t pause = self->trains_pause == 0 ? TRAINS_PAUSE_MIN : 2 * self->trains_pause;

    self->trains_pause = pause < TRAINS_PAUSE_MAX ? pause : TRAINS_PAUSE_MAX;
    self->trains_at = self->engine->now + self->trains_pause;
}

/* Send one train; false: the socket is full, and what is left waits in self->out.  Whatever else goes wrong costs these
 * packets, which SCTP repairs or gives up. */
static bool train_send(struct link *self, const uint8_t *data, size_t size, size_t segment)
{
    bool retried = false;

    while (size > 0) {
        bool train = size > segment && self->engine->now >= self->trains_at;
        size_t now = train || size < segment ? size : segment;
        if (socket_send(self, data, now, segment) >= 0) {
            if (train)
                self->trains_pause = 0;
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

void link_send_goodbye(struct link *self)
{
    if (link_flush(self))
        link_send_train(self);
    uint8_t record[DTLS_OVERHEAD_BYTES_MAX + DTLS_ALERT_BYTES];
    memcpy(record + dtls_payload_offset(self->dtls), (uint8_t[]){1, 0}, DTLS_ALERT_BYTES); /* warning, close_notify */
    size_t size = dtls_seal(self->dtls, DTLS_ALERT, record, DTLS_ALERT_BYTES);
    if (size > 0 && self->out_bytes == 0)
        train_send(self, record, size, size);
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

/* The socket will carry nothing any more, and would be ready for ever. */
static void link_lost(struct link *self)
{
    link_end(self, "socket");
    epoll_ctl(self->engine->epoll, EPOLL_CTL_DEL, self->fd, NULL);
}

/* Whether a datagram that begins with two zero bits has STUN's header (RFC 8489, section 5); what the attributes behind
 * it say is Python's to read. */
static bool stun_fits_untrusted(const uint8_t *data, size_t size)
{
    return size >= STUN_HEADER_BYTES && size % 4 == 0 && load_u32(data + 4) == STUN_COOKIE &&
           ((size_t)data[2] << 8 | data[3]) == size - STUN_HEADER_BYTES;
}

/* One datagram, opened in place. */
static void datagram_receive_untrusted(struct link *self, uint8_t *data, size_t size, const struct msghdr *message)
{
    if (size == 0 || (data[0] > 3 && (data[0] < 20 || data[0] > 63))) { /* RFC 7983 */
        drop(self->engine, DROP_NOT_DTLS_NOR_STUN);
        return;
    }
    if (data[0] <= 3) {
        if (stun_fits_untrusted(data, size))
            link_upcall_datagram(self, data, size, message);
        else
            drop(self->engine, DROP_STUN_MALFORMED);
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
