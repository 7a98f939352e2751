#include "dcs/querier.h"

#include "base/assert.h"
#include "base/mem.h"

struct job {
    uv_work_t work;
    struct querier *q;
    struct state_copy *copy;
    struct sql_req req; /* its text is `sql` */
    struct buf sql, reply;
    node_reply_cb *done;
    void *done_arg;
    enum err status;
    struct errmsg e;
};

static void on_work(uv_work_t *w)
{
    struct job *j = container_of(w, struct job, work);
    j->status = state_copy_query(TAKE(j->copy), &j->req, &j->reply, &j->e);
}

static void on_done(uv_work_t *w, int status)
{
    struct job *j = container_of(w, struct job, work);
    (void)status;
    j->q->busy = false;
    j->done(j->done_arg, 0, j->status, j->e.text, buf_slice(&j->reply));
    buf_close(&j->sql);
    buf_close(&j->reply);
    mem_free(j);
}

void querier_run(struct querier *q, uv_loop_t *loop, struct node *n, const struct sql_req *req,
                 node_reply_cb *done, void *done_arg)
{
    struct snapshot_info info;
    struct errmsg e = {.text = "another query runs on this node; try again"};
    struct state_copy *copy = NULL;
    enum err err = q->busy ? ERR_UNAVAILABLE : node_copy(n, &copy, &info, &e);
    if (err != ERR_OK) {
        done(done_arg, 0, err, e.text, slice_of(NULL, 0));
        return;
    }
    struct job *j = mem_alloc(sizeof *j);
    *j = (struct job){.q = q, .copy = copy, .req = *req, .done = done, .done_arg = done_arg};
    buf_append_slice(&j->sql, req->sql);
    j->req.sql = slice_of(buf_cstr(&j->sql), j->sql.len);
    q->busy = true;
    int rc = uv_queue_work(loop, &j->work, on_work, on_done);
    ASSERT(rc == 0);
}
