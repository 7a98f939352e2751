/* Runs a fuzz target over the files given, and over the files of the directories given: the corpus
 * as a regression test, with any compiler. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/base.h"
#include "base/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool replay_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (f == NULL) {
        perror(path);
        return false;
    }
    size_t size = 0;
    size_t cap = 4096;
    uint8_t *data = mem_alloc(cap);
    size_t got;
    while ((got = fread(data + size, 1, cap - size, f)) > 0) {
        size += got;
        if (size == cap)
            data = mem_resize(data, cap *= 2);
    }
    (void)fclose(f);
    /* An exact copy, so that a sanitizer sees a read behind the end. */
    uint8_t *exact = mem_alloc(size);
    if (size != 0)
        memcpy(exact, data, size);
    (void)LLVMFuzzerTestOneInput(exact, size);
    mem_free(exact);
    mem_free(data);
    return true;
}

static bool replay_directory(const char *path, size_t *count)
{
    struct dirent **entries;
    int n = scandir(path, &entries, NULL, alphasort);
    if (n < 0) {
        perror(path);
        return false;
    }
    bool ok = true;
    for (int i = 0; i < n; i++) {
        if (entries[i]->d_name[0] != '.') {
            char *file = mem_printf("%s/%s", path, entries[i]->d_name);
            ok = replay_file(file) && ok;
            mem_free(file);
            (*count)++;
        }
        free(entries[i]);
    }
    free((void *)entries);
    return ok;
}

int main(int argc, char **argv)
{
    size_t count = 0;
    bool ok = true;
    for (int i = 1; i < argc; i++) {
        struct stat st;
        if (stat(argv[i], &st) == 0 && S_ISDIR(st.st_mode)) {
            ok = replay_directory(argv[i], &count) && ok;
        } else {
            ok = replay_file(argv[i]) && ok;
            count++;
        }
    }
    (void)LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
    printf("%zu inputs\n", count);
    return ok ? 0 : 1;
}
