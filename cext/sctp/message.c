/* One message's memory. */

#include <stdlib.h>

#include "sctp/sctp.h"

struct sctp_message *sctp_message_new(size_t size)
{
    struct sctp_message *message;

    if (size > SCTP_MESSAGE_BYTES_MAX || (message = malloc(sizeof *message + size)) == NULL)
        return NULL;
    message->data = (uint8_t *)(message + 1);
    message->size = message->room = (uint32_t)size;
    return message;
}

void sctp_message_delete(struct sctp_message *message) { free(message); }
