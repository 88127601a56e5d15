/* Says whether a flow may pass, by two look-ups in a table that conflux/policy/table.py made: the class of the source
 * and the column of the target name a permit, which is a sorted list of spans of flows.  What is in no range has class
 * POLICY_NO_CLASS, or no column, and nothing of it passes.
 *
 * Holds no rule, no name and no time: whoever asks takes a new table when the next moment comes.  A table never
 * changes, so several threads may ask at once. */

#ifndef CONFLUX_POLICY_H
#define CONFLUX_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "policy/flow.h"

enum { POLICY_NO_CLASS = 0 };

struct policy;

/* Read an encoded table.  NULL: it is not one, or there is no memory; it need not be kept. */
struct policy *policy_load_untrusted(const uint8_t *data, size_t size);
void policy_free(struct policy *self); /* NULL is allowed */

uint32_t policy_class_count(const struct policy *self);

/* The class of a host behind a gateway; that of a peer is said with the table. */
uint32_t policy_class_of(const struct policy *self, const uint8_t source[FLOW_ADDRESS_BYTES]);

/* Whether a flow may pass from a source of that class.  A class that the table has not has no permit. */
bool policy_allows(const struct policy *self, uint32_t source_class, const struct flow *flow);

#endif
