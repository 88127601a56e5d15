/* The small parts when allocations fail: every call is made with no allocation, with one, with two, until it has all it
 * wants.  A call that got less says so, and changes nothing.  Prints a line per call: how often an allocation failed, and
 * how often the call then said so. */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "alloc.h"
#include "anchor/aead.h"
#include "base/map.h"
#include "dtls/dtls.h"
#include "queue/queue.h"
#include "stun/stun.h"

enum { KEYS = 300 }; /* so that the table grows several times */

static struct map map;
static int value;
static uint64_t key_number;

static void demand(bool claim, const char *what)
{
    if (claim)
        return;
    printf("%s\n", what);
    exit(1);
}

static struct map_key key_of(uint64_t number) { return (struct map_key){number * number, ~number}; }

static bool set_key(void)
{
    bool set = map_set(&map, key_of(key_number), &value);

    for (uint64_t number = 0; number < KEYS; number++)
        demand((map_find(&map, key_of(number)) != NULL) == (number < key_number + set), "a key is lost or made up");
    demand(map.count == key_number + set, "the count is wrong");
    return set;
}

static void dropped(void *context, enum queue_drop why) { (void)context, (void)why; }

static bool make_queue(void)
{
    static struct queue_all all = {.bytes_max = 1 << 20};
    struct queue *queue = queue_new(1 << 16, 100, &all, dropped, NULL);

    if (queue == NULL)
        return false;
    queue_delete(queue);
    return true;
}

static bool make_packet(void)
{
    struct queued *packet = queued_new(1500);

    if (packet == NULL)
        return false;
    memset(packet->data, 0xff, 1500);
    queued_delete(packet);
    return true;
}

static bool make_records(void)
{
    struct dtls_keys keys = {.cipher = DTLS_AES_128_GCM};
    struct dtls *records = dtls_new(&keys);

    dtls_delete(records);
    return records != NULL;
}

static bool make_stun(void)
{
    struct stun_password password = {.text = "password of 22 bytes..", .size = 22};
    struct stun *made = stun_new(&password, &password);

    stun_delete(made);
    return made != NULL;
}

static bool open_aead(void)
{
    static const uint8_t key[AEAD_KEY_BYTES], nonce_prefix[AEAD_NONCE_PREFIX_BYTES];
    struct aead aead = {0};
    bool opened = aead_open(&aead, AEAD_AES_256_GCM, true, key, nonce_prefix);

    demand(opened == (aead.context != NULL), "a key that was not taken is not erased");
    aead_erase(&aead);
    return opened;
}

static void try(const char *name, bool (*call)(void))
{
    unsigned failed = 0, said = 0;

    for (uint64_t granted = 0;; granted++) {
        allocations_failed = 0;
        allocations_left = granted;
        bool done = call();
        allocations_left = UINT64_MAX;
        demand(done || allocations_failed > 0, "a call fails with all it wants");
        failed += allocations_failed > 0;
        said += !done;
        if (done && allocations_failed == 0)
            break;
    }
    printf("%s %u %u\n", name, failed, said);
}

int main(void)
{
    map_init(&map, 7);
    for (key_number = 0; key_number < KEYS; key_number++)
        try("map", set_key);
    map_free(&map);
    make_records(); /* what libcrypto keeps for ever is there from now on */
    make_stun();
    open_aead();
    try("queue", make_queue);
    try("packet", make_packet);
    try("records", make_records);
    try("stun", make_stun);
    try("aead", open_aead);
    return 0;
}
