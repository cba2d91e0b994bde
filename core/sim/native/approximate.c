/* The functions that PTX calls approximate, in f64: the steps of core/sim/instructions/approximate.py, one by one. */
#include "floats.h"
#include "tables.h"

#define TERMS(table) (int)(sizeof(table) / sizeof(table[0]))

INLINE f64 polynomial(f64 x, const f64 *coefficients, int count) {
    f64 total = coefficients[count - 1];
    for (int k = count - 2; k >= 0; k--) {
        total = total * x;
        total = total + coefficients[k];
    }
    return total;
}

INLINE f64 ex2(f64 x) {
    x = x < -1000.0 ? -1000.0 : x;
    x = x > 1000.0 ? 1000.0 : x;
    f64 shifted = x + MAGIC, whole = shifted - MAGIC;
    u64 bits = bits_of_f64(shifted);
    return polynomial(x - whole, EX2, TERMS(EX2)) * f64_of((bits + 1023) << 52);
}

INLINE f64 lg2(f64 x) {
    i64 bits = (i64)bits_of_f64(x);
    i64 power = (bits - 0x3FE6A09E667F3BCDll) >> 52;
    f64 mantissa = f64_of((u64)bits - ((u64)power << 52));
    f64 s = (mantissa - 1.0) / (mantissa + 1.0);
    f64 result = (f64)power + s * polynomial(s * s, LG2, TERMS(LG2));
    result = x > 0 ? result : x == 0 ? -(f64)INFINITY : (f64)NAN;
    return x == (f64)INFINITY ? (f64)INFINITY : result;
}

/* Of |x| >= FAR: x less the nearest multiple of pi / 2, and that multiple modulo four. */
static f64 far(f64 x, i64 *quarters) {
    u64 bits = bits_of_f64(x);
    u64 mantissa = (bits >> 29 & 0x7FFFFF) | 0x800000;
    i64 start = (i64)(bits >> 52 & 0x7FF) - (1023 + 23 + 2);
    start = start < 128 ? start : 128;
    i64 at = start > 0 ? start : 0, above = start < 0 ? -start : 0;
    u64 word = (u64)at >> 6, shift = (u64)at & 63;
    u64 window = TWO_OVER_PI[word] << shift | (TWO_OVER_PI[word + 1] >> 1) >> (63 - shift);
    u64 turns = mantissa * (above < 64 ? window >> above : 0);
    u64 found = (turns + (1ull << 61)) >> 62;
    f64 rest = (f64)(i64)(turns - (found << 62)) * HALF_TURN;
    *quarters = x < 0 ? -(i64)found : (i64)found;
    return x < 0 ? -rest : rest;
}

INLINE f64 turned(f64 x, i64 ahead) {
    f64 size = __builtin_fabs(x), rest;
    i64 quarters;
    if (!(size < FAR)) {
        rest = far(x, &quarters);
    } else {
        f64 shifted = x * OVER_HALF_PI + MAGIC, whole = shifted - MAGIC;
        quarters = (u32)bits_of_f64(shifted);
        rest = ((x - whole * HALF_PI[0]) - whole * HALF_PI[1]) - whole * HALF_PI[2];
    }
    quarters += ahead;
    f64 square = rest * rest;
    f64 result = (quarters & 1) == 0 ? rest * polynomial(square, SIN, TERMS(SIN)) : polynomial(square, COS, TERMS(COS));
    result = (quarters & 2) == 0 ? result : -result;
    return size < (f64)INFINITY ? result : (f64)NAN;
}

INLINE f64 tanh_(f64 x) {
    f64 size = __builtin_fabs(x);
    size = size > 40.0 ? 40.0 : size;
    f64 e = ex2(size * TWO_LOG2_E);
    f64 large = (e - 1.0) / (e + 1.0);
    f64 small = size * polynomial(size * size, TANH, TERMS(TANH));
    return __builtin_copysign(size < 0.125 ? small : large, x);
}

/* Operands and results below the normal numbers become zeros with .ftz. */
INLINE f32 flushed(f32 v) { return __builtin_fabsf(v) < 0x1p-126f ? __builtin_copysignf(0, v) : v; }

#define FUNCTION(id, name, call)                                                                                       \
    UNARY(id##_carried, #name ".carried", "=b64 b64", f64, f64, call(a[l]))                                            \
    UNARY(id##_f32, #name ".approx.f32", "=b32 b32", f32, f32, canonical((f32)call((f64)a[l])))                        \
    UNARY(id##_ftz_f32, #name ".approx.ftz.f32", "=b32 b32", f32, f32,                                                 \
          flushed(canonical((f32)call((f64)flushed(a[l])))))
#define INVERSE(x) (1.0 / (x))
#define INVERSE_ROOT(x) (1.0 / __builtin_sqrt(x))
FUNCTION(ex2, ex2, ex2)
FUNCTION(lg2, lg2, lg2)
FUNCTION(tanh, tanh, tanh_)
FUNCTION(rcp_approx, rcp, INVERSE)
FUNCTION(sqrt_approx, sqrt, __builtin_sqrt)
FUNCTION(rsqrt_approx, rsqrt, INVERSE_ROOT)
#define SINE(x) turned(x, 0)
#define COSINE(x) turned(x, 1)
FUNCTION(sin, sin, SINE)
FUNCTION(cos, cos, COSINE)
