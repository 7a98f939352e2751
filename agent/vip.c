#include "agent/vip.h"

#include <stdio.h>

#include "agent/command.h"
#include "base/assert.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"

enum {
    KEEPER_MAGIC = 0x52e71b01,
    ADDRESSES_MAX = 4,
    REPEAT_MS = 500,     /* an order that had no effect is given again */
    EXTEND_MS = 300,     /* by which the lease goes on before the fence is told */
    HOOK_AGAIN_MS = 5000 /* and so is a hook that failed */
};

struct vip_keeper {
    uint32_t magic;
    uv_loop_t *loop;
    const struct config *config;
    struct fence *fence;
    char *text; /* owned; cut into the addresses */
    const char *addresses[ADDRESSES_MAX];
    size_t n;
    bool settled;
    uint64_t born_ms;
    bool told, told_up, connected;
    uint64_t told_ms, told_end_ms;
    char complained[240]; /* the refusal that was logged last */
    bool was_up;
    /* the hook */
    struct command_child *child;
    bool hook_done, hook_up; /* it has been run for this direction, to its end */
    bool hook_under_way;     /* the direction of the child's */
    uint64_t hook_again_ms, now_ms;
    bool closing;
};

bool vip_wanted(const struct view *v)
{
    return view_is_leader(v) && view_lease_valid(v) && v->pg.proc == PG_PROC_RUNNING &&
           v->pg.accepts && !v->pg.in_recovery;
}

/* A new daemon knows neither the records nor its lease nor what PostgreSQL is at first: the address that the one
 * before it has left stays as long as its end says. */
static bool settles(struct vip_keeper *k, const struct view *v)
{
    bool known =
        v->pg.proc == PG_PROC_STOPPED || (v->has_sync && view_lease_valid(v) && v->pg.accepts);
    k->born_ms = k->born_ms != 0 ? k->born_ms : v->now_ms;
    return (known && v->pg.data != PG_DATA_UNKNOWN) ||
           v->now_ms >= k->born_ms + v->config.ttl_ms;
}

/* ---- the fence's part ---- */

static void tell_changes(struct vip_keeper *k, const struct fence_state *s)
{
    if (s->vip_up != k->was_up)
        log_event(LOG_INFO, "vip", KV(KV_STR("interface", k->config->vip.interface)),
                  s->vip_up ? "%s is here" : "%s is not here any more", k->config->vip.address);
    k->was_up = s->vip_up;
    if (s->vip_refused[0] != '\0' && strcmp(s->vip_refused, k->complained) != 0)
        log_event(LOG_ERROR, "vip", KV(KV_STR("interface", k->config->vip.interface)),
                  "%s cannot be here: %s", k->config->vip.address, s->vip_refused);
    if (s->vip_refused[0] != '\0')
        str_cut(k->complained, sizeof k->complained, s->vip_refused);
}

/* The fence says what is so; what is not as it should be is ordered, and again when that had no effect, and
 * with each renewal while the fence holds no deadline (a pause). Once after each connection in any case: an
 * older fence may have left the address behind. */
static void order(struct vip_keeper *k, bool up, uint64_t lease_end_ms)
{
    const struct fence_state *s = fence_state(k->fence);
    tell_changes(k, s);
    if (s->connected != k->connected)
        k->told = false;
    k->connected = s->connected;
    bool again = k->now_ms >= k->told_ms + REPEAT_MS;
    bool later = up && !s->armed && lease_end_ms >= k->told_end_ms + EXTEND_MS;
    bool same = k->told && k->told_up == up && !later;
    if (!s->connected || (same && (s->vip_up == up || !again)))
        return;
    if (fence_vip(k->fence, up, lease_end_ms, k->config->vip.interface, k->addresses, k->n) !=
        ERR_OK)
        return; /* the link is being mended */
    k->told = true;
    k->told_end_ms = lease_end_ms;
    k->told_up = up;
    k->told_ms = k->now_ms;
}

/* ---- the hook ---- */

