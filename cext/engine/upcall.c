/* Upcalls: what the engine tells Python.  Each kind that a peer can cause has a bound, and no link may fill it
 * alone. */

#include <stdlib.h>
#include <sys/eventfd.h>

#include "engine/lock.h"
#include "engine/private.h"

static struct upcall *append(struct engine *self, enum upcall_kind kind, size_t size, bool untrusted)
{
    struct upcall *upcall = calloc(1, sizeof *upcall + size);
    if (upcall == NULL) {
        drop(self, DROP_MEMORY);
        return NULL;
    }
    if (untrusted) {
        self->upcalls.counts[kind]++;
        self->upcalls.bytes[kind] += size;
    }
    upcall->kind = kind;
    upcall->size = (uint32_t)size;
    if (self->upcalls.last != NULL) {
        self->upcalls.last->next = upcall;
    } else {
        self->upcalls.first = upcall;
        eventfd_write(self->upcall_fd, 1);
    }
    self->upcalls.last = upcall;
    return upcall;
}

struct upcall *upcall_push(struct engine *self, enum upcall_kind kind, size_t size, bool untrusted)
{
    if (untrusted && (self->upcalls.counts[kind] >= self->config.upcall_count_max ||
                      self->upcalls.bytes[kind] + size > UPCALL_BYTES_MAX)) {
        drop(self, DROP_UPCALL_FULL);
        return NULL;
    }
    return append(self, kind, size, untrusted);
}

/* A link may have as many waiting as are then still free (dynamic thresholds, as for a relay's routes).  Of twice
 * the bound one link takes half at most and two take a third each, so that some is always left for a link that has
 * none. */
struct upcall *upcall_push_of_link(struct link *link, enum upcall_kind kind, size_t size)
{
    struct engine *self = link->engine;
    struct upcall_share *share = &link->upcalls;

    if (share->take != self->upcalls.take)
        *share = (struct upcall_share){.take = self->upcalls.take};
    if (share->counts[kind] + self->upcalls.counts[kind] >= 2 * self->config.upcall_count_max ||
        share->bytes[kind] + self->upcalls.bytes[kind] + 2 * size > 2 * (size_t)UPCALL_BYTES_MAX) {
        drop(self, DROP_UPCALL_FULL);
        return NULL;
    }
    struct upcall *upcall = append(self, kind, size, true);
    if (upcall != NULL) {
        upcall->link = link->id;
        share->counts[kind]++;
        share->bytes[kind] += size;
    }
    return upcall;
}

struct upcall *engine_take_upcalls(struct engine *self)
{
    eventfd_t ignored;

    engine_lock(self);
    struct upcall *first = self->upcalls.first;
    self->upcalls = (struct upcalls){.take = self->upcalls.take + 1};
    eventfd_read(self->upcall_fd, &ignored);
    engine_unlock(self);
    return first;
}

void upcall_free_all(struct engine *self)
{
    for (struct upcall *next; self->upcalls.first != NULL; self->upcalls.first = next) {
        next = self->upcalls.first->next;
        free(self->upcalls.first);
    }
}

int engine_upcall_fd(const struct engine *self) { return self->upcall_fd; }
