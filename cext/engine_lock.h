/* Getting into the engine from another thread.  The engine's own thread holds the lock for one turn of its loop and lets
 * who waits in between two turns, so that a saturated datapath never keeps the control side out. */

#ifndef CONFLUX_ENGINE_LOCK_H
#define CONFLUX_ENGINE_LOCK_H

#include "engine_private.h"

static inline void engine_lock(struct engine *self)
{
    atomic_fetch_add(&self->lock_wanted, 1);
    pthread_mutex_lock(&self->lock);
    atomic_fetch_sub(&self->lock_wanted, 1);
    self->now = engine_clock();
}

static inline void engine_unlock(struct engine *self) { pthread_mutex_unlock(&self->lock); }

/* The same, and have the thread look at what there is to do. */
void engine_unlock_and_wake(struct engine *self);

#endif
