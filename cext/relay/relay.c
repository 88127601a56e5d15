#include "relay/relay.h"

#include <stdlib.h>
#include <string.h>

#include "anchor/frame.h"
#include "base/bytes.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/map.h"
#include "queue/served.h"

enum {
    /* A waiting frame costs more than its bytes: memory here, a chunk and an acknowledgement on the wire.  Bounds
     * and turns charge for it, else many small frames would be cheap. */
    FRAME_COST_BYTES = 256,
    QUANTUM_BYTES = 16384 + FRAME_COST_BYTES, /* a full bundle per turn: DatapathConfig.bundle_bytes_max */
    STATUS_ROOM_MIN = 16,
};

/* A frame that waits, as it came. */
struct waiting {
    struct waiting *next;
    uint64_t came_at;
    struct sctp_message *message;
    unsigned channel;
    bool unordered;
};

/* A place in one of a link's two lists.  Alone, it is its own neighbour. */
struct place {
    struct place *before, *behind;
};

/* A link that routes lead over, or that has spent some of its allowance.  A way is in at most one of the two lists,
 * and only once. */
struct relay_link {
    uint32_t id;
    uint32_t way_count;
    struct place quiet; /* ways that had nothing to send until now: served first, for one quantum */
    struct place turns;
    int64_t cost; /* bytes that wait, plus FRAME_COST_BYTES per frame */
    struct served served; /* the same of frames that left */
    struct relay_link *idle_next; /* without ways, kept until its allowance is full: new routes do not refill it */
    bool spent; /* the allowance counts */
    double allowance; /* bytes that the link may still send us at once */
    uint64_t allowance_at;
};

/* One direction of a route: where its frames go, those that wait to, and how many went. */
struct way {
    struct place place; /* first, so that a pointer to it points to the way */
    struct relay_hop hop;
    struct relay_link *out;
    struct way *back; /* the other direction: this way's frames come from the link it goes out on */
    struct waiting *oldest, *newest;
    bool listed; /* its place is in a list, perhaps without frames: it counts as quiet only once it has left */
    bool is_back; /* carries feedback */
    int64_t cost, deficit;
    uint64_t frame_count, bytes_sent;
};

/* About 350 bytes with its places in the tables (bench/parts/datapath_tables.py).  Once removed, it leaves only the
 * tables' room. */
struct route {
    struct way ahead, back;
    size_t index; /* in routes */
};

struct relay {
    struct relay_limits limits;
    void (*drop)(void *context, enum relay_drop why);
    void *context;
    struct map ways; /* by the link and label that frames for them come with */
    struct map links; /* by their number */
    struct relay_link *idle;
    struct route **routes; /* in no order */
    size_t route_count, route_room;
    int64_t cost; /* of all links */
};

static struct map_key way_key(uint32_t link, uint32_t label)
{
    return (struct map_key){.high = link, .low = label};
}

static struct map_key link_key(uint32_t link) { return (struct map_key){.high = link}; }

/* ── lists ───────────────────────────────────────────────────────────────────────────────────────────────────────── */

static void place_init(struct place *self) { self->before = self->behind = self; }

static bool place_is_alone(const struct place *self) { return self->behind == self; }

static void place_leave(struct place *self)
{
    self->before->behind = self->behind;
    self->behind->before = self->before;
    place_init(self);
}

/* Put it last in the list that begins and ends with head. */
static void place_append(struct place *head, struct place *self)
{
    self->before = head->before;
    self->behind = head;
    head->before->behind = self;
    head->before = self;
}

static struct way *way_at(struct place *place) { return (struct way *)place; }

static void way_unlist(struct way *way)
{
    place_leave(&way->place);
    way->listed = false;
}

/* ── frames that wait ────────────────────────────────────────────────────────────────────────────────────────────── */

static int64_t cost_of(const struct sctp_message *message) { return (int64_t)message->size + FRAME_COST_BYTES; }

/* Take a way's oldest frame out of the queue and of every sum. */
static struct waiting *oldest_take(struct relay *self, struct way *way)
{
    struct waiting *oldest = way->oldest;
    int64_t cost = cost_of(oldest->message);

    way->oldest = oldest->next;
    if (way->oldest == NULL)
        way->newest = NULL;
    way->cost -= cost;
    way->out->cost -= cost;
    self->cost -= cost;
    CHECK(way->cost >= 0 && way->out->cost >= way->cost && self->cost >= way->out->cost);
    CHECK((way->oldest == NULL) == (way->cost == 0));
    return oldest;
}

