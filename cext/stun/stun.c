#include "stun/stun.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>

#include "base/bytes.h"

enum {
    HEADER_BYTES = 20,
    COOKIE = 0x2112A442,
    LENGTH_AT = 2,
    COOKIE_AT = 4,
    TRANSACTION_AT = 8, /* 12 bytes; 8 of them tell two apart */
    ATTRIBUTE_HEADER_BYTES = 4,
    MESSAGE_INTEGRITY = 0x0008,
    FINGERPRINT = 0x8028,
    FINGERPRINT_BYTES = 4,
    HMAC_BYTES = 20,
    CLASS_MASK = 0x0110,
    CLASS_REQUEST = 0x0000,
    CLASS_INDICATION = 0x0010,
};

struct stun {
    EVP_MAC_CTX *requests, *responses; /* the password, expanded once */
    uint64_t transactions[STUN_TRANSACTIONS_MAX]; /* a ring */
    uint8_t copies[STUN_TRANSACTIONS_MAX]; /* 0: a free place */
    unsigned newest;
};

static EVP_MAC_CTX *hmac_open(EVP_MAC *hmac, const struct stun_password *password)
{
    static char digest[] = "SHA1"; /* STUN has no other for a short-term credential */
    OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end(),
    };
    EVP_MAC_CTX *context = hmac != NULL ? EVP_MAC_CTX_new(hmac) : NULL;

    if (context != NULL && EVP_MAC_init(context, password->text, password->size, parameters) == 1)
        return context;
    EVP_MAC_CTX_free(context);
    return NULL;
}

struct stun *stun_new(const struct stun_password *ours, const struct stun_password *peers)
{
    struct stun *self = calloc(1, sizeof *self);

    if (self == NULL)
        return NULL;
    EVP_MAC *hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    self->requests = hmac_open(hmac, ours);
    self->responses = hmac_open(hmac, peers);
    EVP_MAC_free(hmac); /* the contexts hold their own references */
    if (self->requests != NULL && self->responses != NULL)
        return self;
    stun_delete(self);
    return NULL;
}

void stun_delete(struct stun *self)
{
    if (self == NULL)
        return;
    EVP_MAC_CTX_free(self->requests); /* wipes the expanded password */
    EVP_MAC_CTX_free(self->responses);
    free(self);
}

static size_t padded(size_t size) { return (size + 3) & ~(size_t)3; }

/* Find MESSAGE-INTEGRITY.  After it nothing but FINGERPRINT is allowed: nothing vouches for what follows. */
static enum stun_fault integrity_find_untrusted(const uint8_t *data, size_t size, size_t *at)
{
    bool found = false;

    for (size_t next = HEADER_BYTES; next < size;) {
        if (size - next < ATTRIBUTE_HEADER_BYTES)
            return STUN_MALFORMED;
        unsigned type = load_be16(data + next);
        size_t value_bytes = load_be16(data + next + 2);
        if (padded(value_bytes) > size - next - ATTRIBUTE_HEADER_BYTES)
            return STUN_MALFORMED;
        if (found) {
            if (type != FINGERPRINT || value_bytes != FINGERPRINT_BYTES)
                return STUN_AUTH;
        } else if (type == MESSAGE_INTEGRITY) {
            if (value_bytes != HMAC_BYTES)
                return STUN_MALFORMED;
            *at = next;
            found = true;
        }
        next += ATTRIBUTE_HEADER_BYTES + padded(value_bytes);
    }
    return found ? STUN_OK : STUN_AUTH;
}

/* RFC 8489, section 14.5: over what is before the attribute, with a length that ends behind it. */
static bool integrity_holds(EVP_MAC_CTX *context, const uint8_t *data, size_t at)
{
    uint8_t header[HEADER_BYTES], made[HMAC_BYTES];
    size_t made_bytes;

    memcpy(header, data, sizeof header);
    store_be16(header + LENGTH_AT, (uint16_t)(at + ATTRIBUTE_HEADER_BYTES + HMAC_BYTES - HEADER_BYTES));
    return EVP_MAC_init(context, NULL, 0, NULL) == 1 && EVP_MAC_update(context, header, sizeof header) == 1 &&
           EVP_MAC_update(context, data + HEADER_BYTES, at - HEADER_BYTES) == 1 &&
           EVP_MAC_final(context, made, &made_bytes, sizeof made) == 1 && made_bytes == sizeof made &&
           CRYPTO_memcmp(made, data + at + ATTRIBUTE_HEADER_BYTES, sizeof made) == 0;
}

enum stun_fault stun_check_untrusted(struct stun *self, const uint8_t *data, size_t size)
{
    size_t at = 0;

    if (size < HEADER_BYTES || size % 4 != 0 || data[0] > 3 || load_be32(data + COOKIE_AT) != COOKIE ||
        load_be16(data + LENGTH_AT) != size - HEADER_BYTES)
        return STUN_MALFORMED;
    unsigned class = load_be16(data) & CLASS_MASK;
    if (class == CLASS_INDICATION)
        return STUN_AUTH; /* keeps a mapping alive, which it did; says nothing */
    enum stun_fault fault = integrity_find_untrusted(data, size, &at);
    if (fault != STUN_OK)
        return fault;
    return integrity_holds(class == CLASS_REQUEST ? self->requests : self->responses, data, at) ? STUN_OK : STUN_AUTH;
}

bool stun_count_untrusted(struct stun *self, const uint8_t *data)
{
    uint64_t transaction = load_be64(data + TRANSACTION_AT);

    for (unsigned at = 0; at < STUN_TRANSACTIONS_MAX; at++) {
        if (self->copies[at] == 0 || self->transactions[at] != transaction)
            continue;
        if (self->copies[at] == STUN_COPIES_MAX)
            return false;
        self->copies[at]++;
        return true;
    }
    self->newest = (self->newest + 1) % STUN_TRANSACTIONS_MAX;
    self->transactions[self->newest] = transaction;
    self->copies[self->newest] = 1;
    return true;
}
