/* cvt between integers, f32, f64 and bf16, rounded to nearest even; to integers in all four ways. */
#include "floats.h"
#include "lines.h"

/* --- integers ------------------------------------------------------------------------------------------------------ */
UNARY(cvt_same32, "cvt.u32.u32 cvt.s32.s32 cvt.u32.s32 cvt.s32.u32", "=b32 b32", u32, u32, a[l])
UNARY(cvt_same64, "cvt.u64.u64 cvt.s64.s64 cvt.u64.s64 cvt.s64.u64", "=b64 b64", u64, u64, a[l])
UNARY(cvt_64_u32, "cvt.u64.u32 cvt.s64.u32", "=b64 b32", u64, u32, a[l])
UNARY(cvt_64_s32, "cvt.u64.s32 cvt.s64.s32", "=b64 b32", i64, i32, a[l])
UNARY(cvt_32_64, "cvt.u32.u64 cvt.u32.s64 cvt.s32.u64 cvt.s32.s64", "=b32 b64", u32, u64, a[l])
UNARY(cvt_u32_u16, "cvt.u32.u16 cvt.s32.u16", "=b32 b16", u32, u32, a[l])
UNARY(cvt_u32_s16, "cvt.u32.s16 cvt.s32.s16", "=b32 b16", i32, u32, (i16)a[l])
UNARY(cvt_u16_32, "cvt.u16.u32 cvt.u16.s32", "=b16 b32", u32, u32, a[l] & 0xFFFF)
UNARY(cvt_s16_32, "cvt.s16.u32 cvt.s16.s32", "=s16 b32", u32, u32, a[l] & 0xFFFF)

/* Lines that do not wrap around stay lines. */
INLINE int unsigned_line(Line *d, const Line *a) {
    i64 low, high;
    return ends_u32(a, &low, &high) && put64(d, (u64)low, (u64)a->step);
}
INLINE int signed_line(Line *d, const Line *a) {
    i64 low, high;
    return ends_i32(a, &low, &high) && put64(d, (u64)low, (u64)a->step);
}
LINED1(cvt_64_u32, "cvt.u64.u32", "=b64 b32", 64, 32, unsigned_line(d, a))
LINED1(cvt_64_s32, "cvt.u64.s32", "=b64 b32", 64, 32, signed_line(d, a))
UNARY(wide, "wide", "=b64 b32", u64, u32, a[l])
UNARY(wide_signed, "wide.signed", "=b64 b32", i64, i32, a[l])
LINED1(wide, "wide", "=b64 b32", 64, 32, unsigned_line(d, a))
LINED1(wide_signed, "wide.signed", "=b64 b32", 64, 32, signed_line(d, a))
LINED1(cvt_32_64, "cvt.u32.u64", "=b32 b64", 32, 64, put32(d, a->base, (u64)a->step))

/* --- between floats and integers ----------------------------------------------------------------------------------- */
UNARY(cvt_f32_s32, "cvt.rn.f32.s32", "=b32 b32", f32, i32, a[l])
UNARY(cvt_f32_u32, "cvt.rn.f32.u32", "=b32 b32", f32, u32, a[l])
UNARY(cvt_f32_s64, "cvt.rn.f32.s64", "=b32 b64", f32, i64, a[l])
UNARY(cvt_f32_u64, "cvt.rn.f32.u64", "=b32 b64", f32, u64, a[l])
UNARY(cvt_f64_s32, "cvt.rn.f64.s32", "=b64 b32", f64, i32, a[l])
UNARY(cvt_f64_u32, "cvt.rn.f64.u32", "=b64 b32", f64, u32, a[l])
UNARY(cvt_f64_s64, "cvt.rn.f64.s64", "=b64 b64", f64, i64, a[l])
UNARY(cvt_f64_u64, "cvt.rn.f64.u64", "=b64 b64", f64, u64, a[l])

