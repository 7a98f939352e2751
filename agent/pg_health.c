#include "agent/pg_health.h"

#include <stdio.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"

enum { HEALTH_MAGIC = 0x48454c54 };

struct pg_health {
    uint32_t magic;
    struct pg_worker *worker;
    uint64_t asked_ms; /* the write under way; 0: none */
    uint64_t next_ms;
    struct health_signs signs;
    struct host_history history;
    uint64_t history_ms; /* of the next sample */
    struct health seen;
};

enum sick health_judge(const struct health_signs *s, const char *data_dir, char *ret_why,
                       size_t size)
{
    bool no_room = s->room_known && MIN(s->data_free, s->wal_free) < HEALTH_ROOM;
    bool fills = s->room_known && (s->wal_free < s->wal_size / 10 ||
                                   (s->full_in_s != 0 && s->full_in_s < HEALTH_FULL_SOON_S));
    ret_why[0] = '\0';
    if (s->late)
        return (void)snprintf(ret_why, size, "a write to the disk of %.60s does not come back",
                              data_dir),
               SICK_STUCK;
    if (s->written != ERR_OK && s->written != ERR_NO_SPACE)
        return (void)snprintf(ret_why, size, "a write to the disk fails: %.80s", s->text),
               SICK_STUCK;
    if (s->hung != NULL)
        return (void)snprintf(ret_why, size, "PostgreSQL hangs: %.80s", s->hung), SICK_HUNG;
    if (s->written == ERR_NO_SPACE || no_room)
        return (void)snprintf(ret_why, size, "the disk of %.60s is full", data_dir), SICK_FULL;
    if (s->unarchived != NULL && s->unarchived[0] != '\0' && fills)
        return (void)snprintf(ret_why, size,
                              "WAL is not archived (%.40s), and the disk fills up with it",
                              s->unarchived),
               SICK_ARCHIVE;
    return SICK_NOT;
}

void health_note(struct health *h, enum sick now, const char *why, uint64_t now_ms)
{
    if (now == SICK_NOT) {
        h->failing_ms = 0;
        if (now_ms >= h->seen_ms + HEALTH_HOLD_MS) {
            h->sick = SICK_NOT;
            h->why[0] = '\0';
        }
        return;
    }
    h->seen_ms = now_ms;
    if (h->failing_ms == 0)
        h->failing_ms = now_ms;
    h->sick = now;
    str_cut(h->why, sizeof h->why, why);
}

static void answered(void *arg, enum err status, const struct errmsg *e,
                     const struct worker_reply *r)
{
    struct pg_health *h = arg;
    CHECK_MAGIC(h, HEALTH_MAGIC);
    struct health_signs *s = &h->signs;
    h->asked_ms = 0;
    s->late = false;
    /* Without a worker, or without the directories, nothing is known. */
    bool known = r->id != 0 && status != ERR_NOT_FOUND && status != ERR_UNSUPPORTED;
    s->written = known ? status : ERR_OK;
    str_cut(s->text, sizeof s->text, known && status != ERR_OK ? e->text : "");
    s->room_known = known && r->wal_size != 0;
    s->data_free = r->data_free;
    s->wal_free = r->wal_free;
    s->wal_size = r->wal_size;
    uint64_t now_ms = clock_boot_ms();
    if (!s->room_known || now_ms < h->history_ms)
        return;
    h->history_ms = now_ms + HOST_EVERY_MS;
    s->full_in_s = host_forecast(&h->history, (struct host_sample){now_ms, s->wal_free});
}

struct pg_health *pg_health_new(uv_loop_t *loop, struct fence *fence)
{
    struct pg_health *h = mem_alloc(sizeof *h);
    h->magic = HEALTH_MAGIC;
    h->worker = pg_worker_new(loop, fence, NULL, NULL);
    return h;
}

void pg_health_free(struct pg_health *h)
{
    if (h == NULL)
        return;
    CHECK_MAGIC(h, HEALTH_MAGIC);
    pg_worker_free(h->worker);
    h->magic = 0;
    mem_free(h);
}

/* One write at a time, however long it takes. */
static void ask(struct pg_health *h, const struct worker_req *q, uint64_t now_ms)
{
    if (h->asked_ms != 0 || q == NULL || now_ms < h->next_ms)
        return;
    h->asked_ms = now_ms;
    h->next_ms = now_ms + HEALTH_EVERY_MS;
    pg_worker_send(h->worker, q, 0, answered, h);
}

static void tell(const struct health *was, const struct health *now)
{
    if (now->sick == SICK_NOT)
        log_event(LOG_INFO, "well", NO_KV, "this node is well again");
    else
        log_event(LOG_WARN, "sick", KV(KV_STR("kind", sick_name(now->sick))), "%s%s", now->why,
                  was->sick == SICK_NOT ? "" : " now");
}

bool pg_health_step(struct pg_health *h, const struct worker_req *q, const char *hung,
                    const char *unarchived)
{
    CHECK_MAGIC(h, HEALTH_MAGIC);
    char why[sizeof h->seen.why];
    uint64_t now_ms = clock_boot_ms();
    struct health was = h->seen;
    ask(h, q, now_ms);
    h->signs.late = h->asked_ms != 0 && now_ms >= h->asked_ms + HEALTH_LATE_MS;
    h->signs.hung = hung;
    h->signs.unarchived = unarchived;
    enum sick now =
        health_judge(&h->signs, q != NULL ? q->data_dir : "the data", why, sizeof why);
    health_note(&h->seen, now, why, now_ms);
    if (was.sick != h->seen.sick)
        tell(&was, &h->seen);
    return was.sick != h->seen.sick || was.failing_ms != h->seen.failing_ms;
}

const struct health *pg_health_seen(const struct pg_health *h)
{
    CHECK_MAGIC(h, HEALTH_MAGIC);
    return &h->seen;
}
