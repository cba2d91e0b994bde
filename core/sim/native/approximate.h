/* The functions that PTX calls approximate, in f64, a vector at a time: the steps of ../instructions/approximate.py,
   in the same order, so that both executors get the same bits. Compile with -ffp-contract=off. */
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

/* Vectors of the processor's own width: compilers split wider ones badly. */
#if defined(__AVX512F__)
#define WIDTH 64
#elif defined(__AVX__)
#define WIDTH 32
#else
#define WIDTH 16
#endif
typedef double f64v __attribute__((vector_size(WIDTH)));
typedef int64_t s64v __attribute__((vector_size(WIDTH)));

#define SAME 0x7FFFFFFFFFFFFFFFll
static inline f64v f64_all(double x) { return x - (f64v){0}; }
static inline f64v f64_pick(s64v where, f64v yes, f64v no) {
    return (f64v)(((s64v)yes & where) | ((s64v)no & ~where));
}
static inline f64v f64_size(f64v x) { return (f64v)((s64v)x & SAME); }

#define MAGIC 6755399441055744.0 /* 1.5 * 2^52 */
#define HORNER(name, n, ...) \
    static inline f64v name(f64v x) { \
        static const double c[n] = {__VA_ARGS__}; \
        f64v total = f64_all(c[n - 1]); \
        for (int k = n - 2; k >= 0; k--) total = total * x + c[k]; \
        return total; \
    }
HORNER(ex2_polynomial, 14, 0x1.0000000000000p+0, 0x1.62e42fefa39efp-1, 0x1.ebfbdff82c58ep-3, 0x1.c6b08d704a0bfp-5,
    0x1.3b2ab6fba4e77p-7, 0x1.5d87fe78a6730p-10, 0x1.430912f86c786p-13, 0x1.ffcbfc588b0c5p-17,
    0x1.62c0223a5c822p-20, 0x1.b5253d395e7c1p-24, 0x1.e4cf5158b8ec7p-28, 0x1.e8cac7351bb22p-32,
    0x1.c3bd650fc2983p-36, 0x1.816193166d0f7p-40)
HORNER(lg2_polynomial, 13, 0x1.71547652b82fep+1, 0x1.ec709dc3a03fdp-1, 0x1.2776c50ef9bfep-1, 0x1.a61762a7aded9p-2,
    0x1.484b13d7c02a9p-2, 0x1.0c9a84994022dp-2, 0x1.c68f568d31760p-3, 0x1.89f3b1694cffep-3, 0x1.5b9ac9b743f0dp-3,
    0x1.3703c1f4d0ffep-3, 0x1.1964ec6fc9491p-3, 0x1.00ecd7e080215p-3, 0x1.d8be0817f5ffdp-4)
HORNER(sin_polynomial, 9, 0x1.0000000000000p+0, -0x1.5555555555555p-3, 0x1.1111111111111p-7, -0x1.a01a01a01a01ap-13,
    0x1.71de3a556c734p-19, -0x1.ae64567f544e4p-26, 0x1.6124613a86d09p-33, -0x1.ae7f3e733b81fp-41,
    0x1.952c77030ad4ap-49)
HORNER(cos_polynomial, 9, 0x1.0000000000000p+0, -0x1.0000000000000p-1, 0x1.5555555555555p-5, -0x1.6c16c16c16c17p-10,
    0x1.a01a01a01a01ap-16, -0x1.27e4fb7789f5cp-22, 0x1.1eed8eff8d898p-29, -0x1.93974a8c07c9dp-37,
    0x1.ae7f3e733b81fp-45)
HORNER(tanh_polynomial, 10, 0x1.0000000000000p+0, -0x1.5555555555555p-2, 0x1.1111111111111p-3,
    -0x1.ba1ba1ba1ba1cp-5, 0x1.664f4882c10fap-6, -0x1.226e355e6c23dp-7, 0x1.d6d3d0e157de0p-9,
    -0x1.7da36452b75e3p-10, 0x1.3558248036744p-11, -0x1.f57d7734d1664p-13)
#define TWO_LOG2_E 0x1.71547652b82fep+1
#define HALF_PI_0 0x1.921fb54400000p+0
#define HALF_PI_1 0x1.0b4611a600000p-34
#define HALF_PI_2 0x1.3198a2e037073p-69
#define HALF_PI_WHOLE 0x1.921fb54442d18p+0
#define TWO_OVER_PI 0x1.45f306dc9c883p-1

