/* A hash table from 16 bytes to a pointer: addresses, labels, tethers.  Open addressing, linear probing, keyed hash: a
 * member may choose its address, but not its slot.  Does not know what it holds. */

#ifndef CONFLUX_MAP_H
#define CONFLUX_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct map_key {
    uint64_t high, low;
};

struct map_slot {
    struct map_key key;
    void *value; /* NULL: free */
};

struct map {
    struct map_slot *slots; /* NULL until the first map_set() */
    size_t room; /* a power of two */
    size_t count;
    uint64_t seed;
};

void map_init(struct map *self, uint64_t seed);
void map_free(struct map *self); /* the values stay the caller's */

void *map_find(const struct map *self, struct map_key key); /* NULL: not there */
bool map_set(struct map *self, struct map_key key, void *value); /* false: no memory; an old value is replaced */
void *map_remove(struct map *self, struct map_key key); /* returns the value, or NULL */

#endif
