/* A link's life: it is added with its keys, its association's events go up or to the streams, tethers are mapped to
 * its streams, it is closed and removed.  Decides how much we hold for a peer.  Knows neither the link's socket
 * (datagrams.c) nor whose frame goes next (turns.c). */

#include <stdlib.h>

#include <openssl/crypto.h>

#include "engine/lock.h"
#include "engine/private.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

enum {
    WINDOW_BYTES_MAX = 8 << 20, /* held for one peer: 32 ms at 2 Gbit/s, 1.3 s at 50 Mbit/s */
    WINDOW_BYTES_MIN = 128 << 10, /* with any number of links: 50 ms of 20 Mbit/s */
    WINDOWS_BYTES_MAX = 64 << 20, /* of all links, but for those with the least: a board has 512 MB */
    SEND_BYTES_MAX = 32 << 20, /* four times the largest window, as chunks wait for repairs */
};

_Static_assert((int)WINDOW_BYTES_MIN >= (int)SCTP_START_WINDOW_BYTES, "a start promises that window");

/* ── the association's events ── */

static void on_opened(void *context)
{
    struct link *self = context;
    struct upcall *upcall = upcall_push(self->engine, UP_WIRE_OPENED, 0, false);

    if (upcall != NULL)
        upcall->link = self->id;
}

static void on_message(void *context, struct sctp_arrival *arrival)
{
    struct link *self = context;
    struct channel *channel = arrival->stream < self->channel_count ? &self->channels[arrival->stream] : NULL;

    if (channel != NULL && channel->tether != NULL) {
        if (arrival->ppid == PPID_BINARY) {
            struct sctp_message *message = arrival->message;
            arrival->message = NULL;
            incoming_frame_untrusted(self, message, channel, arrival->unordered);
            return;
        }
        if (arrival->ppid != PPID_DCEP) { /* it goes up: it acknowledges a channel that was mapped when it was opened */
            drop(self->engine, DROP_TEXT_MESSAGE);
            return;
        }
        channel->asked = false;
    }
    struct upcall *upcall = upcall_push_of_link(self, UP_WIRE_MESSAGE, arrival->message->size);
    if (upcall == NULL)
        return;
    upcall->a = arrival->stream;
    upcall->b = arrival->ppid;
    memcpy(upcall->data, arrival->message->data, arrival->message->size);
}

static void on_streams_reset(void *context, bool incoming, bool accepted, const uint16_t *streams, size_t count)
{
    struct link *self = context;
    size_t size = count * sizeof *streams;
    struct upcall *upcall = incoming ? upcall_push_of_link(self, UP_WIRE_RESET, size)
                                     : upcall_push(self->engine, UP_WIRE_RESET, size, false);

    if (upcall == NULL) { /* Python would never learn which streams are free again */
        links_end(self, "flood");
        sctp_close(self->sctp, true, self->engine->now);
        return;
    }
    upcall->link = self->id;
    upcall->a = incoming;
    upcall->b = accepted;
    memcpy(upcall->data, streams, count * sizeof *streams);
}

static void on_closed(void *context, enum sctp_end why) { links_end(context, sctp_end_name(why)); }

static const struct sctp_handler handler = {on_opened, on_message, on_streams_reset, on_closed};

uint64_t link_next_timeout(const struct link *self) { return self->closed ? NEVER : sctp_next_timeout(self->sctp); }

void link_handle_timeout(struct link *self) { sctp_handle_timeout(self->sctp, self->engine->now); }

/* ── tables ── */

/* A link gets a quarter of what is left: one link has all that it can use, the hundredth still has some. */
static uint32_t window_grant(const struct engine *self)
{
    size_t left = self->window_bytes < WINDOWS_BYTES_MAX ? WINDOWS_BYTES_MAX - self->window_bytes : 0;
    size_t grant = left / 4;

    if (grant > WINDOW_BYTES_MAX)
        return WINDOW_BYTES_MAX;
    return (uint32_t)(grant > WINDOW_BYTES_MIN ? grant : WINDOW_BYTES_MIN);
}

