/* tests/common/test_sha256.c - SHA-256 against the examples of NIST (FIPS 180-4 and CAVP). */
#include "common/sha256.h"

#include "tests/test.h"

static void hex_of(const uint8_t digest[HG_SHA256_BYTES], char out[65])
{
    for (int i = 0; i < HG_SHA256_BYTES; i++)
        snprintf(out + 2 * i, 3, "%02x", digest[i]);
}

static void check(const void *data, size_t n, const char *expected)
{
    uint8_t digest[HG_SHA256_BYTES];
    char hex[65];
    hg_sha256(data, n, digest);
    hex_of(digest, hex);
    assert_string_equal(hex, expected);
}

static void digests_of_the_standard_examples(void **state)
{
    (void)state;
    static const char two[] = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    static const char four[] = "abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmn"
                               "hijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu";
    static const uint8_t bd = 0xbd, c98c8e55[4] = {0xc9, 0x8c, 0x8e, 0x55};
    check("", 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    check("abc", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    check(two, 56, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    check(four, 112, "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1");
    check(&bd, 1, "68325720aabd7c82f30f554b313d0570c95accbb7dc4b5aae11204c08ffe732b");
    check(c98c8e55, 4, "7abc22c0ae5af26ce93dbb94433a0e0b2e119d014f8e7f65bd56c61ccccd9504");
}

/* Around the ends of blocks and of their padding. */
static void digests_of_zeros(void **state)
{
    (void)state;
    static const struct {
        size_t n;
        const char *digest;
    } rows[] = {
        {55, "02779466cdec163811d078815c633f21901413081449002f24aa3e80f0b88ef7"},
        {56, "d4817aa5497628e7c77e6b606107042bbba3130888c5f47a375e6179be789fbb"},
        {57, "65a16cb7861335d5ace3c60718b5052e44660726da4cd13bb745381b235a1785"},
        {64, "f5a5fd42d16a20302798ef6ed309979b43003d2320d9f0e8ea9831a92759fb4b"},
        {1000, "541b3e9daa09b20bf85fa273e5cbd3e80185aa4ec298e765db87742b70138a53"},
        {1000000, "d29751f2649b32ff572b5e0a9f541ea660a50f94ff0beedfb0b692b924cc8025"},
    };
    uint8_t *zeros = calloc(1000000, 1);
    assert_non_null(zeros);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        check(zeros, rows[i].n, rows[i].digest);
    free(zeros);
}

static void pieces_give_the_digest_of_the_whole(void **state)
{
    (void)state;
    struct hg_sha256 s;
    uint8_t a[HG_SHA256_BYTES], b[HG_SHA256_BYTES], data[300];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 7);
    hg_sha256(data, sizeof data, a);
    for (size_t piece = 1; piece < 130; piece++) {
        hg_sha256_init(&s);
        for (size_t at = 0; at < sizeof data; at += piece)
            hg_sha256_update(&s, data + at, at + piece < sizeof data ? piece : sizeof data - at);
        hg_sha256_final(&s, b);
        assert_memory_equal(a, b, sizeof a);
    }
}

/* RFC 4231, test cases 1, 2, 3 and 6 (a key longer than a block). */
static void hmac_of_the_rfc(void **state)
{
    (void)state;
    uint8_t key_1[20], key_3[20], data_3[50], key_6[131];
    memset(key_1, 0x0b, sizeof key_1);
    memset(key_3, 0xaa, sizeof key_3);
    memset(data_3, 0xdd, sizeof data_3);
    memset(key_6, 0xaa, sizeof key_6);
    static const char data_2[] = "what do ya want for nothing?",
                      data_6[] = "Test Using Larger Than Block-Size Key - Hash Key First";
    const struct {
        const void *key, *data;
        size_t n_key, n;
        const char *expected;
    } rows[] = {
        {key_1, "Hi There", 20, 8,
         "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
        {"Jefe", data_2, 4, 28, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
        {key_3, data_3, 20, 50, "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"},
        {key_6, data_6, 131, 54,
         "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct hg_hmac h;
        uint8_t mac[HG_SHA256_BYTES];
        char hex[65], same[65];
        hg_hmac_init(&h, rows[i].key, rows[i].n_key);
        for (size_t k = 0; k < rows[i].n; k++) /* in pieces */
            hg_hmac_update(&h, (const char *)rows[i].data + k, 1);
        hg_hmac_final(&h, mac);
        hex_of(mac, hex);
        assert_string_equal(hex, rows[i].expected);
        hg_hex(mac, sizeof mac, same);
        assert_string_equal(same, hex);
    }
}

/* Both ways give the same for every length around blocks, in pieces of any size. */
static void instructions_and_plain_code_agree(void **state)
{
    (void)state;
    uint8_t data[300], plain[HG_SHA256_BYTES], fast[HG_SHA256_BYTES];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 151 + (i >> 3));
    if (!hg_sha256_use_instructions(true))
        HG_TEST_SKIP("this processor has no SHA instructions");
    for (size_t n = 0; n <= sizeof data; n++) {
        hg_sha256_use_instructions(false);
        hg_sha256(data, n, plain);
        hg_sha256_use_instructions(true);
        hg_sha256(data, n, fast);
        assert_memory_equal(plain, fast, sizeof plain);
        for (size_t piece = 1; piece < 70; piece += 23) {
            struct hg_sha256 s;
            hg_sha256_init(&s);
            for (size_t at = 0; at < n; at += piece)
                hg_sha256_update(&s, data + at, n - at < piece ? n - at : piece);
            hg_sha256_final(&s, fast);
            assert_memory_equal(plain, fast, sizeof plain);
        }
    }
}

static int plain_code(void **state)
{
    (void)state;
    return hg_sha256_use_instructions(false) ? -1 : 0;
}

static int instructions(void **state)
{
    (void)state;
    hg_sha256_use_instructions(true);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digests_of_the_standard_examples),
        cmocka_unit_test(digests_of_zeros),
        cmocka_unit_test(pieces_give_the_digest_of_the_whole),
        cmocka_unit_test(hmac_of_the_rfc),
        cmocka_unit_test(instructions_and_plain_code_agree),
        cmocka_unit_test_setup_teardown(digests_of_the_standard_examples, plain_code, instructions),
        cmocka_unit_test_setup_teardown(digests_of_zeros, plain_code, instructions),
        cmocka_unit_test_setup_teardown(pieces_give_the_digest_of_the_whole, plain_code,
                                        instructions),
        cmocka_unit_test_setup_teardown(hmac_of_the_rfc, plain_code, instructions),
    };
    return cmocka_run_group_tests_name("common/sha256", tests, NULL, NULL);
}
