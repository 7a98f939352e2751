#include "agent/dns_answer.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <inttypes.h>
#include <ldns/ldns.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "base/assert.h"
#include "base/str.h"

enum { OWNER_MAX = 300, LINE_MAX_BYTES = 1024 };

/* ---- facts ---- */

enum err dns_facts_init(struct dns_facts *f, const char *scope, const char *domain,
                        const char *self)
{
    *f = (struct dns_facts){.stale = true};
    str_cut(f->self, sizeof f->self, self);
    size_t n = strlen(domain);
    enum err rv = str_format(f->zone, sizeof f->zone, "%s.%s%s", scope, domain,
                             n > 0 && domain[n - 1] == '.' ? "" : ".");
    for (char *p = f->zone; rv == ERR_OK && *p != '\0'; p++)
        *p = (char)tolower((unsigned char)*p);
    ldns_rdf *name = rv == ERR_OK ? ldns_dname_new_frm_str(f->zone) : NULL;
    bool ok = name != NULL && n > 0;
    ldns_rdf_deep_free(name);
    return ok ? ERR_OK : ERR_INVALID;
}

static bool is_sync(const struct view *v, const struct member_rec *m)
{
    return view_record_mode(v) != SYNC_OFF && view_in_v(v, m->incarnation);
}

void dns_facts_take(struct dns_facts *f, const struct view *v)
{
    f->stale = !v->dcs_ready;
    f->members_n = 0;
    for (size_t i = 0; i < v->members_n; i++) {
        const struct member_rec *m = &v->members[i];
        if (m->conn_port == 0)
            continue;
        struct dns_member *to = &f->members[f->members_n++];
        bool leads = v->has_leader && strcmp(v->leader.name, m->name) == 0;
        *to = (struct dns_member){.port = m->conn_port,
                                  .leads = leads && strcmp(v->leader.state, "running") == 0,
                                  .reads = !leads && !m->noloadbalance &&
                                           strcmp(m->state, "streaming") == 0,
                                  .is_sync = !leads && is_sync(v, m)};
        str_cut(to->name, sizeof to->name, m->name);
        str_cut(to->host, sizeof to->host, m->conn_host);
    }
}

uint64_t dns_fresh_until(const struct view *v)
{
    uint64_t looked_ms = v->now_ms + v->config.ttl_ms;
    return view_is_leader(v) && v->armed ? MIN(looked_ms, v->deadline_ms) : looked_ms;
}

/* ---- names ---- */

/* What stands before the zone, without the dot; "" for the zone itself. False: it is outside. */
static bool relative(const struct dns_facts *f, const char *owner, char ret[static OWNER_MAX])
{
    size_t n = strlen(owner), z = strlen(f->zone);
    ret[0] = '\0';
    if (n < z || strcasecmp(owner + n - z, f->zone) != 0)
        return false;
    if (n == z)
        return true;
    return owner[n - z - 1] == '.' &&
           str_copy_slice(ret, OWNER_MAX, slice_of(owner, n - z - 1)) == ERR_OK;
}

static bool means(const struct dns_member *m, const char *name)
{
    if (strcasecmp(name, "primary") == 0)
        return m->leads;
    if (strcasecmp(name, "replica") == 0)
        return m->reads;
    if (strcasecmp(name, "sync") == 0)
        return m->is_sync;
    return strcasecmp(name, m->name) == 0;
}

static bool exists(const struct dns_facts *f, const char *name)
{
    static const char *const always[] = {"", "primary", "replica", "sync"};
    for (size_t i = 0; i < ARRAY_LEN(always); i++)
        if (strcasecmp(name, always[i]) == 0)
            return true;
    for (size_t i = 0; i < f->members_n; i++)
        if (strcasecmp(name, f->members[i].name) == 0)
            return true;
    return false;
}

/* ---- records ---- */

/* Made of text; what ldns cannot make a record of (a host that is no name) is left out. */
static void push(ldns_pkt *p, ldns_pkt_section section, const char *line)
{
    ldns_rr *rr = NULL;
    if (ldns_rr_new_frm_str(&rr, line, 1, NULL, NULL) == LDNS_STATUS_OK)
        (void)ldns_pkt_push_rr(p, section, rr);
}

