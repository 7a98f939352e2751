/* Permanent replication slots and the rules about slots that are left alone: `slots` and `ignore_slots` of the
 * dynamic configuration, in Patroni's shapes. Pure. */
#ifndef REGENT_CONF_SLOTS_H
#define REGENT_CONF_SLOTS_H

#include "base/base.h"
#include "base/err.h"

enum { SLOTS_PERMANENT_MAX = 32, SLOTS_IGNORE_MAX = 32 };

enum slot_type { SLOT_ANY, SLOT_PHYSICAL, SLOT_LOGICAL };

/* A permanent slot; or a rule, in which "" and SLOT_ANY match everything. */
struct slot_def {
    char name[64];
    enum slot_type type;
    char database[64]; /* of a logical one */
    char plugin[64];
};

struct slot_config {
    struct slot_def permanent[SLOTS_PERMANENT_MAX];
    size_t permanent_n;
    struct slot_def ignore[SLOTS_IGNORE_MAX];
    size_t ignore_n;
};

/* slots: {"name": {"type": "logical", "database": "app", "plugin": "pgoutput"}, "other": {"type": "physical"}};
 * ignore: [{"name": ..., "type": ..., "database": ..., "plugin": ...}, ...]. Empty text and null are none.
 * ERR_INVALID: thing, reason and remedy in e; *ret is then empty. */
enum err slots_parse(struct slice slots, struct slice ignore, struct slot_config *ret,
                     struct errmsg *e) MUST_CHECK;
bool slots_ignored(const struct slot_config *c, const struct slot_def *slot);
/* NULL: there is none of that name. */
const struct slot_def *slots_permanent(const struct slot_config *c, const char *name);
bool slots_any_logical(const struct slot_config *c);

#endif
