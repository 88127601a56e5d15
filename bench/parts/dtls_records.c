/* What one DTLS record costs each way: OpenSSL's own SSL_write and SSL_read over memory BIOs, and cext/dtls/dtls.c
 * with keys taken over, in alternating runs on one core.  usage: dtls_records PAYLOAD_BYTES RUN_COUNT; one line of
 * JSON per cipher, medians in nanoseconds per record. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <openssl/ssl.h>
#include <openssl/x509.h>

#include "dtls/dtls.h"

enum { RECORD_COUNT = 2000, RUN_COUNT_MAX = 99, ROOM_BYTES = 16640 };

static const struct {
    int cipher;
    const char *suite;
} ciphers[] = {
    {DTLS_AES_128_GCM, "ECDHE-ECDSA-AES128-GCM-SHA256"},
    {DTLS_AES_256_GCM, "ECDHE-ECDSA-AES256-GCM-SHA384"},
    {DTLS_CHACHA20_POLY1305, "ECDHE-ECDSA-CHACHA20-POLY1305"},
};

static void die(const char *what)
{
    fprintf(stderr, "dtls_records: %s\n", what);
    exit(1);
}

static double now_ns(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec * 1e9 + (double)at.tv_nsec;
}

static int by_value(const void *one, const void *other)
{
    double left = *(const double *)one, right = *(const double *)other;
    return (left > right) - (left < right);
}

static double median(double *values, int count)
{
    qsort(values, (size_t)count, sizeof *values, by_value);
    return values[count / 2];
}

static SSL *new_side(SSL_CTX *context, bool is_client)
{
    SSL *side = SSL_new(context);
    if (side == NULL)
        die("SSL_new");
    SSL_set_bio(side, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    SSL_set_options(side, SSL_OP_NO_QUERY_MTU);
    SSL_set_mtu(side, ROOM_BYTES);
    BIO_set_mem_eof_return(SSL_get_rbio(side), -1);
    if (is_client)
        SSL_set_connect_state(side);
    else
        SSL_set_accept_state(side);
    return side;
}

static SSL_CTX *new_context(const char *suite)
{
    SSL_CTX *context = SSL_CTX_new(DTLS_method());
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = X509_new();
    if (context == NULL || key == NULL || certificate == NULL)
        die("no context");
    X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
    X509_set_pubkey(certificate, key);
    if (X509_sign(certificate, key, EVP_sha256()) == 0 || SSL_CTX_use_certificate(context, certificate) != 1 ||
        SSL_CTX_use_PrivateKey(context, key) != 1 || SSL_CTX_set_cipher_list(context, suite) != 1)
        die("no certificate");
    X509_free(certificate);
    EVP_PKEY_free(key);
    return context;
}

static void pass_on(SSL *from, SSL *to)
{
    uint8_t data[ROOM_BYTES];
    int size;
    while ((size = BIO_read(SSL_get_wbio(from), data, sizeof data)) > 0)
        BIO_write(SSL_get_rbio(to), data, size);
}

static uint8_t (*records)[ROOM_BYTES];
static size_t sizes[RECORD_COUNT];

static void run_openssl(SSL *from, SSL *to, size_t payload_size, double *seal, double *open)
{
    static uint8_t payload[ROOM_BYTES];

    double began = now_ns();
    for (int i = 0; i < RECORD_COUNT; i++) {
        if (SSL_write(from, payload, (int)payload_size) != (int)payload_size)
            die("SSL_write");
        sizes[i] = (size_t)BIO_read(SSL_get_wbio(from), records[i], ROOM_BYTES);
    }
    double between = now_ns();
    for (int i = 0; i < RECORD_COUNT; i++) {
        BIO_write(SSL_get_rbio(to), records[i], (int)sizes[i]);
        if (SSL_read(to, payload, sizeof payload) != (int)payload_size)
            die("SSL_read");
    }
    double ended = now_ns();
    *seal = (between - began) / RECORD_COUNT;
    *open = (ended - between) / RECORD_COUNT;
}

static void run_ours(struct dtls *self, size_t payload_size, double *seal, double *open)
{
    double began = now_ns();
    for (int i = 0; i < RECORD_COUNT; i++)
        sizes[i] = dtls_seal(self, DTLS_APPLICATION_DATA, records[i], payload_size);
    double between = now_ns();
    for (int i = 0; i < RECORD_COUNT; i++) {
        struct dtls_record record;
        if (dtls_unseal_untrusted(self, records[i], sizes[i], &record) != DTLS_OK)
            die("dtls_unseal_untrusted");
    }
    double ended = now_ns();
    *seal = (between - began) / RECORD_COUNT;
    *open = (ended - between) / RECORD_COUNT;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        die("usage: dtls_records PAYLOAD_BYTES RUN_COUNT");
    size_t payload_size = strtoul(argv[1], NULL, 10);
    int run_count = atoi(argv[2]);
    if (payload_size < 1 || payload_size > DTLS_PAYLOAD_BYTES_MAX || run_count < 1 || run_count > RUN_COUNT_MAX)
        die("out of bounds");
    records = calloc(RECORD_COUNT, ROOM_BYTES);
    if (records == NULL)
        die("no memory");

    for (size_t c = 0; c < sizeof ciphers / sizeof ciphers[0]; c++) {
        SSL_CTX *context = new_context(ciphers[c].suite);
        SSL *client = new_side(context, true), *server = new_side(context, false);
        while (!SSL_is_init_finished(client) || !SSL_is_init_finished(server)) {
            SSL_do_handshake(client);
            pass_on(client, server);
            SSL_do_handshake(server);
            pass_on(server, client);
        }
        struct dtls_keys keys = {.cipher = ciphers[c].cipher}; /* one key both ways: what is sealed here opens here */
        struct dtls *ours = dtls_new(&keys);
        if (ours == NULL)
            die("dtls_new");

        double seal[2][RUN_COUNT_MAX], open[2][RUN_COUNT_MAX];
        run_openssl(client, server, payload_size, &seal[0][0], &open[0][0]); /* warm both up */
        run_ours(ours, payload_size, &seal[1][0], &open[1][0]);
        for (int run = 0; run < run_count; run++) {
            run_openssl(client, server, payload_size, &seal[0][run], &open[0][run]);
            run_ours(ours, payload_size, &seal[1][run], &open[1][run]);
        }
        printf("{\"suite\": \"%s\", \"payload_bytes\": %zu, \"openssl_seal_ns\": %.0f, \"openssl_open_ns\": %.0f, "
               "\"ours_seal_ns\": %.0f, \"ours_open_ns\": %.0f}\n",
               ciphers[c].suite, payload_size, median(seal[0], run_count), median(open[0], run_count),
               median(seal[1], run_count), median(open[1], run_count));
        dtls_delete(ours);
        SSL_free(client);
        SSL_free(server);
        SSL_CTX_free(context);
    }
    free(records);
    return 0;
}
