/* kernels/cpu/simd_tiles.h - the tiles and strips of simd.h over 16-lane vectors: the first part of
 * simd_body.h, which says what it expects. */

ALWAYS_INLINE v16 load_column(const char *w, const int form)
{
    if (form == CPU_FORM_F16)
        return v_load_f16(w);
    if (form == CPU_FORM_BF16_FLAT)
        return v_load_bf16(w);
    if (form == CPU_FORM_F8)
        return v_load_f8(w);
    if (form == CPU_FORM_I8_FLAT)
        return v_load_i8(w);
    return v_load((const float *)(const void *)w);
}

#define TILE_BEGIN(r)                                                                              \
    V low_##r = ZERO(), high_##r = ZERO();                                                         \
    if ((r) < rows && !t->first) {                                                                 \
        low_##r = LOAD(acc + (r)*ld_acc);                                                          \
        if (width == 2)                                                                            \
            high_##r = LOAD(acc + (r)*ld_acc + CPU_LANES);                                         \
    }
#define TILE_END(r)                                                                                \
    if ((r) < rows) {                                                                              \
        STORE(acc + (r)*ld_acc, low_##r);                                                          \
        if (width == 2)                                                                            \
            STORE(acc + (r)*ld_acc + CPU_LANES, high_##r);                                         \
    }

#define V v16
#define ZERO v_zero
#define LOAD v_load
#define STORE v_store
#define STEP(r)                                                                                    \
    if ((r) < rows) {                                                                              \
        v16 s = v_set1(*(const float *)(const void *)CPU_ROW_AT(r));                               \
        low_##r = v_fma(s, low, low_##r);                                                          \
        if (width == 2)                                                                            \
            high_##r = v_fma(s, high, high_##r);                                                   \
    }

/* NOLINTNEXTLINE(readability-function-size): EACH_ROW counts as its expansion */
ALWAYS_INLINE void tile_float_rows(const struct cpu_tile *t, int row0, const int rows,
                                   const int width, const int form)
{
    const char *w = t->w;
    const int64_t ld_acc =
        t->ld_acc; /* stores to acc might change *t, for all the compiler knows */
    float *acc = t->acc + row0 * ld_acc;
    CPU_ROWS_BEGIN((const char *)t->x + row0 * t->ldx, rows, t->ldx);
    const int beside = form == CPU_FORM_F32                              ? 64
                       : form == CPU_FORM_F8 || form == CPU_FORM_I8_FLAT ? 16
                                                                         : 32;
    const int64_t second = t->second ? t->second : beside;
    EACH_ROW(TILE_BEGIN)
    for (int64_t k = 0; k < t->n_k; k++, w += t->w_step, CPU_ROWS_NEXT(sizeof(float))) {
        v16 low = load_column(w, form);
        v16 high = width == 2 ? load_column(w + second, form) : low;
        EACH_ROW(STEP)
    }
    EACH_ROW(TILE_END)
}
#undef STEP

/* bf16 pairs without vdpbf16ps: two fp32 steps per k group, even then odd. */
#define STEP(r)                                                                                    \
    if ((r) < rows) {                                                                              \
        uint32_t bits;                                                                             \
        memcpy(&bits, CPU_ROW_AT(r), sizeof bits);                                                 \
        v16 s_even = v_set1(hg_bits_float(bits << 16));                                            \
        v16 s_odd = v_set1(hg_bits_float(bits & 0xffff0000u));                                     \
        low_##r = v_fma(s_odd, odd, v_fma(s_even, even, low_##r));                                 \
        if (width == 2)                                                                            \
            high_##r = v_fma(s_odd, high_odd, v_fma(s_even, high_even, high_##r));                 \
    }

/* NOLINTNEXTLINE(readability-function-size): EACH_ROW counts as its expansion */
ALWAYS_INLINE void tile_pair_rows(const struct cpu_tile *t, int row0, const int rows,
                                  const int width)
{
    const char *w = t->w;
    const int64_t ld_acc =
        t->ld_acc; /* stores to acc might change *t, for all the compiler knows */
    float *acc = t->acc + row0 * ld_acc;
    CPU_ROWS_BEGIN((const char *)t->x + row0 * t->ldx, rows, t->ldx);
    EACH_ROW(TILE_BEGIN)
    for (int64_t k = 0; k < t->n_k; k++, w += t->w_step, CPU_ROWS_NEXT(4)) {
        v16i low = vi_load(w), high = width == 2 ? vi_load(w + 64) : low;
        v16 even = vi_bf16_even(low), odd = vi_bf16_odd(low);
        v16 high_even = vi_bf16_even(high), high_odd = vi_bf16_odd(high);
        EACH_ROW(STEP)
    }
    EACH_ROW(TILE_END)
}
#undef STEP
#undef V
#undef ZERO
#undef LOAD
#undef STORE

#define V v16i
#define ZERO vi_zero
#define LOAD vi_load
#define STORE vi_store
#define STEP(r)                                                                                    \
    if ((r) < rows) {                                                                              \
        int32_t bits;                                                                              \
        memcpy(&bits, CPU_ROW_AT(r), sizeof bits);                                                 \
        v16i s = vi_set1(bits);                                                                    \
        low_##r = vi_dot4(low_##r, low, s);                                                        \
        if (width == 2)                                                                            \
            high_##r = vi_dot4(high_##r, high, s);                                                 \
    }

/* NOLINTNEXTLINE(readability-function-size): EACH_ROW counts as its expansion */
ALWAYS_INLINE void tile_int_rows(const struct cpu_tile *t, int row0, const int rows,
                                 const int width)
{
    const char *w = t->w;
    const int64_t ld_acc =
        t->ld_acc; /* stores to acc might change *t, for all the compiler knows */
    float *acc = t->acc + row0 * ld_acc;
    CPU_ROWS_BEGIN((const char *)t->x + row0 * t->ldx, rows, t->ldx);
    EACH_ROW(TILE_BEGIN)
    for (int64_t k = 0; k < t->n_k; k++, w += t->w_step, CPU_ROWS_NEXT(4)) {
        v16i low = vi_load(w), high = width == 2 ? vi_load(w + 64) : low;
        EACH_ROW(STEP)
    }
    EACH_ROW(TILE_END)
}
#undef STEP

/* A group at a time: its integers stay in registers, the float sums of the groups in acc. */
#define BEGIN(r)                                                                                   \
    v16i low_##r = vi_zero(), high_##r = low_##r;                                                  \
    if ((r) < rows)                                                                                \
        low_##r = high_##r = vi_set1(-8 * x_sum[(r)*ld_scale + g]);
#define STEP(r)                                                                                    \
    if ((r) < rows) {                                                                              \
        int32_t bits[2];                                                                           \
        memcpy(bits, CPU_ROW_AT(r), sizeof bits);                                                  \
        v16i first = vi_set1(bits[0]), second = vi_set1(bits[1]);                                  \
        low_##r = vi_dot8(low_##r, vi_low4(low), first, vi_high4(low), second);                    \
        if (width == 2)                                                                            \
            high_##r = vi_dot8(high_##r, vi_low4(high), first, vi_high4(high), second);            \
    }
#define END(r)                                                                                     \
    if ((r) < rows) {                                                                              \
        float *to = acc + (r)*ld_acc;                                                              \
        v16 s = v_set1(x_scale[(r)*ld_scale + g]), was = fresh ? v_zero() : v_load(to);            \
        v_store(to, v_fma(vi_to_float(low_##r), v_mul(s, s_low), was));                            \
        if (width == 2) {                                                                          \
            was = fresh ? v_zero() : v_load(to + CPU_LANES);                                       \
            v_store(to + CPU_LANES, v_fma(vi_to_float(high_##r), v_mul(s, s_high), was));          \
        }                                                                                          \
    }

/* NOLINTNEXTLINE(readability-function-size): EACH_ROW counts as its expansion */
ALWAYS_INLINE void tile_group_rows(const struct cpu_tile *t, int row0, const int rows,
                                   const int width)
{
    const char *w = t->w;
    const int64_t ld_scale = t->ld_scale, w_step = t->w_step;
    const float *x_scale = t->x_scale + row0 * ld_scale;
    const int32_t *x_sum = t->x_sum + row0 * ld_scale;
    const int64_t ld_acc =
        t->ld_acc; /* stores to acc might change *t, for all the compiler knows */
    float *acc = t->acc + row0 * ld_acc;
    CPU_ROWS_BEGIN((const char *)t->x + row0 * t->ldx, rows, t->ldx);
    for (int64_t k = 0, g = 0; k < t->n_k; g++) {
        int64_t end = k + CPU_I4_STEPS < t->n_k ? k + CPU_I4_STEPS : t->n_k;
        const uint16_t *w_scale = t->w_scale + g * width * CPU_LANES;
        v16 s_low = v_load_f16(w_scale), s_high = s_low;
        bool fresh = t->first && g == 0;
        if (width == 2)
            s_high = v_load_f16(w_scale + CPU_LANES);
        EACH_ROW(BEGIN)
        for (; k < end; k++, w += w_step, CPU_ROWS_NEXT(8)) {
            v16i low = vi_load(w), high = width == 2 ? vi_load(w + 64) : low;
            EACH_ROW(STEP)
        }
        EACH_ROW(END)
    }
}
#undef BEGIN
#undef STEP
#undef END

ALWAYS_INLINE void tile_rows(const struct cpu_tile *t, int row0, const int rows, const int width,
                             const int form)
{
    if (form == CPU_FORM_I4)
        tile_group_rows(t, row0, rows, width);
    else if (form == CPU_FORM_BF16)
        tile_pair_rows(t, row0, rows, width);
    else if (form == CPU_FORM_I8)
        tile_int_rows(t, row0, rows, width);
    else
        tile_float_rows(t, row0, rows, width, form);
}

/* Cuts the rows into tiles of a size known at compile time: 12, 8, 7, ... 1, at most `most`. */
#define TILE_CASE(R)                                                                               \
    case R:                                                                                        \
        if ((R) <= most)                                                                           \
            tile_rows(t, row, R, width, form);                                                     \
        break;

ALWAYS_INLINE void tile_all(const struct cpu_tile *t, const int width, const int most,
                            const int form)
{
    for (int row = 0, n = 0; row < t->n_rows; row += n) {
        n = t->n_rows - row < most ? t->n_rows - row : most;
        if (n > 8 && n < 12)
            n = 8;
        switch (n) {
            TILE_CASE(1)
#if MOST_ROWS > 1
            TILE_CASE(2)
            TILE_CASE(3)
            TILE_CASE(4)
            TILE_CASE(5)
            TILE_CASE(6)
#endif
#if MOST_ROWS > 6
            TILE_CASE(7)
            TILE_CASE(8)
            TILE_CASE(12)
#endif
        }
    }
}

#define TILE_FORM(name, form)                                                                      \
    static void name(const struct cpu_tile *t)                                                     \
    {                                                                                              \
        if (t->width == 2)                                                                         \
            tile_all(t, 2, ROWS_2, form);                                                          \
        else                                                                                       \
            tile_all(t, 1, ROWS_1, form);                                                          \
    }

TILE_FORM(tile_f32, CPU_FORM_F32)
TILE_FORM(tile_f16, CPU_FORM_F16)
TILE_FORM(tile_bf16, CPU_FORM_BF16)
TILE_FORM(tile_i8, CPU_FORM_I8)
TILE_FORM(tile_f8, CPU_FORM_F8)
TILE_FORM(tile_bf16_flat, CPU_FORM_BF16_FLAT)
TILE_FORM(tile_i8_flat, CPU_FORM_I8_FLAT)

static void tile_i4(const struct cpu_tile *t)
{
    if (t->width == 2)
        tile_all(t, 2, ROWS_I4, CPU_FORM_I4);
    else
        tile_all(t, 1, ROWS_I4, CPU_FORM_I4);
}

ALWAYS_INLINE void strip(const struct cpu_strip *s, const int form)
{
    int64_t step = s->w_step;
    int p = 0;
    for (; p + CPU_STRIP <= s->n_panels; p += CPU_STRIP) {
        const char *w0 = s->w[p], *w1 = s->w[p + 1], *w2 = s->w[p + 2], *w3 = s->w[p + 3];
        const char *f0 = s->ahead[p], *f1 = s->ahead[p + 1];
        const char *f2 = s->ahead[p + 2], *f3 = s->ahead[p + 3];
        float *acc = s->acc + p * CPU_LANES;
        v16 a0 = v_zero(), a1 = a0, a2 = a0, a3 = a0;
        if (!s->first) {
            a0 = v_load(acc);
            a1 = v_load(acc + CPU_LANES);
            a2 = v_load(acc + 2 * CPU_LANES);
            a3 = v_load(acc + 3 * CPU_LANES);
        }
        for (int64_t k = 0; k < s->n_k; k++) {
            v16 x = v_set1(s->x[k]);
            __builtin_prefetch(f0 + k * step);
            __builtin_prefetch(f1 + k * step);
            __builtin_prefetch(f2 + k * step);
            __builtin_prefetch(f3 + k * step);
            a0 = v_fma(x, load_column(w0 + k * step, form), a0);
            a1 = v_fma(x, load_column(w1 + k * step, form), a1);
            a2 = v_fma(x, load_column(w2 + k * step, form), a2);
            a3 = v_fma(x, load_column(w3 + k * step, form), a3);
        }
        v_store(acc, a0);
        v_store(acc + CPU_LANES, a1);
        v_store(acc + 2 * CPU_LANES, a2);
        v_store(acc + 3 * CPU_LANES, a3);
    }
    for (; p < s->n_panels; p++) {
        const char *w = s->w[p], *f = s->ahead[p];
        float *acc = s->acc + p * CPU_LANES;
        v16 a = s->first ? v_zero() : v_load(acc);
        for (int64_t k = 0; k < s->n_k; k++) {
            __builtin_prefetch(f + k * step);
            a = v_fma(v_set1(s->x[k]), load_column(w + k * step, form), a);
        }
        v_store(acc, a);
    }
}

static void strip_f32(const struct cpu_strip *s)
{
    strip(s, CPU_FORM_F32);
}

static void strip_f16(const struct cpu_strip *s)
{
    strip(s, CPU_FORM_F16);
}

static void strip_bf16_flat(const struct cpu_strip *s)
{
    strip(s, CPU_FORM_BF16_FLAT);
}

static void strip_i8_flat(const struct cpu_strip *s)
{
    strip(s, CPU_FORM_I8_FLAT);
}
