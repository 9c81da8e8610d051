/* full-size-fill FILE SEED < jobs - write random tensors into a file that has its size already.
 *
 * A job is a line "OFFSET COUNT TYPE MEAN DEVIATION", TYPE bf16 or f32; the answer to each is a
 * line with the CRC-32 (that of zip) of the bytes written. Values are normal, cut at 3.5
 * deviations, one of 4096 quantiles each; they depend on SEED, the job's line number and the place
 * in the tensor, and on nothing else. Memory: a block of 1 MiB; of the page cache, 128 MiB: what
 * was written does not drive out what others have there. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { QUANTILES = 4096, BLOCK = 1 << 18 /* values */, AT_ONCE = 64 << 20 };

static uint32_t crc_table[8][256];

static _Noreturn void give_up(const char *what, const char *why)
{
    fprintf(stderr, "full-size-fill: %s: %s\n", what, why);
    exit(74);
}

/* ---- CRC-32, eight bytes at a time ------------------------------------------------------------
 */

static void make_crc_tables(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++)
            c = c & 1 ? 0xedb88320u ^ c >> 1 : c >> 1;
        crc_table[0][i] = c;
    }
    for (int t = 1; t < 8; t++)
        for (uint32_t i = 0; i < 256; i++)
            crc_table[t][i] = crc_table[0][crc_table[t - 1][i] & 255] ^ crc_table[t - 1][i] >> 8;
}

static uint32_t crc32_of(uint32_t crc, const unsigned char *p, size_t n)
{
    crc = ~crc;
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t v;
        memcpy(&v, p, 8);
        v ^= crc;
        crc = 0;
        for (int k = 0; k < 8; k++)
            crc ^= crc_table[7 - k][v >> 8 * k & 255];
    }
    while (n--)
        crc = crc_table[0][(crc ^ *p++) & 255] ^ crc >> 8;
    return ~crc;
}

/* ---- values -----------------------------------------------------------------------------------
 */

/* x with Phi(x) = p, by bisection: the table is made once, and any machine makes the same. */
static double quantile(double p)
{
    double lo = -3.5, hi = 3.5;
    for (int i = 0; i < 60; i++) {
        double mid = (lo + hi) / 2;
        if (0.5 * erfc(-mid / sqrt(2)) < p)
            lo = mid;
        else
            hi = mid;
    }
    return (lo + hi) / 2;
}

static uint32_t bits_of(float x)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}

static uint64_t mix(uint64_t z) /* splitmix64 */
{
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

/* `at` is a multiple of 4: one draw makes four values. */
static void fill_bf16(const uint16_t *table, uint64_t key, uint64_t at, size_t n, uint16_t *out)
{
    for (size_t i = 0; i < n; i += 4) {
        uint64_t r = mix(key + (at + i) / 4 * 0x9e3779b97f4a7c15ull);
        for (int k = 0; k < 4; k++)
            out[i + (size_t)k] = table[r >> 16 * k & (QUANTILES - 1)];
    }
}

static void fill_f32(const uint32_t *table, uint64_t key, uint64_t at, size_t n, uint32_t *out)
{
    for (size_t i = 0; i < n; i += 4) {
        uint64_t r = mix(key + (at + i) / 4 * 0x9e3779b97f4a7c15ull);
        for (int k = 0; k < 4; k++)
            out[i + (size_t)k] = table[r >> 16 * k & (QUANTILES - 1)];
    }
}

static void write_at(int fd, const unsigned char *p, size_t n, uint64_t offset)
{
    while (n) {
        ssize_t k = pwrite(fd, p, n, (off_t)offset);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            give_up("write", strerror(errno));
        p += k;
        n -= (size_t)k;
        offset += (uint64_t)k;
    }
}

/* Send bytes [first, end) to the disk, and give up the pages of the 64 MiB before them. */
static void send(int fd, uint64_t first, uint64_t end)
{
    uint64_t before = first < AT_ONCE ? 0 : first - AT_ONCE;
    sync_file_range(fd, (off_t)first, (off_t)(end - first), SYNC_FILE_RANGE_WRITE);
    if (before == first) /* a length of 0 would mean the whole file */
        return;
    sync_file_range(fd, (off_t)before, (off_t)(first - before),
                    SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
                        SYNC_FILE_RANGE_WAIT_AFTER);
    posix_fadvise(fd, (off_t)before, (off_t)(first - before), POSIX_FADV_DONTNEED);
}

static void write_block(int fd, const unsigned char *p, size_t n, uint64_t offset)
{
    static uint64_t sent;
    write_at(fd, p, n, offset);
    if (offset + n - sent < AT_ONCE)
        return;
    send(fd, sent, offset + n);
    sent = offset + n;
}

struct job {
    uint64_t offset, count;
    size_t bytes; /* of a value */
    double mean, deviation;
};

static uint32_t run(int fd, const struct job *j, uint64_t key, const double *normal)
{
    static uint16_t narrow[QUANTILES];
    static uint32_t wide[QUANTILES];
    static uint32_t block[BLOCK + 4];
    uint32_t crc = 0;
    for (int i = 0; i < QUANTILES; i++) {
        wide[i] = bits_of((float)(j->mean + j->deviation * normal[i]));
        narrow[i] = (uint16_t)((wide[i] + 0x7fff + (wide[i] >> 16 & 1)) >> 16);
    }
    for (uint64_t at = 0; at < j->count; at += BLOCK) {
        size_t n = j->count - at < BLOCK ? (size_t)(j->count - at) : BLOCK;
        if (j->bytes == 2)
            fill_bf16(narrow, key, at, n, (uint16_t *)(void *)block);
        else
            fill_f32(wide, key, at, n, block);
        crc = crc32_of(crc, (const unsigned char *)block, n * j->bytes);
        write_block(fd, (const unsigned char *)block, n * j->bytes, j->offset + at * j->bytes);
    }
    return crc;
}

int main(int argc, char **argv)
{
    static double normal[QUANTILES];
    char line[256], type[8];
    struct job j;
    if (argc != 3) {
        fprintf(stderr, "usage: full-size-fill FILE SEED < jobs\n");
        return 64;
    }
    uint64_t seed = strtoull(argv[2], NULL, 10);
    int fd = open(argv[1], O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        give_up(argv[1], strerror(errno));
    make_crc_tables();
    for (int i = 0; i < QUANTILES; i++)
        normal[i] = quantile((i + 0.5) / QUANTILES);
    for (uint64_t n = 0; fgets(line, sizeof line, stdin); n++) {
        if (sscanf(line, "%" SCNu64 " %" SCNu64 " %7s %lf %lf", &j.offset, &j.count, type, &j.mean,
                   &j.deviation) != 5)
            give_up("job", line);
        j.bytes = strcmp(type, "bf16") == 0 ? 2 : 4;
        printf("%08" PRIx32 "\n", run(fd, &j, mix(seed * 0x9e3779b97f4a7c15ull + n), normal));
    }
    if (fflush(stdout) != 0 || close(fd) != 0)
        give_up(argv[1], strerror(errno));
    return 0;
}
