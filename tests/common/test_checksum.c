/* tests/common/test_checksum.c - CRC-32C against RFC 3720 and against its definition bit by bit. */
#include "common/checksum.h"

#include "common/clock.h"
#include "tests/test.h"

typedef uint32_t crc_fn(uint32_t crc, const void *data, size_t n);
static crc_fn *const both[] = {hg_crc32c, hg_crc32c_portable};

static uint32_t bit_by_bit(const unsigned char *p, size_t n)
{
    uint32_t crc = 0xffffffff;
    for (; n; n--) {
        crc ^= *p++;
        for (int i = 0; i < 8; i++)
            crc = crc & 1 ? crc >> 1 ^ 0x82f63b78u : crc >> 1;
    }
    return crc ^ 0xffffffff;
}

/* RFC 3720 appendix B.4, and the usual check value. */
static void known_vectors(void **state)
{
    (void)state;
    unsigned char zeros[32] = {0}, ones[32], up[32], down[32];
    for (int i = 0; i < 32; i++) {
        ones[i] = 0xff;
        up[i] = (unsigned char)i;
        down[i] = (unsigned char)(31 - i);
    }
    for (int k = 0; k < 2; k++) {
        assert_int_equal(both[k](0, "123456789", 9), 0xe3069283);
        assert_int_equal(both[k](0, zeros, 32), 0x8a9136aa);
        assert_int_equal(both[k](0, ones, 32), 0x62a8ab43);
        assert_int_equal(both[k](0, up, 32), 0x46dd794e);
        assert_int_equal(both[k](0, down, 32), 0x113fdb5c);
        assert_int_equal(both[k](0, "", 0), 0);
        assert_int_equal(both[k](77, "", 0), 77);
    }
}

static unsigned char *noise(size_t n)
{
    unsigned char *p = malloc(n);
    assert_non_null(p);
    uint64_t x = 88172645463325252u;
    for (size_t i = 0; i < n; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        p[i] = (unsigned char)x;
    }
    return p;
}

/* Around the lengths where the lanes of the fast path begin, and at odd addresses. */
static void every_length_and_address_agrees_with_the_definition(void **state)
{
    (void)state;
    unsigned char *p = noise(20000);
    for (size_t n = 0; n < 20000 - 8; n += n < 40 ? 1 : n % 2048 > 2040 || n % 2048 < 8 ? 1 : 61)
        for (size_t at = 0; at < (n < 300 ? 8u : 2u); at++) {
            uint32_t want = bit_by_bit(p + at, n);
            for (int k = 0; k < 2; k++)
                if (both[k](0, p + at, n) != want)
                    fail_msg("path %d: %zu bytes at %zu", k, n, at);
        }
    free(p);
}

static void pieces_add_up_to_the_whole(void **state)
{
    (void)state;
    unsigned char *p = noise(30000);
    uint32_t whole = hg_crc32c(0, p, 30000);
    for (size_t cut = 0; cut <= 30000; cut += 1237)
        for (int k = 0; k < 2; k++)
            assert_int_equal(both[k](both[k](0, p, cut), p + cut, 30000 - cut), whole);
    free(p);
}

static void a_flipped_bit_changes_the_sum(void **state)
{
    (void)state;
    unsigned char *p = noise(9000);
    uint32_t whole = hg_crc32c(0, p, 9000);
    for (size_t i = 0; i < 9000; i += 7) {
        p[i] ^= (unsigned char)(1u << i % 8);
        assert_int_not_equal(hg_crc32c(0, p, 9000), whole);
        p[i] ^= (unsigned char)(1u << i % 8);
    }
    free(p);
}

static void both_paths_agree_over_megabytes(void **state)
{
    (void)state;
    enum { N = 1 << 20, ROUNDS = 64 };
    unsigned char *p = noise(N);
    uint32_t crc[2] = {0, 0};
    for (int k = 0; k < 2; k++) {
        int64_t t0 = hg_now_ns();
        for (int i = 0; i < ROUNDS; i++)
            crc[k] = both[k](crc[k], p, N);
        printf("# %s: %.1f GB/s\n", k ? "tables" : "as chosen",
               ROUNDS * (N / 1e9) / ((double)(hg_now_ns() - t0) / 1e9));
    }
    assert_int_equal(crc[0], crc[1]);
    free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_vectors),
        cmocka_unit_test(every_length_and_address_agrees_with_the_definition),
        cmocka_unit_test(pieces_add_up_to_the_whole),
        cmocka_unit_test(a_flipped_bit_changes_the_sum),
        cmocka_unit_test(both_paths_agree_over_megabytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
