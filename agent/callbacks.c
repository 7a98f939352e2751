#include "agent/callbacks.h"

#include "agent/command.h"
#include "base/assert.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/str.h"

enum { CALLBACKS_MAGIC = 0x52e6ca11 };

struct callbacks {
    uint32_t magic;
    uv_loop_t *loop;
    const struct config *config;
    struct callback_facts seen;
    struct command_child *child;
    enum callback running;
    enum callback next; /* when the one that runs has ended */
    enum callback_role next_role;
    bool restart; /* the stop under way is one for a restart */
    bool stopping;
};

static const char *const names[] = {"none",       "on_start",  "on_stop",
                                    "on_restart", "on_reload", "on_role_change"};
_Static_assert(ARRAY_LEN(names) == CALLBACK_COUNT, "one name per callback");

static const char *const roles[] = {"replica", "standby_leader", "primary"};

const char *callback_name(enum callback c)
{
    return names[c];
}

static enum callback between(const struct callback_facts *a, const struct callback_facts *b)
{
    if (!a->running && !b->running)
        return CALLBACK_NONE;
    if (a->running && !b->running)
        return b->restarting ? CALLBACK_NONE : CALLBACK_ON_STOP;
    bool same = a->role == b->role ||
                (!a->led && a->role == CALLBACK_REPLICA && b->role != CALLBACK_PRIMARY);
    if (a->ran && !same)
        return CALLBACK_ON_ROLE_CHANGE;
    if (!a->running)
        return a->restarting ? CALLBACK_ON_RESTART : CALLBACK_ON_START;
    return a->reloads != b->reloads ? CALLBACK_ON_RELOAD : CALLBACK_NONE;
}

enum callback callback_next(struct callback_facts *seen, const struct callback_facts *now)
{
    enum callback event = CALLBACK_NONE;
    if (!now->known)
        return event;
    struct callback_facts next = *now;
    next.ran = now->running || seen->ran;
    next.led = now->led || seen->led;
    if (seen->known && !now->running) {
        next.role = seen->role; /* the role it ran with, until it runs with another */
        next.restarting = seen->running ? now->restarting : seen->restarting;
    }
    if (seen->known)
        event = between(seen, &next);
    *seen = next;
    return event;
}

static const char *command_of(const struct callbacks *k, enum callback c)
{
    switch (c) {
    case CALLBACK_ON_START:
        return k->config->postgresql.callbacks.on_start;
    case CALLBACK_ON_STOP:
        return k->config->postgresql.callbacks.on_stop;
    case CALLBACK_ON_RESTART:
        return k->config->postgresql.callbacks.on_restart;
    case CALLBACK_ON_RELOAD:
        return k->config->postgresql.callbacks.on_reload;
    case CALLBACK_ON_ROLE_CHANGE:
        return k->config->postgresql.callbacks.on_role_change;
    case CALLBACK_NONE:
    case CALLBACK_COUNT:
        break;
    }
    return "";
}

static void run_next(struct callbacks *k);

static void callbacks_free(struct callbacks *k)
{
    k->magic = 0;
    mem_free(k);
}

static void ended(void *arg, enum err status, const struct errmsg *e)
{
    struct callbacks *k = arg;
    CHECK_MAGIC(k, CALLBACKS_MAGIC);
    k->child = NULL;
    const char *name = callback_name(k->running);
    if (status == ERR_OK)
        log_event(LOG_INFO, "callback", KV(KV_STR("action", name)), "%s has ended", name);
    else
        log_event(LOG_WARN, "callback", KV(KV_STR("action", name)), "%s failed: %s", name,
                  e->text);
    run_next(k);
    if (k->stopping && k->child == NULL)
        callbacks_free(k);
}

static void run_next(struct callbacks *k)
{
    struct errmsg e = {0};
    const char *role = roles[k->next_role];
    enum callback event = k->next;
    k->next = CALLBACK_NONE;
    if (event == CALLBACK_NONE)
        return;
    const char *name = callback_name(event);
    /* Names hold nothing that the shell would read: conf/checks.c. */
    char *line CLEANUP(mem_cleanup) =
        mem_printf("%s %s %s %s", command_of(k, event), name, role, k->config->scope);
    k->running = event;
    log_event(LOG_INFO, "callback", KV(KV_STR("action", name), KV_STR("role", role)),
              "calling %s", name);
    struct command_order o = {.shell = line};
    if (command_start(k->loop, &o, ended, k, &k->child, &e) != ERR_OK)
        log_event(LOG_WARN, "callback", KV(KV_STR("action", name)), "%s: %s", name, e.text);
}

struct callbacks *callbacks_new(uv_loop_t *loop, const struct config *c)
{
    struct callbacks *k = mem_alloc(sizeof *k);
    k->magic = CALLBACKS_MAGIC;
    k->loop = loop;
    k->config = c;
    return k;
}

void callbacks_stop(struct callbacks *k, bool at_once)
{
    if (k == NULL)
        return;
    CHECK_MAGIC(k, CALLBACKS_MAGIC);
    k->stopping = true;
    if (at_once)
        k->next = CALLBACK_NONE;
    if (k->child == NULL)
        callbacks_free(k);
    else if (at_once)
        command_kill(k->child);
}

/* A standby leader stays one without the store, and until it is promoted or another has the key. */
static enum callback_role role_of(const struct callbacks *k, const struct view *v)
{
    bool was = k->seen.role == CALLBACK_STANDBY_LEADER;
    if (!v->pg.in_recovery)
        return CALLBACK_PRIMARY;
    bool leads = v->dcs_ready ? view_is_leader(v) && (v->leader.standby || was) : was;
    return leads ? CALLBACK_STANDBY_LEADER : CALLBACK_REPLICA;
}

/* Starting and stopping are on the way to something. */
static struct callback_facts facts_of(struct callbacks *k, const struct view *v,
                                      const struct plan *p, uint64_t reloads)
{
    bool runs = v->pg.proc == PG_PROC_RUNNING && v->pg.accepts;
    bool asked = v->has_request && strcmp(v->request.kind, "restart") == 0 &&
                 v->request.state[0] != '\0';
    bool needed = p->rule != NULL && strcmp(p->rule, "follower_blocked") == 0;
    if (needed || (asked && !runs))
        k->restart = true;
    struct callback_facts f = {.known = runs || v->pg.proc == PG_PROC_STOPPED,
                               .running = runs,
                               .led = v->dcs_ready && v->lease != 0,
                               .role = role_of(k, v),
                               .restarting = k->restart,
                               .reloads = reloads};
    if (runs && k->seen.known && !k->seen.running)
        k->restart = false;
    return f;
}

void callbacks_publish(struct callbacks *k, const struct view *v, const struct plan *p,
                       uint64_t reloads)
{
    CHECK_MAGIC(k, CALLBACKS_MAGIC);
    struct callback_facts now = facts_of(k, v, p, reloads);
    enum callback event = callback_next(&k->seen, &now);
    if (event == CALLBACK_NONE || command_of(k, event)[0] == '\0')
        return;
    bool waits = event == CALLBACK_ON_RELOAD && k->child != NULL;
    if (waits && k->next != CALLBACK_NONE)
        return;
    k->next = event;
    k->next_role = k->seen.role;
    if (k->child == NULL)
        run_next(k);
    else if (!waits)
        command_kill(k->child); /* its end starts the next */
}
