#include "dcs/hasher.h"

#include "base/assert.h"
#include "base/mem.h"

struct job {
    uv_work_t work;
    struct state_copy *copy;
    struct node **node;
    uint64_t hash;
    enum err status;
    struct errmsg e;
};

static void on_work(uv_work_t *w)
{
    struct job *j = container_of(w, struct job, work);
    j->status = state_copy_hash(TAKE(j->copy), &j->hash, &j->e);
}

static void on_done(uv_work_t *w, int status)
{
    struct job *j = container_of(w, struct job, work);
    (void)status;
    node_hashed(*j->node, j->status, j->e.text, j->hash);
    mem_free(j);
}

void hasher_start(uv_loop_t *loop, struct state_copy *copy, struct node **node)
{
    struct job *j = mem_alloc(sizeof *j);
    j->copy = copy;
    j->node = node;
    int rc = uv_queue_work(loop, &j->work, on_work, on_done);
    ASSERT(rc == 0);
}
