/* import: a patroni.yml as a configuration of ours. */
#include "conf/import.h"

#include <stdio.h>

#include "cli/commands.h"
#include "proto/pki.h"

enum { FILE_MAX = 1 << 20 };

int cmd_import(struct cli *c, int argc, char **argv)
{
    static const struct option options[] = {{"listen", required_argument, NULL, 'l'},
                                            {"data-dir", required_argument, NULL, 'd'},
                                            {NULL, 0, NULL, 0}};
    struct import_options o = {.data_dir = "/var/lib/regent"};
    struct errmsg e = {0};
    struct buf text CLEANUP(buf_close) = BUF_INIT;
    struct buf yaml CLEANUP(buf_close) = {.max = FILE_MAX};
    struct buf left CLEANUP(buf_close) = {.max = FILE_MAX};
    int option;
    (void)c;
    optind = 1;
    while ((option = cli_option(argc, argv, options)) != -1) {
        if (option == CLI_BAD_OPTION)
            return CLI_USAGE;
        if (option == 'l')
            o.dcs_listen = optarg;
        else
            o.data_dir = optarg;
    }
    if (optind + 1 != argc)
        return cli_usage("one FILE, a patroni.yml, is needed");
    o.source = argv[optind];
    enum err rv = pki_read_file(o.source, FILE_MAX, &text, &e);
    if (rv != ERR_OK)
        return cli_error(&e);
    rv = import_patroni(buf_slice(&text), &o, &yaml, &left);
    (void)fwrite(yaml.p, 1, yaml.len, stdout);
    (void)fwrite(left.p, 1, left.len, stderr);
    return rv == ERR_OK
               ? CLI_DONE
               : cli_fail(rv, "%s: the result needs a hand before regentd takes it", o.source);
}
