#include "agent/core/rules.h"

#include <stdio.h>

#include "base/assert.h"
#include "base/mutant.h"
#include "base/str.h"

static const char *parse_number(const char *s, uint64_t *ret)
{
    uint64_t n = 0;
    const char *start = s;
    for (; *s >= '0' && *s <= '9'; s++) {
        if (n > (UINT64_MAX - 9) / 10)
            return NULL;
        n = n * 10 + (uint64_t)(*s - '0');
    }
    *ret = n;
    return s == start ? NULL : s;
}

void lineage_parse(const char *text, struct lineage *ret)
{
    (void)memset(ret, 0, sizeof *ret);
    while (*text != '\0' && ret->n < LINEAGE_MAX) {
        const char *s = parse_number(text, &ret->at[ret->n].timeline);
        if (s == NULL || *s != ':')
            break;
        s = parse_number(s + 1, &ret->at[ret->n].token);
        if (s == NULL || (*s != ',' && *s != '\0'))
            break;
        ret->n++;
        if (*s == '\0')
            return;
        text = s + 1;
    }
    if (*text != '\0' && ret->n < LINEAGE_MAX)
        ret->n = 0; /* not a lineage */
}

uint64_t lineage_token(const struct lineage *l, uint64_t timeline)
{
    uint64_t promotion =
        0; /* token of a promotion whose timeline was not known when it was noted */
    uint64_t newest = 0;
    for (size_t i = 0; i < l->n; i++) {
        if (l->at[i].timeline == timeline)
            return l->at[i].token;
        if (l->at[i].timeline == 0 && promotion == 0)
            promotion = l->at[i].token;
        newest = MAX(newest, l->at[i].timeline);
    }
    return timeline > newest ? promotion : 0;
}

const struct history_entry *history_of(const struct view *v, uint64_t timeline)
{
    ASSERT(v->history_n <= VIEW_HISTORY);
    for (size_t i = v->history_n; i > 0; i--)
        if (v->history[i - 1].timeline == timeline)
            return &v->history[i - 1];
    return NULL;
}

void lineage_recorded(const struct view *v, uint64_t timeline, struct lineage *ret)
{
    (void)memset(ret, 0, sizeof *ret);
    while (timeline != 0 && ret->n < LINEAGE_MAX) {
        const struct history_entry *h = history_of(v, timeline);
        if (h == NULL)
            return;
        ret->at[ret->n].timeline = h->timeline;
        ret->at[ret->n].token = h->remote ? 0 : h->token; /* 0: no promotion of ours */
        ret->n++;
        if (h->parent >= timeline)
            return; /* not a history; and no endless walk */
        timeline = h->parent;
    }
}

void lineage_print(const struct lineage *l, char *ret, size_t size)
{
    ASSERT(size > 0);
    size_t at = 0;
    ret[0] = '\0';
    for (size_t i = 0; i < l->n; i++) {
        char pair[48];
        int n =
            snprintf(pair, sizeof pair, "%s%llu:%llu", i == 0 ? "" : ",",
                     (unsigned long long)l->at[i].timeline, (unsigned long long)l->at[i].token);
        if (n < 0 || at + (size_t)n >= size)
            return;
        (void)memcpy(ret + at, pair, (size_t)n + 1);
        at += (size_t)n;
    }
}

static const struct history_entry *history_by(const struct view *v, uint64_t token)
{
    for (size_t i = v->history_n; i > 0; i--)
        if (v->history[i - 1].token == token && !v->history[i - 1].remote)
            return &v->history[i - 1];
    return NULL;
}

/* It led a standby cluster, and promoted nothing. */
static bool only_followed(const struct view *v, uint64_t token)
{
    for (size_t i = 0; i < v->history_n; i++)
        if (v->history[i].token <= token && token <= v->history[i].until)
            return true;
    return false;
}

bool lineage_doubtful(const struct view *v, const struct lineage *own, uint64_t timeline)
{
    uint64_t newest = 0;
    uint64_t token = 0;
    for (size_t i = 0; i < own->n; i++) {
        newest = MAX(newest, own->at[i].timeline);
        token = MAX(token, own->at[i].token);
    }
    if (own->n == 0 || timeline <= newest || lineage_token(own, timeline) != 0 ||
        MUTANT(lineage_unnoted))
        return false;
    const struct history_entry *made = history_of(v, timeline);
    if (made != NULL && made->remote)
        return false;
    if (v->sync.token > token + VIEW_HISTORY)
        return true;
    /* a token without an entry may have promoted and died before it said so */
    size_t makers = 0;
    for (uint64_t t = token + 1; t <= v->sync.token; t++) {
        const struct history_entry *h = history_by(v, t);
        makers += h != NULL ? h->timeline == timeline : !only_followed(v, t);
    }
    return makers != 1;
}

/* Of what leads from `first` of the recorded way back to what the data has noted. */
static bool any_doubtful(const struct view *v, const struct lineage *own,
                         const struct lineage *recorded, size_t first)
{
    for (size_t i = first; i < recorded->n; i++)
        if (lineage_doubtful(v, own, recorded->at[i].timeline))
            return true;
    return false;
}

size_t lineage_rank(const struct view *v, const char *text, uint64_t timeline, uint64_t lsn)
{
    if (v->history_n == 0)
        return 1; /* nothing recorded, nothing to compare with */
    struct lineage recorded;
    struct lineage own;
    lineage_recorded(v, v->history[v->history_n - 1].timeline, &recorded);
    lineage_parse(text, &own);
    for (size_t i = 0; i < recorded.n; i++) {
        if (recorded.at[i].timeline != timeline)
            continue;
        /* The same number from another promotion is another timeline. */
        uint64_t token = lineage_token(&own, timeline);
        if (token != 0 ? token != recorded.at[i].token : any_doubtful(v, &own, &recorded, i))
            return 0;
        /* Written on after the recorded way had left it: diverged. */
        if (i > 0) {
            const struct history_entry *next = history_of(v, recorded.at[i - 1].timeline);
            ASSERT(next != NULL);
            if (lsn > next->switch_lsn)
                return 0;
        }
        return recorded.n - i;
    }
    return 0;
}
