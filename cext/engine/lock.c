/* The engine's clock, and how a caller leaves the engine; see lock.h. */

#define _GNU_SOURCE

#include "engine/lock.h"

#include <sys/eventfd.h>
#include <time.h>

uint64_t engine_clock(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * SECOND_NS + (uint64_t)time.tv_nsec;
}

void engine_unlock_and_wake(struct engine *self)
{
    bool write_it = !self->wake_written && self->running;

    self->wake_written |= write_it;
    pthread_mutex_unlock(&self->lock);
    if (write_it)
        eventfd_write(self->wake, 1);
}
