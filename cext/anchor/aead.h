/* One key of one AEAD, expanded once and used for many frames.  Stands between the codec's buffers and libcrypto;
 * decides nothing.  The caller keeps two threads from using it at once. */

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

/* Open a frame whose header was checked, and write its bundle to bundle.  False: the tag is wrong, and the content
 * of bundle must not be read. */
bool aead_unseal(struct aead *self, const uint8_t *frame, size_t frame_size, uint8_t *bundle);

/* Wipe the key.  May be called again. */
void aead_erase(struct aead *self);

#endif
