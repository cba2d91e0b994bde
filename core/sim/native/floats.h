/* Shared parts of floating-point instructions. */
#ifndef FLOATS_H
#define FLOATS_H

#include "machine.h"

INLINE f32 f32_of(u32 bits) { f32 v; memcpy(&v, &bits, 4); return v; }
INLINE u32 bits_of(f32 value) { u32 v; memcpy(&v, &value, 4); return v; }
INLINE f64 f64_of(u64 bits) { f64 v; memcpy(&v, &bits, 8); return v; }
INLINE u64 bits_of_f64(f64 value) { u64 v; memcpy(&v, &value, 8); return v; }

/* Every NaN becomes 0x7FFFFFFF. */
INLINE f32 canonical(f32 v) { return v == v ? v : f32_of(0x7FFFFFFF); }

/* Every NaN becomes 0x7FF8000000000000: which operand's payload a processor keeps is its own affair. */
INLINE f64 canonical_f64(f64 v) { return v == v ? v : f64_of(0x7FF8000000000000ull); }

/* A NaN loses to a number, and -0 is less than +0. */
INLINE f32 least(f32 a, f32 b) {
    f32 zero = f32_of(bits_of(a) | bits_of(b));
    f32 r = a < b ? a : b;              /* b where one is NaN */
    r = b != b ? a : r;
    return a == 0 && b == 0 ? zero : r;
}
INLINE f32 most(f32 a, f32 b) {
    f32 zero = f32_of(bits_of(a) & bits_of(b));
    f32 r = a > b ? a : b;
    r = b != b ? a : r;
    return a == 0 && b == 0 ? zero : r;
}

INLINE f32 of_bf16(u32 bits) { return f32_of(bits << 16); }
/* To nearest even; NaN becomes 0x7FFF. */
INLINE u32 to_bf16(f32 v) {
    u32 bits = bits_of(v), rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
    return v == v ? rounded : 0x7FFF;
}

INLINE f32 of_f16(u32 bits) {
    u32 exponent = bits >> 10 & 31, mantissa = bits & 1023;
    f32 normal = f32_of((exponent == 31 ? 255 : exponent + 112) << 23 | mantissa << 13);
    f32 size = exponent ? normal : (f32)mantissa * 0x1p-24f;
    return bits & 0x8000 ? -size : size;
}
/* To nearest even, by integers: 11 bits of the significand, fewer below 2^-14. NaN becomes 0x7FFF. */
INLINE u32 to_f16(f64 v) {
    f64 size = __builtin_fabs(v);
    u64 bits = bits_of_f64(v), sign = bits >> 48 & 0x8000;
    if (size != size) return 0x7FFF;
    if (size >= 65520.0) return (u32)sign | 0x7C00;
    if (size < 0x1p-14) return (u32)sign | (u32)__builtin_rint(size * 0x1p24);
    u64 rounded = (bits_of_f64(size) + (1ull << 41) - 1 + (bits >> 42 & 1)) >> 42;
    return (u32)sign | (u32)(rounded - (1008ull << 10));
}

INLINE f32 of_tf32(u32 bits) { return f32_of(bits & 0xFFFFE000u); }

/* A product of formats up to 12 bits is exact in f64: a fused multiply-add rounds the same sum once. */
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
#define ADD_PRODUCT(a, b, sum) __builtin_fma(a, b, sum)
#else
#define ADD_PRODUCT(a, b, sum) ((sum) + (a) * (b))
#endif

#endif
