/* Random contents for any message, by its table: for round trips. */
#ifndef REGENT_TESTS_PROTO_RANDOM_H
#define REGENT_TESTS_PROTO_RANDOM_H

#include "base/rng.h"
#include "proto/messages.h"

/* Borrowed fields point to memory that lives until proto_random_free(). RAW is JSON text or a
 * MessagePack value. */
void proto_random_fill(struct rng *r, const struct msg *m, void *obj, bool raw_is_json);
void proto_random_free(void);

extern const struct msg *const proto_all_messages[];
extern const size_t proto_all_messages_n;

#endif
