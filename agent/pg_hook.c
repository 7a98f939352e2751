/* Commands of the administrator that an action waits for. They are no part of what fences: a kill ends the action, and
 * that ends them. */
#include "agent/command.h"
#include "agent/postgres_private.h"
#include "base/assert.h"
#include "base/log.h"
#include "base/mem.h"

struct hook {
    struct postgres *p; /* NULL: the action has ended */
    struct command_child *child;
    const char *name;
    hook_step *then;
};

static void ended(void *arg, enum err status, const struct errmsg *e)
{
    struct hook *h = arg;
    struct postgres *p = h->p;
    hook_step *then = h->then;
    struct errmsg why = {0};
    if (p == NULL) {
        mem_free(h);
        return;
    }
    CHECK_MAGIC(p, POSTGRES_MAGIC);
    if (status != ERR_OK)
        status = err_set(&why, status, "%s: %s", h->name, e->text);
    log_event(LOG_INFO, "hook", KV(KV_STR("hook", h->name)), "%s has ended: %s", h->name,
              status == ERR_OK ? "well" : e->text);
    p->act.hook = NULL;
    mem_free(h);
    then(p, status, &why);
}

void hook_run(struct postgres *p, const char *name, const char *shell, const char *const *env,
              uint64_t limit_ms, hook_step *then)
{
    struct errmsg e = {0};
    struct errmsg why = {0};
    if (shell == NULL || shell[0] == '\0') {
        then(p, ERR_OK, &e);
        return;
    }
    struct command_order o = {.shell = shell, .env = env, .limit_ms = limit_ms};
    struct hook *h = mem_alloc(sizeof *h);
    *h = (struct hook){.p = p, .name = name, .then = then};
    log_event(LOG_INFO, "hook", KV(KV_STR("hook", name)), "calling %s", name);
    enum err rv = command_start(p->loop, &o, ended, h, &h->child, &e);
    if (rv == ERR_OK) {
        p->act.hook = h;
        return;
    }
    mem_free(h);
    rv = err_set(&why, rv, "%s: %s", name, e.text);
    then(p, rv, &why);
}

void hook_forget(struct hook *h)
{
    if (h == NULL)
        return;
    h->p = NULL;
    command_kill(h->child);
}