static struct link *link_new(struct engine *self, const struct engine_link_config *config)
{
    struct link *link = calloc(1, sizeof *link);

    if (link == NULL)
        return NULL;
    link->engine = self;
    link->id = config->link;
    link->fd = config->fd;
    link->window_bytes = window_grant(self);
    self->window_bytes += link->window_bytes;
    memcpy(link->address, config->address, sizeof link->address);
    link->address_bytes = config->address_bytes;
    link->passing.send_frame = passing_send_frame;
    map_init(&link->tethers, self->own.seed);
    link->dtls = dtls_new(config->keys);
    link->stun = stun_new(config->stun_ours, config->stun_peers);
    struct sctp_config association = {
        .port_local = config->port_local,
        .port_remote = config->port_remote,
        .window_bytes = link->window_bytes,
        .send_bytes_max = SEND_BYTES_MAX,
    };
    memcpy(association.entropy, config->entropy, sizeof association.entropy);
    if (link->dtls != NULL && link->stun != NULL) {
        size_t overhead = dtls_overhead(link->dtls);
        size_t packet = config->datagram_bytes_max > overhead ? config->datagram_bytes_max - overhead : 0;
        packet = packet > SCTP_PACKET_BYTES_MAX ? SCTP_PACKET_BYTES_MAX : packet & ~(size_t)3;
        association.packet_bytes_max = (uint32_t)(packet < SCTP_PACKET_BYTES_MIN ? SCTP_PACKET_BYTES_MIN : packet);
        link->sctp = sctp_new(&association, &handler, link);
    }
    OPENSSL_cleanse(&association, sizeof association);
    if (link->sctp == NULL) {
        link_delete(link);
        return NULL;
    }
    return link;
}

void link_add_drops(const struct link *self, uint64_t drops[DROP_COUNT])
{
    const struct sctp_counts *counts = sctp_counts(self->sctp);

    drops[DROP_SCTP_MALFORMED] += counts->dropped_malformed;
    drops[DROP_SCTP_TAG] += counts->dropped_tag;
    drops[DROP_SCTP_CHECKSUM] += counts->dropped_checksum;
    drops[DROP_SCTP_WINDOW] += counts->dropped_window;
    drops[DROP_SCTP_OTHER] += counts->dropped_other; /* duplicates are no drops: repairs make them */
}

void link_delete(struct link *self)
{
    CHECK(self->engine->window_bytes >= self->window_bytes);
    self->engine->window_bytes -= self->window_bytes;
    if (self->sctp != NULL)
        sctp_delete(self->sctp);
    dtls_delete(self->dtls);
    stun_delete(self->stun);
    early_forget(self, NULL);
    for (size_t at = 0; at < self->tethers.room; at++)
        free(self->tethers.slots[at].value);
    map_free(&self->tethers);
    free(self->channels);
    free(self->out);
    free(self);
}

const char *engine_add_link(struct engine *self, const struct engine_link_config *config)
{
    const char *problem = NULL;
    struct link *link = NULL;

    engine_lock(self);
    if (links_find(self, config->link) != NULL) {
        problem = "the link is there";
    } else if (self->link_count == ENGINE_LINK_COUNT_MAX) {
        problem = "too many links";
    } else if ((link = link_new(self, config)) == NULL) {
        problem = "keys that fit no cipher, or no memory";
    } else {
        if (!map_set(&self->links_by_id, (struct map_key){0, link->id}, link) || !datagrams_open(link)) {
            map_remove(&self->links_by_id, (struct map_key){0, link->id});
            link_delete(link);
            problem = "the socket cannot be watched";
        } else {
            link->place = self->link_count;
            self->links[self->link_count++] = link;
            if (config->started)
                sctp_start(link->sctp, config->start, self->now);
            else
                sctp_connect(link->sctp, self->now);
            egress_reroute(self, link->id);
        }
    }
    engine_unlock_and_wake(self);
    return problem;
}

