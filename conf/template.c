#include "conf/template.h"

#include <jansson.h>
#include <stdio.h>

#include "base/assert.h"
#include "base/str.h"

enum { DEPTH_MAX = 8, NAME_LEN_MAX = 128 };

struct renderer {
    const char *name;
    struct slice text; /* all of it, for line numbers */
    struct buf *out;
    struct errmsg *e;
    json_t *stack[DEPTH_MAX]; /* outermost first; borrowed */
    size_t depth;
};

struct span {
    const char *p, *end;
};

struct tag {
    char kind; /* '#', '^', '/', '!', or 0: a value */
    char name[NAME_LEN_MAX];
    const char *fallback; /* inside the template; NULL: none */
    size_t fallback_n;
    const char *before, *after; /* the text around it goes up to and on from here */
};

static enum err wrong(struct renderer *r, const char *at, enum err code, const char *name,
                      const char *what)
{
    size_t line = 1;
    for (const char *p = (const char *)r->text.p; p < at; p++)
        line += *p == '\n';
    return err_set(r->e, code, "%s:%zu: {{%.60s}}: %s", r->name, line, name, what);
}

/* ---- tags ---- */

static void trim(struct span *s)
{
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\t'))
        s->p++;
    while (s->end > s->p && (s->end[-1] == ' ' || s->end[-1] == '\t'))
        s->end--;
}

/* A tag alone in its line takes the line along. */
static void stand_alone(const struct renderer *r, struct tag *t)
{
    const char *begin = (const char *)r->text.p;
    const char *end = begin + r->text.n;
    const char *before = t->before;
    const char *after = t->after;
    while (before > begin && (before[-1] == ' ' || before[-1] == '\t'))
        before--;
    while (after < end && (*after == ' ' || *after == '\t'))
        after++;
    if ((before > begin && before[-1] != '\n') || (after < end && *after != '\n'))
        return;
    t->before = before;
    t->after = after < end ? after + 1 : end;
}

/* The next tag of the span; ERR_NOT_FOUND when there is none. */
static enum err next_tag(struct renderer *r, struct span s, struct tag *ret)
{
    const char *open = memmem(s.p, (size_t)(s.end - s.p), "{{", 2);
    *ret = (struct tag){0};
    if (open == NULL)
        return ERR_NOT_FOUND;
    const char *close = memmem(open, (size_t)(s.end - open), "}}", 2);
    if (close == NULL)
        return wrong(r, open, ERR_INVALID, "", "there is no }} behind it");
    struct span in = {open + 2, close};
    trim(&in);
    if (in.p < in.end && memchr("#^/!", *in.p, 4) != NULL)
        ret->kind = *in.p++;
    ret->before = open;
    ret->after = close + 2;
    if (ret->kind != 0)
        stand_alone(r, ret);
    if (ret->kind == '!')
        return ERR_OK;
    const char *bar = ret->kind == 0 ? memchr(in.p, '|', (size_t)(in.end - in.p)) : NULL;
    if (bar != NULL) {
        ret->fallback = bar + 1;
        ret->fallback_n = (size_t)(in.end - bar - 1);
        in.end = bar;
    }
    trim(&in);
    if (in.p == in.end || str_copy_slice(ret->name, sizeof ret->name,
                                         slice_of(in.p, (size_t)(in.end - in.p))) != ERR_OK)
        return wrong(r, open, ERR_INVALID, "", "a name of 1 to 127 bytes is missing");
    return ERR_OK;
}

/* The {{/name}} that ends the section which begins before s. */
static enum err find_close(struct renderer *r, struct span s, const struct tag *section,
                           struct tag *ret)
{
    size_t open = 1;
    for (;;) {
        enum err rv = next_tag(r, s, ret);
        if (rv == ERR_NOT_FOUND)
            return wrong(r, section->before, ERR_INVALID, section->name,
                         "the section does not end");
        if (rv != ERR_OK)
            return rv;
        s.p = MAX(ret->after, s.p + 1);
        if (strcmp(ret->name, section->name) != 0)
            continue;
        open += ret->kind == '#' || ret->kind == '^';
        open -= ret->kind == '/';
        if (open == 0)
            return ERR_OK;
    }
}

/* ---- values ---- */

/* By a path "a.b" from the innermost section outwards; NULL: nobody has it. */
static json_t *find(const struct renderer *r, const char *path)
{
    json_t *at = NULL;
    for (size_t i = r->depth; i > 0 && at == NULL; i--) {
        const char *p = path;
        at = r->stack[i - 1];
        while (at != NULL && *p != '\0') {
            size_t n = strcspn(p, ".");
            if (json_is_null(at))
                return at;
            at = json_object_getn(at, p, n);
            p += n + (p[n] == '.');
        }
    }
    return at;
}

static enum err put_text(struct renderer *r, const struct tag *t, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)text[i] < ' ' || text[i] == 0x7f)
            return wrong(r, t->before, ERR_INVALID, t->name,
                         "the value has a control character in it");
    buf_append(r->out, text, n);
    return ERR_OK;
}

