/* The tables of all messages, from the .def files.
 *
 * A field's offset needs the name of its struct, which the field macros do not know; inside a
 * function a local typedef can stand for it. So each message has a function that copies its fields
 * into the table before main() runs; after that nothing writes to the tables. */
#include "proto/messages.h"

/* How many fields each message has. */
#define MSG(name) enum { N_##name = 0
#define END(name) \
    }             \
    ;
#define U64(name) +1
#define I64(name) +1
#define BOOL(name) +1
#define BYTES(name) +1
#define TEXT(name, n) +1
#define RAW(name) +1
#define SUB(name, m) +1
#define LIST(name, m, max) +1
#define MANY(name, m) +1
#define NAMES(name, max) +1
/* clang-format off */
#include "proto/messages.def"
#include "proto/records.def"
/* clang-format on */
#undef MSG
#undef END
#undef U64
#undef I64
#undef BOOL
#undef BYTES
#undef TEXT
#undef RAW
#undef SUB
#undef LIST
#undef MANY
#undef NAMES

/* The tables; one spare element, because `empty` has no field and C no empty array. */
#define MSG(name)                                    \
    static struct field fields_##name[N_##name + 1]; \
    const struct msg msg_##name = {#name, sizeof(struct name), fields_##name, N_##name};
#define END(name)
#define U64(name)
#define I64(name)
#define BOOL(name)
#define BYTES(name)
#define TEXT(name, n)
#define RAW(name)
#define SUB(name, m)
#define LIST(name, m, max)
#define MANY(name, m)
#define NAMES(name, max)
#include "proto/messages.def"
#include "proto/records.def"
#undef MSG
#undef END
#undef U64
#undef I64
#undef BOOL
#undef BYTES
#undef TEXT
#undef RAW
#undef SUB
#undef LIST
#undef MANY
#undef NAMES

/* Their contents. */
#define MSG(id)                                              \
    _Static_assert((int)N_##id < (int)MSG_FIELDS_MAX, #id);  \
    __attribute__((constructor)) static void fill_##id(void) \
    {                                                        \
        typedef struct id self;                              \
        _Static_assert(sizeof(self) < 1U << 20, #id);        \
        struct field *const to = fields_##id;                \
        static const struct field from[N_##id + 1] = {
#define END(id)                    \
    {                              \
        .name = NULL               \
    }                              \
    }                              \
    ;                              \
    memcpy(to, from, sizeof from); \
    }
#define PLAIN(f, t) {.name = #f, .type = (t), .offset = offsetof(self, f)},
#define U64(f) PLAIN(f, FIELD_U64)
#define I64(f) PLAIN(f, FIELD_I64)
#define BOOL(f) PLAIN(f, FIELD_BOOL)
#define BYTES(f) PLAIN(f, FIELD_BYTES)
#define RAW(f) PLAIN(f, FIELD_RAW)
#define TEXT(f, n) {.name = #f, .type = FIELD_TEXT, .offset = offsetof(self, f), .size = (n)},
#define SUB(f, m) {.name = #f, .type = FIELD_SUB, .offset = offsetof(self, f), .sub = &msg_##m},
#define MANY(f, m) \
    {.name = #f, .type = FIELD_MANY, .offset = offsetof(self, f), .sub = &msg_##m},
#define LIST(f, m, max)                     \
    {.name = #f,                            \
     .type = FIELD_LIST,                    \
     .offset = offsetof(self, f),           \
     .count_offset = offsetof(self, f##_n), \
     .size = (max),                         \
     .sub = &msg_##m},
#define NAMES(f, max)                       \
    {.name = #f,                            \
     .type = FIELD_NAMES,                   \
     .offset = offsetof(self, f),           \
     .count_offset = offsetof(self, f##_n), \
     .size = (max)},
/* clang-format off */
#include "proto/messages.def"
#include "proto/records.def"
/* clang-format on */

const struct method_info method_table[METHOD_COUNT] = {
#define METHOD(id, wire, params, result, kind) \
    [METHOD_##id] = {wire, &msg_##params, &msg_##result, METHOD_KIND_##kind},
#include "proto/methods.def"
#undef METHOD
};

enum method method_find(struct slice name)
{
    for (size_t i = 0; i < METHOD_COUNT; i++)
        if (slice_eq(name, slice_str(method_table[i].name)))
            return (enum method)i;
    return METHOD_COUNT;
}

bool error_of_session(enum err code, const char *text)
{
    return code == ERR_PRECONDITION && strncmp(text, "session", 7) == 0;
}

bool error_is_result(enum err code, const char *text)
{
    return code == ERR_NOT_FOUND || code == ERR_EXISTS ||
           (code == ERR_PRECONDITION && !error_of_session(code, text));
}
