/* libFuzzer over cext/dtls/dtls.c: no datagram makes it touch a byte beyond, and a sealed record opens once, unless a
 * byte of it was changed.
 *
 *     cipher | changes (place 2, value 1)* of a genuine datagram, then place 0xffff | the datagram, or its payload */

#include <stdlib.h>
#include <string.h>

#include "dtls/dtls.h"

enum { PAYLOAD_BYTES_MAX = 4096 };

static void demand(bool claim)
{
    if (!claim)
        abort();
}

static void open_all(struct dtls *self, uint8_t *datagram, size_t size)
{
    while (true) {
        struct dtls_record record;
        enum dtls_fault fault = dtls_unseal_untrusted(self, datagram, size, &record);
        if (fault == DTLS_TRUNCATED)
            return;
        demand(record.record_size >= DTLS_HEADER_BYTES && record.record_size <= size);
        demand((fault == DTLS_OK) == (record.payload != NULL));
        datagram += record.record_size;
        size -= record.record_size;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > PAYLOAD_BYTES_MAX)
        return 0;
    struct dtls_keys keys = {.cipher = data[0] % 3 + 1}; /* one key both ways: what is sealed here opens here */
    /* Two: libFuzzer learns genuine records from the comparison below, and each opens only once. */
    struct dtls *self = dtls_new(&keys), *stranger = dtls_new(&keys);
    demand(self != NULL && stranger != NULL);
    data++, size--;
    const uint8_t *changes = data;
    size_t change_count = 0;
    while (size >= 3 && (data[0] & data[1]) != 0xff)
        change_count++, data += 3, size -= 3;

    uint8_t *strange = malloc(size > 0 ? size : 1); /* of its own size: the sanitizer sees a byte too far */
    demand(strange != NULL);
    memcpy(strange, data, size);
    open_all(stranger, strange, size);
    dtls_delete(stranger);
    free(strange);

    size_t record_size = dtls_overhead(self) + size;
    uint8_t *record = malloc(record_size), *original = malloc(record_size);
    demand(record != NULL && original != NULL);
    memcpy(record + dtls_payload_offset(self), data, size);
    demand(dtls_seal(self, DTLS_APPLICATION_DATA, record, size) == record_size);
    memcpy(original, record, record_size);
    for (; change_count > 0; change_count--, changes += 3)
        record[((size_t)changes[0] << 8 | changes[1]) % record_size] = changes[2];
    bool is_genuine = memcmp(record, original, record_size) == 0;
    struct dtls_record opened;
    bool is_open = dtls_unseal_untrusted(self, record, record_size, &opened) == DTLS_OK;
    demand(is_open == is_genuine);
    demand(!is_open || (opened.payload_size == size && memcmp(opened.payload, data, size) == 0));
    enum dtls_fault again = dtls_unseal_untrusted(self, original, record_size, &opened);
    demand(again == (is_genuine ? DTLS_REPLAY : DTLS_OK));
    free(record);
    free(original);
    dtls_delete(self);
    return 0;
}
