/* Drives cext/policy/replies.c, a command per line:
 *
 *     n ROOM SEED                            another table: 1, or 0 if it is refused
 *     l|b|e PEER PACKET IN POLICY NOW_NS     look up, begin or end the flow of a packet
 *     c NOW_NS                               how many are alive, and how many gave way */

#include "lines.h"
#include "policy/replies.h"

static void of_packet(struct replies *replies, char command)
{
    uint32_t peer = (uint32_t)number();
    struct blob packet = blob();
    enum replies_way way = number() ? REPLIES_IN : REPLIES_OUT;
    uint32_t policy = (uint32_t)number();
    uint64_t now_ns = number();
    struct flow flow;

    if (flow_read_untrusted(packet.data, packet.size, &flow) != FLOW_FIT)
        abort();
    if (command == 'l')
        printf("%d", replies_look(replies, peer, &flow, way, policy, now_ns));
    else if (command == 'b')
        replies_begin(replies, peer, &flow, way, policy, now_ns);
    else
        replies_end(replies, peer, &flow, way);
    free(packet.data);
}

int main(void)
{
    struct replies *replies = NULL;
    const char *command;

    while ((command = line_next()) != NULL) {
        if (*command == 'n') {
            uint32_t room = (uint32_t)number();
            replies_free(replies);
            replies = replies_new(room, number());
            printf("%d", replies != NULL);
        } else if (*command == 'c') {
            uint32_t count = replies_count(replies, number());
            printf("%" PRIu32 " %" PRIu64, count, replies_displaced(replies));
        } else {
            of_packet(replies, *command);
        }
        line_end();
    }
    replies_free(replies);
    return 0;
}
