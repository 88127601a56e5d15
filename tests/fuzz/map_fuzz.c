/* libFuzzer over cext/base/map.c, beside a table that cannot be wrong: a script sets, finds and removes keys.
 *
 *     seed | (what and which)* */

#include "base/map.h"
#include "script.h"

enum { KEY_COUNT = 64 };

static int values[4];

static struct map_key key_of(unsigned number)
{
    /* near each other, and far: neighbours in the table, and what differs in its last bits alone */
    return (struct map_key){number & 32 ? UINT64_MAX - number : number >> 3, (uint64_t)(number & 7) << 61 | number};
}

static void look(const struct map *map, void *const model[KEY_COUNT])
{
    size_t count = 0;

    for (unsigned number = 0; number < KEY_COUNT; number++) {
        demand(map_find(map, key_of(number)) == model[number]);
        count += model[number] != NULL;
    }
    demand(map->count == count);
    demand(map->room == 0 || (map->room & (map->room - 1)) == 0);
    demand(map->count < map->room || map->room == 0); /* a free slot ends every search */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct script script = {data, size};
    void *model[KEY_COUNT] = {0};
    struct map map;

    map_init(&map, next_byte(&script));
    while (script.left > 0) {
        uint8_t what = next_byte(&script);
        unsigned number = what % KEY_COUNT;
        if (what & 128) {
            demand(map_remove(&map, key_of(number)) == model[number]);
            model[number] = NULL;
        } else {
            void *value = &values[next_byte(&script) % 4];
            demand(map_set(&map, key_of(number), value));
            model[number] = value;
        }
        look(&map, model);
    }
    map_free(&map);
    return 0;
}
