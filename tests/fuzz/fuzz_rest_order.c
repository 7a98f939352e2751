/* Any bytes as the body of a request that changes something: carried out, or refused with a code and a text. The
 * first byte chooses the verb. */
#include <stdlib.h>

#include "agent/rest_order.h"
#include "base/assert.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct rest_facts f;
    struct rest_order o;
    struct rest_reply reply = {0};
    struct errmsg e;
    f.known = true;
    if (size == 0)
        return 0;
    enum rest_verb_kind kind = (enum rest_verb_kind)(data[0] % (VERB_REINITIALIZE + 1));
    bool good = rest_order_parse(kind, slice_of(data + 1, size - 1), &f, 1, &o, &reply);
    ASSERT(good ? reply.body == NULL : reply.code >= 400 && reply.body != NULL);
    if (good && o.config != NULL) {
        char *text = NULL;
        const struct dynamic_edit edit = {.before = slice_str("{\"ttl\":5}"),
                                          .roles = {"postgres", "replicator", "rewind"}};
        enum err rv = rest_config_merge(&edit, o.config, kind == VERB_CONFIG_PATCH, &text, &e);
        ASSERT((rv == ERR_OK) == (text != NULL));
        free(text);
    }
    free(reply.body);
    rest_order_close(&o);
    return 0;
}
