#include "anchor/aead.h"

#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "anchor/frame.h"

enum { NONCE_BYTES = AEAD_NONCE_PREFIX_BYTES + 8 };

bool aead_open(struct aead *self, int algorithm, bool sealing, const uint8_t *key, const uint8_t *nonce_prefix)
{
    const char *name = algorithm == AEAD_AES_256_GCM ? "AES-256-GCM" : "ChaCha20-Poly1305";
    EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, name, NULL);

    self->context = EVP_CIPHER_CTX_new();
    bool keyed = cipher != NULL && self->context != NULL &&
                 EVP_CipherInit_ex(self->context, cipher, NULL, key, NULL, sealing) == 1;
    EVP_CIPHER_free(cipher); /* the context holds its own reference */
    memcpy(self->nonce_prefix, nonce_prefix, AEAD_NONCE_PREFIX_BYTES);
    if (!keyed)
        aead_erase(self);
    return keyed;
}

static void nonce_store(const struct aead *self, const uint8_t *frame, uint8_t *nonce)
{
    memcpy(nonce, self->nonce_prefix, AEAD_NONCE_PREFIX_BYTES);
    memcpy(nonce + AEAD_NONCE_PREFIX_BYTES, frame + 8, 8); /* the counter, as on the wire */
}

/* The header as authenticated: what relays rewrite, the label and the CE flag, is zero. */
static void additional_store(const uint8_t *frame, uint8_t *additional)
{
    memcpy(additional, frame, HEADER_BYTES);
    additional[1] &= (uint8_t)~FLAG_CE;
    store_be32(additional + 4, 0);
}

bool aead_seal(struct aead *self, uint8_t *frame, size_t size)
{
    uint8_t nonce[NONCE_BYTES], additional[HEADER_BYTES];
    uint8_t *bundle = frame + HEADER_BYTES;
    int written;

    nonce_store(self, frame, nonce);
    additional_store(frame, additional);
    return EVP_EncryptInit_ex(self->context, NULL, NULL, NULL, nonce) == 1 &&
           EVP_EncryptUpdate(self->context, NULL, &written, additional, HEADER_BYTES) == 1 &&
           (size == 0 || EVP_EncryptUpdate(self->context, bundle, &written, bundle, (int)size) == 1) &&
           EVP_EncryptFinal_ex(self->context, bundle + size, &written) == 1 &&
           EVP_CIPHER_CTX_ctrl(self->context, EVP_CTRL_AEAD_GET_TAG, TAG_BYTES, bundle + size) == 1;
}

bool aead_unseal(struct aead *self, const uint8_t *frame, size_t frame_size, uint8_t *bundle)
{
    uint8_t nonce[NONCE_BYTES], additional[HEADER_BYTES], tag[TAG_BYTES];
    size_t size = frame_size - HEADER_BYTES - TAG_BYTES;
    int written;

    nonce_store(self, frame, nonce);
    additional_store(frame, additional);
    memcpy(tag, frame + HEADER_BYTES + size, TAG_BYTES);
    return EVP_DecryptInit_ex(self->context, NULL, NULL, NULL, nonce) == 1 &&
           EVP_CIPHER_CTX_ctrl(self->context, EVP_CTRL_AEAD_SET_TAG, TAG_BYTES, tag) == 1 &&
           EVP_DecryptUpdate(self->context, NULL, &written, additional, HEADER_BYTES) == 1 &&
           (size == 0 || EVP_DecryptUpdate(self->context, bundle, &written, frame + HEADER_BYTES, (int)size) == 1) &&
           EVP_DecryptFinal_ex(self->context, bundle + size, &written) == 1;
}

void aead_erase(struct aead *self)
{
    EVP_CIPHER_CTX_free(self->context); /* wipes the expanded key: the only copy of it on this side */
    self->context = NULL;
    OPENSSL_cleanse(self->nonce_prefix, sizeof self->nonce_prefix);
}