static void on_hook(void *arg, enum err status, const struct errmsg *e)
{
    struct vip_keeper *k = arg;
    CHECK_MAGIC(k, KEEPER_MAGIC);
    k->child = NULL;
    k->hook_done = status == ERR_OK;
    k->hook_up = k->hook_under_way;
    k->hook_again_ms = k->now_ms + HOOK_AGAIN_MS;
    if (status != ERR_OK)
        log_event(LOG_ERROR, "vip_hook", NO_KV, "%s %s: %s", k->config->vip.hook,
                  k->hook_up ? "up" : "down", e->text);
    if (k->closing)
        mem_free(k);
}

static void run_hook(struct vip_keeper *k, bool up)
{
    const struct config *c = k->config;
    struct errmsg e = {0};
    bool same = k->hook_done && k->hook_up == up;
    bool too_soon = k->hook_up == up && k->now_ms < k->hook_again_ms;
    if (c->vip.hook[0] == '\0' || k->child != NULL || same || too_soon)
        return;
    char *line CLEANUP(mem_cleanup) = mem_printf("%s %s", c->vip.hook, up ? "up" : "down");
    char *address CLEANUP(mem_cleanup) = mem_printf("VIP_ADDRESS=%s", c->vip.address);
    char *interface CLEANUP(mem_cleanup) = mem_printf("VIP_INTERFACE=%s", c->vip.interface);
    char *scope CLEANUP(mem_cleanup) = mem_printf("REGENT_SCOPE=%s", c->scope);
    char *name CLEANUP(mem_cleanup) = mem_printf("REGENT_NAME=%s", c->name);
    const char *env[] = {address, interface, scope, name, NULL};
    k->hook_under_way = up;
    k->hook_again_ms = k->now_ms + HOOK_AGAIN_MS;
    struct command_order o = {.shell = line, .env = env};
    if (command_start(k->loop, &o, on_hook, k, &k->child, &e) != ERR_OK)
        log_event(LOG_ERROR, "vip_hook", NO_KV, "%s", e.text);
}

/* ---- life ---- */

static void split(struct vip_keeper *k)
{
    char *save = NULL;
    k->text = mem_strdup(k->config->vip.address);
    for (char *a = strtok_r(k->text, ", ", &save); a != NULL && k->n < ADDRESSES_MAX;
         a = strtok_r(NULL, ", ", &save))
        k->addresses[k->n++] = a;
}

/* What PostgreSQL binds at its start stays: an address that comes later is none of it. */
static void warn_of_listen(const struct config *c)
{
    char host[256] = "";
    uint16_t port;
    if (str_host_port(c->postgresql.listen, host, sizeof host, &port) != ERR_OK ||
        strpbrk(host, "*,") != NULL || strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0)
        return;
    log_event(LOG_WARN, "vip", NO_KV,
              "PostgreSQL listens on %s alone and would not answer on %s: set "
              "postgresql.listen to 0.0.0.0:%u",
              host, c->vip.address, (unsigned)port);
}

struct vip_keeper *vip_keeper_new(uv_loop_t *loop, const struct config *c, struct fence *fence)
{
    if (c->vip.address[0] == '\0' && c->vip.hook[0] == '\0')
        return NULL;
    struct vip_keeper *k = mem_alloc(sizeof *k);
    *k = (struct vip_keeper){.magic = KEEPER_MAGIC,
                             .loop = loop,
                             .config = c,
                             .fence = fence,
                             .hook_done = true}; /* down is where everybody begins */
    split(k);
    if (k->n > 0 && c->vip.interface[0] != '\0')
        warn_of_listen(c);
    return k;
}

void vip_keeper_stop(struct vip_keeper *k)
{
    if (k == NULL)
        return;
    CHECK_MAGIC(k, KEEPER_MAGIC);
    mem_free(TAKE(k->text));
    k->closing = true;
    if (k->child != NULL)
        command_kill(k->child);
    else
        mem_free(k);
}

void vip_keeper_look(struct vip_keeper *k, const struct view *v)
{
    if (k == NULL)
        return;
    CHECK_MAGIC(k, KEEPER_MAGIC);
    bool up = vip_wanted(v);
    k->now_ms = v->now_ms;
    k->settled = k->settled || settles(k, v);
    if (!k->settled)
        return;
    if (k->n > 0 && k->config->vip.interface[0] != '\0')
        order(k, up, v->deadline_ms);
    run_hook(k, up);
}
