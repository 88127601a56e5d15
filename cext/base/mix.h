/* Numbers that look random and are not: for hashes and jitter, nothing secret. */

#ifndef CONFLUX_MIX_H
#define CONFLUX_MIX_H

#include <stdint.h>

/* The finalizer of splitmix64: every bit of the input moves half of the output's. */
static inline uint64_t mix64(uint64_t value)
{
    value = (value ^ value >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ value >> 27) * UINT64_C(0x94d049bb133111eb);
    return value ^ value >> 31;
}

/* splitmix64: the next number of a small generator. */
static inline uint64_t mix64_next(uint64_t *state) { return mix64(*state += UINT64_C(0x9e3779b97f4a7c15)); }

#endif
