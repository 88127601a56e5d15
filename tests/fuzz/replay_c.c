/* Gives each file named, and each of its beginnings if it is short, to a harness made for libFuzzer. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_BYTES_MAX = 1 << 20, SHORT_BYTES = 64 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Memory of its own size: the address sanitizer sees a byte too far. */
static void give(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size > 0 ? size : 1);

    if (copy == NULL)
        abort();
    memcpy(copy, data, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
}

int main(int count, char **names)
{
    static uint8_t data[FILE_BYTES_MAX];

    for (int at = 1; at < count; at++) {
        FILE *file = fopen(names[at], "rb");
        if (file == NULL) {
            perror(names[at]);
            return 1;
        }
        size_t size = fread(data, 1, sizeof data, file);
        fclose(file);
        fprintf(stderr, "%s\n", names[at]); /* the last one named is the one that failed */
        for (size_t cut = 0; size <= SHORT_BYTES && cut < size; cut++)
            give(data, cut);
        give(data, size);
    }
    return 0;
}
