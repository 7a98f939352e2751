/* Somebody else's configuration as ours. Pure: no I/O. */
#ifndef REGENT_CONF_IMPORT_H
#define REGENT_CONF_IMPORT_H

#include "base/buf.h"
#include "base/err.h"

struct import_options {
    const char *source;     /* name of the file, for messages */
    const char *dcs_listen; /* host:port; NULL: the host of restapi, port 7400 */
    const char *data_dir;   /* of the store */
};

/* A patroni.yml. What has the same key keeps it; Patroni's store and its ttl never come along. ret_left: a line for
 * each thing that was left out, with the reason. ERR_INVALID: ret_left also has what the parser says of the result,
 * which is in ret_yaml to be mended. */
enum err import_patroni(struct slice text, const struct import_options *o, struct buf *ret_yaml,
                        struct buf *ret_left) MUST_CHECK;

#endif
