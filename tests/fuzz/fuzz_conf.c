/* Any text as a configuration file: it is accepted and complete, or refused with at least one
 * finding and nothing left behind; bounded in time and memory. */
#include "base/assert.h"
#include "conf/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config c;
    struct buf report = {.max = 1 << 20};
    enum { INPUT_MAX = 16384 };
    if (size > INPUT_MAX)
        return 0;
    enum err rv = config_parse("f.yml", slice_of(data, size), &c, &report);
    ASSERT(buf_ok(&report));
    if (rv == ERR_OK) {
        ASSERT(report.len == 0);
        ASSERT(c.scope[0] != '\0' && c.name[0] != '\0' && c.dcs.listen[0] != '\0');
        ASSERT(c.bootstrap.dcs_json[0] == '{');
    } else {
        ASSERT(report.len > 0 && report.p[report.len - 1] == '\n');
        ASSERT(c.scope == NULL && c.dcs.n_join == 0);
    }
    config_close(&c);
    buf_close(&report);
    return 0;
}
