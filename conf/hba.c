/* Lines of pg_hba.conf and pg_ident.conf, as far as a mistake in them would keep PostgreSQL from starting. */
#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>

#include "base/str.h"
#include "conf/dynamic.h"

enum { FIELDS_MAX = 32, FIELD_MAX = 256 };

struct line {
    char field[FIELDS_MAX][FIELD_MAX];
    size_t n;
};

static enum err one_line(const char *what, const char *text, struct errmsg *e)
{
    for (const char *p = text; *p != '\0'; p++)
        if ((unsigned char)*p < ' ' && *p != '\t')
            return err_set(e, ERR_INVALID, "%s: a line has a line break: \"%.60s\"", what,
                           text);
    if (text[0] != '\0' &&
        text[strlen(text) - 1] == '\\') /* it would join the next line to it */
        return err_set(e, ERR_INVALID, "%s: a line ends in a backslash: \"%.60s\"", what, text);
    return ERR_OK;
}

/* Fields are parted by blanks; quotes keep blanks, commas and # in a field. */
static enum err split(const char *what, const char *text, struct line *ret, struct errmsg *e)
{
    const char *p = text;
    ret->n = 0;
    for (;;) {
        size_t n = 0;
        bool quoted = false;
        while (*p == ' ' || *p == '\t')
            p++;
        if (*p == '\0' || *p == '#')
            return ERR_OK;
        if (ret->n == FIELDS_MAX)
            return err_set(e, ERR_LIMIT, "%s: more than %d fields: \"%.60s\"", what, FIELDS_MAX,
                           text);
        while (*p != '\0' && (quoted || (*p != ' ' && *p != '\t' && *p != '#'))) {
            quoted = *p == '"' ? !quoted : quoted;
            if (n + 1 == FIELD_MAX)
                return err_set(e, ERR_LIMIT, "%s: a field is longer than %d: \"%.60s\"", what,
                               FIELD_MAX - 1, text);
            ret->field[ret->n][n++] = *p++;
        }
        if (quoted)
            return err_set(e, ERR_INVALID, "%s: a quote is not closed: \"%.60s\"", what, text);
        ret->field[ret->n++][n] = '\0';
    }
}

static bool one_of(const char *value, const char *const *known)
{
    for (size_t i = 0; known[i] != NULL; i++)
        if (strcmp(value, known[i]) == 0)
            return true;
    return false;
}

/* 4 or 6; 0: no address. */
static int family_of(const char *text)
{
    uint8_t raw[16];
    return inet_pton(AF_INET, text, raw) == 1 ? 4 : inet_pton(AF_INET6, text, raw) == 1 ? 6 : 0;
}

/* The address, and how many fields it takes: "10.0.0.0/8", "10.0.0.0 255.0.0.0", "samenet", ".example.org". */
static enum err check_address(const struct line *l, size_t *ret_fields, struct errmsg *e)
{
    static const char *const words[] = {"all", "samehost", "samenet", NULL};
    const char *text = l->field[3];
    char host[FIELD_MAX];
    uint64_t bits = 0;
    *ret_fields = 1;
    if (one_of(text, words) || text[0] == '"')
        return ERR_OK;
    size_t n = strcspn(text, "/");
    (void)snprintf(host, sizeof host, "%.*s", (int)n, text);
    int family = family_of(host);
    if (text[n] == '/') {
        if (family == 0 || str_parse_u64(text + n + 1, &bits) != ERR_OK ||
            bits > (family == 4 ? 32 : 128))
            return err_set(e, ERR_INVALID, "pg_hba: \"%s\" is no network, such as 10.0.0.0/8",
                           text);
        return ERR_OK;
    }
    if (family == 0) {
        /* A host name; what looks like an address gone wrong is none. */
        if (strspn(text, "0123456789.") == strlen(text) || strchr(text, ':') != NULL)
            return err_set(e, ERR_INVALID, "pg_hba: \"%s\" is no address", text);
        return ERR_OK;
    }
    *ret_fields = 2;
    if (l->n < 5 || family_of(l->field[4]) != family)
        return err_set(e, ERR_INVALID,
                       "pg_hba: the address \"%s\" has no mask: write %s/%d for this one alone",
                       text, text, family == 4 ? 32 : 128);
    return ERR_OK;
}

/* A record with a wrong or missing option is no record: PostgreSQL would not start with it. (src: "The pg_hba.conf
 * File" and the pages of the methods.) */
