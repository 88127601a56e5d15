/* Drives cext/policy/, a command per line:
 *
 *     f PACKET               read a flow: "unfit N", or its fields
 *     t TABLE                take a table, in place of the one before: the number of its classes, or "none"
 *     c ADDRESS              the class of a source
 *     a CLASS ADDRESS KEY    whether a flow may pass */

#include "lines.h"
#include "policy/policy.h"

static void read_flow(void)
{
    struct blob packet = blob();
    struct flow flow;
    enum flow_unfit unfit = flow_read_untrusted(packet.data, packet.size, &flow);

    if (unfit != FLOW_FIT) {
        printf("unfit %d", unfit);
    } else {
        print_hex(flow.source, sizeof flow.source);
        putchar(' ');
        print_hex(flow.destination, sizeof flow.destination);
        printf(" %" PRIu32 " %u %u %u %" PRIu32 " %zu", flow.key, flow.source_port, flow.piece, flow.tcp_flags,
               flow.fragment, flow.error_at);
    }
    free(packet.data);
}

int main(void)
{
    struct policy *policy = NULL;
    const char *command;

    while ((command = line_next()) != NULL) {
        if (*command == 'f') {
            read_flow();
        } else if (*command == 't') {
            struct blob table = blob();
            policy_free(policy);
            policy = policy_load_untrusted(table.data, table.size);
            free(table.data);
            if (policy == NULL)
                printf("none");
            else
                printf("%" PRIu32, policy_class_count(policy));
        } else {
            uint32_t source_class = *command == 'a' ? (uint32_t)number() : 0;
            struct blob address = blob();
            struct flow flow = {.key = 0};
            if (address.size != FLOW_ADDRESS_BYTES || policy == NULL)
                abort();
            memcpy(flow.destination, address.data, sizeof flow.destination);
            if (*command == 'c') {
                printf("%" PRIu32, policy_class_of(policy, address.data));
            } else {
                flow.key = (uint32_t)number();
                printf("%d", policy_allows(policy, source_class, &flow));
            }
            free(address.data);
        }
        line_end();
    }
    policy_free(policy);
    return 0;
}
