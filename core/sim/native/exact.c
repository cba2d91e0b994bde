/* Floats in every format and rounding: values are carried as f64, rounded to odd, and rounded once at the end.

The steps of core/sim/instructions/{floats,rounding,conversions}.py. None of these rows is PTX: composed.py strings them
together. Boldo and Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd",
2008. */
#include "floats.h"

INLINE int bounded(f64 v) { return __builtin_fabs(v) < (f64)INFINITY; }

/* --- operands -------------------------------------------------------------------------------------------------------- */
UNARY(carry_f16, "carry.f16", "=b64 b16", f64, u32, (f64)of_f16(a[l]))
UNARY(carry_bf16, "carry.bf16", "=b64 b16", f64, u32, (f64)of_bf16(a[l]))
UNARY(carry_f32, "carry.f32", "=b64 b32", f64, f32, (f64)a[l])

/* Integers of 64 bits rounded to odd. */
INLINE f64 odd(f64 value, f64 lost) {
    u64 bits = bits_of_f64(value);
    u64 away = (lost > 0) == (value > 0) ? 1 : -(u64)1;
    return f64_of((bits & 1) == 0 && lost != 0 ? bits + away : bits);
}
INLINE f64 odd_of_halves(f64 high, f64 low) {
    f64 total = high + low;
    return odd(total, (high - total) + low);
}
UNARY(carry_u64, "carry.u64", "=b64 b64", f64, u64, odd_of_halves((f64)(u32)(a[l] >> 32) * 4294967296.0, (f64)(u32)a[l]))
UNARY(carry_s64, "carry.s64", "=b64 b64", f64, i64, odd_of_halves((f64)(i32)(a[l] >> 32) * 4294967296.0, (f64)(u32)a[l]))
UNARY(carry_u32, "carry.u32", "=b64 b32", f64, u32, (f64)a[l])
UNARY(carry_s32, "carry.s32", "=b64 b32", f64, i32, (f64)a[l])

/* 64-bit integers to f64 in a rounding of its own: the nearest, and a step where that went the wrong way. */
INLINE f64 stepped(f64 value, int up) {
    if (value == 0) return up ? 0x1p-1074 : -0x1p-1074;
    u64 bits = bits_of_f64(value);
    return f64_of((value > 0) == up ? bits + 1 : bits - 1);
}
INLINE f64 in_mode(f64 high, f64 low, int mode) {
    f64 value = high + low, lost = (high - value) + low;
    f64 below = lost < 0 ? stepped(value, 0) : value, above = lost > 0 ? stepped(value, 1) : value;
    return mode == 1 ? below : mode == 2 ? above : value > 0 ? below : above;
}
#define F64_MODE(name, number)                                                                                         \
    UNARY(cvt_##name##_f64_u64, "cvt." #name ".f64.u64", "=b64 b64", f64, u64,                                         \
          in_mode((f64)(u32)(a[l] >> 32) * 4294967296.0, (f64)(u32)a[l], number))                                      \
    UNARY(cvt_##name##_f64_s64, "cvt." #name ".f64.s64", "=b64 b64", f64, i64,                                         \
          in_mode((f64)(i32)(a[l] >> 32) * 4294967296.0, (f64)(u32)a[l], number))
F64_MODE(rz, 0)
F64_MODE(rm, 1)
F64_MODE(rp, 2)

/* .ftz of operands, for formats whose least normal number is 2^-126 or 2^-14. */
INLINE f64 flushed(f64 v, f64 tiny) { return __builtin_fabs(v) < tiny ? __builtin_copysign(0.0, v) : v; }
UNARY(flush_f32, "flush.f32 flush.bf16", "=b64 b64", f64, f64, flushed(a[l], 0x1p-126))
UNARY(flush_f16, "flush.f16", "=b64 b64", f64, f64, flushed(a[l], 0x1p-14))
UNARY(flush_f64, "flush.f64", "=b64 b64", f64, f64, flushed(a[l], 0x1p-1022))

