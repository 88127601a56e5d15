/* The TUN device: packets with their offload headers, in batches.  Knows only the descriptor. */

#include <errno.h>
#include <sys/epoll.h>
#include <sys/uio.h>
#include <unistd.h>

#include "engine/private.h"

static void device_lost(struct engine *self, int error)
{
    epoll_ctl(self->epoll, EPOLL_CTL_DEL, self->config.tun, NULL);
    self->device_lost = true;
    struct upcall *upcall = upcall_push(self, UP_DEVICE_LOST, 0, false);
    if (upcall != NULL)
        upcall->a = (uint32_t)error;
}

void tun_read(struct engine *self)
{
    for (size_t budget = TUN_BYTES_PER_TURN; budget > 0 && !self->device_lost;) {
        if (self->spare == NULL && (self->spare = queued_new(PACKET_BYTES_MAX)) == NULL) {
            drop(self, DROP_MEMORY);
            return;
        }
        uint8_t header[OFFLOAD_BYTES];
        struct iovec parts[2] = {{header, sizeof header}, {self->spare->data, PACKET_BYTES_MAX}};
        ssize_t got = readv(self->config.tun, parts, 2);
        if (got < 0) {
            if (errno == EAGAIN || errno == EINTR)
                return;
            if (errno == ENOMEM || errno == ENOBUFS)
                drop(self, DROP_TUN_READ);
            else
                device_lost(self, errno); /* it would fail for ever; a device that is down is just not ready */
            return;
        }
        if (got == 0) {
            device_lost(self, ENODEV);
            return;
        }
        if (got < OFFLOAD_BYTES) {
            drop(self, DROP_PACKET_SHORT);
            return;
        }
        self->counts.tun_read++;
        size_t size = (size_t)got - OFFLOAD_BYTES;
        struct queued *packet = self->spare;
        if (size > PACKET_COPY_BYTES_MAX) {
            self->spare = NULL;
        } else if ((packet = queued_new(size)) != NULL) {
            memcpy(packet->data, self->spare->data, size);
        } else {
            drop(self, DROP_MEMORY);
            return;
        }
        packet_queue(self, packet, header, size, self->now);
        budget -= size + 256 < budget ? size + 256 : budget; /* a small packet has a cost too */
    }
}

void tun_write(struct engine *self, const struct offload *offload, const uint8_t *packet, size_t size)
{
    uint8_t header[OFFLOAD_BYTES];
    struct iovec parts[2] = {{header, sizeof header}, {(void *)packet, size}};

    if (self->config.tun < 0 || self->device_lost) {
        drop(self, DROP_TUN_DOWN);
        return;
    }
    offload_store(offload, header);
    if (writev(self->config.tun, parts, 2) >= 0) {
        self->counts.tun_written++;
        return;
    }
    /* EIO: the device is down.  EINVAL: not an IP packet.  Either loses this packet only. */
    if (errno == EAGAIN)
        drop(self, DROP_TUN_FULL);
    else if (errno == EIO || errno == EBADFD || errno == ENODEV || errno == ENXIO)
        drop(self, DROP_TUN_DOWN);
    else
        drop(self, DROP_TUN_REFUSED);
}
