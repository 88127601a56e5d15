#include "dtls/dtls.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>

#include "anchor/frame.h"
#include "anchor/replay.h"
#include "base/bytes.h"

enum {
    NONCE_BYTES = 12,
    SALT_BYTES = 4, /* of an AES-GCM nonce; the rest is explicit */
    EXPLICIT_BYTES = 8,
    ADDITIONAL_BYTES = 13,
    LENGTH_AT = 11,
    EPOCH = 1, /* the only one: a link has one handshake */
    VERSION = 0xfefd, /* DTLS 1.2 */
};

#define SEQUENCE_END (UINT64_C(1) << 48)

/* One direction of a link. */
struct direction {
    EVP_CIPHER_CTX *context; /* the key, expanded once */
    uint8_t iv[NONCE_BYTES];
};

struct dtls {
    struct direction out, in;
    uint64_t sequence_out;
    struct replay_window window;
    size_t explicit_bytes; /* of the nonce on the wire: 8 or none */
};

static bool direction_open(struct direction *self, const char *name, bool sealing, const uint8_t *key,
                           const uint8_t *iv, size_t iv_size)
{
    EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, name, NULL);

    self->context = EVP_CIPHER_CTX_new();
    bool keyed = cipher != NULL && self->context != NULL &&
                 EVP_CipherInit_ex(self->context, cipher, NULL, key, NULL, sealing) == 1;
    EVP_CIPHER_free(cipher); /* the context holds its own reference */
    memcpy(self->iv, iv, iv_size);
    return keyed;
}

struct dtls *dtls_new(const struct dtls_keys *keys)
{
    static const char *const names[] = {
        [DTLS_AES_128_GCM] = "AES-128-GCM",
        [DTLS_AES_256_GCM] = "AES-256-GCM",
        [DTLS_CHACHA20_POLY1305] = "ChaCha20-Poly1305",
    };
    if (keys->cipher < DTLS_AES_128_GCM || keys->cipher > DTLS_CHACHA20_POLY1305)
        return NULL;
    struct dtls *self = calloc(1, sizeof *self);
    if (self == NULL)
        return NULL;
    const char *name = names[keys->cipher];
    self->explicit_bytes = keys->cipher == DTLS_CHACHA20_POLY1305 ? 0 : EXPLICIT_BYTES;
    self->sequence_out = keys->sequence_out;
    size_t iv_size = self->explicit_bytes != 0 ? SALT_BYTES : NONCE_BYTES;
    if (!direction_open(&self->out, name, true, keys->key_out, keys->iv_out, iv_size) ||
        !direction_open(&self->in, name, false, keys->key_in, keys->iv_in, iv_size)) {
        dtls_delete(self);
        return NULL;
    }
    return self;
}

void dtls_delete(struct dtls *self)
{
    if (self == NULL)
        return;
    EVP_CIPHER_CTX_free(self->out.context); /* wipes the expanded keys: the only copies on this side */
    EVP_CIPHER_CTX_free(self->in.context);
    OPENSSL_cleanse(self, sizeof *self);
    free(self);
}

size_t dtls_payload_offset(const struct dtls *self)
{
    return DTLS_HEADER_BYTES + self->explicit_bytes;
}

size_t dtls_overhead(const struct dtls *self)
{
    return dtls_payload_offset(self) + TAG_BYTES;
}

/* RFC 5288: the salt, then the record's explicit nonce.  RFC 7905: the IV, its end XORed with epoch and sequence
 * number. */
static void nonce_store(const struct dtls *self, const uint8_t *iv, const uint8_t *record, uint8_t *nonce)
{
    memcpy(nonce, iv, NONCE_BYTES);
    if (self->explicit_bytes != 0)
        memcpy(nonce + SALT_BYTES, record + DTLS_HEADER_BYTES, EXPLICIT_BYTES);
    else
        for (size_t i = 0; i < 8; i++)
            nonce[SALT_BYTES + i] ^= record[3 + i];
}

/* RFC 6347, section 4.1.2.1: epoch and sequence number, then type, version and the length of the payload. */
static void additional_store(const uint8_t *record, size_t payload_size, uint8_t *additional)
{
    memcpy(additional, record + 3, 8);
    memcpy(additional + 8, record, 3);
    store_be16(additional + 11, (uint16_t)payload_size);
}

