/* What the DNS server answers, as ldns reads it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ldns/ldns.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/dns_answer.h"
#include "base/str.h"

static struct dns_facts facts;

static void add(const char *name, const char *host, bool leads, bool reads, bool is_sync)
{
    struct dns_member *m = &facts.members[facts.members_n++];
    *m = (struct dns_member){.port = 5432, .leads = leads, .reads = reads, .is_sync = is_sync};
    str_cut(m->name, sizeof m->name, name);
    str_cut(m->host, sizeof m->host, host);
}

static void begin(void)
{
    assert_int_equal(dns_facts_init(&facts, "Demo", "db.example", "n1"), ERR_OK);
    facts.stale = false;
    add("n1", "10.0.0.1", true, false, false);
    add("n2", "10.0.0.2", false, true, true);
    add("n3", "fd00::3", false, true, false);
    add("n4", "host.example", false, false, false);
}

/* "RCODE: answers, blanks for tabs, ; between" */
static const char *ask_as(const char *name, ldns_rr_type type, ldns_rr_class class,
                          uint16_t edns, bool stream)
{
    static char text[32768];
    static uint8_t reply[DNS_STREAM_MAX];
    uint8_t *wire = NULL;
    size_t n = 0;
    ldns_pkt *q = ldns_pkt_query_new(ldns_dname_new_frm_str(name), type, class, LDNS_RD);
    ldns_pkt *p = NULL;
    ldns_pkt_set_id(q, 4711);
    if (edns > 0)
        ldns_pkt_set_edns_udp_size(q, edns);
    assert_int_equal(ldns_pkt2wire(&wire, q, &n), LDNS_STATUS_OK);
    size_t size = dns_answer(&facts, wire, n, stream, reply);
    free(wire);
    ldns_pkt_free(q);
    if (size == 0)
        return "silence";
    assert_true(stream || size <= (edns > 0 ? (size_t)edns : (size_t)DNS_PLAIN_MAX));
    assert_int_equal(ldns_wire2pkt(&p, reply, size), LDNS_STATUS_OK);
    assert_true(ldns_pkt_qr(p) && ldns_pkt_id(p) == 4711);
    (void)snprintf(text, sizeof text, "%d%s:", (int)ldns_pkt_get_rcode(p),
                   ldns_pkt_tc(p) ? " TC" : "");
    for (size_t i = 0; i < ldns_rr_list_rr_count(ldns_pkt_answer(p)); i++) {
        char *rr = ldns_rr2str(ldns_rr_list_rr(ldns_pkt_answer(p), i));
        for (char *c = rr; *c != '\0'; c++)
            *c = *c == '\t' ? ' ' : *c == '\n' ? ';' : *c;
        (void)snprintf(text + strlen(text), sizeof text - strlen(text), " %s", rr);
        free(rr);
    }
    if (ldns_pkt_nscount(p) > 0)
        (void)snprintf(text + strlen(text), sizeof text - strlen(text), " SOA");
    ldns_pkt_free(p);
    return text;
}

static const char *ask(const char *name, ldns_rr_type type)
{
    return ask_as(name, type, LDNS_RR_CLASS_IN, 0, false);
}

