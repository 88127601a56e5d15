/* A link's trains, a kernel that refuses some of them, and trains that come; driven by lines.  Replaces sendmsg(),
 * recvmmsg(), the association and its records. */

#define _GNU_SOURCE

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>

#include "engine/private.h"
#include "lines.h"

enum { RECORD_BYTES = 1000 };

static struct engine engine;
static struct link one = {.engine = &engine, .fd = -1, .is_udp = true};
static size_t waiting; /* packets that the association has */
static int refusal; /* the errno of a train; 0: it is sent */
static int single_error; /* the same of a single datagram */

ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags)
{
    size_t size = message->msg_iov->iov_len;
    int error = message->msg_controllen > 0 ? refusal : single_error;

    (void)fd, (void)flags;
    printf("%s%zu", error != 0 ? "!" : "", size / RECORD_BYTES);
    putchar(' ');
    errno = error;
    return error != 0 ? -1 : (ssize_t)size;
}

static struct blob coming[RECEIVE_COUNT]; /* what recvmmsg() finds */
static int coming_segment[RECEIVE_COUNT]; /* as the kernel says it; 0: it says nothing */
static unsigned coming_count;

int __wrap_recvmmsg(int fd, struct mmsghdr *messages, unsigned room, int flags, struct timespec *timeout)
{
    (void)fd, (void)flags, (void)timeout;
    for (unsigned at = 0; at < coming_count && at < room; at++) {
        struct msghdr *message = &messages[at].msg_hdr;
        memcpy(message->msg_iov->iov_base, coming[at].data, coming[at].size);
        messages[at].msg_len = (unsigned)coming[at].size;
        message->msg_namelen = 0;
        struct cmsghdr *control = CMSG_FIRSTHDR(message);
        *control = (struct cmsghdr){CMSG_LEN(sizeof(int)), SOL_UDP, UDP_GRO};
        memcpy(CMSG_DATA(control), &coming_segment[at], sizeof(int));
        if (coming_segment[at] == 0)
            message->msg_controllen = 0;
    }
    return (int)coming_count;
}

static void receive(void)
{
    coming_count = (unsigned)number();
    for (unsigned at = 0; at < coming_count; at++) {
        coming_segment[at] = (int)number();
        coming[at] = blob();
    }
    datagrams_receive(&one);
    for (unsigned at = 0; at < coming_count; at++)
        free(coming[at].data);
    const struct engine_moved *moved = &one.moved;
    printf(
        "%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64, moved->udp_bytes_received, moved->udp_received,
        moved->stun_bytes_received, moved->stun_received
    );
}

/* ── the association and its records ── */

size_t sctp_next_packet(struct sctp *self, uint8_t *room, size_t room_size, uint64_t now)
{
    (void)self, (void)room_size, (void)now;
    if (waiting == 0)
        return 0;
    waiting--;
    memset(room, 'x', RECORD_BYTES);
    return RECORD_BYTES;
}

void sctp_close(struct sctp *self, bool abort, uint64_t now) { (void)self, (void)abort, (void)now; }
void sctp_receive_done(struct sctp *self, uint64_t now) { (void)self, (void)now; }

void sctp_receive_untrusted(struct sctp *self, uint8_t *packet, size_t size, uint64_t now)
{
    (void)self, (void)packet, (void)size, (void)now;
}

size_t dtls_payload_offset(const struct dtls *self) { return (void)self, 0; }
size_t dtls_overhead(const struct dtls *self) { return (void)self, 0; }

size_t dtls_seal(struct dtls *self, uint8_t type, uint8_t *record, size_t payload_size)
{
    (void)self, (void)type, (void)record;
    return payload_size;
}

enum dtls_fault dtls_unseal_untrusted(struct dtls *self, uint8_t *datagram, size_t size, struct dtls_record *out)
{
    (void)self, (void)datagram, (void)size, (void)out;
    return DTLS_TRUNCATED;
}

/* ── the engine's other files ── */

void turns_fill(struct link *self) { (void)self; }
void links_end(struct link *self, const char *why) { (void)self, (void)why; }

struct upcall *upcall_push_of_link(struct link *link, enum upcall_kind kind, size_t size)
{
    (void)link, (void)kind, (void)size;
    return NULL;
}

int main(void)
{
    const char *command;

    engine.batch = malloc(BATCH_BYTES);
    engine.receive_room = malloc((size_t)RECEIVE_COUNT * RECEIVE_BYTES);
    if (engine.batch == NULL || engine.receive_room == NULL)
        return 1;
    while ((command = line_next()) != NULL) {
        if (strcmp(command, "refuse") == 0) {
            refusal = (int)number();
            single_error = (int)number();
        } else if (strcmp(command, "later") == 0) {
            engine.now += number() * MS_NS;
        } else if (strcmp(command, "send") == 0) {
            waiting = number();
            datagrams_pump(&one);
        } else if (strcmp(command, "dropped") == 0) {
            printf("%" PRIu64, engine.drops[DROP_SOCKET_SEND]);
        } else if (strcmp(command, "receive") == 0) {
            receive();
        }
        line_end();
    }
    free(one.out);
    free(engine.receive_room);
    free(engine.batch);
    return 0;
}
