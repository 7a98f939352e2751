/* decide() by rows of text: the .txt files of tests/unit/decide. A base is a view, a case changes a base and says the
 * rule, the action and the transaction that come out; what is not said is "none". */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "agent/core/plan.h"
#include "base/str.h"

enum { BASES = 32 };

static struct base {
    char name[40];
    struct view view;
} bases[BASES];
static size_t bases_n;

static char *read_file(const char *name)
{
    char path[400];
    static char text[200000];
    assert_int_equal(str_format(path, sizeof path, "%s/%s", DECIDE_DIR, name), ERR_OK);
    FILE *f = fopen(path, "r");
    if (f == NULL)
        fail_msg("cannot read %s", path);
    size_t n = fread(text, 1, sizeof text - 1, f);
    assert_true(n < sizeof text - 1);
    text[n] = '\0';
    assert_int_equal(fclose(f), 0);
    return text;
}

static const struct view *find_base(const char *name)
{
    for (size_t i = 0; i < bases_n; i++)
        if (strcmp(bases[i].name, name) == 0)
            return &bases[i].view;
    fail_msg("no base %s", name);
    return NULL;
}

/* Cuts the next block off: up to the next line that starts with `start`. */
static char *next_block(char **text, const char *start)
{
    char *block = strstr(*text, start);
    if (block == NULL)
        return NULL;
    block += strlen(start);
    char *end = strstr(block, start);
    if (end != NULL) {
        *end = '\0';
        *text = end;
        *end = start[0];
        char *cut = strdup(block);
        cut[end - block] = '\0';
        return cut;
    }
    *text = block + strlen(block);
    return strdup(block);
}

static char *take_line(char **text)
{
    char *line = *text;
    *text += strcspn(line, "\n");
    if (**text == '\n')
        *(*text)++ = '\0';
    return line;
}

static void apply(const char *text, struct view *v, const char *where)
{
    struct errmsg e;
    if (view_apply(text, v, &e) != ERR_OK)
        fail_msg("%s: %s", where, e.text);
}

static void load_bases(void)
{
    char *text = read_file("base.txt");
    for (char *block; (block = next_block(&text, "\nbase: ")) != NULL; free(block)) {
        char *rest = block;
        char *name = take_line(&rest);
        char *parent = strstr(name, " : ");
        assert_true(bases_n < BASES);
        struct base *b = &bases[bases_n];
        if (parent != NULL) {
            *parent = '\0';
            b->view = *find_base(parent + 3);
        }
        assert_int_equal(str_copy(b->name, sizeof b->name, name), ERR_OK);
        apply(rest, &b->view, name);
        bases_n++;
    }
}

static void expected(const char *line, const char *key, const char *otherwise, char *ret,
                     size_t size)
{
    const char *at = strstr(line, key);
    const char *value = at == NULL ? otherwise : at + strlen(key);
    (void)snprintf(ret, size, "%.*s", (int)strcspn(value, " \n"), value);
}

/* Members of the plan that a case may ask for besides the three names. */
static bool extra_holds(const char *line, const struct plan *p)
{
    char want[200];
    char have[200];
    expected(line, " target=", p->target, want, sizeof want);
    if (strcmp(want, p->target) != 0)
        return false;
    expected(line, " v=", "?", want, sizeof want);
    have[0] = '\0';
    for (size_t i = 0; i < p->sync.v_n; i++)
        (void)snprintf(have + strlen(have), sizeof have - strlen(have), "%s%s",
                       i > 0 ? "," : "", p->sync.v[i]);
    if (strcmp(want, "?") != 0 && strcmp(want, have) != 0)
        return false;
    expected(line, " set=", "?", want, sizeof want);
    (void)snprintf(have, sizeof have, "%llu:", (unsigned long long)p->set.k);
    for (size_t i = 0; i < p->set.s_n; i++)
        (void)snprintf(have + strlen(have), sizeof have - strlen(have), "%s%s",
                       i > 0 ? "," : "", p->set.s[i]);
    if (strcmp(want, "?") != 0 && strcmp(want, have) != 0)
        return false;
    expected(line, " token=", "?", want, sizeof want);
    (void)snprintf(have, sizeof have, "%llu", (unsigned long long)p->token);
    if (strcmp(want, "?") != 0 && strcmp(want, have) != 0)
        return false;
    expected(line, " arm=", "?", want, sizeof want);
    if (strcmp(want, "?") != 0 && strcmp(want, p->arm ? "1" : "0") != 0)
        return false;
    expected(line, " remove_old=", "0", want, sizeof want);
    if (strcmp(want, p->remove_old ? "1" : "0") != 0)
        return false;
    expected(line, " cancel=", "?", want, sizeof want);
    if (strcmp(want, "?") != 0 && strcmp(want, p->cancel ? "1" : "0") != 0)
        return false;
    expected(line, " withhold=", "?", want, sizeof want);
    if (strcmp(want, "?") != 0 && strcmp(want, p->withhold ? "1" : "0") != 0)
        return false;
    expected(line, " relieves=", "?", want, sizeof want);
    if (strcmp(want, "?") != 0 && strcmp(want, p->leader.relieves) != 0)
        return false;
    expected(line, " wake=", "?", want, sizeof want);
    (void)snprintf(have, sizeof have, "%llu", (unsigned long long)p->wake_ms);
    return strcmp(want, "?") == 0 || strcmp(want, have) == 0;
}

