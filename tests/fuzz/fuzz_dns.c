/* Any packet: the answer fits, and nothing is answered to an answer. */
#include "agent/dns_answer.h"
#include "base/assert.h"
#include "base/str.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct dns_facts f;
    static uint8_t reply[DNS_STREAM_MAX];
    if (f.zone[0] == '\0') {
        ASSERT(dns_facts_init(&f, "s", "d", "n") == ERR_OK);
        f.stale = false;
        f.members[0] = (struct dns_member){.port = 1, .leads = true};
        str_cut(f.members[0].name, sizeof f.members[0].name, "n");
        str_cut(f.members[0].host, sizeof f.members[0].host, "10.0.0.1");
        f.members_n = 1;
    }
    bool stream = size > 0 && (data[0] & 1) != 0;
    size_t n = dns_answer(&f, data, size, stream, reply);
    ASSERT(n <= (stream ? sizeof reply : (size_t)DNS_EDNS_MAX));
    ASSERT(n == 0 || (size >= 12 && (data[2] & 0x80) == 0 && (reply[2] & 0x80) != 0));
    return 0;
}