static const struct {
    const char *name;
    const char *methods; /* "|a|b|"; "": any, on hostssl lines */
} options[] = {
    {"map", "|ident|peer|gss|cert|oauth|"},
    {"clientcert", ""},
    {"clientname", ""},
    {"pamservice", "|pam|"},
    {"pam_use_hostname", "|pam|"},
    {"ldapurl", "|ldap|"},
    {"ldaptls", "|ldap|"},
    {"ldapscheme", "|ldap|"},
    {"ldapserver", "|ldap|"},
    {"ldapport", "|ldap|"},
    {"ldapbinddn", "|ldap|"},
    {"ldapbindpasswd", "|ldap|"},
    {"ldapsearchattribute", "|ldap|"},
    {"ldapsearchfilter", "|ldap|"},
    {"ldapbasedn", "|ldap|"},
    {"ldapprefix", "|ldap|"},
    {"ldapsuffix", "|ldap|"},
    {"krb_realm", "|gss|"},
    {"include_realm", "|gss|"},
    {"radiusservers", "|radius|"},
    {"radiussecrets", "|radius|"},
    {"radiusports", "|radius|"},
    {"radiusidentifiers", "|radius|"},
    {"issuer", "|oauth|"},
    {"scope", "|oauth|"},
    {"validator", "|oauth|"},
    {"delegate_ident_mapping", "|oauth|"},
};

static bool has_option(const struct line *l, size_t at, const char *name)
{
    size_t n = strlen(name);
    for (size_t i = at + 1; i < l->n; i++) {
        const char *text = l->field[i] + (l->field[i][0] == '"');
        if (strncmp(text, name, n) == 0 && text[n] == '=')
            return true;
    }
    return false;
}

static enum err check_value(const char *name, const char *value, struct errmsg *e)
{
    uint64_t port = 0;
    if (strcmp(name, "clientcert") == 0 && !str_starts(value, "verify-ca") &&
        !str_starts(value, "verify-full"))
        return err_set(e, ERR_INVALID, "pg_hba: clientcert is verify-ca or verify-full");
    if (strcmp(name, "ldapport") == 0 && (str_parse_u64(value, &port) != ERR_OK || port == 0))
        return err_set(e, ERR_INVALID, "pg_hba: ldapport \"%s\" is no port", value);
    return ERR_OK;
}

static enum err check_option(const struct line *l, const char *method, const char *text,
                             struct errmsg *e)
{
    char wanted[FIELD_MAX];
    const char *name = text + (text[0] == '"');
    size_t n = strcspn(name, "=");
    if (name[n] != '=')
        return err_set(e, ERR_INVALID, "pg_hba: the option \"%s\" is not name=value", text);
    (void)snprintf(wanted, sizeof wanted, "|%s|", method);
    for (size_t i = 0; i < ARRAY_LEN(options); i++) {
        if (strlen(options[i].name) != n || strncmp(options[i].name, name, n) != 0)
            continue;
        if (options[i].methods[0] == '\0' && strcmp(l->field[0], "hostssl") != 0)
            return err_set(e, ERR_INVALID, "pg_hba: %s goes with hostssl lines only",
                           options[i].name);
        if (options[i].methods[0] != '\0' && strstr(options[i].methods, wanted) == NULL)
            return err_set(e, ERR_INVALID, "pg_hba: %s is no option of %s", options[i].name,
                           method);
        return check_value(options[i].name, name + n + 1, e);
    }
    return err_set(e, ERR_INVALID, "pg_hba: there is no option \"%.*s\"", (int)n, name);
}

static enum err check_options(const struct line *l, size_t at, struct errmsg *e)
{
    static const struct {
        const char *method, *option;
    } needed[] = {{"radius", "radiusservers"},
                  {"radius", "radiussecrets"},
                  {"oauth", "issuer"},
                  {"oauth", "scope"}};
    const char *method = l->field[at];
    for (size_t i = at + 1; i < l->n; i++) {
        enum err rv = check_option(l, method, l->field[i], e);
        if (rv != ERR_OK)
            return rv;
    }
    bool bind = has_option(l, at, "ldapprefix") || has_option(l, at, "ldapsuffix");
    if (strcmp(method, "ldap") == 0 && !bind && !has_option(l, at, "ldapbasedn") &&
        !has_option(l, at, "ldapurl"))
        return err_set(e, ERR_INVALID,
                       "pg_hba: ldap needs ldapprefix, ldapsuffix, ldapbasedn or ldapurl");
    for (size_t i = 0; i < ARRAY_LEN(needed); i++)
        if (strcmp(method, needed[i].method) == 0 && !has_option(l, at, needed[i].option))
            return err_set(e, ERR_INVALID, "pg_hba: %s needs %s", method, needed[i].option);
    return ERR_OK;
}