static void run_case(char *block)
{
    struct plan p;
    struct errmsg e;
    char rule[64];
    char action[64];
    char txn[64];
    char *rest = block;
    char *title = take_line(&rest);
    char *base = take_line(&rest);
    assert_true(str_starts(base, "base: "));
    static struct view v;
    v = *find_base(base + 6);
    char *line = strstr(rest, "=>");
    if (line == NULL)
        fail_msg("%s: no =>", title);
    line[0] = '\0';
    line++;
    line[strcspn(line, "\n")] = '\0';
    apply(rest, &v, title);
    decide(&v, &p);
    if (plan_check(&v, &p, &e) != ERR_OK)
        fail_msg("%s: %s", title, e.text);
    expected(line, "rule=", "", rule, sizeof rule);
    expected(line, "action=", "none", action, sizeof action);
    expected(line, "txn=", "none", txn, sizeof txn);
    if (strcmp(rule, p.rule) != 0 || strcmp(action, plan_action_name(p.action)) != 0 ||
        strcmp(txn, plan_txn_name(p.txn)) != 0 || !extra_holds(line, &p))
        fail_msg("%s\n  wanted: %s\n  got: rule=%s action=%s txn=%s target=%s token=%llu "
                 "v_n=%zu set.k=%llu"
                 " wake=%llu (%s)",
                 title, line + 1, p.rule, plan_action_name(p.action), plan_txn_name(p.txn),
                 p.target, (unsigned long long)p.token, p.sync.v_n, (unsigned long long)p.set.k,
                 (unsigned long long)p.wake_ms, p.reason);
}

static void run_file(const char *name, size_t at_least)
{
    size_t n = 0;
    char *text = read_file(name);
    for (char *block; (block = next_block(&text, "\ncase: ")) != NULL; n++) {
        run_case(block);
        free(block);
    }
    assert_true(n >= at_least);
}

static void safety_comes_first(void **state)
{
    (void)state;
    run_file("safety.txt", 10);
}

static void a_cluster_is_made_once(void **state)
{
    (void)state;
    run_file("bootstrap.txt", 10);
}

static void the_leader_does_its_duties(void **state)
{
    (void)state;
    run_file("leader.txt", 20);
}

static void the_key_is_given_away_on_purpose(void **state)
{
    (void)state;
    run_file("switch.txt", 15);
}

static void a_follower_follows(void **state)
{
    (void)state;
    run_file("follower.txt", 15);
}

static void the_best_is_elected(void **state)
{
    (void)state;
    run_file("election.txt", 15);
}

static void a_pause_leaves_postgresql_alone(void **state)
{
    (void)state;
    run_file("pause.txt", 20);
}

static void what_a_person_asks_for_is_done(void **state)
{
    (void)state;
    run_file("request.txt", 30);
}

static void a_sick_leader_hands_over(void **state)
{
    (void)state;
    run_file("sick.txt", 30);
}

static void a_standby_cluster_follows(void **state)
{
    (void)state;
    run_file("site.txt", 30);
}

/* What `regentctl explain --journal N --row` prints is a case. */
static void a_line_of_the_journal_gives_the_same_plan(void **state)
{
    (void)state;
    run_file("journal.txt", 4);
}

int main(void)
{
    load_bases();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(safety_comes_first),
        cmocka_unit_test(a_cluster_is_made_once),
        cmocka_unit_test(the_leader_does_its_duties),
        cmocka_unit_test(the_key_is_given_away_on_purpose),
        cmocka_unit_test(a_follower_follows),
        cmocka_unit_test(the_best_is_elected),
        cmocka_unit_test(a_pause_leaves_postgresql_alone),
        cmocka_unit_test(what_a_person_asks_for_is_done),
        cmocka_unit_test(a_sick_leader_hands_over),
        cmocka_unit_test(a_standby_cluster_follows),
        cmocka_unit_test(a_line_of_the_journal_gives_the_same_plan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