void engine_close_link(struct engine *self, uint32_t id)
{
    engine_lock(self);
    struct link *link = links_find(self, id);
    if (link != NULL && !link->closed) {
        sctp_close(link->sctp, true, self->now);
        datagrams_send_goodbye(link);
        links_end(link, "asked");
    }
    engine_unlock_and_wake(self);
}

void engine_remove_link(struct engine *self, uint32_t id)
{
    engine_lock(self);
    struct link *link = map_remove(&self->links_by_id, (struct map_key){0, id});
    if (link != NULL) {
        datagrams_close(link);
        for (size_t at = 1; at < self->egresses.room; at++) {
            struct egress *egress = self->egresses.items[at];
            if (egress != NULL && egress->link == link)
                egress_detach_link(egress); /* its packets wait until the node has another route */
        }
        struct link *moved = self->links[--self->link_count];
        self->links[link->place] = moved;
        moved->place = link->place;
        link_add_drops(link, self->drops);
        link_delete(link);
#ifdef __GLIBC__
        if (self->link_count == 0)
            malloc_trim(0); /* without links, the board gets back what flows at full rate needed */
#endif
    }
    engine_unlock(self);
}

bool engine_send(struct engine *self, uint32_t id, uint16_t stream, uint32_t ppid, const uint8_t *data, size_t size)
{
    bool sent = false;

    engine_lock(self);
    struct link *link = links_find(self, id);
    struct sctp_message *message = link != NULL && !link->closed ? sctp_message_new(size) : NULL;
    if (message != NULL) {
        struct sctp_sending how = {.stream = stream, .ppid = ppid, .reliability = SCTP_RELIABLE};
        memcpy(message->data, data, size);
        sent = sctp_send(link->sctp, message, &how, self->now);
    }
    if (sent && ppid == PPID_DCEP && stream < link->channel_count && link->channels[stream].unasked) {
        link->channels[stream].unasked = false;
        egress_reroute(self, id);
    }
    engine_unlock_and_wake(self);
    return sent;
}

bool engine_send_frame(struct engine *self, const struct relay_hop *hop, unsigned channel, const uint8_t *frame,
                       size_t size)
{
    bool sent = false;

    engine_lock(self);
    struct link *link = links_find(self, hop->link);
    struct tether *tether = link != NULL && !link->closed ? links_tether(link, hop->tether) : NULL;
    if (tether == NULL || channel >= ENGINE_CHANNEL_COUNT_MAX || !tether->mapped[channel]) {
        drop(self, DROP_NO_TETHER);
    } else {
        struct sctp_message *message = sctp_message_new(size);
        struct sctp_sending how = {
            .stream = tether->streams[channel],
            .unordered = !link->channels[tether->streams[channel]].asked,
            .ppid = PPID_BINARY,
            .reliability = SCTP_LIFETIME_MS_MAX,
            .reliability_value = tether->lifetime_ms,
        };
        if (message != NULL) {
            memcpy(message->data, frame, size);
            sent = sctp_send(link->sctp, message, &how, self->now);
        }
        if (!sent)
            drop(self, DROP_CARRIER_FULL);
    }
    engine_unlock_and_wake(self);
    return sent;
}

bool engine_receive_frame(struct engine *self, uint32_t id, uint16_t stream, const uint8_t *frame, size_t size)
{
    bool taken = false;

    engine_lock(self);
    struct link *link = links_find(self, id);
    const struct channel *channel = link != NULL && stream < link->channel_count ? &link->channels[stream] : NULL;
    if (channel != NULL && channel->tether != NULL) {
        struct sctp_message *message = sctp_message_new(size);
        if (message != NULL) {
            memcpy(message->data, frame, size);
            incoming_frame_untrusted(link, message, channel, true);
        } else {
            drop(self, DROP_MEMORY);
        }
        taken = true;
    }
    engine_unlock_and_wake(self);
    return taken;
}