static void oldest_drop(struct relay *self, struct way *way, enum relay_drop why)
{
    struct waiting *oldest = oldest_take(self, way);

    sctp_message_delete(oldest->message);
    free(oldest);
    self->drop(self->context, why);
}

/* ── links ───────────────────────────────────────────────────────────────────────────────────────────────────────── */

static void delete_link(struct relay *self, struct relay_link *link)
{
    CHECK(link->way_count == 0 && link->cost == 0);
    map_remove(&self->links, link_key(link->id));
    free(link);
}

/* One more way leads over the link; the link is made if there is none. */
static struct relay_link *hold_link(struct relay *self, uint32_t id)
{
    struct relay_link *link = map_find(&self->links, link_key(id));

    if (link == NULL) {
        link = calloc(1, sizeof *link);
        if (link == NULL || !map_set(&self->links, link_key(id), link)) {
            free(link);
            return NULL;
        }
        link->id = id;
        place_init(&link->quiet);
        place_init(&link->turns);
    } else if (link->way_count == 0) {
        struct relay_link **at = &self->idle;
        while (*at != link)
            at = &(*at)->idle_next;
        *at = link->idle_next;
        link->served = (struct served){0};
    }
    link->way_count++;
    return link;
}

static void release_link(struct relay *self, struct relay_link *link)
{
    link->way_count--;
    if (link->way_count > 0)
        return;
    if (!link->spent) {
        delete_link(self, link);
        return;
    }
    link->idle_next = self->idle;
    self->idle = link;
}

/* A quarter of a second's bytes, and never less than the largest frame. */
static double allowance_max(const struct relay *self)
{
    double quarter = (double)self->limits.bytes_per_s / 4;

    return quarter > FRAME_BYTES_MAX ? quarter : FRAME_BYTES_MAX;
}

static void allowance_fill(const struct relay *self, struct relay_link *link, uint64_t now)
{
    if (!link->spent) {
        link->spent = true;
        link->allowance = allowance_max(self);
        link->allowance_at = now;
    } else if (now > link->allowance_at) {
        double filled = (double)(now - link->allowance_at) / (double)SECOND_NS * (double)self->limits.bytes_per_s;
        link->allowance += filled;
        if (link->allowance > allowance_max(self))
            link->allowance = allowance_max(self);
        link->allowance_at = now;
    }
}

static bool allowance_take(const struct relay *self, struct relay_link *link, size_t size, uint64_t now)
{
    if (self->limits.bytes_per_s == 0)
        return true;
    allowance_fill(self, link, now);
    if (link->allowance < (double)size)
        return false;
    link->allowance -= (double)size;
    return true;
}

static void forget_allowances(struct relay *self, uint64_t now)
{
    for (struct relay_link **at = &self->idle; *at != NULL;) {
        struct relay_link *link = *at;
        allowance_fill(self, link, now);
        if (link->allowance >= allowance_max(self)) {
            *at = link->idle_next;
            delete_link(self, link);
        } else {
            at = &link->idle_next;
        }
    }
}

/* ── tables ──────────────────────────────────────────────────────────────────────────────────────────────────────── */

struct relay *relay_new(const struct relay_limits *limits, void (*drop)(void *context, enum relay_drop why),
                        void *context)
{
    struct relay *self = calloc(1, sizeof *self);

    if (self == NULL)
        return NULL;
    self->limits = *limits;
    self->drop = drop;
    self->context = context;
    /* We choose labels and links, not a peer: the keys spread without a seed. */
    map_init(&self->ways, 0);
    map_init(&self->links, 0);
    return self;
}

static struct way *find(const struct relay *self, uint32_t link, uint32_t label)
{
    return map_find(&self->ways, way_key(link, label));
}

bool relay_holds(const struct relay *self, uint32_t link, uint32_t label, bool feedback)
{
    const struct way *way = find(self, link, label);

    return way != NULL && way->is_back == feedback;
}

static bool room_for_a_route(struct relay *self)
{
    if (self->route_count < self->route_room)
        return true;
    size_t room = self->route_room == 0 ? STATUS_ROOM_MIN : 2 * self->route_room;
    struct route **routes = realloc(self->routes, room * sizeof *routes);
    if (routes == NULL)
        return false;
    self->routes = routes;
    self->route_room = room;
    return true;
}

static void way_init(struct way *self, const struct relay_hop *hop, struct relay_link *out, struct way *back)
{
    place_init(&self->place);
    self->hop = *hop;
    self->out = out;
    self->back = back;
}

static bool channels_fit(const struct relay_hop *hop)
{
    return hop->channel_count > 0 && hop->channel_count <= RELAY_CHANNEL_COUNT_MAX;
}

