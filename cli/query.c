/* query: SQL on a node of a role, as patronictl has it. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/commands.h"
#include "cli/pg.h"

enum { COLUMNS_MAX = 1600, FILE_MAX = 1 << 20 };
enum { OID_INT8 = 20, OID_INT2 = 21, OID_INT4 = 23, OID_OID = 26 };

struct query {
    struct pg_wanted wanted;
    const char *sql, *file;
    const char *delimiter;
    bool ask_password;
    uint64_t every_s; /* 0: once */
};

static int take(struct query *q, int option)
{
    switch (option) {
    case 'r':
        q->wanted.role = optarg;
        return pg_known_role(optarg)
                   ? 0
                   : cli_usage(
                         "--role takes leader, primary, replica, standby or any, not \"%s\"",
                         optarg);
    case 'm':
        q->wanted.member = optarg;
        return 0;
    case 'd':
        q->wanted.dbname = optarg;
        return 0;
    case 'U':
        q->wanted.user = optarg;
        return 0;
    case 'c':
        q->sql = optarg;
        return 0;
    case 'F':
        q->file = optarg;
        return 0;
    case 'D':
        q->delimiter = optarg;
        return 0;
    case 'p':
        q->ask_password = true;
        return 0;
    case 'W':
        q->every_s = CLI_EVERY_S;
        return 0;
    case 'w':
        return cli_every(optarg, &q->every_s);
    default:
        return CLI_USAGE; /* said already */
    }
}

static int parse(struct cli *c, struct query *q, int argc, char **argv)
{
    static const struct option options[] = {
        {"role", required_argument, NULL, 'r'},      {"member", required_argument, NULL, 'm'},
        {"dbname", required_argument, NULL, 'd'},    {"username", required_argument, NULL, 'U'},
        {"command", required_argument, NULL, 'c'},   {"file", required_argument, NULL, 'F'},
        {"delimiter", required_argument, NULL, 'D'}, {"password", no_argument, NULL, 'p'},
        {"watch", required_argument, NULL, 'w'},     {NULL, 0, NULL, 0}};
    int option;
    int rv = 0;
    optind = 1;
    while (rv == 0 && (option = cli_option_short(argc, argv, ":r:m:d:U:c:Ww:", options)) != -1)
        rv = take(q, option);
    if (rv != 0)
        return rv;
    rv = cli_cluster_argument(c, argc, argv);
    if (rv != 0)
        return rv;
    if ((q->sql == NULL) == (q->file == NULL))
        return cli_usage("one of -c SQL and --file FILE is needed");
    if (q->wanted.member != NULL && q->wanted.role != NULL)
        return cli_usage("of --role and --member one at most makes sense");
    return 0;
}

static int read_file(const char *path, struct buf *ret)
{
    char piece[4096];
    size_t n;
    bool standard = strcmp(path, "-") == 0;
    FILE *f = standard ? stdin : fopen(path, "re");
    if (f == NULL)
        return cli_fail(ERR_NOT_FOUND, "%s: %s", path, strerror(errno));
    while ((n = fread(piece, 1, sizeof piece, f)) > 0 && ret->len < FILE_MAX)
        buf_append(ret, piece, n);
    bool bad = ferror(f) != 0;
    if (!standard)
        (void)fclose(f);
    if (ret->len >= FILE_MAX)
        return cli_fail(ERR_LIMIT, "%s is longer than 1 MiB; use psql", path);
    return bad ? cli_fail(ERR_IO, "%s cannot be read", path) : 0;
}

static void print(struct cli *c, PGresult *r)
{
    static struct output_column columns[COLUMNS_MAX];
    const char *cells[COLUMNS_MAX];
    int n = MIN(PQnfields(r), (int)COLUMNS_MAX);
    for (int i = 0; i < n; i++) {
        Oid type = PQftype(r, i);
        bool number =
            type == OID_INT8 || type == OID_INT2 || type == OID_INT4 || type == OID_OID;
        columns[i] =
            (struct output_column){.name = PQfname(r, i), .number = number, .right = number};
    }
    struct output *o = output_new(c, NULL, columns, (size_t)n);
    for (int row = 0; row < PQntuples(r); row++) {
        for (int i = 0; i < n; i++)
            cells[i] = PQgetisnull(r, row, i) ? NULL : PQgetvalue(r, row, i);
        output_row(o, cells);
    }
    output_print(o);
}

/* What a frame shows. */
struct running {
    PGconn *pg;
    const char *sql;
    bool again;
};

static int run(struct cli *c, void *arg)
{
    const struct running *q = arg;
    char why[600], now[CLOCK_TEXT_MAX];
    int code = CLI_DONE;
    if (q->again && isatty(STDOUT_FILENO) && c->format == CLI_TABLE) {
        clock_wall_text(clock_wall_ms(), now);
        (void)printf("%s\n", now);
    }
    PGresult *r = PQexec(q->pg, q->sql);
    ExecStatusType status = PQresultStatus(r);
    if (status == PGRES_TUPLES_OK) {
        print(c, r);
    } else if (status == PGRES_COMMAND_OK) {
        (void)printf("%s\n", PQcmdStatus(r));
    } else if (PQstatus(q->pg) != CONNECTION_OK) {
        pg_error_line(PQerrorMessage(q->pg), why, sizeof why);
        code = cli_fail(ERR_OUTCOME_UNKNOWN,
                        "the connection ended: %s; what was under way may have been done", why);
    } else {
        pg_error_line(PQresultErrorMessage(r), why, sizeof why);
        code = cli_fail(ERR_INVALID, "%s", why[0] != '\0' ? why : "COPY is for psql");
    }
    PQclear(r);
    return code;
}

static int repeat(struct cli *c, const struct query *q, PGconn *pg, const char *sql)
{
    struct running r = {.pg = pg, .sql = sql, .again = q->every_s != 0};
    if (!r.again)
        return run(c, &r);
    int code = cli_frame(c, run, &r);
    while (code == CLI_DONE && cli_frame_wait(q->every_s))
        code = cli_frame(c, run, &r);
    return code;
}

int cmd_query(struct cli *c, int argc, char **argv)
{
    struct query q = {.delimiter = "\t"};
    struct buf text CLEANUP(buf_close) = BUF_INIT;
    char password[SECRET_MAX];
    PGconn *pg = NULL;
    enum err rv = ERR_OK;
    int code = parse(c, &q, argc, argv);
    if (code == 0 && q.file != NULL)
        code = read_file(q.file, &text);
    if (code != 0)
        return code;
    if (q.ask_password) {
        rv = secret_read("Password", false, password);
        q.wanted.password = password;
    }
    if (!c->format_given)
        c->format = CLI_TSV;
    c->delimiter = q.delimiter;
    if (rv == ERR_OK)
        rv = pg_connect(c, &q.wanted, &pg);
    explicit_bzero(password, sizeof password);
    if (rv != ERR_OK)
        return cli_exit_code(rv);
    code = repeat(c, &q, pg, q.file != NULL ? buf_cstr(&text) : q.sql);
    PQfinish(pg);
    return code;
}