bool engine_reset_streams(struct engine *self, uint32_t id, const uint16_t *streams, size_t count)
{
    engine_lock(self);
    struct link *link = links_find(self, id);
    bool accepted = link != NULL && !link->closed && sctp_reset_streams(link->sctp, streams, count, self->now);
    engine_unlock_and_wake(self);
    return accepted;
}

static bool channels_reach(struct link *self, size_t count)
{
    if (count <= self->channel_count)
        return true;
    size_t room = self->channel_count > 0 ? self->channel_count : 32;
    while (room < count)
        room *= 2;
    struct channel *channels = realloc(self->channels, room * sizeof *channels);
    if (channels == NULL)
        return false;
    memset(channels + self->channel_count, 0, (room - self->channel_count) * sizeof *channels);
    self->channels = channels;
    self->channel_count = room;
    return true;
}

/* A link's tether of that id, which is made if there is none; NULL: too many, or no memory. */
static struct tether *tether_hold(struct link *self, uint64_t id)
{
    struct tether *tether = links_tether(self, id);

    if (tether != NULL || self->tethers.count >= ENGINE_TETHER_COUNT_MAX)
        return tether;
    if ((tether = calloc(1, sizeof *tether)) == NULL)
        return NULL;
    tether->id = id;
    if (map_set(&self->tethers, (struct map_key){0, id}, tether))
        return tether;
    free(tether);
    return NULL;
}

bool engine_map(struct engine *self, uint32_t id, uint16_t stream, uint64_t tether_id, unsigned index,
                uint32_t lifetime_ms, enum engine_channel how)
{
    bool mapped = false;

    engine_lock(self);
    struct link *link = links_find(self, id);
    if (link != NULL && index < ENGINE_CHANNEL_COUNT_MAX && stream < SCTP_STREAM_COUNT_MAX &&
        channels_reach(link, (size_t)stream + 1)) {
        bool is_new = links_tether(link, tether_id) == NULL;
        struct tether *tether = tether_hold(link, tether_id);
        if (tether != NULL) {
            if (tether->mapped[index] && link->channels[tether->streams[index]].tether == tether)
                link->channels[tether->streams[index]].tether = NULL; /* else engine_unmap() would not find it */
            tether->streams[index] = stream;
            tether->mapped[index] = true;
            tether->lifetime_ms = lifetime_ms;
            if (is_new && how == ENGINE_CHANNEL_OFFERED)
                tether->early_left = EARLY_COUNT_MAX;
            link->channels[stream] = (struct channel){
                .tether = tether,
                .index = (uint8_t)index,
                .asked = how == ENGINE_CHANNEL_ASKED,
                .unasked = how == ENGINE_CHANNEL_ASKED,
            };
            mapped = true;
            egress_reroute(self, id);
        }
    }
    engine_unlock_and_wake(self);
    return mapped;
}

void engine_unmap(struct engine *self, uint32_t id, uint64_t tether_id)
{
    engine_lock(self);
    struct link *link = links_find(self, id);
    struct tether *tether = link != NULL ? map_remove(&link->tethers, (struct map_key){0, tether_id}) : NULL;
    for (unsigned index = 0; tether != NULL && index < ENGINE_CHANNEL_COUNT_MAX; index++)
        if (tether->mapped[index] && link->channels[tether->streams[index]].tether == tether)
            link->channels[tether->streams[index]].tether = NULL;
    if (tether != NULL)
        early_forget(link, tether);
    free(tether);
    engine_unlock(self);
}

bool engine_link(struct engine *self, uint32_t id, struct engine_link *out)
{
    engine_lock(self);
    const struct link *link = links_find(self, id);
    if (link != NULL)
        *out = (struct engine_link){sctp_state(link->sctp), *sctp_counts(link->sctp), link->window_bytes, link->moved};
    engine_unlock(self);
    return link != NULL;
}
