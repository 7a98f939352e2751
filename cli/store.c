/* dcs compact: what an operator does to the store as a whole. */
#include <inttypes.h>
#include <stdio.h>

#include "base/str.h"
#include "cli/commands.h"
#include "cli/dcs.h"

int cmd_dcs_compact(struct cli *c, int argc, char **argv)
{
    struct compact_req r = {0};
    struct compact_reply reply;
    if (argc != 2 || str_parse_u64(argv[1], &r.revision) != ERR_OK || r.revision == 0)
        return cli_usage("one REVISION is needed; `dcs status` shows the present one");
    enum err err = cli_call(c, METHOD_KV_COMPACT, &r, &reply);
    if (err == ERR_OK && c->format == CLI_JSON)
        dcs_print_result(&msg_compact_reply, &reply);
    else if (err == ERR_OK)
        (void)printf("compacted up to revision %" PRIu64 "\n", reply.compacted_revision);
    return cli_exit_code(err);
}
