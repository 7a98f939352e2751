#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/base.h"
#include "base/log.h"
#include "dcs/heard.h"

/* The file `heard`: what is read is what was written last and whole, or nothing. The node is the two
 * functions below. */

static struct raft_heard known[RAFT_CORE_MEMBERS_MAX];
static size_t n_known;

void node_hear(struct node *n, const struct raft_heard *said)
{
    (void)n;
    assert_true(n_known < RAFT_CORE_MEMBERS_MAX);
    known[n_known++] = *said;
}

size_t node_heard_all(const struct node *n, struct raft_heard ret[static RAFT_CORE_MEMBERS_MAX])
{
    (void)n;
    memcpy(ret, known, n_known * sizeof known[0]);
    return n_known;
}

static char dir[] = "/tmp/heard.XXXXXX";
static char path[64];

static void forget(void)
{
    memset(known, 0, sizeof known);
    n_known = 0;
}

/* As a node that starts with this file. */
static size_t read_it(void)
{
    struct heard h = {0};
    forget();
    heard_start(&h, dir, NULL);
    assert_int_equal(h.n, n_known);
    return n_known;
}

static void write_bytes(const char *text, size_t n)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static size_t read_text(const char *text)
{
    write_bytes(text, strlen(text));
    return read_it();
}

static void write_as_a_node(void)
{
    struct heard h = {0};
    (void)unlink(path);
    heard_start(&h, dir, NULL);
    heard_end(&h, NULL);
}

static void what_is_written_at_the_end_is_known_at_the_start(void **t)
{
    (void)t;
    forget();
    for (uint64_t i = 1; i <= RAFT_CORE_MEMBERS_MAX; i++)
        known[n_known++] = (struct raft_heard){
            .id = i, .term = UINT64_MAX - i, .index = i << 40, .voted = i % 2 == 0};
    write_as_a_node();
    assert_int_equal(read_it(), RAFT_CORE_MEMBERS_MAX);
    for (uint64_t i = 1; i <= RAFT_CORE_MEMBERS_MAX; i++) {
        const struct raft_heard *h = &known[i - 1];
        assert_true(h->id == i && h->term == UINT64_MAX - i && h->index == i << 40);
        assert_true(h->voted == (i % 2 == 0));
    }
    (void)unlink(path);
    assert_int_equal(read_it(), 0);
}

/* A power loss may leave any beginning of a file, on a file system that promises less than we ask for. */
static void a_shortened_file_is_none(void **t)
{
    static const char whole[] = "regent heard 1\n2 7 120 1\n31 18446744073709551615 5 0\nend\n";
    (void)t;
    for (size_t n = 0; n < sizeof whole - 1; n++) {
        write_bytes(whole, n);
        assert_int_equal(read_it(), 0);
    }
    assert_int_equal(read_text(whole), 2);
    assert_true(known[1].id == 31 && known[1].term == UINT64_MAX);
}

static void what_is_not_the_file_is_none(void **t)
{
    static char zeros[4096];
    static char many[65 * 16 + 64] = "regent heard 1\n";
    (void)t;
    assert_int_equal(read_text("regent heard 2\nend\n"), 0);
    assert_int_equal(read_text("regent heard 1\n0 7 120 1\nend\n"), 0);
    assert_int_equal(read_text("regent heard 1\n2 7 120\nend\n"), 0);
    assert_int_equal(read_text("regent heard 1\n2 7 120 1 9\nend\n"), 0);
    assert_int_equal(read_text("regent heard 1\n2 seven 120 1\nend\n"), 0);
    assert_int_equal(read_text("regent heard 1\n2 7 120 1\nend\nend\n"), 0);
    assert_int_equal(read_text("regent heard 1\nend\n"), 0);
    write_bytes(zeros, sizeof zeros);
    assert_int_equal(read_it(), 0);
    for (int i = 1; i <= RAFT_CORE_MEMBERS_MAX + 1; i++)
        (void)snprintf(many + strlen(many), 16, "%d 1 1 0\n", i);
    (void)snprintf(many + strlen(many), 16, "end\n");
    assert_int_equal(read_text(many), 0);
}

static void what_a_killed_process_left_is_removed(void **t)
{
    char left[96];
    (void)t;
    assert_int_equal(read_text("regent heard 1\n2 7 120 1\nend\n"), 1);
    (void)snprintf(left, sizeof left, "%s.tmp.77", path);
    assert_int_equal(rename(path, left), 0);
    assert_int_equal(read_it(), 0);
    assert_int_equal(access(left, F_OK), -1);
}

static int set_up(void **t)
{
    (void)t;
    log_setup(LOG_FATAL, LOG_LOGFMT);
    if (mkdtemp(dir) == NULL)
        return -1;
    (void)snprintf(path, sizeof path, "%s/heard", dir);
    return 0;
}

static int tear_down(void **t)
{
    (void)t;
    (void)unlink(path);
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_at_the_end_is_known_at_the_start),
        cmocka_unit_test(a_shortened_file_is_none),
        cmocka_unit_test(what_is_not_the_file_is_none),
        cmocka_unit_test(what_a_killed_process_left_is_removed),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