static inline f64v approximate_ex2(f64v x) {
    x = f64_pick(x < -1000.0, f64_all(-1000.0), x);
    x = f64_pick(x > 1000.0, f64_all(1000.0), x);
    f64v shifted = x + MAGIC, whole = shifted - MAGIC;
    f64v scale = (f64v)(((s64v)shifted + 1023) << 52);
    return ex2_polynomial(x - whole) * scale;
}

static inline f64v approximate_lg2(f64v x) {
    s64v bits = (s64v)x, power = (bits - 0x3FE6A09E667F3BCDll) >> 52;
    f64v mantissa = (f64v)(bits - (power << 52)), s = (mantissa - 1.0) / (mantissa + 1.0);
    f64v result = __builtin_convertvector(power, f64v) + s * lg2_polynomial(s * s);
    result = f64_pick(x > 0.0, result, f64_pick(x == 0.0, f64_all(-INFINITY), f64_all(NAN)));
    return f64_pick(x == INFINITY, f64_all(INFINITY), result);
}

/* One lane whose size is 2^20 or more: x is m * 2^e, m times the bits of 2 / pi from weight 2^(1 - e) down. */
static inline void far_turns(double x, double *rest, int64_t *quarters) {
    static const uint64_t two_over_pi[4] = {
        0xA2F9836E4E441529ull, 0xFC2757D1F534DDC0ull, 0xDB6295993C439041ull, 0xFE5163ABDEBBC561ull};
    uint64_t bits;
    memcpy(&bits, &x, 8);
    uint64_t mantissa = ((bits >> 29) & 0x7FFFFF) | 0x800000;
    int64_t first = (int64_t)((bits >> 52) & 0x7FF) - (1023 + 23 + 2);
    if (first > 128) first = 128;
    int64_t word = first > 0 ? first >> 6 : 0, shift = first > 0 ? first & 63 : 0, above = first < 0 ? -first : 0;
    uint64_t window = (two_over_pi[word] << shift) | ((two_over_pi[word + 1] >> 1) >> (63 - shift));
    uint64_t turns = mantissa * (window >> above), quarter = (turns + (1ull << 61)) >> 62;
    double left = (double)(int64_t)(turns - (quarter << 62)) * (HALF_PI_WHOLE * 0x1p-62);
    *rest = x < 0 ? -left : left;
    *quarters = x < 0 ? -(int64_t)quarter : (int64_t)quarter;
}

static inline f64v approximate_turned(f64v x, int ahead) {
    f64v shifted = x * TWO_OVER_PI + MAGIC, whole = shifted - MAGIC;
    f64v rest = ((x - whole * HALF_PI_0) - whole * HALF_PI_1) - whole * HALF_PI_2;
    s64v quarters = (s64v)shifted & 0xFFFFFFFFll;
    s64v near = f64_size(x) < 1048576.0;
    for (int i = 0; i < WIDTH / 8; i++)
        if (!near[i]) {
            double r;
            int64_t q;
            far_turns(x[i], &r, &q);
            rest[i] = r;
            quarters[i] = q;
        }
    quarters += ahead;
    f64v square = rest * rest;
    f64v result = f64_pick((quarters & 1) == 0, rest * sin_polynomial(square), cos_polynomial(square));
    result = f64_pick((quarters & 2) == 0, result, -result);
    return f64_pick(f64_size(x) < INFINITY, result, f64_all(NAN));
}
static inline f64v approximate_sin(f64v x) { return approximate_turned(x, 0); }
static inline f64v approximate_cos(f64v x) { return approximate_turned(x, 1); }

static inline f64v approximate_tanh(f64v x) {
    f64v size = f64_size(x);
    size = f64_pick(size > 40.0, f64_all(40.0), size);
    f64v e = approximate_ex2(size * TWO_LOG2_E), large = (e - 1.0) / (e + 1.0);
    f64v result = f64_pick(size < 0.125, size * tanh_polynomial(size * size), large);
    return (f64v)(((s64v)result & SAME) | ((s64v)x & ~SAME));
}

static inline f64v approximate_rcp(f64v x) { return 1.0 / x; }
static inline f64v f64_root(f64v x) {
    for (int i = 0; i < WIDTH / 8; i++) x[i] = __builtin_sqrt(x[i]);
    return x;
}
static inline f64v approximate_sqrt(f64v x) { return f64_root(x); }
static inline f64v approximate_rsqrt(f64v x) { return 1.0 / f64_root(x); }
