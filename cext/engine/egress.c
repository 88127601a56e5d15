/* A destination's packets until they go: which queue a packet of this host takes, and when the queue has a way out.
 * conflux/datapath/reference/egress.py is the readable twin of the rules here. */

#include "engine/private.h"

enum { PROTOCOL_TCP = 6, REFUSED_BURST = 10 };

/* Between two packets whose senders are told that no rule allows them; what a program repeats hears it the next time. */
#define REFUSED_INTERVAL_NS (100 * MS_NS)

static bool moving(const struct egress *self) { return self->sender != NULL && self->sender->has_hop; }

void egress_wake(struct egress *self)
{
    if (self->link != NULL && (queue_counts(self->queue).packets > 0 || self->sender->entry_count > 0))
        turns_add(self->link, &self->turn);
}

void egress_detach_link(struct egress *self)
{
    if (self->link != NULL)
        turns_remove(self->link, &self->turn);
    self->link = NULL;
}

void egress_update(struct egress *self)
{
    egress_detach_link(self);
    if (!moving(self)) {
        queue_hold(self->queue);
        self->engine->age_at = self->engine->now; /* look through it; egress_age() then waits for its oldest packet */
        return;
    }
    queue_move(self->queue, self->engine->now);
    self->link = links_find(self->engine, self->sender->hop.link);
    egress_wake(self);
}

void egress_reroute(struct engine *self, uint32_t link)
{
    for (size_t at = 1; at < self->egresses.room; at++) {
        struct egress *egress = self->egresses.items[at];
        if (egress != NULL && moving(egress) && egress->sender->hop.link == link)
            egress_update(egress);
    }
}

void egress_age(struct engine *self)
{
    uint64_t age_ns_max = self->config.hold_age_ns_max;

    self->age_at = NEVER;
    for (size_t at = 1; at < self->egresses.room; at++) {
        struct egress *egress = self->egresses.items[at];
        if (egress == NULL || moving(egress))
            continue;
        queue_drop_aged(egress->queue, age_ns_max, self->now);
        uint64_t oldest_at = queue_oldest_at(egress->queue);
        if (oldest_at != NEVER && oldest_at + age_ns_max < self->age_at)
            self->age_at = oldest_at + age_ns_max;
    }
}

/* Have Python tell the sender of a packet that no rule allows it. */
static void packet_refuse(struct engine *self, const struct queued *packet, const uint8_t *header, size_t size)
{
    drop(self, DROP_POLICY_SENT);
    if (!bucket_take(&self->refused, REFUSED_INTERVAL_NS, REFUSED_BURST, self->now))
        return;
    struct upcall *upcall = upcall_push(self, UP_REFUSED, OFFLOAD_BYTES + size, true);
    if (upcall == NULL)
        return;
    memcpy(upcall->data, header, OFFLOAD_BYTES);
    memcpy(upcall->data + OFFLOAD_BYTES, packet->data, size);
}

void packet_queue(struct engine *self, struct queued *packet, const uint8_t *header, size_t size, uint64_t queued_at)
{
    static const enum engine_drop reasons[] = {
        [PACKET_SHORT] = DROP_PACKET_SHORT,
        [PACKET_VERSION] = DROP_PACKET_VERSION,
        [PACKET_LENGTH] = DROP_PACKET_LENGTH,
        [PACKET_OFFLOAD] = DROP_PACKET_OFFLOAD,
    };
    struct packet_view view;
    struct egress *egress;
    enum packet_fault fault = packet_parse(packet->data, size, &view);

    if (fault == PACKET_OK)
        fault = offload_check_untrusted(header, packet->data, size, &packet->offload);
    if (fault != PACKET_OK) {
        drop(self, reasons[fault]);
    } else if (map_find(&self->own, address_key(view.source, view.address_bytes)) == NULL) {
        drop(self, DROP_BAD_SOURCE);
    } else if ((egress = map_find(&self->realm_addresses, address_key(view.destination, view.address_bytes))) != NULL) {
        if (self->guard != NULL && guard_out(self->guard, packet->data, size, self->now) != GUARD_PASS) {
            packet_refuse(self, packet, header, size);
            queued_delete(packet);
            return;
        }
        packet->size = (uint32_t)size;
        packet->flow = view.flow;
        packet->ordered = view.protocol == PROTOCOL_TCP;
        packet->queued_at = queued_at;
        queue_push(egress->queue, packet, queued_at);
        egress->active_at = self->now;
        if (moving(egress))
            egress_wake(egress);
        else if (queued_at + self->config.hold_age_ns_max < self->age_at)
            self->age_at = queued_at + self->config.hold_age_ns_max;
        return;
    } else if (networks_hold(self->realm, self->realm_count, view.destination, view.address_bytes) &&
               map_find(&self->own, address_key(view.destination, view.address_bytes)) == NULL) {
        struct upcall *upcall = upcall_push(self, UP_PACKET, OFFLOAD_BYTES + size, true);
        if (upcall != NULL) {
            upcall->came_at = queued_at;
            memcpy(upcall->data, header, OFFLOAD_BYTES);
            memcpy(upcall->data + OFFLOAD_BYTES, packet->data, size);
        }
    } else {
        drop(self, DROP_NO_DESTINATION); /* multicast, another network, or this host */
    }
    queued_delete(packet);
}
