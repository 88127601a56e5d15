/* Gives dtls.c, under sanitizers, what a peer or a stranger may send: random datagrams and mutated genuine ones, in
 * memory of exactly their size.  usage: dtls_hostile SEED COUNT; exits 0 if every answer was a possible one. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dtls/dtls.h"

enum { DATAGRAM_BYTES_MAX = 2048 };

static uint64_t state;

static uint32_t draw(uint32_t below) /* xorshift64* */
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)((state * 2685821657736338717u) >> 32) % below;
}

static size_t make_datagram(struct dtls *sender, uint8_t *room)
{
    size_t size = 0, records = 1 + draw(3);

    for (size_t i = 0; i < records; i++) {
        size_t payload = draw(600);
        memset(room + size + dtls_payload_offset(sender), (int)draw(256), payload);
        size += dtls_seal(sender, (uint8_t)(20 + draw(5)), room + size, payload);
    }
    return size;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    state = strtoull(argv[1], NULL, 10) * 2 + 1;
    unsigned long count = strtoul(argv[2], NULL, 10), opened = 0;

    for (int cipher = DTLS_AES_128_GCM; cipher <= DTLS_CHACHA20_POLY1305; cipher++) {
        struct dtls_keys keys = {.cipher = cipher}; /* one key both ways: what is sealed here opens here */
        struct dtls *self = dtls_new(&keys);
        if (self == NULL)
            return 3;
        for (unsigned long i = 0; i < count; i++) {
            static uint8_t made[DATAGRAM_BYTES_MAX];
            size_t size = draw(4) == 0 ? draw(64) : make_datagram(self, made);
            for (uint32_t flips = draw(4); flips > 0 && size > 0; flips--)
                made[draw((uint32_t)(draw(2) ? size : (size < 13 ? size : 13)))] = (uint8_t)draw(256);
            if (draw(4) == 0)
                size = draw((uint32_t)size + 1);
            uint8_t *datagram = malloc(size); /* of its own size: the sanitizer sees a byte too far */
            if (datagram == NULL && size > 0)
                return 3;
            if (size > 0)
                memcpy(datagram, made, size);
            for (size_t at = 0;;) {
                struct dtls_record record;
                enum dtls_fault fault = dtls_unseal_untrusted(self, datagram + at, size - at, &record);
                if (fault == DTLS_TRUNCATED)
                    break;
                if (record.record_size < DTLS_HEADER_BYTES || record.record_size > size - at)
                    return 4;
                if ((fault == DTLS_OK) != (record.payload != NULL))
                    return 5;
                if (fault == DTLS_OK) {
                    opened++;
                    volatile uint8_t sum = 0;
                    for (size_t j = 0; j < record.payload_size; j++)
                        sum = (uint8_t)(sum + record.payload[j]);
                }
                at += record.record_size;
            }
            free(datagram);
        }
        dtls_delete(self);
    }
    printf("%lu\n", opened);
    return opened > 0 ? 0 : 6;
}
