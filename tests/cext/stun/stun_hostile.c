/* Gives stun.c, under sanitizers, what a stranger may send: random datagrams and changed genuine ones, in memory of
 * exactly their size.  The genuine one is standard input.  usage: stun_hostile SEED COUNT; prints how many were taken. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stun/stun.h"

enum { DATAGRAM_BYTES_MAX = 2048 };

static uint64_t state;

static uint32_t draw(uint32_t below) /* xorshift64* */
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)((state * 2685821657736338717u) >> 32) % below;
}

int main(int argc, char **argv)
{
    static uint8_t genuine[DATAGRAM_BYTES_MAX], made[DATAGRAM_BYTES_MAX];
    struct stun_password password = {.text = "VOkJxbRl1RmTxUk/WvJxBt", .size = 22};
    size_t genuine_bytes = fread(genuine, 1, sizeof genuine, stdin);
    struct stun *self = stun_new(&password, &password);
    unsigned long taken = 0;

    if (argc != 3 || self == NULL || genuine_bytes == 0)
        return 2;
    state = strtoull(argv[1], NULL, 10) * 2 + 1;
    for (unsigned long count = strtoul(argv[2], NULL, 10); count > 0; count--) {
        size_t size = genuine_bytes;
        memcpy(made, genuine, size);
        for (uint32_t changes = draw(4); changes > 0; changes--)
            made[draw((uint32_t)size)] = (uint8_t)draw(256);
        if (draw(4) == 0) { /* with the length that it has: the walk through the attributes begins */
            size = 20 + 4 * draw((uint32_t)(size - 20) / 4 + 1);
            made[2] = (uint8_t)((size - 20) >> 8);
            made[3] = (uint8_t)(size - 20);
        } else if (draw(4) == 0) {
            size = draw((uint32_t)size + 1);
        }
        uint8_t *datagram = malloc(size > 0 ? size : 1); /* of its own size: the sanitizer sees a byte too far */
        if (datagram == NULL)
            return 3;
        memcpy(datagram, made, size);
        if (stun_check_untrusted(self, datagram, size) == STUN_OK) {
            taken++;
            stun_count_untrusted(self, datagram);
        }
        free(datagram);
    }
    stun_delete(self);
    printf("%lu\n", taken);
    return 0;
}