static const char *const NO_MEMORY = "no memory for another route";

const char *relay_add(struct relay *self, const struct relay_hop *before, const struct relay_hop *ahead, uint64_t now)
{
    if (before->link == ahead->link)
        return "a relay back over the link it comes from";
    if (find(self, before->link, before->label_in) != NULL || find(self, ahead->link, ahead->label_in) != NULL)
        return "the label is taken";
    if (!channels_fit(before) || !channels_fit(ahead))
        return "a tether without channels, or with too many";
    forget_allowances(self, now);

    struct route *route = room_for_a_route(self) ? calloc(1, sizeof *route) : NULL;
    if (route == NULL)
        return NO_MEMORY;
    struct relay_link *link_before = hold_link(self, before->link), *link_ahead = hold_link(self, ahead->link);
    bool held = link_before != NULL && link_ahead != NULL;
    if (!held || !map_set(&self->ways, way_key(before->link, before->label_in), &route->ahead) ||
        !map_set(&self->ways, way_key(ahead->link, ahead->label_in), &route->back)) {
        map_remove(&self->ways, way_key(before->link, before->label_in));
        if (link_before != NULL)
            release_link(self, link_before);
        if (link_ahead != NULL)
            release_link(self, link_ahead);
        free(route);
        return NO_MEMORY;
    }
    way_init(&route->ahead, ahead, link_ahead, &route->back);
    way_init(&route->back, before, link_before, &route->ahead);
    route->back.is_back = true;
    route->index = self->route_count;
    self->routes[self->route_count++] = route;
    return NULL;
}

static void route_delete(struct relay *self, struct route *route)
{
    struct way *both[] = {&route->ahead, &route->back};

    for (size_t i = 0; i < 2; i++) {
        struct way *way = both[i];
        map_remove(&self->ways, way_key(way->hop.link, way->hop.label_in)); /* frames under it go the other way */
        while (way->oldest != NULL)
            oldest_drop(self, way, RELAY_GONE);
        way_unlist(way);
        release_link(self, way->out);
    }
    CHECK(self->routes[route->index] == route);
    self->route_count--;
    self->routes[route->index] = self->routes[self->route_count];
    self->routes[route->index]->index = route->index;
    free(route);
}

/* The route that a way is half of. */
static struct route *route_of(struct way *way)
{
    struct way *ahead = way->is_back ? way->back : way;

    return (struct route *)((char *)ahead - offsetof(struct route, ahead));
}

void relay_remove(struct relay *self, uint32_t link, uint32_t label_in)
{
    struct way *way = find(self, link, label_in);

    if (way != NULL)
        route_delete(self, route_of(way));
}

void relay_delete(struct relay *self)
{
    if (self == NULL)
        return;
    while (self->route_count > 0)
        route_delete(self, self->routes[self->route_count - 1]);
    while (self->idle != NULL) {
        struct relay_link *link = self->idle;
        self->idle = link->idle_next;
        delete_link(self, link);
    }
    CHECK(self->cost == 0 && self->ways.count == 0 && self->links.count == 0);
    map_free(&self->ways);
    map_free(&self->links);
    free(self->routes);
    free(self);
}

/* ── in ──────────────────────────────────────────────────────────────────────────────────────────────────────────── */

static int64_t lesser(int64_t one, int64_t other) { return one < other ? one : other; }

static int64_t bound(size_t bytes) { return bytes > INT64_MAX / 2 ? INT64_MAX / 2 : (int64_t)bytes; }

/* How much the way may have waiting once `freed` of its bytes are free: as much as is free then (dynamic
 * thresholds). */
static int64_t room(const struct relay *self, const struct way *way, int64_t freed, uint64_t now)
{
    size_t route_bytes_max = served_bound(&way->out->served, self->limits.route_bytes_max, now);
    int64_t grown = bound(route_bytes_max) - bound(self->limits.route_bytes_max);
    /* Alone, a way has half of the link's room. */
    int64_t link_bytes_max = bound(self->limits.link_bytes_max) + 2 * grown;
    int64_t free_bytes = lesser(link_bytes_max - way->out->cost, bound(self->limits.bytes_max) - self->cost);

    return lesser(bound(route_bytes_max), free_bytes + freed);
}

/* Drop the way's oldest frames until one of that cost fits.  False: it cannot fit. */
static bool make_room(struct relay *self, struct way *way, int64_t cost, uint64_t now)
{
    if (cost > room(self, way, way->cost, now))
        return false;
    while (way->oldest != NULL && way->cost + cost > room(self, way, 0, now))
        oldest_drop(self, way, RELAY_FULL);
    return true;
}

