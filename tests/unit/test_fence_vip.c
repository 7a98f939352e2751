/* What the neighbours are told of a virtual address, byte for byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sys/socket.h>

#include "agent/fence/vip.h"
#include "base/str.h"

static const uint8_t mac[6] = {2, 0, 0, 0, 0, 1};

static void frame_is(const char *address, bool request, const char *want)
{
    struct vip_address a;
    uint8_t frame[VIP_FRAME_MAX];
    char got[2 * VIP_FRAME_MAX + 1];
    assert_int_equal(vip_parse(address, &a), ERR_OK);
    size_t n = vip_frame(&a, mac, request, frame);
    hex_encode(got, frame, n);
    assert_string_equal(got, want);
}

static void ipv4_is_announced_by_arp_of_both_kinds(void **state)
{
    (void)state;
    frame_is("10.0.0.100/24", true,
             "ffffffffffff020000000001"
             "08060001080006040001"
             "0200000000010a000064"
             "0000000000000a000064"
             "000000000000000000000000000000000000");
    frame_is("10.0.0.100/24", false,
             "ffffffffffff020000000001"
             "08060001080006040002"
             "0200000000010a000064"
             "ffffffffffff0a000064"
             "000000000000000000000000000000000000");
}

/* The checksum was worked out by hand: RFC 4443, 2.3. */
static void ipv6_is_announced_by_an_unsolicited_advertisement(void **state)
{
    (void)state;
    struct vip_address a;
    uint8_t f[VIP_FRAME_MAX];
    unsigned sum = 32 + 58;
    assert_int_equal(vip_parse("fd77::100/64", &a), ERR_OK);
    assert_int_equal(vip_frame(&a, mac, true, f), 14 + 40 + 32);
    assert_memory_equal(f, ((uint8_t[]){0x33, 0x33, 0, 0, 0, 1}), 6);
    assert_int_equal(f[54], 136);
    assert_int_equal(f[58], 0x20);
    for (size_t i = 22; i < 86; i += 2) /* addresses and message, the checksum among them */
        sum += (unsigned)f[i] << 8 | f[i + 1];
    while (sum >> 16 != 0)
        sum = (sum & 0xffff) + (sum >> 16);
    assert_int_equal(sum, 0xffff);
}

static void addresses_need_bits(void **state)
{
    (void)state;
    static const char *const bad[] = {"",           "10.0.0.1", "10.0.0.1/",   "10.0.0.1/33",
                                      "10.0.0/24",  "fd77::1",  "fd77::1/129", "fd77:::1/64",
                                      "10.0.0.1/0", "host/24",  "10.0.0.1/x"};
    struct vip_address a;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(vip_parse(bad[i], &a), ERR_INVALID);
    assert_int_equal(vip_parse("fd77::1/128", &a), ERR_OK);
    assert_true(a.family == AF_INET6 && a.bits == 128);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ipv4_is_announced_by_arp_of_both_kinds),
        cmocka_unit_test(ipv6_is_announced_by_an_unsolicited_advertisement),
        cmocka_unit_test(addresses_need_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
