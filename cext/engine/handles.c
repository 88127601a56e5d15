/* Handles: small numbers that stand for pointers.  A new item gets the smallest that is free; 0 is none. */

#include <stdlib.h>

#include "engine/private.h"

void *handles_find(const struct handles *self, uint32_t handle)
{
    return handle > 0 && handle < self->room ? self->items[handle] : NULL;
}

uint32_t handles_add(struct handles *self, void *item)
{
    uint32_t handle = self->free > 0 ? self->free : 1;

    while (handle < self->room && self->items[handle] != NULL)
        handle++;
    if (handle >= self->room) {
        size_t room = self->room > 0 ? self->room * 2 : 64;
        void **items = realloc(self->items, room * sizeof *items);
        if (items == NULL)
            return 0;
        memset(items + self->room, 0, (room - self->room) * sizeof *items);
        self->items = items;
        self->room = room;
    }
    self->items[handle] = item;
    self->free = handle + 1;
    return handle;
}

void handles_remove(struct handles *self, uint32_t handle)
{
    CHECK(handle < self->room && self->items[handle] != NULL);
    self->items[handle] = NULL;
    if (handle < self->free)
        self->free = handle;
}
