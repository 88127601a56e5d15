/* One key of one AEAD, expanded once and used for many frames.  Stands between the codec's buffers and libcrypto;
 * decides nothing.  Not for two threads at once: the caller sees to that. */

#ifndef CONFLUX_AEAD_H
#define CONFLUX_AEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <openssl/types.h>

enum { AEAD_AES_256_GCM = 1, AEAD_CHACHA20_POLY1305 = 2, AEAD_KEY_BYTES = 32, AEAD_NONCE_PREFIX_BYTES = 4 };

struct aead {
    EVP_CIPHER_CTX *context; /* NULL: erased, or never opened */
    uint8_t nonce_prefix[AEAD_NONCE_PREFIX_BYTES];
};

/* False if libcrypto does not offer the algorithm; self is then erased. */
bool aead_open(struct aead *self, int algorithm, bool sealing, const uint8_t *key, const uint8_t *nonce_prefix);

/* Seal frame's bundle of size bytes in place and write the tag behind it.  The header is read, not written. */
bool aead_seal(struct aead *self, uint8_t *frame, size_t size);

/* Write the bundle of a frame whose header was checked to bundle.  False: the tag is wrong, and what stands in bundle
 * is nobody's to read. */
bool aead_unseal(struct aead *self, const uint8_t *frame, size_t frame_size, uint8_t *bundle);

/* Wipe the key.  May be called again. */
void aead_erase(struct aead *self);

#endif
