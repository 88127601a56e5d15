/* The driver's end of tests/kit/driven.py: a command is a line of words, and one line answers it.  Hexadecimal data
 * gets memory of its own size, so that the address sanitizer sees a byte too far. */

#ifndef CONFLUX_TEST_LINES_H
#define CONFLUX_TEST_LINES_H

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct blob {
    uint8_t *data;
    size_t size;
};

static char line_room[1 << 20];

/* The next command's first word; NULL: there are no more. */
static inline const char *line_next(void)
{
    if (fgets(line_room, sizeof line_room, stdin) == NULL)
        return NULL;
    return strtok(line_room, " \n");
}

static inline const char *word(void)
{
    const char *found = strtok(NULL, " \n");

    if (found == NULL) {
        fputs("a word is missing\n", stderr);
        exit(2);
    }
    return found;
}

static inline uint64_t number(void) { return strtoull(word(), NULL, 10); }

static inline int digit(char hex) { return hex <= '9' ? hex - '0' : hex - 'a' + 10; }

/* Hexadecimal data; "-": no bytes. */
static inline struct blob blob(void)
{
    const char *hex = word();
    struct blob self = {.size = strcmp(hex, "-") == 0 ? 0 : strlen(hex) / 2};

    self.data = malloc(self.size > 0 ? self.size : 1);
    if (self.data == NULL)
        abort();
    for (size_t i = 0; i < self.size; i++)
        self.data[i] = (uint8_t)(digit(hex[2 * i]) << 4 | digit(hex[2 * i + 1]));
    return self;
}

static inline void print_hex(const uint8_t *data, size_t size)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < size; i++) {
        putchar(digits[data[i] >> 4]);
        putchar(digits[data[i] & 15]);
    }
}

static inline void line_end(void)
{
    putchar('\n');
    fflush(stdout);
}

#endif