/* --- arithmetic, rounded to odd -------------------------------------------------------------------------------------- */
INLINE f64 odd_sum(f64 a, f64 b) {
    f64 total = a + b, other = total - a, lost = (a - (total - other)) + (b - other);
    return odd(total, bounded(total) ? lost : 0.0);
}
/* x + -x is +0, but -0 where rounding is downwards (IEEE 754, 6.3). */
INLINE f64 odd_sum_down(f64 a, f64 b) {
    f64 total = odd_sum(a, b);
    return total == 0 && (bits_of_f64(a) | bits_of_f64(b)) >> 63 ? -0.0 : total;
}
INLINE int single(f64 v) { return (f64)(f32)v == v; }
INLINE f64 odd_quotient(f64 a, f64 b) {
    f64 result = a / b, lost = a - result * b, sign = b > 0 ? 1.0 : b < 0 ? -1.0 : b;
    return odd(result, single(result) && bounded(result) && bounded(b) ? lost * sign : 0.0);
}
INLINE f64 odd_root(f64 a) {
    f64 result = __builtin_sqrt(a);
    return odd(result, single(result) && bounded(result) ? a - result * result : 0.0);
}
BINARY(odd_add, "odd.add", "=b64 b64 b64", f64, f64, odd_sum(a[l], b[l]))
BINARY(odd_add_down, "odd.add.rm", "=b64 b64 b64", f64, f64, odd_sum_down(a[l], b[l]))
BINARY(odd_mul, "odd.mul", "=b64 b64 b64", f64, f64, a[l] * b[l])
BINARY(odd_div, "odd.div", "=b64 b64 b64", f64, f64, odd_quotient(a[l], b[l]))
UNARY(odd_sqrt, "odd.sqrt", "=b64 b64", f64, f64, odd_root(a[l]))

