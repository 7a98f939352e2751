/* Who may call what: the role of a client is in its certificate. Each level may do all that the one before
 * it may. Pure. */
#ifndef REGENT_DCS_ACCESS_H
#define REGENT_DCS_ACCESS_H

#include "proto/messages.h"

enum access {
    ACCESS_NONE,     /* without a certificate: the OPEN methods */
    ACCESS_VIEWER,   /* reads */
    ACCESS_OPERATOR, /* and writes keys and leases, moves the leadership */
    ACCESS_ADMIN     /* everything: members, tokens, certificates, copies of the store */
};

/* kind: of a certificate of this cluster (pki.h). One that this program does not know may nothing. */
enum access access_of_kind(const char *kind);
enum access access_needed(enum method m);
const char *access_name(enum access a);
/* "viewer", "operator" or "admin". ACCESS_NONE: none of them. */
enum access access_of_role(const char *role);

#endif
