/* regentd: one daemon per node. Options and configuration; daemon.c does the rest. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/daemon.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/notify.h"
#include "conf/lease_rule.h"

enum { EXIT_CONFIG = 2, EXIT_CONTRADICTION = 4 };

static enum err read_config(struct daemon *d, const char *path)
{
    struct buf report CLEANUP(buf_close) = {.max = 65536};
    enum err rv = config_load(path, &d->config, &report);
    (void)fwrite(report.p, 1, report.len, stderr);
    if (rv != ERR_OK)
        return rv;
    enum log_level level = LOG_INFO;
    if (log_level_parse(d->config.log.level, &level) != ERR_OK)
        level = LOG_INFO;
    log_setup(level, strcmp(d->config.log.format, "json") == 0 ? LOG_JSON : LOG_LOGFMT);
    log_set_name(d->config.name);
    d->witness = strcmp(d->config.dcs.role, "witness") == 0;
    struct errmsg e = {0};
    char *secrets CLEANUP(mem_cleanup) = mem_printf("%s/secrets.yml", d->config.data_dir);
    rv = d->witness ? ERR_OK : config_load_secrets(&d->config, secrets, &e);
    if (rv == ERR_OK)
        rv = config_from_json(slice_str(d->config.bootstrap.dcs_json), &d->bootstrap,
                              &d->bootstrap_arena, &e);
    if (rv == ERR_OK)
        rv = lease_rule_check(d->bootstrap.ttl * 1000, d->config.dcs.election_ms, &e);
    if (rv != ERR_OK)
        (void)fprintf(stderr, "%s: %s\n", path, e.text);
    return rv;
}

static void usage(FILE *to)
{
    (void)fprintf(
        to, "usage: regentd [-c FILE] [--check-config] [--fence SOCKET]\n\n"
            "Runs this node's DCS member and HA agent in the foreground; logs to stderr.\n\n"
            "  -c, --config FILE   configuration (default: $REGENT_CONFIG, "
            "/etc/regent/regent.yml)\n"
            "      --check-config  report every error of the file and exit\n"
            "      --fence SOCKET  regent-fence is a service of its own and listens here; "
            "else\n"
            "                      it is started by us, as our user\n"
            "      --version       print the version and exit\n"
            "      --snapshot-status FILE, --restore FILE, --recover-plan, --recover\n"
            "                      what `regentctl dcs snapshot` and `dcs recover` call; they "
            "explain\n"
            "                      and ask first: use these\n"
            "  -h, --help          this text\n\n"
            "Signals: SIGTERM hands over and stops PostgreSQL; SIGUSR2 before it leaves "
            "PostgreSQL\n"
            "running for the next daemon; SIGHUP reads the configuration file again.\n");
}

struct arguments {
    const char *config, *file, *fence;
    bool check;
    enum offline_task task;
};

static int parse_args(int argc, char **argv, struct arguments *a)
{
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"check-config", no_argument, NULL, 'C'},
                                            {"fence", required_argument, NULL, 'F'},
                                            {"snapshot-status", required_argument, NULL, 'S'},
                                            {"restore", required_argument, NULL, 'R'},
                                            {"recover-plan", no_argument, NULL, 'P'},
                                            {"recover", no_argument, NULL, 'X'},
                                            {"version", no_argument, NULL, 'V'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    int c;
    while ((c = getopt_long(argc, argv, "c:h", options, NULL)) != -1) {
        if (c == 'c') {
            a->config = optarg;
        } else if (c == 'C') {
            a->check = true;
        } else if (c == 'F' && optarg[0] == '/' && strrchr(optarg, '/') != optarg) {
            a->fence = optarg;
        } else if (c == 'S' || c == 'R') {
            a->task = c == 'S' ? OFFLINE_STATUS : OFFLINE_RESTORE;
            a->file = optarg;
        } else if (c == 'P' || c == 'X') {
            a->task = c == 'P' ? OFFLINE_PLAN : OFFLINE_RECOVER;
        } else if (c == 'V' || c == 'h') {
            if (c == 'h')
                usage(stdout);
            else
                (void)printf("regentd %s\n", REGENT_VERSION);
            return 0;
        } else {
            usage(stderr);
            return EXIT_CONFIG;
        }
    }
    if (optind < argc) {
        (void)fprintf(stderr, "regentd: unexpected argument \"%s\"\n", argv[optind]);
        return EXIT_CONFIG;
    }
    return -1;
}

int main(int argc, char **argv)
{
    static struct daemon d;
    struct arguments a = {.task = OFFLINE_NONE};
    struct errmsg e = {0};
    mem_be_frugal();
    int done = parse_args(argc, argv, &a);
    if (done >= 0)
        return done;
    (void)signal(SIGPIPE, SIG_IGN);
    (void)umask(077); /* whatever is written below data_dir is nobody else's */
    if (a.task == OFFLINE_STATUS)
        return offline_run(a.task, NULL, a.file);
    enum err read = read_config(&d, config_path(a.config));
    if (read != ERR_OK)
        return read == ERR_PRECONDITION ? EXIT_CONTRADICTION : EXIT_CONFIG;
    if (a.task != OFFLINE_NONE)
        return offline_run(a.task, &d.config, a.file);
    if (a.check) {
        (void)printf("%s: no errors\n", d.config.path);
        return 0;
    }
    if (!d.witness && geteuid() == 0) {
        log_event(
            LOG_FATAL, "start", NO_KV,
            "regentd runs as root, as which PostgreSQL does not start; start it as the user "
            "who owns %s, for example: runuser -u postgres -- regentd -c %s",
            d.config.data_dir, d.config.path);
        return 1;
    }
    d.fence_socket = a.fence;
    /* What our unit grants us alone; a fence that we start ourselves may need it. */
    if (d.fence_socket != NULL)
        (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    notify_open();
    if (daemon_start(&d, &e) != ERR_OK) {
        log_event(LOG_FATAL, "start", NO_KV, "%s", e.text);
        return 1;
    }
    log_event(LOG_INFO, "start",
              KV(KV_STR("scope", d.config.scope), KV_STR("dcs", d.config.dcs.listen),
                 KV_STR("version", REGENT_VERSION)),
              "regentd runs");
    notify_send("READY=1");
    (void)uv_run(&d.loop, UV_RUN_DEFAULT);
    daemon_close(&d);
    log_event(LOG_INFO, "stop", NO_KV, "regentd has stopped");
    return d.failed ? 1 : 0;
}