/* A NaN loses to a number, and -0 is less than +0. */
#define EXTREME(name, c_op, zero_op)                                                                                   \
    INLINE f64 name##_of(f64 a, f64 b) {                                                                               \
        f64 r = a c_op b ? a : b;                                                                                      \
        r = b != b ? a : r;                                                                                            \
        return a == 0 && b == 0 ? f64_of(bits_of_f64(a) zero_op bits_of_f64(b)) : r;                                       \
    }                                                                                                                  \
    BINARY(carried_##name, #name ".carried " #name ".f64", "=b64 b64 b64", f64, f64, name##_of(a[l], b[l]))            \
    BINARY(carried_##name##_nan, #name ".NaN.carried", "=b64 b64 b64", f64, f64,                                       \
           a[l] == a[l] && b[l] == b[l] ? name##_of(a[l], b[l]) : (f64)NAN)                                            \
    BINARY(carried_##name##_sign, #name ".xorsign.carried", "=b64 b64 b64", f64, f64,                                  \
           signed_as(name##_of(__builtin_fabs(a[l]), __builtin_fabs(b[l])), a[l], b[l]))                               \
    BINARY(carried_##name##_nan_sign, #name ".NaN.xorsign.carried", "=b64 b64 b64", f64, f64,                          \
           a[l] == a[l] && b[l] == b[l]                                                                                \
               ? signed_as(name##_of(__builtin_fabs(a[l]), __builtin_fabs(b[l])), a[l], b[l]) : (f64)NAN)
INLINE f64 signed_as(f64 size, f64 a, f64 b) { return (bits_of_f64(a) ^ bits_of_f64(b)) >> 63 ? -size : size; }
EXTREME(min, <, |)
EXTREME(max, >, &)

/* --- modifiers of a result ------------------------------------------------------------------------------------------- */
UNARY(carried_neg, "neg.carried", "=b64 b64", f64, f64, -a[l])
UNARY(canonical_f64_, "canonical.f64", "=b64 b64", f64, f64, canonical_f64(a[l]))
UNARY(carried_sat, "sat.carried", "=b64 b64", f64, f64, a[l] > 0 ? (a[l] < 1.0 ? a[l] : 1.0) : 0.0)
UNARY(carried_relu, "relu.carried", "=b64 b64", f64, f64, a[l] > 0 ? a[l] : a[l] != a[l] ? a[l] : 0.0)
UNARY(carried_rni, "rni.carried", "=b64 b64", f64, f64, __builtin_rint(a[l]))
UNARY(carried_rzi, "rzi.carried", "=b64 b64", f64, f64, __builtin_trunc(a[l]))
UNARY(carried_rmi, "rmi.carried", "=b64 b64", f64, f64, __builtin_floor(a[l]))
UNARY(carried_rpi, "rpi.carried", "=b64 b64", f64, f64, __builtin_ceil(a[l]))

/* --- results: f32, bf16 and f16 in each rounding --------------------------------------------------------------- */
enum { RN, RZ, RM, RP, RNA };

/* The step away from or towards zero that a format's bits take, where the nearest is on the wrong side. */
INLINE u32 corrected(u32 nearest, f64 wide, f64 exact, int mode, u32 sign, u32 infinity) {
    int over = wide > exact, under = wide < exact, negative = (nearest & sign) != 0;
    int down = over && (mode == RM || (mode == RZ && exact > 0)), up = under && (mode == RP || (mode == RZ && !(exact > 0)));
    u32 size = nearest & ~sign;
    (void)infinity;
    if (down) return negative ? nearest + 1 : size ? nearest - 1 : sign | 1;
    if (up) return negative ? (size ? nearest - 1 : 1) : nearest + 1;
    return nearest;
}
INLINE u32 to_f32_bits(f64 v, int mode) {
    f32 nearest = (f32)v;
    if (v != v) return 0x7FFFFFFF;
    if (mode == RN || !bounded(v)) return bits_of(nearest);
    u32 found = corrected(bits_of(nearest), (f64)nearest, v, mode, 0x80000000u, 0x7F800000u);
    return (found & 0x7FFFFFFF) == 0 ? (u32)(bits_of_f64(v) >> 32) & 0x80000000u : found;
}
INLINE u32 to_f16_bits(f64 v, int mode) {
    u32 nearest = to_f16(v);
    if (mode == RN || mode == RNA || v != v || !bounded(v)) return nearest;
    return corrected(nearest, of_f16(nearest), v, mode, 0x8000, 0x7C00);
}
/* f32 rounded to odd, from which bf16 is rounded. */
INLINE u32 to_bf16_bits(f64 v, int mode) {
    if (v != v) return 0x7FFF;
    u32 bits = to_f32_bits(v, RZ);
    bits |= bounded(v) && (f64)f32_of(bits) != v;
    u32 kept = bits >> 16, lost = bits & 0xFFFF, number = (bits & 0x7F800000) != 0x7F800000;
    if (mode == RN) return (bits + 0x7FFF + (kept & 1)) >> 16;
    if (mode == RNA) return (bits + 0x8000) >> 16;
    if (mode != RZ && (bits >> 31 == 1) == (mode == RM) && lost && number) kept++;
    return kept;
}
#define ENCODINGS(name, mode)                                                                                          \
    UNARY(encode_f32_##name, "encode." #name ".f32", "=b32 b64", u32, f64, to_f32_bits(a[l], mode))                    \
    UNARY(encode_f16_##name, "encode." #name ".f16", "=b16 b64", u32, f64, to_f16_bits(a[l], mode))                    \
    UNARY(encode_bf16_##name, "encode." #name ".bf16", "=b16 b64", u32, f64, to_bf16_bits(a[l], mode))
ENCODINGS(rn, RN)
ENCODINGS(rz, RZ)
ENCODINGS(rm, RM)
ENCODINGS(rp, RP)
ENCODINGS(rna, RNA)

/* .ftz of results. */
#define FLUSHED(bits, sign, exponent) ((bits) & (exponent) ? (bits) : (bits) & (sign))
UNARY(flushed_f32, "flushed.f32", "=b32 b32", u32, u32, FLUSHED(a[l], 0x80000000u, 0x7F800000u))
UNARY(flushed_f16, "flushed.f16", "=b16 b16", u32, u32, FLUSHED(a[l], 0x8000u, 0x7C00u))
UNARY(flushed_bf16, "flushed.bf16", "=b16 b16", u32, u32, FLUSHED(a[l], 0x8000u, 0x7F80u))

/* f32 to tf32 in f32's bits: 10 bits of the significand are kept. */
#define TF32(name, add)                                                                                                \
    UNARY(cvt_tf32_##name, "cvt." #name ".tf32.f32", "=b32 b32", u32, u32,                                             \
          (a[l] & 0x7FFFFFFF) > 0x7F800000 ? 0x7FFFFFFF                                                                \
          : ((a[l] & 0x7F800000) != 0x7F800000 ? a[l] + (add) : a[l]) & 0xFFFFE000u)
TF32(rna, 0x1000)
TF32(rn, 0xFFF + (a[l] >> 13 & 1))
TF32(rz, 0)

/* --- to integers: out of range goes to the nearest end; a NaN as PTX's manual has it for cvt ----------------------- */
#define OF_NAN(T, low, high, nan_) \
    (a[l] != a[l] ? (T)(nan_) : a[l] < (f64)(low) ? (T)(low) : a[l] >= (f64)(high) ? (T)(high) : (T)a[l])
#define WHOLE_TO(name, spelled, out, R, T, low, high, nan_)                                                            \
    UNARY(whole_##name, spelled, out " b64", R, f64, OF_NAN(T, low, high, nan_))
#define WHOLE_NARROW(name, spelled, out, R, T, low, high, nan_)                                                        \
    UNARY(whole_##name, spelled, out " b64", R, f64, (u##T)(OF_NAN(T, low, high, nan_)))
typedef u8 ui8;
typedef u16 ui16;
WHOLE_TO(u8, "whole.u8", "=b8", u32, u8, 0, 255, 0)
WHOLE_NARROW(s8, "whole.s8", "=s8", u32, i8, -128, 127, 0)
WHOLE_TO(u16, "whole.u16", "=b16", u32, u16, 0, 65535, 0)
WHOLE_NARROW(s16, "whole.s16", "=s16", u32, i16, -32768, 32767, 0)
WHOLE_TO(u32, "whole.u32", "=b32", u32, u32, 0, 4294967295u, 0)
WHOLE_TO(s32, "whole.s32", "=b32", i32, i32, INT32_MIN, INT32_MAX, 0)
WHOLE_TO(u64, "whole.u64", "=b64", u64, u64, 0, UINT64_MAX, (u64)1 << 63)
WHOLE_TO(s64, "whole.s64", "=b64", i64, i64, INT64_MIN, INT64_MAX, INT64_MIN)
WHOLE_TO(u8d, "whole.u8.f64", "=b8", u32, u8, 0, 255, 128)
WHOLE_NARROW(s8d, "whole.s8.f64", "=s8", u32, i8, -128, 127, -128)
WHOLE_TO(u16d, "whole.u16.f64", "=b16", u32, u16, 0, 65535, 32768)
WHOLE_NARROW(s16d, "whole.s16.f64", "=s16", u32, i16, -32768, 32767, -32768)
WHOLE_TO(u32d, "whole.u32.f64", "=b32", u32, u32, 0, 4294967295u, 2147483648u)
WHOLE_TO(s32d, "whole.s32.f64", "=b32", i32, i32, INT32_MIN, INT32_MAX, INT32_MIN)

/* --- signs and tests ------------------------------------------------------------------------------------------------- */
BINARY(copysign_f32, "copysign.f32", "=b32 b32 b32", u32, u32, (b[l] & 0x7FFFFFFF) | (a[l] & 0x80000000u))
BINARY(copysign_f64, "copysign.f64", "=b64 b64 b64", u64, u64, (b[l] & ~((u64)1 << 63)) | (a[l] & (u64)1 << 63))
BINARY(flip, "flip.b32", "=b32 b32 b32", u32, u32, a[l] ^ b[l])
#define TESTS(name, value)                                                                                             \
    UNARY(testp_##name##_f32, "testp." #name ".f32", "=p b32", i32, f32, -(i32)(value(a[l], 0x1p-126f, (f32)INFINITY)))   \
    UNARY(testp_##name##_f64, "testp." #name ".f64", "=p b64", i32, f64, -(i32)(value(a[l], 0x1p-1022, (f64)INFINITY)))
#define SIZE(v) ((v) < 0 ? -(v) : (v))
#define IS_FINITE(v, tiny, inf) (SIZE(v) < inf)
#define IS_INFINITE(v, tiny, inf) (SIZE(v) == inf)
#define IS_NUMBER(v, tiny, inf) ((v) == (v))
#define IS_NAN(v, tiny, inf) ((v) != (v))
#define IS_NORMAL(v, tiny, inf) (SIZE(v) < inf && SIZE(v) >= tiny)
#define IS_SUBNORMAL(v, tiny, inf) ((v) != 0 && SIZE(v) < tiny)
TESTS(finite, IS_FINITE)
TESTS(infinite, IS_INFINITE)
TESTS(number, IS_NUMBER)
TESTS(notanumber, IS_NAN)
TESTS(normal, IS_NORMAL)
TESTS(subnormal, IS_SUBNORMAL)