size_t dtls_seal(struct dtls *self, uint8_t type, uint8_t *record, size_t payload_size)
{
    uint8_t nonce[NONCE_BYTES], additional[ADDITIONAL_BYTES];
    uint8_t *payload = record + dtls_payload_offset(self), *tag = payload + payload_size;
    OSSL_PARAM tagged[] = {
        OSSL_PARAM_construct_octet_string(OSSL_CIPHER_PARAM_AEAD_TAG, tag, TAG_BYTES),
        OSSL_PARAM_construct_end(),
    };
    EVP_CIPHER_CTX *context = self->out.context;
    int written;

    if (self->sequence_out >= SEQUENCE_END || payload_size > DTLS_PAYLOAD_BYTES_MAX)
        return 0;
    record[0] = type;
    store_be16(record + 1, VERSION);
    store_be64(record + 3, (uint64_t)EPOCH << 48 | self->sequence_out);
    store_be16(record + LENGTH_AT, (uint16_t)(self->explicit_bytes + payload_size + TAG_BYTES));
    /* Epoch and sequence number are the explicit nonce: used once under a key, even if sealing fails below. */
    self->sequence_out++;
    memcpy(record + DTLS_HEADER_BYTES, record + 3, self->explicit_bytes);
    nonce_store(self, self->out.iv, record, nonce);
    additional_store(record, payload_size, additional);
    if (EVP_EncryptInit_ex2(context, NULL, NULL, nonce, NULL) != 1 ||
        EVP_EncryptUpdate(context, NULL, &written, additional, sizeof additional) != 1 ||
        (payload_size != 0 && EVP_EncryptUpdate(context, payload, &written, payload, (int)payload_size) != 1) ||
        EVP_EncryptFinal_ex(context, tag, &written) != 1 || EVP_CIPHER_CTX_get_params(context, tagged) != 1)
        return 0;
    return dtls_overhead(self) + payload_size;
}

enum dtls_fault dtls_unseal_untrusted(struct dtls *self, uint8_t *datagram, size_t size, struct dtls_record *out)
{
    if (size < DTLS_HEADER_BYTES || load_be16(datagram + LENGTH_AT) > size - DTLS_HEADER_BYTES)
        return DTLS_TRUNCATED;
    out->type = datagram[0];
    out->record_size = DTLS_HEADER_BYTES + (size_t)load_be16(datagram + LENGTH_AT);
    out->payload = NULL;
    out->payload_size = 0;
    /* The peer's Finished, sent again, is of this epoch too, but belongs to the handshake's library: that has a
     * window of its own, and needs the record as it came. */
    if (load_be16(datagram + 3) != EPOCH || out->type == DTLS_HANDSHAKE)
        return DTLS_OTHER_EPOCH;
    if (load_be16(datagram + 1) != VERSION)
        return DTLS_VERSION;
    uint64_t sequence = load_be64(datagram + 3) & (SEQUENCE_END - 1);
    if (!replay_check(&self->window, sequence))
        return DTLS_REPLAY;
    size_t overhead = dtls_overhead(self);
    if (out->record_size < overhead || out->record_size - overhead > DTLS_PAYLOAD_BYTES_MAX)
        return DTLS_AUTH; /* no peer that has the key makes such a record */

    uint8_t nonce[NONCE_BYTES], additional[ADDITIONAL_BYTES];
    uint8_t *payload = datagram + dtls_payload_offset(self);
    size_t payload_size = out->record_size - overhead;
    OSSL_PARAM tagged[] = {
        OSSL_PARAM_construct_octet_string(OSSL_CIPHER_PARAM_AEAD_TAG, payload + payload_size, TAG_BYTES),
        OSSL_PARAM_construct_end(),
    };
    EVP_CIPHER_CTX *context = self->in.context;
    uint8_t none[1];
    int written;

    nonce_store(self, self->in.iv, datagram, nonce);
    additional_store(datagram, payload_size, additional);
    if (EVP_DecryptInit_ex2(context, NULL, NULL, nonce, tagged) != 1 ||
        EVP_DecryptUpdate(context, NULL, &written, additional, sizeof additional) != 1 ||
        (payload_size != 0 && EVP_DecryptUpdate(context, payload, &written, payload, (int)payload_size) != 1) ||
        EVP_DecryptFinal_ex(context, none, &written) != 1)
        return DTLS_AUTH;
    replay_update(&self->window, sequence);
    out->payload = payload;
    out->payload_size = payload_size;
    return DTLS_OK;
}
