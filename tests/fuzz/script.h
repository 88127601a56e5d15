/* An input of a fuzz target as a script: bytes that are taken one after another, and then zeroes. */

#ifndef CONFLUX_FUZZ_SCRIPT_H
#define CONFLUX_FUZZ_SCRIPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

struct script {
    const uint8_t *at;
    size_t left;
};

static inline uint8_t next_byte(struct script *self)
{
    if (self->left == 0)
        return 0;
    self->left--;
    return *self->at++;
}

static inline uint32_t next_word(struct script *self)
{
    uint32_t high = next_byte(self);

    return high << 8 | next_byte(self);
}

static inline void demand(bool claim)
{
    if (!claim)
        abort();
}

#endif
