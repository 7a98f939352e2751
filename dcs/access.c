#include "dcs/access.h"

#include "base/assert.h"

enum access access_of_role(const char *role)
{
    return strcmp(role, "viewer") == 0     ? ACCESS_VIEWER
           : strcmp(role, "operator") == 0 ? ACCESS_OPERATOR
           : strcmp(role, "admin") == 0    ? ACCESS_ADMIN
                                           : ACCESS_NONE;
}

enum access access_of_kind(const char *kind)
{
    bool node = strcmp(kind, "node") == 0 || strcmp(kind, "first") == 0;
    return node ? ACCESS_ADMIN : access_of_role(kind);
}

const char *access_name(enum access a)
{
    static const char *const names[] = {"none", "viewer", "operator", "admin"};
    ASSERT(a < ARRAY_LEN(names));
    return names[a];
}

enum access access_needed(enum method m)
{
    switch (m) {
    case METHOD_HELLO:
    case METHOD_TOKEN_REDEEM:
    case METHOD_CERT_RENEW:
        return ACCESS_NONE;
    case METHOD_KV_RANGE:
    case METHOD_WATCH_CREATE:
    case METHOD_WATCH_CANCEL:
    case METHOD_WATCH_CREDIT:
    case METHOD_LEASE_INFO:
    case METHOD_MEMBER_LIST:
    case METHOD_CLUSTER_STATUS:
    case METHOD_HASH_READ:
    case METHOD_SQL_QUERY:
        return ACCESS_VIEWER;
    case METHOD_SESSION_OPEN:
    case METHOD_KV_PUT:
    case METHOD_KV_DELETE:
    case METHOD_KV_TXN:
    case METHOD_LEASE_GRANT:
    case METHOD_LEASE_RENEW:
    case METHOD_LEASE_REVOKE:
    case METHOD_CLUSTER_TRANSFER:
    case METHOD_HASH_MARK:
        return ACCESS_OPERATOR;
    case METHOD_KV_COMPACT:
    case METHOD_MEMBER_REMOVE:
    case METHOD_MEMBER_PROMOTE:
    case METHOD_MEMBER_DEMOTE:
    case METHOD_SNAPSHOT_SAVE:
    case METHOD_SNAPSHOT_PIECE:
    case METHOD_TOKEN_CREATE:
    case METHOD_TOKEN_LIST:
    case METHOD_TOKEN_REVOKE:
    case METHOD_CERT_ISSUE:
    case METHOD_CERT_LIST:
    case METHOD_CERT_REVOKE:
    case METHOD_CA_FETCH:
        return ACCESS_ADMIN;
    case METHOD_COUNT:
        break;
    }
    UNREACHABLE();
}
