/* tests/simt/simt_ops.cpp - warp-wide instructions with the fragment layouts of the PTX manual.
 *
 * mma: lane = 4 g + q. A (16 rows): register 0 row g, 1 row g + 8, 2 row g and the upper half of k,
 * 3 row g + 8 and the upper half; B (8 columns): column g, register 1 the upper half of k; C: rows
 * g, g, g + 8, g + 8, columns 2 q, 2 q + 1. The sum runs over k in ascending order in fp32 (the
 * hardware's order is not documented; int32 is exact). */
#include "simt.h"

namespace simt
{
namespace
{

float bf16_value(uint32_t bits)
{
    uint32_t u = bits << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

float f16_value(uint32_t bits)
{
    uint32_t sign = (bits & 0x8000u) << 16, exponent = bits >> 10 & 31, fraction = bits & 1023;
    if (exponent == 0) {
        float f = (float)fraction * 0x1p-24f;
        return sign ? -f : f;
    }
    uint32_t u = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | fraction << 13;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

struct Operands {
    uint32_t a[4], b[2];
    uint32_t c[4];
};

static_assert(sizeof(Operands) <= sizeof(uint32_t) * exchange_words, "exchange is too small");

/* Multiply what the lanes hold; D per_word values in each register, C of type S. */
template <typename S, int per_word, S (*value)(uint32_t, int)>
void multiply(Thread *const *lanes, int parity)
{
    enum { depth = 8 * per_word };
    S a[16][depth], b[depth][8], c[16][8];
    for (int l = 0; l < warp_size; l++) {
        Operands o;
        memcpy(&o, lanes[l]->exchange[parity], sizeof o);
        int g = l / 4, q = l % 4;
        for (int r = 0; r < 4; r++)
            for (int i = 0; i < per_word; i++)
                a[g + r % 2 * 8][r / 2 * (depth / 2) + q * per_word + i] = value(o.a[r], i);
        for (int r = 0; r < 2; r++)
            for (int i = 0; i < per_word; i++)
                b[r * (depth / 2) + q * per_word + i][g] = value(o.b[r], i);
        for (int r = 0; r < 4; r++)
            memcpy(&c[g + r / 2 * 8][q * 2 + r % 2], &o.c[r], sizeof o.c[r]);
    }
    for (int i = 0; i < 16; i++)
        for (int k = 0; k < depth; k++)
            for (int j = 0; j < 8; j++)
                c[i][j] += a[i][k] * b[k][j];
    for (int l = 0; l < warp_size; l++)
        for (int r = 0; r < 4; r++)
            memcpy(&lanes[l]->exchange[parity][6 + r], &c[l / 4 + r / 2 * 8][l % 4 * 2 + r % 2],
                   sizeof(uint32_t));
}

float bf16_of(uint32_t word, int i)
{
    return bf16_value(word >> 16 * i & 0xffff);
}
float f16_of(uint32_t word, int i)
{
    return f16_value(word >> 16 * i & 0xffff);
}
int32_t s8_of(uint32_t word, int i)
{
    return (int8_t)(word >> 8 * i & 0xff);
}

template <typename S>
void run(unsigned site, S (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], warp_fn *whole)
{
    Operands o;
    memcpy(o.a, a, sizeof a);
    memcpy(o.b, b, sizeof b);
    memcpy(o.c, c, sizeof c);
    int p = deposit(site, o, whole);
    memcpy(c, &self().exchange[p][6], sizeof c);
}

} // namespace

void mma_bf16(unsigned site, float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    run(site, c, a, b, multiply<float, 2, bf16_of>);
}

void mma_f16(unsigned site, float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    run(site, c, a, b, multiply<float, 2, f16_of>);
}

void mma_s8(unsigned site, int32_t (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    run(site, c, a, b, multiply<int32_t, 4, s8_of>);
}

/* Lane l names row l % 8 of matrix l / 8; register i gets matrix i: two 16-bit values, row l / 4,
 * columns 2 (l % 4)..; transposed: column l / 4, rows 2 (l % 4).. */
void ldmatrix_x4(unsigned site, uint32_t (&r)[4], const void *row, bool transposed)
{
    if ((uintptr_t)row % 16)
        fail("ldmatrix row is misaligned");
    Thread &t = self();
    int p = t.parity;
    t.parity ^= 1;
    memcpy(t.exchange[p], &row, sizeof row);
    Thread *const *lanes = warp_sync(site);
    for (unsigned i = 0; i < 4; i++)
        for (unsigned h = 0; h < 2; h++) {
            unsigned in_row = transposed ? t.lane % 4 * 2 + h : t.lane / 4;
            unsigned in_column = transposed ? t.lane / 4 : t.lane % 4 * 2 + h;
            const char *from;
            memcpy(&from, lanes[i * 8 + in_row]->exchange[p], sizeof from);
            memcpy((char *)&r[i] + 2 * h, from + 2 * in_column, 2);
        }
}

uint32_t ballot(unsigned site, bool v)
{
    Thread &t = self();
    int p = t.parity;
    t.parity ^= 1;
    t.exchange[p][0] = v;
    Thread *const *lanes = warp_sync(site);
    uint32_t bits = 0;
    for (int l = 0; l < warp_size; l++)
        bits |= lanes[l]->exchange[p][0] << l;
    return bits;
}

} // namespace simt
