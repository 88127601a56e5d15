/* Allocations that fail when a test says so.  The linker wraps malloc(), calloc() and realloc() (kit/driven.py,
 * ALLOCATION); one file of a program includes this.  Each thread has its own count, so that a thread of the code under
 * test is not counted with the test's. */

#ifndef CONFLUX_TEST_ALLOC_H
#define CONFLUX_TEST_ALLOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static _Thread_local uint64_t allocations_left = UINT64_MAX; /* that succeed; UINT64_MAX: all do */
static _Thread_local uint64_t allocations_failed;
static _Thread_local bool allocations_fail_once; /* only the first that could not be had fails */

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);

static inline bool allocation_succeeds(void)
{
    if (allocations_left == UINT64_MAX)
        return true;
    if (allocations_left > 0) {
        allocations_left--;
        return true;
    }
    allocations_failed++;
    if (allocations_fail_once)
        allocations_left = UINT64_MAX;
    return false;
}

void *__wrap_malloc(size_t size) { return allocation_succeeds() ? __real_malloc(size) : NULL; }
void *__wrap_calloc(size_t count, size_t size) { return allocation_succeeds() ? __real_calloc(count, size) : NULL; }
void *__wrap_realloc(void *old, size_t size) { return allocation_succeeds() ? __real_realloc(old, size) : NULL; }

#endif
