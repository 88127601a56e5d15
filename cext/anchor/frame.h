/* The Anchor data frame: numbers, header and bundle walk.  conflux/anchor/frame.py draws it and a test compares the
 * numbers.  Decides what a well-formed frame is; knows no key, no window and no Python. */

#ifndef CONFLUX_FRAME_H
#define CONFLUX_FRAME_H

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"

_Static_assert(sizeof(void *) == 8, "Conflux needs a 64-bit system");

enum {
    FRAME_VERSION = 1,
    HEADER_BYTES = 16,
    TAG_BYTES = 16,
    FRAME_BYTES_MAX = 65536,
    BUNDLE_BYTES_MAX = FRAME_BYTES_MAX - HEADER_BYTES - TAG_BYTES,
    ENTRY_HEADER_BYTES = 3,

    FLAG_CE = 1,
    FLAG_FEEDBACK = 2,

    KIND_PACKET = 1,
    KIND_OFFLOAD = 2,
    KIND_REKEY = 3,
    KIND_PADDING = 4,
    KIND_CONFIRM = 5,
    KIND_END = 6,
    KIND_REPORT = 7,
    KIND_LAST = KIND_REPORT, /* kinds 1 to 7 are known */
    OFFLOAD_HEADER_BYTES = 10,
};

/* In the order in which they are checked; REASONS in codec.pyx names them. */
enum fault {
    FAULT_NONE,
    FAULT_TRUNCATED,
    FAULT_OVERSIZED,
    FAULT_VERSION,
    FAULT_RESERVED,
    FAULT_EPOCH,
    FAULT_REPLAY,
    FAULT_AUTH,
    FAULT_MALFORMED,
    FAULT_UNKNOWN_KIND,
};

static inline uint8_t frame_flags(const uint8_t *frame) { return frame[1]; }
static inline uint8_t frame_epoch(const uint8_t *frame) { return frame[2]; }
static inline uint32_t frame_label(const uint8_t *frame) { return load_be32(frame + 4); }
static inline uint64_t frame_counter(const uint8_t *frame) { return load_be64(frame + 8); }

/* After FAULT_NONE the accessors above, and HEADER_BYTES + TAG_BYTES bytes, may be read without another check. */
static inline enum fault header_check(const uint8_t *frame, size_t size)
{
    if (size < HEADER_BYTES + TAG_BYTES)
        return FAULT_TRUNCATED;
    if (size > FRAME_BYTES_MAX)
        return FAULT_OVERSIZED;
    if (frame[0] != FRAME_VERSION)
        return FAULT_VERSION;
    if (frame[3] != 0 || (frame[1] & ~(FLAG_CE | FLAG_FEEDBACK)) != 0)
        return FAULT_RESERVED;
    return FAULT_NONE;
}

static inline void header_store(uint8_t *frame, uint8_t flags, uint8_t epoch, uint32_t label, uint64_t counter)
{
    frame[0] = FRAME_VERSION;
    frame[1] = flags;
    frame[2] = epoch;
    frame[3] = 0;
    store_be32(frame + 4, label);
    store_be64(frame + 8, counter);
}

static inline int kind_is_known(long kind) { return kind >= KIND_PACKET && kind <= KIND_LAST; }

/* An empty packet is refused here, so that a packet's first byte may always be read. */
static inline size_t body_size_min(long kind)
{
    if (kind == KIND_PACKET)
        return 1;
    return kind == KIND_OFFLOAD ? OFFLOAD_HEADER_BYTES + 1 : 0;
}

static inline size_t entry_size(const uint8_t *entry) { return (size_t)entry[1] << 8 | entry[2]; }

static inline uint8_t *entry_header_store(uint8_t *entry, uint8_t kind, uint16_t size)
{
    entry[0] = kind;
    entry[1] = (uint8_t)(size >> 8);
    entry[2] = (uint8_t)size;
    return entry + ENTRY_HEADER_BYTES;
}

/* After FAULT_NONE the bundle may be walked by entry_size() without another check. */
static inline enum fault bundle_check(const uint8_t *bundle, size_t size)
{
    size_t position = 0;

    while (position < size) {
        if (size - position < ENTRY_HEADER_BYTES)
            return FAULT_MALFORMED;
        const uint8_t *entry = bundle + position;
        size_t body = entry_size(entry);
        position += ENTRY_HEADER_BYTES;
        if (!kind_is_known(entry[0]))
            return FAULT_UNKNOWN_KIND;
        if (body > size - position || body < body_size_min(entry[0]))
            return FAULT_MALFORMED;
        position += body;
    }
    return FAULT_NONE;
}

#endif
