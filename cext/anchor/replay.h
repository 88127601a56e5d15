/* Which of the newest 8192 counters were seen.  A ring of 64-bit blocks (RFC 6479): a step ahead clears whole blocks
 * and shifts nothing.  It has one block more than the width, so that no block holds both ends of the window.  Knows
 * no frame; the caller updates it only after the tag was verified. */

#ifndef CONFLUX_REPLAY_H
#define CONFLUX_REPLAY_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { REPLAY_WINDOW_COUNT = 8192, REPLAY_BLOCK_COUNT = REPLAY_WINDOW_COUNT / 64 + 1 };

#define COUNTER_END UINT64_MAX /* never accepted, so that `next` fits 64 bits */

struct replay_window {
    uint64_t next; /* highest seen + 1; 0: none */
    uint64_t block[REPLAY_BLOCK_COUNT];
};

static inline bool replay_check(const struct replay_window *window, uint64_t counter)
{
    if (counter == COUNTER_END)
        return false;
    if (counter >= window->next)
        return true;
    if (window->next - counter > REPLAY_WINDOW_COUNT)
        return false;
    return !(window->block[counter / 64 % REPLAY_BLOCK_COUNT] >> counter % 64 & 1);
}

static inline void replay_update(struct replay_window *window, uint64_t counter)
{
    if (!replay_check(window, counter))
        return;
    if (counter >= window->next) {
        /* The blocks after the highest seen counter's, up to this counter's, are new. */
        uint64_t fresh = window->next == 0 ? 0 : (window->next - 1) / 64 + 1;
        uint64_t last = counter / 64;
        if (last >= fresh && last - fresh >= REPLAY_BLOCK_COUNT)
            memset(window->block, 0, sizeof window->block);
        else
            for (; fresh <= last; fresh++)
                window->block[fresh % REPLAY_BLOCK_COUNT] = 0;
        window->next = counter + 1;
    }
    window->block[counter / 64 % REPLAY_BLOCK_COUNT] |= UINT64_C(1) << counter % 64;
}

#endif
