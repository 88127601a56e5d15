/* How another thread gets into the engine.  The engine's own thread holds the lock for one turn of its loop, and lets
 * waiting callers in between two turns: a saturated datapath never keeps the control plane out. */

#ifndef CONFLUX_ENGINE_LOCK_H
#define CONFLUX_ENGINE_LOCK_H

#include "engine/private.h"

uint64_t engine_clock(void); /* CLOCK_MONOTONIC, in nanoseconds */

static inline void engine_lock(struct engine *self)
{
    atomic_fetch_add(&self->lock_wanted, 1);
    pthread_mutex_lock(&self->lock);
    atomic_fetch_sub(&self->lock_wanted, 1);
    self->now = engine_clock();
}

static inline void engine_unlock(struct engine *self) { pthread_mutex_unlock(&self->lock); }

/* The same, and wake the thread: there is something to do. */
void engine_unlock_and_wake(struct engine *self);

#endif
