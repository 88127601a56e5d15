/* The links by their number, a link's tethers by theirs, and the end of a link's association. */

#include "engine/private.h"

struct link *links_find(const struct engine *self, uint32_t id)
{
    return map_find(&self->links_by_id, (struct map_key){0, id});
}

struct tether *links_tether(const struct link *self, uint64_t id)
{
    return map_find(&self->tethers, (struct map_key){0, id});
}

void links_end(struct link *self, const char *why)
{
    if (self->closed)
        return;
    self->closed = true;
    size_t size = strlen(why);
    struct upcall *upcall = upcall_push(self->engine, UP_WIRE_CLOSED, size, false);
    if (upcall != NULL) {
        upcall->link = self->id;
        memcpy(upcall->data, why, size);
    }
}
