/* The look at the data directory, with a worker that the test plays. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/pg_worker.h"
#include "agent/postgres.h"
#include "base/mem.h"

/* ---- a worker and a fence of the test's own ---- */

struct pg_worker {
    char none;
};

static struct {
    size_t n; /* looks that were asked for */
    pg_worker_cb *cb;
    void *arg;
} looks;
static struct fence_state fence = {.connected = true};

struct pg_worker *pg_worker_new(uv_loop_t *loop, struct fence *f, pg_worker_progress *progress,
                                void *arg)
{
    (void)loop;
    (void)f;
    (void)progress;
    (void)arg;
    return mem_alloc(sizeof(struct pg_worker));
}

void pg_worker_free(struct pg_worker *w)
{
    mem_free(w);
}

void pg_worker_send(struct pg_worker *w, const struct worker_req *q, uint64_t timeout_ms,
                    pg_worker_cb *cb, void *arg)
{
    (void)w;
    assert_string_equal(q->op, "probe");
    assert_true(timeout_ms > 0);
    assert_null(looks.cb); /* one at a time */
    looks.n++;
    looks.cb = cb;
    looks.arg = arg;
}

void pg_worker_cancel(struct pg_worker *w, void *arg)
{
    (void)w;
    (void)arg;
}

const struct fence_state *fence_state(const struct fence *f)
{
    (void)f;
    return &fence;
}

enum err fence_kill(struct fence *f)
{
    (void)f;
    return ERR_OK;
}

enum err fence_signal(struct fence *f, int signal_number)
{
    (void)f;
    (void)signal_number;
    return ERR_OK;
}

enum err fence_start_postgres(struct fence *f, const char *const *argv, const char *const *env,
                              const char *log_path, bool armed_required, struct errmsg *e)
{
    (void)f;
    (void)argv;
    (void)env;
    (void)log_path;
    (void)armed_required;
    (void)e;
    return ERR_OK;
}

/* ---- */

static uv_loop_t loop;
static struct postgres *pg;

static void answer(enum err status)
{
    static const struct worker_reply empty = {.data = "empty"};
    static const struct worker_reply none;
    struct errmsg e = {0};
    pg_worker_cb *cb = looks.cb;
    assert_non_null(cb);
    looks.cb = NULL;
    if (status != ERR_OK)
        (void)err_set(&e, status, "the worker died");
    cb(looks.arg, status, &e, status == ERR_OK ? &empty : &none);
}

static void begin(void)
{
    static struct config c;
    struct errmsg e = {0};
    c.data_dir = (char *)"/nowhere";
    c.postgresql.listen = (char *)"127.0.0.1:5432";
    c.postgresql.data_dir = (char *)"/nowhere/pg";
    const struct postgres_options o = {.config = &c};
    const struct postgres_ops ops = {0};
    looks.n = 0;
    assert_int_equal(uv_loop_init(&loop), 0);
    if (postgres_new(&loop, &o, &ops, NULL, &pg, &e) != ERR_OK)
        fail_msg("%s", e.text);
    assert_int_equal(looks.n, 1);
}

static void end(void)
{
    looks.cb = NULL;
    postgres_free(pg);
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static const char *trouble(void)
{
    static struct view_pg v;
    postgres_observe(pg, &v);
    return v.trouble;
}

static void a_look_that_is_lost_with_its_worker_is_made_again_at_once(void **state)
{
    (void)state;
    begin();
    answer(ERR_UNAVAILABLE);
    assert_int_equal(looks.n, 2);
    assert_string_equal(trouble(), "");
    answer(ERR_OK);
    assert_int_equal(looks.n, 2);
    end();
}

/* With no worker at all there would be no end to it. */
static void a_second_loss_in_a_row_is_told_and_waits(void **state)
{
    (void)state;
    begin();
    answer(ERR_UNAVAILABLE);
    answer(ERR_UNAVAILABLE);
    assert_int_equal(looks.n, 2);
    assert_string_equal(trouble(), "data directory: the worker died");
    end();
}

static void a_fence_that_comes_is_asked_at_once(void **state)
{
    (void)state;
    begin();
    fence.connected = false;
    postgres_fence_changed(pg);
    answer(ERR_UNAVAILABLE);
    answer(ERR_UNAVAILABLE);
    assert_int_equal(looks.n, 2);
    fence.connected = true;
    postgres_fence_changed(pg);
    assert_int_equal(looks.n, 3);
    answer(ERR_OK);
    assert_string_equal(trouble(), "");
    end();
}

static void a_look_that_fails_is_told_and_waits(void **state)
{
    (void)state;
    begin();
    answer(ERR_TIMEOUT);
    assert_int_equal(looks.n, 1);
    assert_string_equal(trouble(), "data directory: the worker died");
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_look_that_is_lost_with_its_worker_is_made_again_at_once),
        cmocka_unit_test(a_second_loss_in_a_row_is_told_and_waits),
        cmocka_unit_test(a_fence_that_comes_is_asked_at_once),
        cmocka_unit_test(a_look_that_fails_is_told_and_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
