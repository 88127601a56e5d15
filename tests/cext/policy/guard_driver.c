/* Drives cext/policy/guard.c, a command per line:
 *
 *     n FLOWS SEED               another guard: 1, or 0 if it is refused
 *     t IN OUT                   take a pair of tables: 1, or 0 if they are none
 *     i|o PACKET NOW_NS          judge a packet that came, or that goes out */

#include "lines.h"
#include "policy/guard.h"

int main(void)
{
    struct guard *guard = NULL;
    const char *command;

    while ((command = line_next()) != NULL) {
        if (*command == 'n') {
            uint32_t flows = (uint32_t)number();
            guard_free(guard);
            guard = guard_new(flows, number());
            printf("%d", guard != NULL);
        } else if (*command == 't') {
            struct blob in = blob(), out = blob();
            printf("%d", guard_load_untrusted(guard, in.data, in.size, out.data, out.size));
            free(in.data);
            free(out.data);
        } else {
            struct blob packet = blob();
            uint64_t now_ns = number();
            printf("%d", *command == 'i' ? guard_in(guard, packet.data, packet.size, now_ns)
                                         : guard_out(guard, packet.data, packet.size, now_ns));
            free(packet.data);
        }
        line_end();
    }
    guard_free(guard);
    return 0;
}
