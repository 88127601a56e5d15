/* CHECK(): a sum, a count or a list's length that must hold.  A check that fails ends the process.  It is on in tests,
 * under sanitizers and when fuzzing (-DCONFLUX_CHECK); in the shipped build it is not even evaluated. */

#ifndef CONFLUX_CHECK_H
#define CONFLUX_CHECK_H

#ifdef CONFLUX_CHECK

#include <stdio.h>
#include <stdlib.h>

#define CHECK(holds) ((holds) ? (void)0 : check_failed(#holds, __FILE__, __LINE__))

static inline _Noreturn void check_failed(const char *what, const char *file, int line)
{
    fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
    abort();
}

#else

#define CHECK(holds) ((void)sizeof(!!(holds)))

#endif

#endif