static bool is_v4(const char *host)
{
    uint8_t bytes[4];
    return inet_pton(AF_INET, host, bytes) == 1;
}

static bool is_v6(const char *host)
{
    uint8_t bytes[16];
    return inet_pton(AF_INET6, host, bytes) == 1;
}

static void push_address(ldns_pkt *p, ldns_pkt_section section, const char *owner,
                         const struct dns_member *m, ldns_rr_type type)
{
    char line[LINE_MAX_BYTES];
    bool v4 = is_v4(m->host);
    bool v6 = is_v6(m->host);
    size_t n = strlen(m->host);
    if ((v4 && type == LDNS_RR_TYPE_AAAA) || (v6 && type == LDNS_RR_TYPE_A))
        return;
    (void)snprintf(line, sizeof line, "%s 1 IN %s %s%s", owner,
                   v4   ? "A"
                   : v6 ? "AAAA"
                        : "CNAME",
                   m->host, v4 || v6 || (n > 0 && m->host[n - 1] == '.') ? "" : ".");
    push(p, section, line);
}

static void push_service(const struct dns_facts *f, ldns_pkt *p, const char *owner,
                         const struct dns_member *m)
{
    char line[LINE_MAX_BYTES];
    char target[OWNER_MAX];
    (void)snprintf(target, sizeof target, "%s.%s", m->name, f->zone);
    (void)snprintf(line, sizeof line, "%s 1 IN SRV 0 0 %" PRIu64 " %s", owner, m->port, target);
    push(p, LDNS_SECTION_ANSWER, line);
    push_address(p, LDNS_SECTION_ADDITIONAL, target, m,
                 is_v6(m->host) ? LDNS_RR_TYPE_AAAA : LDNS_RR_TYPE_A);
}

static void push_soa(const struct dns_facts *f, ldns_pkt *p, ldns_pkt_section section)
{
    char line[LINE_MAX_BYTES];
    (void)snprintf(line, sizeof line, "%s 1 IN SOA %s.%s hostmaster.%s 1 60 60 60 1", f->zone,
                   f->self, f->zone, f->zone);
    push(p, section, line);
}

static void push_zone(const struct dns_facts *f, ldns_pkt *p, ldns_rr_type type)
{
    char line[LINE_MAX_BYTES];
    if (type == LDNS_RR_TYPE_SOA)
        push_soa(f, p, LDNS_SECTION_ANSWER);
    for (size_t i = 0; type == LDNS_RR_TYPE_NS && i < f->members_n; i++) {
        (void)snprintf(line, sizeof line, "%s 1 IN NS %s.%s", f->zone, f->members[i].name,
                       f->zone);
        push(p, LDNS_SECTION_ANSWER, line);
    }
}

/* ---- the reply ---- */

static void answer_name(const struct dns_facts *f, ldns_pkt *p, const char *owner,
                        ldns_rr_type type)
{
    static const char service[] = "_postgresql._tcp.";
    char name[OWNER_MAX] = "";
    if (!relative(f, owner, name)) {
        ldns_pkt_set_rcode(p, LDNS_RCODE_REFUSED);
        return;
    }
    ldns_pkt_set_aa(p, true);
    if (f->stale) {
        ldns_pkt_set_aa(p, false);
        ldns_pkt_set_rcode(p, LDNS_RCODE_SERVFAIL);
        return;
    }
    bool below = strncasecmp(name, service, strlen(service)) == 0;
    const char *what = below ? name + strlen(service) : name;
    if (!exists(f, what) || (below && what[0] == '\0')) {
        ldns_pkt_set_rcode(p, LDNS_RCODE_NXDOMAIN);
    } else if (what[0] == '\0') {
        push_zone(f, p, type);
    }
    bool address = !below && (type == LDNS_RR_TYPE_A || type == LDNS_RR_TYPE_AAAA);
    for (size_t i = 0; what[0] != '\0' && i < f->members_n; i++) {
        if (means(&f->members[i], what) && address)
            push_address(p, LDNS_SECTION_ANSWER, owner, &f->members[i], type);
        if (means(&f->members[i], what) && type == LDNS_RR_TYPE_SRV)
            push_service(f, p, owner, &f->members[i]);
    }
    if (ldns_pkt_ancount(p) == 0)
        push_soa(f, p, LDNS_SECTION_AUTHORITY);
}

