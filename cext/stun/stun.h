/* STUN messages of one link (RFC 8489; RFC 8445, section 7): whether one was made by somebody who knows the link's ICE
 * passwords.  Decides nothing else: Python reads what passes here.  Knows no socket, no time and no Python. */

#ifndef CONFLUX_STUN_H
#define CONFLUX_STUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    STUN_PASSWORD_BYTES_MAX = 256, /* RFC 8839, section 5.4 */
    STUN_COPIES_MAX = 7, /* a request that has no answer is sent so often (RFC 8489, section 6.2.1) */
    STUN_TRANSACTIONS_MAX = 512, /* remembered: about 20 minutes of an open link, 5 kB */
};

struct stun_password {
    uint8_t text[STUN_PASSWORD_BYTES_MAX];
    size_t size;
};

enum stun_fault {
    STUN_OK,
    STUN_MALFORMED, /* no STUN header, or attributes that overrun the message */
    STUN_AUTH, /* no MESSAGE-INTEGRITY, or a wrong one */
};

struct stun;

/* ours: requests come under it.  peers: responses do.  NULL: no memory, or libcrypto has no HMAC. */
struct stun *stun_new(const struct stun_password *ours, const struct stun_password *peers);
void stun_delete(struct stun *self); /* wipes the passwords; NULL is fine */

enum stun_fault stun_check_untrusted(struct stun *self, const uint8_t *data, size_t size);

/* Count a message that passed.  False: its transaction was counted STUN_COPIES_MAX times already.  The proof of a
 * message holds for ever, so whoever heard it can send it again. */
bool stun_count_untrusted(struct stun *self, const uint8_t *data);

#endif