static enum err put_value(struct renderer *r, const struct tag *t)
{
    json_t *v = find(r, t->name);
    bool empty =
        v == NULL || json_is_null(v) || (json_is_string(v) && json_string_length(v) == 0);
    if (empty && t->fallback != NULL)
        return put_text(r, t, t->fallback, t->fallback_n);
    if (v == NULL)
        return wrong(r, t->before, ERR_INVALID, t->name,
                     str_starts(t->name, "set.") ? "not given; it has no default"
                                                 : "there is no such value");
    if (json_is_null(v))
        return wrong(r, t->before, ERR_UNAVAILABLE, t->name, "there is none now");
    if (json_is_string(v))
        return put_text(r, t, json_string_value(v), json_string_length(v));
    if (json_is_integer(v))
        buf_printf(r->out, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
    else if (json_is_boolean(v))
        buf_printf(r->out, "%s", json_is_true(v) ? "true" : "false");
    else
        return wrong(r, t->before, ERR_INVALID, t->name, "a list or a map: make it a section");
    return ERR_OK;
}

static bool is_empty(const json_t *v)
{
    return v == NULL || json_is_null(v) || json_is_false(v) ||
           (json_is_array(v) && json_array_size(v) == 0) ||
           (json_is_string(v) && json_string_length(v) == 0);
}

/* ---- text ---- */

static enum err render(struct renderer *r, struct span s);

static enum err render_in(struct renderer *r, json_t *context, struct span body,
                          const struct tag *t)
{
    if (r->depth == DEPTH_MAX)
        return wrong(r, t->before, ERR_INVALID, t->name, "sections are nested too deep");
    r->stack[r->depth++] = context;
    enum err rv = render(r, body);
    r->depth--;
    return rv;
}

static enum err render_section(struct renderer *r, const struct tag *t, struct span body)
{
    json_t *v = find(r, t->name);
    enum err rv = ERR_OK;
    if (v == NULL && !str_starts(t->name, "set."))
        return wrong(r, t->before, ERR_INVALID, t->name, "there is no such value");
    if ((t->kind == '^') != is_empty(v))
        return ERR_OK;
    if (t->kind == '^' || !json_is_array(v))
        return render_in(r, t->kind == '#' && json_is_object(v) ? v : r->stack[r->depth - 1],
                         body, t);
    for (size_t i = 0; i < json_array_size(v) && rv == ERR_OK; i++)
        rv = render_in(r, json_array_get(v, i), body, t);
    return rv;
}

/* Depth is bounded by render_in(). */
static enum err render(struct renderer *r, struct span s)
{
    struct tag t;
    struct tag end;
    enum err rv;
    ASSERT(r->depth > 0);
    while ((rv = next_tag(r, s, &t)) == ERR_OK) {
        if (t.before > s.p)
            buf_append(r->out, s.p, (size_t)(t.before - s.p));
        s.p = MAX(t.after, s.p);
        if (t.kind == '/')
            return wrong(r, t.before, ERR_INVALID, t.name, "ends a section that is not open");
        if (t.kind == 0)
            rv = put_value(r, &t);
        if (t.kind == '#' || t.kind == '^') {
            rv = find_close(r, s, &t, &end);
            if (rv == ERR_OK)
                rv = render_section(r, &t, (struct span){s.p, MAX(end.before, s.p)});
            s.p = rv == ERR_OK ? end.after : s.p;
        }
        if (rv != ERR_OK)
            return rv;
    }
    if (rv == ERR_NOT_FOUND && s.end > s.p)
        buf_append(r->out, s.p, (size_t)(s.end - s.p));
    return rv == ERR_NOT_FOUND ? ERR_OK : rv;
}

enum err template_render(const char *name, struct slice text, struct slice json,
                         struct buf *ret_text, struct errmsg *e)
{
    struct renderer r = {.name = name, .text = text, .out = ret_text, .e = e};
    if (text.n > TEMPLATE_TEXT_MAX)
        return err_set(e, ERR_LIMIT, "%s: a template of more than %d bytes", name,
                       TEMPLATE_TEXT_MAX);
    json_t *root = json_loadb((const char *)json.p, json.n, 0, NULL);
    ASSERT(json_is_object(root));
    ret_text->max = TEMPLATE_OUT_MAX;
    r.stack[r.depth++] = root;
    const char *p = (const char *)text.p;
    enum err rv = text.n == 0 ? ERR_OK : render(&r, (struct span){p, p + text.n});
    json_decref(root);
    if (rv == ERR_OK && !buf_ok(ret_text))
        rv = err_set(e, ERR_LIMIT, "%s: more than %d bytes come of it", name, TEMPLATE_OUT_MAX);
    return rv;
}

const char *template_builtin(const char *name)
{
    for (size_t i = 0; i < template_builtins_n; i++)
        if (strcmp(template_builtins[i].name, name) == 0)
            return template_builtins[i].text;
    return NULL;
}