/* Values out of range saturate; NaN becomes 0. */
INLINE i32 to_s32(f64 v) { return v != v ? 0 : v < -2147483648.0 ? INT32_MIN : v >= 2147483648.0 ? INT32_MAX : (i32)v; }
INLINE u32 to_u32(f64 v) { return v != v ? 0 : v < 0 ? 0 : v >= 4294967296.0 ? UINT32_MAX : (u32)v; }
#define WHOLES(mode, round)                                                                                            \
    UNARY(cvt_##mode##_s32, "cvt." #mode ".s32.f32", "=b32 b32", i32, f32, to_s32(round((f64)a[l])))                   \
    UNARY(cvt_##mode##_u32, "cvt." #mode ".u32.f32", "=b32 b32", u32, f32, to_u32(round((f64)a[l])))                   \
    UNARY(cvt_##mode##_f32, "cvt." #mode ".f32.f32", "=b32 b32", f32, f32, canonical((f32)round((f64)a[l])))
WHOLES(rni, __builtin_rint)
WHOLES(rzi, __builtin_trunc)
WHOLES(rmi, __builtin_floor)
WHOLES(rpi, __builtin_ceil)

/* --- between floats ------------------------------------------------------------------------------------------------ */
UNARY(cvt_f64_f32, "cvt.f64.f32", "=b64 b32", f64, f32, a[l])
UNARY(cvt_f32_f64, "cvt.rn.f32.f64", "=b32 b64", f32, f64, canonical((f32)a[l]))
UNARY(cvt_f32_bf16, "cvt.f32.bf16", "=b32 b16", f32, u32, canonical(of_bf16(a[l])))
UNARY(cvt_bf16_f32, "cvt.rn.bf16.f32", "=b16 b32", u32, f32, to_bf16(a[l]))
BINARY(cvt_bf16x2_f32, "cvt.rn.bf16x2.f32", "=b32 b32 b32", u32, f32, to_bf16(a[l]) << 16 | to_bf16(b[l]))
UNARY(cvt_sat_f32, "cvt.sat.f32.f32", "=b32 b32", f32, f32, a[l] > 0 ? (a[l] < 1 ? a[l] : 1.0f) : 0.0f)

/* --- pairs of 8-bit floats ----------------------------------------------------------------------------------------- */
/* To nearest even, not beyond the largest; NaN becomes 0x7f. mantissa: bits; least: the smallest normal's exponent. */
INLINE u32 to_f8(f64 v, i32 mantissa, i32 least, f64 most) {
    if (v != v) return 0x7F;
    u32 sign = (u32)(bits_of_f64(v) >> 56 & 0x80);
    f64 size = __builtin_fabs(v) > most ? most : __builtin_fabs(v);
    i32 exponent = (i32)(bits_of_f64(size) >> 52) - 1023;
    exponent = exponent < least ? least : exponent;
    u32 digits = (u32)__builtin_rint(size * f64_of((u64)(1023 + mantissa - exponent) << 52)), unit = 1u << mantissa;
    return sign | (digits < unit ? digits : ((u32)(exponent - least + 1) << mantissa) + digits - unit);
}
/* As f16. special: the first code that is no number. */
INLINE u32 of_f8(u32 code, i32 mantissa, i32 least, u32 special) {
    u32 size = code & 0x7F, field = size >> mantissa, digits = size & ((1u << mantissa) - 1);
    if (size >= special && digits) return 0x7FFF;
    if (size >= special) return (code & 0x80) << 8 | 0x7C00;
    f64 whole = field ? digits | 1u << mantissa : digits;
    f64 value = whole * f64_of((u64)(1023 + (i32)(field ? field : 1) - 1 + least - mantissa) << 52);
    return (code & 0x80) << 8 | to_f16(value);
}
INLINE f32 relu(f32 v) { return v != v ? v : v > 0 ? v : 0; }
INLINE u32 relu_f16(u32 bits) { return bits & 0x8000 ? 0 : bits; }
#define SAME(v) (v)
#define EIGHT(name, mantissa, least, most, special, word, keep, keep_f16)                                              \
    BINARY(name##_f32##keep, "cvt.rn.satfinite." word #name "x2.f32", "=b16 b32 b32", u32, f32,                        \
           to_f8(keep(b[l]), mantissa, least, most) | to_f8(keep(a[l]), mantissa, least, most) << 8)                   \
    UNARY(name##_f16##keep, "cvt.rn.satfinite." word #name "x2.f16x2", "=b16 b32", u32, u32,                           \
          to_f8(keep(of_f16(a[l] & 0xFFFF)), mantissa, least, most)                                                    \
              | to_f8(keep(of_f16(a[l] >> 16)), mantissa, least, most) << 8)                                           \
    UNARY(f16_##name##keep, "cvt.rn." word "f16x2." #name "x2", "=b32 b16", u32, u32,                                  \
          keep_f16(of_f8(a[l] & 0xFF, mantissa, least, special))                                                       \
              | keep_f16(of_f8(a[l] >> 8 & 0xFF, mantissa, least, special)) << 16)
EIGHT(e4m3, 3, -6, 448.0, 0x7F, "", SAME, SAME)
EIGHT(e5m2, 2, -14, 57344.0, 0x7C, "", SAME, SAME)
EIGHT(e4m3, 3, -6, 448.0, 0x7F, "relu.", relu, relu_f16)
EIGHT(e5m2, 2, -14, 57344.0, 0x7C, "relu.", relu, relu_f16)
