/* DTLS 1.2 records of one link after its handshake (RFC 6347; AES-GCM as RFC 5288, ChaCha20-Poly1305 as RFC 7905).  The
 * handshake is another library's.  Its keys come here, and from then on only this seals and opens epoch 1.  Decides
 * which records are genuine and new.  Knows no handshake, no socket and no Python.
 *
 *     0       1         3         5                    11       13              21
 *     +-------+---------+---------+--------------------+--------+---------------+------------ ... --+--------+
 *     | type  | version | epoch 1 | sequence, 48 bits  | length | explicit nonce| sealed payload    | tag 16 |
 *     +-------+---------+---------+--------------------+--------+---------------+------------ ... --+--------+
 *                                                               (AES-GCM only)
 */

#ifndef CONFLUX_DTLS_H
#define CONFLUX_DTLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    DTLS_AES_128_GCM = 1,
    DTLS_AES_256_GCM = 2,
    DTLS_CHACHA20_POLY1305 = 3,

    DTLS_ALERT = 21,
    DTLS_HANDSHAKE = 22,
    DTLS_APPLICATION_DATA = 23,

    DTLS_HEADER_BYTES = 13,
    DTLS_OVERHEAD_BYTES_MAX = DTLS_HEADER_BYTES + 8 + 16,
    DTLS_PAYLOAD_BYTES_MAX = 16384,
};

struct dtls_keys {
    int cipher;
    uint8_t key_out[32], key_in[32]; /* 16 of them with AES-128 */
    uint8_t iv_out[12], iv_in[12]; /* 4 of them with AES-GCM */
    uint64_t sequence_out; /* the first to use: above all that the handshake's library used */
};

enum dtls_fault {
    DTLS_OK,
    DTLS_TRUNCATED, /* no whole record: the rest of the datagram cannot be read */
    DTLS_OTHER_EPOCH, /* of another epoch, or a handshake record: untouched, as the handshake's library may want it */
    DTLS_VERSION,
    DTLS_REPLAY,
    DTLS_AUTH,
};

struct dtls_record {
    uint8_t type;
    uint8_t *payload; /* inside the datagram; NULL unless DTLS_OK */
    size_t payload_size;
    size_t record_size; /* where the next record begins; set unless DTLS_TRUNCATED */
};

struct dtls; /* one link's records, both ways */

struct dtls *dtls_new(const struct dtls_keys *keys); /* NULL: unknown cipher, or no memory */
void dtls_delete(struct dtls *self); /* wipes the keys; NULL is fine */

size_t dtls_payload_offset(const struct dtls *self); /* where a record's payload begins */
size_t dtls_overhead(const struct dtls *self); /* how much larger a record is than its payload */

/* Seal, in place, the payload at record + dtls_payload_offset(), and return the record's size.  0: the sequence
 * numbers are used up, or libcrypto failed. */
size_t dtls_seal(struct dtls *self, uint8_t type, uint8_t *record, size_t payload_size);

/* Open the first record of a datagram, in place. */
enum dtls_fault dtls_unseal_untrusted(struct dtls *self, uint8_t *datagram, size_t size, struct dtls_record *out);

#endif
