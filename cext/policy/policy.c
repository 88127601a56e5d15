#include "policy/policy.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

/* An encoded table, all numbers of 32 bits in network order:
 *
 *     magic | counts: columns, classes, permits, spans, sources, targets
 *     permits: { first span, count }   spans: { first, last }   rows: { permit for each column } for each class
 *     sources: { first address (16), last (16), class }   targets: { first, last, column } */
enum {
    MAGIC = 0x43585031,
    HEAD_BYTES = 7 * 4,
    PAIR_BYTES = 8,
    CELL_BYTES = 4,
    RANGE_BYTES = 36,
    KEY_MAX = 0xFFFFFF,
    COUNT_MAX = 1 << 20, /* as in table.py: what a board shall hold, and no product of two overflows 64 bits */
};

struct span {
    uint32_t first, last;
};

struct address {
    uint64_t high, low;
};

struct range {
    struct address first, last;
    uint32_t value;
};

struct policy {
    uint32_t column_count, class_count, permit_count, span_count, source_count, target_count;
    struct range *sources, *targets; /* in order; no two overlap */
    struct span *permits; /* first: of its spans; last: behind them */
    struct span *spans; /* of one permit: in order, and no two meet */
    uint32_t *cells; /* permit by class and column */
};

static struct address address_load(const uint8_t *at)
{
    return (struct address){load_be64(at), load_be64(at + 8)};
}

static bool is_before(struct address a, struct address b)
{
    return a.high < b.high || (a.high == b.high && a.low < b.low);
}

static bool permits_load(struct policy *self, const uint8_t *at)
{
    uint32_t next = 0;

    for (uint32_t i = 0; i < self->permit_count; i++, at += PAIR_BYTES) {
        uint32_t first = load_be32(at), count = load_be32(at + 4);
        if (first != next || count > self->span_count - first)
            return false;
        next = first + count;
        self->permits[i] = (struct span){first, next};
    }
    for (uint32_t i = 0; i < self->span_count; i++, at += PAIR_BYTES)
        self->spans[i] = (struct span){load_be32(at), load_be32(at + 4)};
    for (uint32_t i = 0; i < self->permit_count; i++) {
        for (uint32_t j = self->permits[i].first; j < self->permits[i].last; j++) {
            struct span *span = &self->spans[j];
            if (span->first > span->last || span->last > KEY_MAX)
                return false;
            if (j > self->permits[i].first && span->first <= span[-1].last + 1)
                return false;
        }
    }
    return next == self->span_count && self->permits[0].last == 0; /* permit 0 is empty */
}

static bool cells_load(struct policy *self, const uint8_t *at)
{
    for (size_t i = 0; i < (size_t)self->class_count * self->column_count; i++, at += CELL_BYTES) {
        self->cells[i] = load_be32(at);
        if (self->cells[i] >= self->permit_count || (i < self->column_count && self->cells[i] != 0))
            return false; /* class 0 is of those whom no rule names */
    }
    return true;
}

static bool ranges_load(struct range *ranges, uint32_t count, uint32_t value_count, const uint8_t *at)
{
    for (uint32_t i = 0; i < count; i++, at += RANGE_BYTES) {
        struct range *range = &ranges[i];
        *range = (struct range){address_load(at), address_load(at + 16), load_be32(at + 32)};
        if (is_before(range->last, range->first) || range->value >= value_count)
            return false;
        if (i > 0 && !is_before(range[-1].last, range->first))
            return false;
    }
    return true;
}

static bool parts_load(struct policy *self, const uint8_t *at)
{
    const uint8_t *cells = at + ((size_t)self->permit_count + self->span_count) * PAIR_BYTES;
    const uint8_t *sources = cells + (size_t)self->class_count * self->column_count * CELL_BYTES;
    const uint8_t *targets = sources + (size_t)self->source_count * RANGE_BYTES;

    return permits_load(self, at) && cells_load(self, cells) &&
           ranges_load(self->sources, self->source_count, self->class_count, sources) &&
           ranges_load(self->targets, self->target_count, self->column_count, targets);
}

struct policy *policy_load_untrusted(const uint8_t *data, size_t size)
{
    uint32_t counts[6];

    if (size < HEAD_BYTES || load_be32(data) != MAGIC)
        return NULL;
    for (int i = 0; i < 6; i++) {
        counts[i] = load_be32(data + 4 + 4 * i);
        if (counts[i] > COUNT_MAX)
            return NULL;
    }
    uint64_t cell_count = (uint64_t)counts[0] * counts[1], range_count = (uint64_t)counts[4] + counts[5];
    uint64_t pair_count = (uint64_t)counts[2] + counts[3];
    if (counts[0] == 0 || counts[1] == 0 || counts[2] == 0 || cell_count > COUNT_MAX)
        return NULL;
    if (HEAD_BYTES + pair_count * PAIR_BYTES + cell_count * CELL_BYTES + range_count * RANGE_BYTES != size)
        return NULL;

    struct policy *self = malloc(sizeof *self + range_count * sizeof(struct range) + pair_count * sizeof(struct span) +
                                 cell_count * sizeof(uint32_t));
    if (self == NULL)
        return NULL;
    self->column_count = counts[0];
    self->class_count = counts[1];
    self->permit_count = counts[2];
    self->span_count = counts[3];
    self->source_count = counts[4];
    self->target_count = counts[5];
    self->sources = (struct range *)(self + 1);
    self->targets = self->sources + self->source_count;
    self->permits = (struct span *)(self->targets + self->target_count);
    self->spans = self->permits + self->permit_count;
    self->cells = (uint32_t *)(self->spans + self->span_count);
    if (!parts_load(self, data + HEAD_BYTES)) {
        free(self);
        return NULL;
    }
    return self;
}

void policy_free(struct policy *self) { free(self); }

uint32_t policy_class_count(const struct policy *self) { return self->class_count; }

/* The range that an address is in; NULL: none. */
static const struct range *range_find(const struct range *ranges, uint32_t count, const uint8_t *address)
{
    struct address wanted = address_load(address);
    uint32_t low = 0, high = count; /* the first range that ends at wanted or behind it */

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (is_before(ranges[middle].last, wanted))
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && !is_before(wanted, ranges[low].first) ? &ranges[low] : NULL;
}

uint32_t policy_class_of(const struct policy *self, const uint8_t source[FLOW_ADDRESS_BYTES])
{
    const struct range *range = range_find(self->sources, self->source_count, source);

    return range == NULL ? POLICY_NO_CLASS : range->value;
}

bool policy_allows(const struct policy *self, uint32_t source_class, const struct flow *flow)
{
    const struct range *target = range_find(self->targets, self->target_count, flow->destination);

    if (target == NULL || source_class >= self->class_count)
        return false;
    const struct span *permit = &self->permits[self->cells[source_class * self->column_count + target->value]];
    uint32_t low = permit->first, high = permit->last; /* the first span that ends at the flow or behind it */
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (self->spans[middle].last < flow->key)
            low = middle + 1;
        else
            high = middle;
    }
    return low < permit->last && self->spans[low].first <= flow->key;
}
