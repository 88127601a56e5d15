#include "base/map.h"

#include <stdlib.h>

#include "base/check.h"
#include "base/mix.h"

enum { ROOM_MIN = 16 };

static size_t place(const struct map *self, struct map_key key)
{
    return (size_t)mix64(mix64(key.high ^ self->seed) ^ key.low) & (self->room - 1);
}

static bool same(struct map_key one, struct map_key other) { return one.high == other.high && one.low == other.low; }

void map_init(struct map *self, uint64_t seed) { *self = (struct map){.seed = seed}; }

void map_free(struct map *self)
{
    free(self->slots);
    map_init(self, self->seed);
}

void *map_find(const struct map *self, struct map_key key)
{
    if (self->count == 0)
        return NULL;
    for (size_t at = place(self, key);; at = (at + 1) & (self->room - 1)) {
        const struct map_slot *slot = &self->slots[at];
        if (slot->value == NULL)
            return NULL;
        if (same(slot->key, key))
            return slot->value;
    }
}

static void put(struct map *self, struct map_key key, void *value)
{
    size_t at = place(self, key);

    while (self->slots[at].value != NULL && !same(self->slots[at].key, key))
        at = (at + 1) & (self->room - 1);
    if (self->slots[at].value == NULL)
        self->count++;
    self->slots[at] = (struct map_slot){key, value};
}

bool map_set(struct map *self, struct map_key key, void *value)
{
    if ((self->count + 1) * 4 > self->room * 3) { /* three quarters full: chains stay short */
        struct map larger = {.seed = self->seed, .room = self->room ? self->room * 2 : ROOM_MIN};
        larger.slots = calloc(larger.room, sizeof *larger.slots);
        if (larger.slots == NULL)
            return false;
        for (size_t at = 0; at < self->room; at++)
            if (self->slots[at].value != NULL)
                put(&larger, self->slots[at].key, self->slots[at].value);
        CHECK(larger.count == self->count);
        free(self->slots);
        *self = larger;
    }
    put(self, key, value);
    CHECK(self->count < self->room); /* a search ends at a free slot */
    return true;
}

void *map_remove(struct map *self, struct map_key key)
{
    if (self->count == 0)
        return NULL;
    size_t at = place(self, key), mask = self->room - 1;
    while (self->slots[at].value != NULL && !same(self->slots[at].key, key))
        at = (at + 1) & mask;
    void *value = self->slots[at].value;
    if (value == NULL)
        return NULL;
    /* Close the gap: move back each entry that a search would no longer reach across it. */
    size_t gap = at;
    for (at = (at + 1) & mask; self->slots[at].value != NULL; at = (at + 1) & mask) {
        size_t wanted = place(self, self->slots[at].key);
        if (((at - wanted) & mask) >= ((at - gap) & mask)) {
            self->slots[gap] = self->slots[at];
            gap = at;
        }
    }
    self->slots[gap].value = NULL;
    self->count--;
    return value;
}
