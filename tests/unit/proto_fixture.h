/* What the socket tests share: a scratch directory with certificates, and a loop with a deadline. */
#ifndef REGENT_TESTS_PROTO_FIXTURE_H
#define REGENT_TESTS_PROTO_FIXTURE_H

#include <uv.h>

#include "proto/pki.h"

struct certs {
    char dir[64];
    struct buf ca, ca_key;
};

#define CERT_CLUSTER "c1"

void certs_setup(struct certs *c);
void certs_teardown(struct certs *c);
/* DIR/NAME, in a ring of static buffers. */
const char *certs_path(const struct certs *c, const char *name);
/* Writes NAME.pem and NAME.key, signed by this CA; expired: its last day was yesterday. */
void certs_issue(const struct certs *c, const char *name, uint64_t member_id, const char *kind,
                 bool expired);

/* Runs the loop until *flag, at most ten seconds. */
bool loop_until(uv_loop_t *loop, const bool *flag);
/* Runs until nothing is left and closes it; fails the test when something stays. */
void loop_end(uv_loop_t *loop);

struct listener;
/* On an ephemeral port of 127.0.0.1, or with backlog 0 never accepting. on_fd gets every socket. */
struct listener *listener_new(uv_loop_t *loop, uint16_t *io_port,
                              void (*on_fd)(void *arg, int fd), void *arg);
void listener_close(struct listener *l);

#endif
