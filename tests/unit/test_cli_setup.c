/* init: what it writes, what it refuses, and that it leaves nothing half-done. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli/commands.h"
#include "cli/setup.h"
#include "cli_fixture.h"

enum { WORDS = 24 };

struct place {
    char dir[64];
    char config[96];
    char data[96];
    char bin[96];
};

/* A directory that looks like PostgreSQL's programs: init only asks whether there is a server. */
static void place_make(struct place *p)
{
    char postgres[128];
    scratch_make(p->dir, sizeof p->dir);
    (void)snprintf(p->config, sizeof p->config, "%s/etc/regent.yml", p->dir);
    (void)snprintf(p->data, sizeof p->data, "%s/data", p->dir);
    (void)snprintf(p->bin, sizeof p->bin, "%s/bin", p->dir);
    (void)snprintf(postgres, sizeof postgres, "%s/postgres", p->bin);
    assert_int_equal(mkdir(p->bin, 0755), 0);
    assert_int_equal(symlink("/bin/true", postgres), 0); /* programs may not run in /tmp */
}

enum { UNTOUCHED = 2 }; /* bin and bin/postgres */

static int init(const struct place *p, const char *const *more)
{
    const char *words[WORDS] = {
        "init",           "--scope",    "demo",  "--name",   "n1",  "--listen",
        "127.0.0.1:7400", "--data-dir", p->data, "--pg-bin", p->bin};
    int argc = 11;
    struct cli c = {.config_path = p->config};
    for (size_t i = 0; more != NULL && more[i] != NULL && argc < WORDS - 1; i++)
        words[argc++] = more[i];
    cli_running("init");
    return cmd_init(&c, argc, (char **)(uintptr_t)words);
}

static unsigned mode_of(const char *dir, const char *name)
{
    char path[256];
    struct stat st;
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(stat(path, &st), 0);
    return st.st_mode & 07777;
}

static void a_node_is_made_with_its_secrets_kept(void **state)
{
    (void)state;
    struct place p;
    struct config c;
    struct buf report = {.max = 65536};
    place_make(&p);
    capture_begin(STDOUT_FILENO);
    int rv = init(&p, (const char *[]){"--set", "tags.nosync=true", "--set",
                                       "postgresql.parameters.auto_explain.log_min_duration=1s",
                                       NULL});
    const char *said = capture_end();
    assert_int_equal(rv, CLI_DONE);
    assert_non_null(strstr(said, "Node n1 of cluster demo is ready.\nStart it: regentd -c "));
    assert_int_equal(config_load(p.config, &c, &report), ERR_OK);
    assert_string_equal(c.dcs.listen, "127.0.0.1:7400");
    assert_string_equal(c.restapi.listen, "127.0.0.1:8008");
    assert_true(c.tags.nosync);
    assert_string_equal(c.postgresql.parameters[0].key, "auto_explain.log_min_duration");
    assert_int_equal(mode_of(p.data, ""), 0700);
    assert_int_equal(mode_of(p.data, "pki"), 0700);
    assert_int_equal(mode_of(p.data, "pki/ca.key"), 0600);
    assert_int_equal(mode_of(p.data, "pki/node.key"), 0600);
    assert_int_equal(mode_of(p.data, "secrets.yml"), 0600);
    assert_int_equal(mode_of(p.dir, "etc/regent.yml"), 0640);
    config_close(&c);
    buf_close(&report);
    scratch_remove(p.dir);
}

static void what_exists_is_never_overwritten(void **state)
{
    (void)state;
    static const char *const names[] = {"etc/regent.yml", "data/log.db", "data/pki",
                                        "data/secrets.yml", "data/state.db"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct place p;
        char path[160];
        place_make(&p);
        (void)snprintf(path, sizeof path, "%s/%s", p.dir, i == 0 ? "etc" : "data");
        assert_int_equal(mkdir(path, 0755), 0);
        (void)snprintf(path, sizeof path, "%s/%s", p.dir, names[i]);
        FILE *f = fopen(path, "w");
        assert_non_null(f);
        (void)fclose(f);
        capture_begin(STDERR_FILENO);
        int rv = init(&p, NULL);
        const char *said = capture_end();
        assert_int_equal(rv, CLI_FAILED);
        assert_non_null(
            strstr(said, " exists already: there is a node here; remove it first, or "));
        assert_non_null(strstr(said, path));
        assert_int_equal(scratch_count(p.dir), UNTOUCHED + 2);
        scratch_remove(p.dir);
    }
}