bool relay_receive_untrusted(struct relay *self, uint32_t link, uint32_t label, bool feedback, unsigned channel,
                             bool unordered, struct sctp_message *message, uint64_t now)
{
    struct way *way = find(self, link, label);

    if (way == NULL || way->is_back != feedback)
        return false;
    struct waiting *frame = NULL;
    enum relay_drop why = RELAY_FULL;
    if (!allowance_take(self, way->back->out, message->size, now))
        why = RELAY_RATE;
    else if (make_room(self, way, cost_of(message), now))
        frame = malloc(sizeof *frame);
    if (frame == NULL) {
        sctp_message_delete(message);
        self->drop(self->context, why);
        return true;
    }
    if (!way->listed) {
        way->listed = true;
        way->deficit = QUANTUM_BYTES;
        place_append(&way->out->quiet, &way->place);
    }
    *frame = (struct waiting){.came_at = now, .message = message, .channel = channel, .unordered = unordered};
    if (way->newest == NULL)
        way->oldest = frame;
    else
        way->newest->next = frame;
    way->newest = frame;
    way->cost += cost_of(message);
    way->out->cost += cost_of(message);
    self->cost += cost_of(message);
    return true;
}

/* ── out ─────────────────────────────────────────────────────────────────────────────────────────────────────────── */

/* Deficit round robin, up to the next frame; frames that are too old are dropped.  NULL: none waits. */
static struct way *settle(struct relay *self, struct relay_link *out, uint64_t now)
{
    while (out->cost > 0) {
        bool quiet = !place_is_alone(&out->quiet);
        struct way *way = way_at(quiet ? out->quiet.behind : out->turns.behind);
        if (way->deficit <= 0) {
            way->deficit += QUANTUM_BYTES;
            place_leave(&way->place);
            place_append(&out->turns, &way->place);
        } else if (way->oldest == NULL) {
            way_unlist(way);
            if (quiet) { /* all others come before it counts as quiet again */
                way->listed = true;
                place_append(&out->turns, &way->place);
            }
        } else if (now > way->oldest->came_at && now - way->oldest->came_at > self->limits.age_ns_max) {
            oldest_drop(self, way, RELAY_AGED);
        } else {
            return way;
        }
    }
    return NULL;
}

/* No frame waits: every way counts as quiet. */
static void unlist_all(struct relay_link *out)
{
    while (!place_is_alone(&out->quiet))
        way_unlist(way_at(out->quiet.behind));
    while (!place_is_alone(&out->turns))
        way_unlist(way_at(out->turns.behind));
}

bool relay_waits(const struct relay *self, uint32_t link)
{
    const struct relay_link *out = map_find(&self->links, link_key(link));

    return out != NULL && out->cost > 0;
}

bool relay_next(struct relay *self, uint32_t link, struct relay_frame *out_frame, uint64_t now)
{
    struct relay_link *out = map_find(&self->links, link_key(link));

    if (out == NULL || out->cost == 0)
        return false;
    struct way *way = settle(self, out, now);
    if (way != NULL) {
        struct waiting *frame = oldest_take(self, way);
        uint8_t *header = frame->message->data;
        served_add(&out->served, (size_t)cost_of(frame->message), now);
        way->deficit -= cost_of(frame->message);
        way->frame_count++;
        way->bytes_sent += frame->message->size;
        store_be32(header + 4, way->hop.label_out);
        /* A way with no frame left behind this one did not make the queue. */
        if (way->cost > 0 && out->cost > bound(self->limits.mark_bytes))
            header[1] |= FLAG_CE;
        *out_frame = (struct relay_frame){
            .message = frame->message,
            .hop = &way->hop,
            .channel = frame->channel % way->hop.channel_count,
            .unordered = frame->unordered,
        };
        free(frame);
    }
    if (out->cost == 0)
        unlist_all(out);
    return way != NULL;
}

/* ── what came of it ─────────────────────────────────────────────────────────────────────────────────────────────── */

bool relay_status(const struct relay *self, size_t index, struct relay_status *out)
{
    if (index >= self->route_count)
        return false;
    const struct way *ahead = &self->routes[index]->ahead, *back = &self->routes[index]->back;
    *out = (struct relay_status){
        .before = back->hop,
        .ahead = ahead->hop,
        .frames_ahead = ahead->frame_count,
        .bytes_ahead = ahead->bytes_sent,
        .frames_back = back->frame_count,
        .bytes_back = back->bytes_sent,
    };
    return true;
}