static ldns_pkt *reply_to(const struct dns_facts *f, const ldns_pkt *q)
{
    ldns_pkt *p = ldns_pkt_new();
    ldns_rr_list *questions = ldns_pkt_question(q);
    ASSERT(p != NULL);
    ldns_pkt_set_id(p, ldns_pkt_id(q));
    ldns_pkt_set_qr(p, true);
    ldns_pkt_set_rd(p, ldns_pkt_rd(q));
    ldns_pkt_set_opcode(p, ldns_pkt_get_opcode(q));
    if (ldns_pkt_get_opcode(q) != LDNS_PACKET_QUERY) {
        ldns_pkt_set_rcode(p, LDNS_RCODE_NOTIMPL);
        return p;
    }
    if (ldns_rr_list_rr_count(questions) != 1) {
        ldns_pkt_set_rcode(p, LDNS_RCODE_FORMERR);
        return p;
    }
    ldns_rr *question = ldns_rr_list_rr(questions, 0);
    (void)ldns_pkt_push_rr(p, LDNS_SECTION_QUESTION, ldns_rr_clone(question));
    char *owner = ldns_rdf2str(ldns_rr_owner(question));
    if (owner == NULL || ldns_rr_get_class(question) != LDNS_RR_CLASS_IN)
        ldns_pkt_set_rcode(p, LDNS_RCODE_REFUSED);
    else
        answer_name(f, p, owner, ldns_rr_get_type(question));
    free(owner);
    return p;
}

/* Cut to the size the client takes: what is additional first, then all of it, with TC set. */
static size_t encode(ldns_pkt *p, size_t limit, uint8_t *ret)
{
    for (int pass = 0; pass < 3; pass++) {
        uint8_t *wire = NULL;
        size_t n = 0;
        bool ok = ldns_pkt2wire(&wire, p, &n) == LDNS_STATUS_OK && n <= limit;
        if (ok)
            memcpy(ret, wire, n);
        free(wire);
        if (ok)
            return n;
        ldns_rr_list *gone = pass == 0 ? ldns_pkt_additional(p) : ldns_pkt_answer(p);
        while (ldns_rr_list_rr_count(gone) > 0)
            ldns_rr_free(ldns_rr_list_pop_rr(gone));
        ldns_pkt_set_section_count(p, pass == 0 ? LDNS_SECTION_ADDITIONAL : LDNS_SECTION_ANSWER,
                                   0);
        ldns_pkt_set_tc(p, pass > 0);
    }
    return 0;
}

size_t dns_answer(const struct dns_facts *f, const uint8_t *query, size_t n, bool stream,
                  uint8_t ret[static DNS_STREAM_MAX])
{
    ldns_pkt *q = NULL;
    if (n < LDNS_HEADER_SIZE || ldns_wire2pkt(&q, query, n) != LDNS_STATUS_OK)
        return 0; /* noise: an answer would only help who forges senders */
    size_t size = 0;
    if (!ldns_pkt_qr(q)) {
        bool edns = ldns_pkt_edns(q);
        size_t limit = edns ? ldns_pkt_edns_udp_size(q) : DNS_PLAIN_MAX;
        ldns_pkt *p = reply_to(f, q);
        if (edns)
            ldns_pkt_set_edns_udp_size(p, DNS_EDNS_MAX);
        limit = MAX(MIN(limit, (size_t)DNS_EDNS_MAX), (size_t)DNS_PLAIN_MAX);
        size = encode(p, stream ? (size_t)DNS_STREAM_MAX : limit, ret);
        ldns_pkt_free(p);
    }
    ldns_pkt_free(q);
    return size;
}