static void a_mistake_is_told_before_anything_is_written(void **state)
{
    (void)state;
    static const struct {
        const char *more[4], *want;
        int code;
    } rows[] = {
        {{"--name", "a b"}, "name: \"a b\" may hold letters, digits, and _ - . only", 1},
        {{"--listen", "0.0.0.0:7400"}, "dcs.connect_address is missing", 1},
        {{"--listen", "host:port"}, "--listen: \"host:port\" is not HOST or HOST:PORT", 2},
        {{"--listen", ""}, "--listen: \"\" is not HOST or HOST:PORT", 2},
        {{"--pg-port", "0"}, "\"0\" is not a port (1 to 65535)", 2},
        {{"--rest-port", "65536"}, "\"65536\" is not a port (1 to 65535)", 2},
        {{"--data-dir", "here"}, "--data-dir and --pg-data take absolute paths", 2},
        {{"--set", "tags"}, "--set takes KEY=VALUE", 2},
        {{"--set", "tags.nosink=1"},
         "unknown key \"tags.nosink\"; the nearest known one is "
         "\"tags.nosync\"",
         1},
        {{"--set", "bootstrap.dcs.tll=5"},
         "unknown key \"bootstrap.dcs.tll\"; the nearest known one "
         "is \"bootstrap.dcs.ttl\"",
         1},
        {{"--set", "log.level=loud"},
         "log.level: \"loud\" is none of debug|info|warn|error",
         1},
        {{"--set", "log.level=info\nname: x"}, "is not KEY=VALUE on one line", 1},
        {{"--pg-bin", "/nowhere"},
         "no PostgreSQL server: /nowhere/postgres: No such file or directory; "
         "--pg-bin names the directory with `postgres` in it",
         1},
        {{"--token", "x"}, "--token belongs to join", 2},
        {{"extra"}, "unexpected argument \"extra\"", 2},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct place p;
        place_make(&p);
        capture_begin(STDERR_FILENO);
        int rv = init(&p, rows[i].more);
        const char *said = capture_end();
        if (strstr(said, rows[i].want) == NULL)
            fail_msg("said: %s", said);
        assert_int_equal(rv, rows[i].code);
        assert_int_equal(scratch_count(p.dir), UNTOUCHED);
        scratch_remove(p.dir);
    }
}

static void every_way_to_name_a_host_is_understood(void **state)
{
    (void)state;
    static const struct {
        const char *listen, *host;
        uint64_t port;
    } rows[] = {
        {"10.0.0.1", "10.0.0.1", 7400},      {"10.0.0.1:7401", "10.0.0.1", 7401},
        {"fd00::1", "fd00::1", 7400},        {"[fd00::1]", "fd00::1", 7400},
        {"[fd00::1]:7401", "fd00::1", 7401}, {"db1.example.org", "db1.example.org", 7400}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const char *words[] = {"init", "--name", "n", "--listen", rows[i].listen, NULL};
        struct setup s;
        assert_int_equal(setup_parse(&s, "regent.yml", 5, (char **)(uintptr_t)words), 0);
        assert_string_equal(s.host, rows[i].host);
        assert_int_equal(s.dcs_port, rows[i].port);
    }
}

static void the_configuration_file_names_the_service(void **state)
{
    (void)state;
    static const struct {
        const char *file, *instance, *data_dir;
    } rows[] = {{"/etc/regent/regent.yml", "", "/var/lib/regent"},
                {"/etc/regent/two.yml", "two", "/var/lib/regent-two"},
                {"/etc/regent/sub/two.yml", "", "/var/lib/regent"},
                {"/etc/regent/two.yaml", "", "/var/lib/regent"},
                {"/etc/regent/.yml", "", "/var/lib/regent"},
                {"/home/x/two.yml", "", "/var/lib/regent"}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const char *words[] = {"init", "--name", "n", "--listen", "10.0.0.1", NULL};
        char instance[32];
        struct setup s;
        setup_instance(rows[i].file, instance, sizeof instance);
        assert_string_equal(instance, rows[i].instance);
        assert_int_equal(setup_parse(&s, rows[i].file, 5, (char **)(uintptr_t)words), 0);
        assert_string_equal(s.data_dir, rows[i].data_dir);
    }
}

/* A full disk, simulated by a limit on the size of files, at every point where it can strike. */
static void a_full_disk_leaves_nothing_behind(void **state)
{
    (void)state;
    enum { STEP = 40, ENOUGH = 4096 };
    size_t failed = 0;
    for (rlim_t limit = 0; limit <= ENOUGH; limit += STEP) {
        struct place p;
        int status;
        place_make(&p);
        (void)fflush(NULL);
        pid_t child = fork();
        if (child == 0) {
            (void)signal(SIGXFSZ, SIG_IGN);
            FILE *quiet = freopen("/dev/null", "w", stdout);
            FILE *silent = freopen("/dev/null", "w", stderr);
            bool limited = setrlimit(RLIMIT_FSIZE, &(struct rlimit){limit, limit}) == 0;
            _exit(limited && quiet != NULL && silent != NULL ? init(&p, NULL) : 99);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status));
        if (WEXITSTATUS(status) != CLI_DONE) {
            assert_int_equal(WEXITSTATUS(status), CLI_FAILED);
            assert_int_equal(scratch_count(p.dir), UNTOUCHED);
            failed++;
        }
        scratch_remove(p.dir);
    }
    assert_true(failed > 3);
    assert_true(failed < ENOUGH / STEP);
}

static void a_directory_that_cannot_be_made_is_told(void **state)
{
    (void)state;
    struct place p;
    char file[160];
    place_make(&p);
    (void)snprintf(file, sizeof file, "%s/postgres/below", p.bin); /* a file is in the way */
    capture_begin(STDERR_FILENO);
    int rv = init(&p, (const char *[]){"--data-dir", file, NULL});
    const char *said = capture_end();
    assert_int_equal(rv, CLI_FAILED);
    assert_non_null(strstr(said, "cannot create "));
    assert_non_null(strstr(said, ": Not a directory"));
    assert_int_equal(scratch_count(p.dir), UNTOUCHED);
    scratch_remove(p.dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_node_is_made_with_its_secrets_kept),
        cmocka_unit_test(what_exists_is_never_overwritten),
        cmocka_unit_test(a_mistake_is_told_before_anything_is_written),
        cmocka_unit_test(every_way_to_name_a_host_is_understood),
        cmocka_unit_test(the_configuration_file_names_the_service),
        cmocka_unit_test(a_full_disk_leaves_nothing_behind),
        cmocka_unit_test(a_directory_that_cannot_be_made_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