static enum err check_method(const struct line *l, size_t at, struct errmsg *e)
{
    static const char *const methods[] = {
        "trust", "reject", "scram-sha-256", "md5",  "password", "gss", "sspi",  "ident",
        "peer",  "ldap",   "radius",        "cert", "pam",      "bsd", "oauth", NULL};
    bool local = strcmp(l->field[0], "local") == 0;
    if (l->n <= at)
        return err_set(e, ERR_INVALID,
                       "pg_hba: a \"%s\" line needs %zu fields, the last a method", l->field[0],
                       at + 1);
    if (!one_of(l->field[at], methods))
        return err_set(e, ERR_INVALID, "pg_hba: \"%s\" is no authentication method",
                       l->field[at]);
    if (strcmp(l->field[at], "peer") == 0 && !local)
        return err_set(e, ERR_INVALID, "pg_hba: peer goes with local lines only");
    if (strcmp(l->field[at], "cert") == 0 && strcmp(l->field[0], "hostssl") != 0)
        return err_set(e, ERR_INVALID, "pg_hba: cert goes with hostssl lines only");
    if (strcmp(l->field[at], "gss") == 0 && local)
        return err_set(e, ERR_INVALID, "pg_hba: gss goes with no local lines");
    if (strcmp(l->field[at], "sspi") == 0 || strcmp(l->field[at], "bsd") == 0)
        return err_set(e, ERR_INVALID, "pg_hba: PostgreSQL has no %s on this system",
                       l->field[at]);
    return check_options(l, at, e);
}

enum err hba_check(const char *text, struct errmsg *e)
{
    static const char *const hosts[] = {"host",       "hostssl",      "hostnossl",
                                        "hostgssenc", "hostnogssenc", NULL};
    struct line l = {.n = 0};
    size_t address = 0;
    enum err rv = one_line("pg_hba", text, e);
    if (rv == ERR_OK)
        rv = split("pg_hba", text, &l, e);
    if (rv != ERR_OK || l.n == 0)
        return rv;
    bool local = strcmp(l.field[0], "local") == 0;
    if (!local && !one_of(l.field[0], hosts))
        return err_set(
            e, ERR_INVALID,
            "pg_hba: a line begins with local, host, hostssl, hostnossl, hostgssenc or "
            "hostnogssenc, not with \"%s\"",
            l.field[0]);
    if (l.n < (local ? 4 : 5))
        return err_set(e, ERR_INVALID,
                       "pg_hba: a \"%s\" line has at least %d fields: \"%.60s\"", l.field[0],
                       local ? 4 : 5, text);
    if (!local)
        rv = check_address(&l, &address, e);
    return rv == ERR_OK ? check_method(&l, 3 + address, e) : rv;
}

/* In a list "a,b", quoted or not. */
static bool names(const char *list, const char *wanted)
{
    size_t n = wanted != NULL ? strlen(wanted) : 0;
    for (const char *p = list; p != NULL && n > 0; p = strchr(p, ',')) {
        p += *p == ',';
        const char *name = p + (*p == '"');
        const char *end = name + n;
        if (strncmp(name, wanted, n) == 0 &&
            (*end == '\0' || *end == ',' || (*end == '"' && *p == '"')))
            return true;
    }
    return false;
}

enum err hba_check_roles(const char *line, const struct hba_roles *roles, struct errmsg *e)
{
    struct line l = {.n = 0};
    size_t address = 0;
    enum err rv = split("pg_hba", line, &l, e);
    if (rv != ERR_OK || l.n < 4)
        return rv;
    bool local = strcmp(l.field[0], "local") == 0;
    if (!local)
        rv = check_address(&l, &address, e);
    if (rv != ERR_OK || l.n <= 3 + address || strcmp(l.field[3 + address], "reject") != 0)
        return rv;
    const char *whom = NULL;
    if (local && names(l.field[2], roles->superuser))
        whom = "the agent";
    else if (!local && names(l.field[1], "replication") &&
             (names(l.field[2], "all") || names(l.field[2], roles->replication)))
        whom = "replication";
    else if (!local && names(l.field[1], "postgres") && names(l.field[2], roles->rewind))
        whom = "pg_rewind";
    if (whom == NULL)
        return ERR_OK;
    return err_set(e, ERR_PRECONDITION,
                   "pg_hba: \"%.60s\" would lock %s out, which the cluster cannot do without "
                   "(it has lines of its own before these); name only whom you mean",
                   line, whom);
}

enum err ident_check(const char *text, struct errmsg *e)
{
    struct line l = {.n = 0};
    enum err rv = one_line("pg_ident", text, e);
    if (rv == ERR_OK)
        rv = split("pg_ident", text, &l, e);
    if (rv == ERR_OK && l.n != 0 && l.n != 3)
        return err_set(e, ERR_INVALID,
                       "pg_ident: a line is map-name system-user database-user: \"%.60s\"",
                       text);
    return rv;
}