static void every_name_has_its_records(void **state)
{
    (void)state;
    begin();
    static const struct {
        const char *name;
        ldns_rr_type type;
        const char *want;
    } rows[] = {
        {"primary.demo.db.example", LDNS_RR_TYPE_A,
         "0: primary.demo.db.example. 1 IN A 10.0.0.1;"},
        {"PriMary.Demo.DB.example", LDNS_RR_TYPE_A,
         "0: PriMary.Demo.DB.example. 1 IN A 10.0.0.1;"},
        {"replica.demo.db.example", LDNS_RR_TYPE_A,
         "0: replica.demo.db.example. 1 IN A 10.0.0.2;"},
        {"replica.demo.db.example", LDNS_RR_TYPE_AAAA,
         "0: replica.demo.db.example. 1 IN AAAA fd00::3;"},
        {"sync.demo.db.example", LDNS_RR_TYPE_A, "0: sync.demo.db.example. 1 IN A 10.0.0.2;"},
        {"n4.demo.db.example", LDNS_RR_TYPE_A,
         "0: n4.demo.db.example. 1 IN CNAME host.example.;"},
        {"n3.demo.db.example", LDNS_RR_TYPE_A, "0: SOA"},
        {"primary.demo.db.example", LDNS_RR_TYPE_SRV,
         "0: primary.demo.db.example. 1 IN SRV 0 0 5432 n1.demo.db.example.;"},
        {"_postgresql._tcp.primary.demo.db.example", LDNS_RR_TYPE_SRV,
         "0: _postgresql._tcp.primary.demo.db.example. 1 IN SRV 0 0 5432 n1.demo.db.example.;"},
        {"_postgresql._tcp.primary.demo.db.example", LDNS_RR_TYPE_A, "0: SOA"},
        {"_postgresql._tcp.demo.db.example", LDNS_RR_TYPE_SRV, "3: SOA"},
        {"demo.db.example", LDNS_RR_TYPE_SOA,
         "0: demo.db.example. 1 IN SOA n1.demo.db.example. hostmaster.demo.db.example. 1 60 60 "
         "60 1;"},
        {"demo.db.example", LDNS_RR_TYPE_A, "0: SOA"},
        {"primary.demo.db.example", LDNS_RR_TYPE_TXT, "0: SOA"},
        {"n9.demo.db.example", LDNS_RR_TYPE_A, "3: SOA"},
        {"a.primary.demo.db.example", LDNS_RR_TYPE_A, "3: SOA"},
        {"primary.other.db.example", LDNS_RR_TYPE_A, "5:"},
        {"xdemo.db.example", LDNS_RR_TYPE_A, "5:"},
        {".", LDNS_RR_TYPE_NS, "5:"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        assert_string_equal(ask(rows[i].name, rows[i].type), rows[i].want);
    assert_string_equal(
        ask_as("primary.demo.db.example", LDNS_RR_TYPE_A, LDNS_RR_CLASS_CH, 0, false), "5:");
}

static void without_a_leader_there_is_no_primary_and_a_stale_copy_says_nothing(void **state)
{
    (void)state;
    begin();
    facts.members[0].leads = false;
    assert_string_equal(ask("primary.demo.db.example", LDNS_RR_TYPE_A), "0: SOA");
    facts.stale = true;
    assert_string_equal(ask("primary.demo.db.example", LDNS_RR_TYPE_A), "2:");
}

/* Until there are n. */
static void add_replicas(size_t n)
{
    while (facts.members_n < n) {
        char name[64];
        (void)snprintf(name, sizeof name, "a-node-with-a-rather-long-name-%02zu",
                       facts.members_n);
        add(name, "10.0.0.1", false, true, false);
    }
}

static void what_does_not_fit_is_cut_and_says_so(void **state)
{
    (void)state;
    begin();
    facts.members_n = 0;
    add_replicas(16);
    assert_string_equal(ask("replica.demo.db.example", LDNS_RR_TYPE_SRV), "0 TC:");
    const char *large = ask_as("replica.demo.db.example", LDNS_RR_TYPE_SRV, LDNS_RR_CLASS_IN,
                               DNS_EDNS_MAX, false);
    assert_non_null(strstr(large, "0: replica"));
    add_replicas(VIEW_MEMBERS);
    large = ask_as("replica.demo.db.example", LDNS_RR_TYPE_SRV, LDNS_RR_CLASS_IN, DNS_EDNS_MAX,
                   false);
    assert_string_equal(large, "0 TC:");
    const char *all =
        ask_as("replica.demo.db.example", LDNS_RR_TYPE_SRV, LDNS_RR_CLASS_IN, 0, true);
    size_t n = 0;
    for (const char *p = all; (p = strstr(p, " IN SRV ")) != NULL; p++)
        n++;
    assert_int_equal(n, VIEW_MEMBERS); /* a stream has room for all */
    assert_null(strstr(all, "TC"));
}

static void noise_gets_no_answer(void **state)
{
    (void)state;
    begin();
    static uint8_t reply[DNS_STREAM_MAX];
    uint8_t noise[64] = {0};
    assert_int_equal(dns_answer(&facts, noise, 0, false, reply), 0);
    assert_int_equal(dns_answer(&facts, noise, 11, false, reply), 0);
    noise[2] = 0x80; /* an answer */
    assert_int_equal(dns_answer(&facts, noise, 12, false, reply), 0);
    memset(noise, 0xff, sizeof noise);
    assert_int_equal(dns_answer(&facts, noise, sizeof noise, false, reply), 0);
}

static void a_leader_whose_lease_has_ended_knows_nothing(void **state)
{
    struct view v = {.now_ms = 1000,
                     .config.ttl_ms = 5000,
                     .has_leader = true,
                     .leader = {.name = "n1", .incarnation = "i1"},
                     .leader_lease = 7,
                     .lease = 7,
                     .deadline_ms = 4500,
                     .armed = true,
                     .self = "n1",
                     .pg.incarnation = "i1"};
    (void)state;
    assert_int_equal(dns_fresh_until(&v), 4500);
    v.armed = false; /* a pause: no fence enforces it */
    assert_int_equal(dns_fresh_until(&v), 6000);
    v.armed = true;
    str_cut(v.self, sizeof v.self, "n2");
    assert_int_equal(dns_fresh_until(&v), 6000);
}

static void a_zone_needs_names(void **state)
{
    (void)state;
    struct dns_facts f;
    char label[80];
    memset(label, 'a', sizeof label);
    label[sizeof label - 1] = '\0';
    assert_int_equal(dns_facts_init(&f, "demo", "", "n1"), ERR_INVALID);
    assert_int_equal(dns_facts_init(&f, "demo", label, "n1"), ERR_INVALID);
    assert_int_equal(dns_facts_init(&f, "demo", "x.y.", "n1"), ERR_OK);
    assert_string_equal(f.zone, "demo.x.y.");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_name_has_its_records),
        cmocka_unit_test(without_a_leader_there_is_no_primary_and_a_stale_copy_says_nothing),
        cmocka_unit_test(what_does_not_fit_is_cut_and_says_so),
        cmocka_unit_test(noise_gets_no_answer),
        cmocka_unit_test(a_leader_whose_lease_has_ended_knows_nothing),
        cmocka_unit_test(a_zone_needs_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
