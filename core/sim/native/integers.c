/* Integer and logic instructions. */
#include "lines.h"

/* --- moves --------------------------------------------------------------------------------------------------------- */
UNARY(mov32, "mov.b32 mov.u32 mov.s32 mov.f32 mov.b16 mov.u16 mov.s16 mov.pred", "=any any", u32, u32, a[l])
UNARY(mov64, "mov.b64 mov.u64 mov.s64 mov.f64", "=b64 b64", u64, u64, a[l])

/* Between widths, where an operand's register is not of its instruction's. Not PTX. */
UNARY(low, "low.b32", "=b32 b64", u32, u64, a[l])
UNARY(low16, "low.b16", "=b16 b32", u32, u32, a[l] & 0xFFFF)
UNARY(low8, "low.b8", "=b8 b32", u32, u32, a[l] & 0xFF)
UNARY(signed16, "signed.b16", "=b32 b16", i32, u32, (i16)a[l])
UNARY(signed8, "signed.b8", "=b32 b8", i32, u32, (i8)a[l])

/* mov.b64 d, {a, b} and back; mov.b32 of halves. */
BINARY(pack64, "pack.b64", "=b64 b32 b32", u64, u32, (u64)b[l] << 32 | a[l])
BINARY(pack32, "pack.b32", "=b32 b16 b16", u32, u32, b[l] << 16 | a[l])
BINARY(pack16, "pack.b16", "=b16 b8 b8", u32, u32, b[l] << 8 | a[l])
UNARY(high64, "high.b64", "=b32 b64", u32, u64, a[l] >> 32)
UNARY(high32, "high.b32", "=b16 b32", u32, u32, a[l] >> 16)
UNARY(high16, "high.b16", "=b8 b16", u32, u32, a[l] >> 8)

/* --- arithmetic ---------------------------------------------------------------------------------------------------- */
#define SUMS(op, c_op)                                                                                                 \
    BINARY(op##16, #op ".u16 " #op ".s16", "=b16 b16 b16", u32, u32, (a[l] c_op b[l]) & 0xFFFF)                        \
    BINARY(op##32, #op ".u32 " #op ".s32", "=b32 b32 b32", u32, u32, a[l] c_op b[l])                                   \
    BINARY(op##64, #op ".u64 " #op ".s64", "=b64 b64 b64", u64, u64, a[l] c_op b[l])
SUMS(add, +)
SUMS(sub, -)

INLINE i32 saturated(i64 v) { return v < INT32_MIN ? INT32_MIN : v > INT32_MAX ? INT32_MAX : (i32)v; }
BINARY(add_sat, "add.sat.s32", "=b32 b32 b32", i32, i32, saturated((i64)a[l] + b[l]))
BINARY(sub_sat, "sub.sat.s32", "=b32 b32 b32", i32, i32, saturated((i64)a[l] - b[l]))

/* Pairs of 16-bit numbers: each half separately. */
#define PAIRS(id, names, T, value)                                                                                     \
    INLINE u32 id##_half(T x, T y) { return (u16)(value); }                                                            \
    BINARY(id, names, "=b32 b32 b32", u32, u32,                                                                        \
           id##_half((T)a[l], (T)b[l]) | id##_half((T)(a[l] >> 16), (T)(b[l] >> 16)) << 16)
PAIRS(add_u16x2, "add.u16x2 add.s16x2", u16, x + y)
PAIRS(min_u16x2, "min.u16x2", u16, x < y ? x : y)
PAIRS(max_u16x2, "max.u16x2", u16, x > y ? x : y)
PAIRS(min_s16x2, "min.s16x2", i16, x < y ? x : y)
PAIRS(max_s16x2, "max.s16x2", i16, x > y ? x : y)
PAIRS(min_relu_s16x2, "min.relu.s16x2", i16, x < 0 || y < 0 ? 0 : x < y ? x : y)
PAIRS(max_relu_s16x2, "max.relu.s16x2", i16, x < 0 && y < 0 ? 0 : x > y ? x : y)
BINARY(min_relu, "min.relu.s32", "=b32 b32 b32", i32, i32, a[l] < 0 || b[l] < 0 ? 0 : a[l] < b[l] ? a[l] : b[l])
BINARY(max_relu, "max.relu.s32", "=b32 b32 b32", i32, i32, a[l] < 0 && b[l] < 0 ? 0 : a[l] > b[l] ? a[l] : b[l])

BINARY(mul16, "mul.lo.u16 mul.lo.s16", "=b16 b16 b16", u32, u32, (a[l] * b[l]) & 0xFFFF)
BINARY(mul32, "mul.lo.u32 mul.lo.s32", "=b32 b32 b32", u32, u32, a[l] * b[l])
BINARY(mul64, "mul.lo.u64 mul.lo.s64", "=b64 b64 b64", u64, u64, a[l] * b[l])
TERNARY(mad16, "mad.lo.u16 mad.lo.s16", "=b16 b16 b16 b16", u32, u32, (a[l] * b[l] + c[l]) & 0xFFFF)
TERNARY(mad32, "mad.lo.u32 mad.lo.s32", "=b32 b32 b32 b32", u32, u32, a[l] * b[l] + c[l])
TERNARY(mad64, "mad.lo.u64 mad.lo.s64", "=b64 b64 b64 b64", u64, u64, a[l] * b[l] + c[l])

BINARY(mulhi_u16, "mul.hi.u16", "=b16 b16 b16", u32, u32, (a[l] * b[l]) >> 16)
BINARY(mulhi_s16, "mul.hi.s16", "=b16 b16 b16", u32, u32, (u32)((i16)a[l] * (i16)b[l]) >> 16)
BINARY(mulhi_u32, "mul.hi.u32", "=b32 b32 b32", u32, u32, (u64)a[l] * b[l] >> 32)
BINARY(mulhi_s32, "mul.hi.s32", "=b32 b32 b32", i32, i32, (i64)a[l] * b[l] >> 32)
BINARY(mulhi_u64, "mul.hi.u64", "=b64 b64 b64", u64, u64, (unsigned __int128)a[l] * b[l] >> 64)
BINARY(mulhi_s64, "mul.hi.s64", "=b64 b64 b64", i64, i64, (__int128)a[l] * b[l] >> 64)
TERNARY(madhi_u32, "mad.hi.u32", "=b32 b32 b32 b32", u32, u32, (u32)((u64)a[l] * b[l] >> 32) + c[l])
TERNARY(madhi_s32, "mad.hi.s32", "=b32 b32 b32 b32", i32, i32, (u32)((i64)a[l] * b[l] >> 32) + (u32)c[l])
TERNARY(madhi_u16, "mad.hi.u16", "=b16 b16 b16 b16", u32, u32, (((a[l] * b[l]) >> 16) + c[l]) & 0xFFFF)
TERNARY(madhi_s16, "mad.hi.s16", "=b16 b16 b16 b16", u32, u32,
        (((u32)((i16)a[l] * (i16)b[l]) >> 16) + c[l]) & 0xFFFF)
TERNARY(madhi_u64, "mad.hi.u64", "=b64 b64 b64 b64", u64, u64, (u64)((unsigned __int128)a[l] * b[l] >> 64) + c[l])
TERNARY(madhi_s64, "mad.hi.s64", "=b64 b64 b64 b64", i64, i64, (u64)((__int128)a[l] * b[l] >> 64) + (u64)c[l])
BINARY(mulwide_u16, "mul.wide.u16", "=b32 b16 b16", u32, u32, a[l] * b[l])
BINARY(mulwide_s16, "mul.wide.s16", "=b32 b16 b16", i32, u32, (i16)a[l] * (i16)b[l])
BINARY(mulwide_u32, "mul.wide.u32", "=b64 b32 b32", u64, u32, (u64)a[l] * b[l])
BINARY(mulwide_s32, "mul.wide.s32", "=b64 b32 b32", i64, i32, (i64)a[l] * b[l])
LANEWISE(madwide_u16, "mad.wide.u16", "=b32 b16 b16 b32", u32,
         const u32 *a = REG(u32, 1); const u32 *b = REG(u32, 2); const u32 *c = REG(u32, 3), a[l] * b[l] + c[l])
LANEWISE(madwide_s16, "mad.wide.s16", "=b32 b16 b16 b32", u32,
         const u32 *a = REG(u32, 1); const u32 *b = REG(u32, 2); const u32 *c = REG(u32, 3),
         (u32)((i16)a[l] * (i16)b[l]) + c[l])
LANEWISE(madwide_u32, "mad.wide.u32", "=b64 b32 b32 b64", u64,
         const u32 *a = REG(u32, 1); const u32 *b = REG(u32, 2); const u64 *c = REG(u64, 3), (u64)a[l] * b[l] + c[l])
LANEWISE(madwide_s32, "mad.wide.s32", "=b64 b32 b32 b64", i64,
         const i32 *a = REG(i32, 1); const i32 *b = REG(i32, 2); const i64 *c = REG(i64, 3), (i64)a[l] * b[l] + c[l])

/* Division truncates toward zero; by zero it gives all ones, and the remainder is the dividend. */
#define QUOTIENT(a, b) ((b) == 0 ? -1 : (b) == -1 ? 0 - (a) : (a) / (b))
#define REMAINDER(a, b) ((b) == 0 ? (a) : (b) == -1 ? 0 : (a) % (b))
#define DIVISIONS(bits, S, U, N)                                                                                       \
    BINARY(div_u##bits, "div.u" #bits, "=b" #bits " b" #bits " b" #bits, U, U, b[l] ? a[l] / b[l] : (N)~(N)0)          \
    BINARY(rem_u##bits, "rem.u" #bits, "=b" #bits " b" #bits " b" #bits, U, U, b[l] ? a[l] % b[l] : a[l])
DIVISIONS(16, i16, u32, u16)
DIVISIONS(32, i32, u32, u32)
DIVISIONS(64, i64, u64, u64)
BINARY(div_s16, "div.s16", "=b16 b16 b16", u32, u32, (u16)QUOTIENT((i16)a[l], (i16)b[l]))
BINARY(div_s32, "div.s32", "=b32 b32 b32", i32, i32, QUOTIENT(a[l], b[l]))
BINARY(div_s64, "div.s64", "=b64 b64 b64", i64, i64, QUOTIENT(a[l], b[l]))
BINARY(rem_s16, "rem.s16", "=b16 b16 b16", u32, u32, (u16)REMAINDER((i16)a[l], (i16)b[l]))
BINARY(rem_s32, "rem.s32", "=b32 b32 b32", i32, i32, REMAINDER(a[l], b[l]))
BINARY(rem_s64, "rem.s64", "=b64 b64 b64", i64, i64, REMAINDER(a[l], b[l]))

#define EXTREMES(name, c_op)                                                                                           \
    BINARY(name##_u16, #name ".u16", "=b16 b16 b16", u32, u32, a[l] c_op b[l] ? a[l] : b[l])                           \
    BINARY(name##_s16, #name ".s16", "=b16 b16 b16", u32, u32, (i16)a[l] c_op (i16)b[l] ? a[l] : b[l])                 \
    BINARY(name##_u32, #name ".u32", "=b32 b32 b32", u32, u32, a[l] c_op b[l] ? a[l] : b[l])                           \
    BINARY(name##_s32, #name ".s32", "=b32 b32 b32", i32, i32, a[l] c_op b[l] ? a[l] : b[l])                           \
    BINARY(name##_u64, #name ".u64", "=b64 b64 b64", u64, u64, a[l] c_op b[l] ? a[l] : b[l])                           \
    BINARY(name##_s64, #name ".s64", "=b64 b64 b64", i64, i64, a[l] c_op b[l] ? a[l] : b[l])
EXTREMES(min, <)
EXTREMES(max, >)

UNARY(neg16, "neg.s16", "=b16 b16", u32, u32, (0 - a[l]) & 0xFFFF)
UNARY(neg32, "neg.s32", "=b32 b32", u32, u32, 0 - a[l])
UNARY(neg64, "neg.s64", "=b64 b64", u64, u64, 0 - a[l])
UNARY(abs16, "abs.s16", "=b16 b16", u32, u32, ((i16)a[l] < 0 ? 0 - a[l] : a[l]) & 0xFFFF)
UNARY(abs32, "abs.s32", "=b32 b32", u32, u32, (i32)a[l] < 0 ? 0 - a[l] : a[l])
UNARY(abs64, "abs.s64", "=b64 b64", u64, u64, (i64)a[l] < 0 ? 0 - a[l] : a[l])

/* --- logic --------------------------------------------------------------------------------------------------------- */
#define LOGIC(op, c_op)                                                                                                \
    BINARY(op##32, #op ".b32 " #op ".b16 " #op ".pred", "=any any any", u32, u32, a[l] c_op b[l])                      \
    BINARY(op##64, #op ".b64", "=b64 b64 b64", u64, u64, a[l] c_op b[l])
LOGIC(and, &)
LOGIC(or, |)
LOGIC(xor, ^)
UNARY(not16, "not.b16", "=b16 b16", u32, u32, ~a[l] & 0xFFFF)
UNARY(not32, "not.b32 not.pred", "=any any", u32, u32, ~a[l])
UNARY(not64, "not.b64", "=b64 b64", u64, u64, ~a[l])
UNARY(cnot16, "cnot.b16", "=b16 b16", u32, u32, a[l] == 0)
UNARY(cnot32, "cnot.b32", "=b32 b32", u32, u32, a[l] == 0)
UNARY(cnot64, "cnot.b64", "=b64 b64", u64, u64, a[l] == 0)

/* --- shifts: by the width or more, everything or all but the sign is gone ------------------------------------------ */
#define SHIFTS(bits, U, value)                                                                                         \
    LANEWISE(shl##bits, "shl.b" #bits, "=b" #bits " b" #bits " b32", U,                                                \
             const U *a = REG(U, 1); const u32 *b = REG(u32, 2), b[l] < bits ? (a[l] << b[l]) value : 0)               \
    LANEWISE(shr_u##bits, "shr.b" #bits " shr.u" #bits, "=b" #bits " b" #bits " b32", U,                               \
             const U *a = REG(U, 1); const u32 *b = REG(u32, 2), b[l] < bits ? a[l] >> b[l] : 0)
SHIFTS(16, u32, & 0xFFFF)
SHIFTS(32, u32, )
SHIFTS(64, u64, )
LANEWISE(shr_s16, "shr.s16", "=b16 b16 b32", u32, const u32 *a = REG(u32, 1); const u32 *b = REG(u32, 2),
         (u16)((i16)a[l] >> (b[l] < 15 ? b[l] : 15)))
LANEWISE(shr_s32, "shr.s32", "=b32 b32 b32", i32, const i32 *a = REG(i32, 1); const u32 *b = REG(u32, 2),
         a[l] >> (b[l] < 31 ? b[l] : 31))
LANEWISE(shr_s64, "shr.s64", "=b64 b64 b32", i64, const i64 *a = REG(i64, 1); const u32 *b = REG(u32, 2),
         a[l] >> (b[l] < 63 ? b[l] : 63))

/* --- choices ------------------------------------------------------------------------------------------------------- */
LANEWISE(selp32, "selp.b32 selp.u32 selp.s32 selp.f32 selp.b16 selp.u16 selp.s16", "=any any any p", u32,
         const u32 *a = REG(u32, 1); const u32 *b = REG(u32, 2); const u32 *c = REG(u32, 3), c[l] ? a[l] : b[l])
LANEWISE(selp64, "selp.b64 selp.u64 selp.s64 selp.f64", "=b64 b64 b64 p", u64,
         const u64 *a = REG(u64, 1); const u64 *b = REG(u64, 2); const u32 *c = REG(u32, 3), c[l] ? a[l] : b[l])

/* --- comparisons --------------------------------------------------------------------------------------------------- */
#define TRUTH(cond) (-(i32)(cond))
#define COMPARISONS(name, c_op)                                                                                        \
    BINARY(setp_##name##_u16, "setp." #name ".u16", "=p b16 b16", i32, u32, TRUTH(a[l] c_op b[l]))                     \
    BINARY(setp_##name##_s16, "setp." #name ".s16", "=p b16 b16", i32, u32, TRUTH((i16)a[l] c_op (i16)b[l]))           \
    BINARY(setp_##name##_u32, "setp." #name ".u32", "=p b32 b32", i32, u32, TRUTH(a[l] c_op b[l]))                     \
    BINARY(setp_##name##_s32, "setp." #name ".s32", "=p b32 b32", i32, i32, TRUTH(a[l] c_op b[l]))                     \
    BINARY(setp_##name##_u64, "setp." #name ".u64", "=p b64 b64", i32, u64, TRUTH(a[l] c_op b[l]))                     \
    BINARY(setp_##name##_s64, "setp." #name ".s64", "=p b64 b64", i32, i64, TRUTH(a[l] c_op b[l]))                     \
    BINARY(setp_##name##_f32, "setp." #name ".f32", "=p b32 b32", i32, f32, TRUTH(a[l] c_op b[l]))                     \
    BINARY(setp_##name##_f64, "setp." #name ".f64", "=p b64 b64", i32, f64, TRUTH(a[l] c_op b[l]))
COMPARISONS(lt, <)
COMPARISONS(le, <=)
COMPARISONS(gt, >)
COMPARISONS(ge, >=)
#define EQUALITIES(name, c_op)                                                                                         \
    BINARY(setp_##name##16, "setp." #name ".b16 setp." #name ".u16 setp." #name ".s16", "=p b16 b16", i32, u32,        \
           TRUTH(a[l] c_op b[l]))                                                                                      \
    BINARY(setp_##name##32, "setp." #name ".b32 setp." #name ".u32 setp." #name ".s32", "=p b32 b32", i32, u32,        \
           TRUTH(a[l] c_op b[l]))                                                                                      \
    BINARY(setp_##name##64, "setp." #name ".b64 setp." #name ".u64 setp." #name ".s64", "=p b64 b64", i32, u64,        \
           TRUTH(a[l] c_op b[l]))
EQUALITIES(eq, ==)
EQUALITIES(ne, !=)
#define UNORDERED(name, value)                                                                                         \
    BINARY(setp_##name##_f32, "setp." #name ".f32", "=p b32 b32", i32, f32, TRUTH(value))                              \
    BINARY(setp_##name##_f64, "setp." #name ".f64", "=p b64 b64", i32, f64, TRUTH(value))
UNORDERED(eq, a[l] == b[l])
UNORDERED(ne, a[l] < b[l] || a[l] > b[l])
UNORDERED(equ, !(a[l] < b[l] || a[l] > b[l]))
UNORDERED(neu, a[l] != b[l])
UNORDERED(ltu, !(a[l] >= b[l]))
UNORDERED(leu, !(a[l] > b[l]))
UNORDERED(gtu, !(a[l] <= b[l]))
UNORDERED(geu, !(a[l] < b[l]))
UNORDERED(num, a[l] == a[l] && b[l] == b[l])
UNORDERED(nan, a[l] != a[l] || b[l] != b[l])

/* --- lines: of the instructions that make indices and addresses ------------------------------------------------------ */
INLINE int scaled(i64 *base, i64 *step, const Line *a, const Line *b) {   /* a product, where one factor has no step */
    if (a->step && b->step) return 0;
    *base = (i64)(a->base * b->base);
    *step = (i64)((u64)a->step * b->base + (u64)b->step * a->base);
    return 1;
}
INLINE int product(Line *d, const Line *a, const Line *b, const Line *c, int wide) {
    i64 base, step;
    if (!scaled(&base, &step, a, b)) return 0;
    base += c ? (i64)c->base : 0, step += c ? c->step : 0;
    return wide ? put64(d, (u64)base, (u64)step) : put32(d, (u64)base, (u64)step);
}
#define WIDE_PRODUCT(T)                                                                                                \
    INLINE int wide_product_##T(Line *d, const Line *a, const Line *b, const Line *c) {                                \
        i64 a0, a1, b0, b1;                                                                                            \
        if (!ends_##T(a, &a0, &a1) || !ends_##T(b, &b0, &b1)) return 0;                                                \
        Line x = {(u64)a0, a->step, BOTH}, y = {(u64)b0, b->step, BOTH};                                               \
        return product(d, &x, &y, c, 1);                                                                               \
    }
WIDE_PRODUCT(i32)   /* of 32 bits to 64: factors that do not wrap around */
WIDE_PRODUCT(u32)

LINED1(mov32, "mov.b32", "=any any", 32, 32, put32(d, a->base, (u64)a->step))
LINED1(mov64, "mov.b64", "=b64 b64", 64, 64, put64(d, a->base, (u64)a->step))
LINED1(low, "low.b32", "=b32 b64", 32, 64, put32(d, a->base, (u64)a->step))
#define LINED_SUMS(op, c_op)                                                                                           \
    LINED2(op##32, #op ".u32", "=b32 b32 b32", 32, 32, 32, put32(d, a->base c_op b->base, (u64)a->step c_op (u64)b->step)) \
    LINED2(op##64, #op ".u64", "=b64 b64 b64", 64, 64, 64, put64(d, a->base c_op b->base, (u64)a->step c_op (u64)b->step))
LINED_SUMS(add, +)
LINED_SUMS(sub, -)
LINED2(mul32, "mul.lo.u32", "=b32 b32 b32", 32, 32, 32, product(d, a, b, 0, 0))
LINED2(mul64, "mul.lo.u64", "=b64 b64 b64", 64, 64, 64, product(d, a, b, 0, 1))
LINED3(mad32, "mad.lo.u32", "=b32 b32 b32 b32", 32, 32, 32, 32, product(d, a, b, c, 0))
LINED3(mad64, "mad.lo.u64", "=b64 b64 b64 b64", 64, 64, 64, 64, product(d, a, b, c, 1))
LINED2(mulwide_u32, "mul.wide.u32", "=b64 b32 b32", 64, 32, 32, wide_product_u32(d, a, b, 0))
LINED2(mulwide_s32, "mul.wide.s32", "=b64 b32 b32", 64, 32, 32, wide_product_i32(d, a, b, 0))
LINED3(madwide_u32, "mad.wide.u32", "=b64 b32 b32 b64", 64, 32, 32, 64, wide_product_u32(d, a, b, c))
LINED3(madwide_s32, "mad.wide.s32", "=b64 b32 b32 b64", 64, 32, 32, 64, wide_product_i32(d, a, b, c))
#define NO_STEP (!a->step && !b->step)
LINED2(div_u32, "div.u32", "=b32 b32 b32", 32, 32, 32, NO_STEP && put32(d, b->base ? a->base / b->base : ALL, 0))
LINED2(rem_u32, "rem.u32", "=b32 b32 b32", 32, 32, 32, NO_STEP && put32(d, b->base ? a->base % b->base : a->base, 0))
LINED2(div_s32, "div.s32", "=b32 b32 b32", 32, 32, 32,
       NO_STEP && put32(d, (u64)QUOTIENT((i64)(i32)a->base, (i64)(i32)b->base), 0))
LINED2(rem_s32, "rem.s32", "=b32 b32 b32", 32, 32, 32,
       NO_STEP && put32(d, (u64)REMAINDER((i64)(i32)a->base, (i64)(i32)b->base), 0))
#define LINED_EXTREMES(name, c_op)                                                                                     \
    LINED2(name##_u32, #name ".u32", "=b32 b32 b32", 32, 32, 32, NO_STEP && put32(d, a->base c_op b->base ? a->base : b->base, 0)) \
    LINED2(name##_s32, #name ".s32", "=b32 b32 b32", 32, 32, 32,                                                       \
           NO_STEP && put32(d, (i32)a->base c_op (i32)b->base ? a->base : b->base, 0))
LINED_EXTREMES(min, <)
LINED_EXTREMES(max, >)

/* A mask of low bits keeps a line whose other bits are the same in all lanes. */
INLINE int masked(Line *d, const Line *a, const Line *b, int wide) {
    const Line *x = b->step ? b : a, *mask = b->step ? a : b;
    i64 low, high;
    if (!x->step) return wide ? put64(d, a->base & b->base, 0) : put32(d, a->base & b->base, 0);
    if (mask->step || mask->base & (mask->base + 1) || !(wide ? ends_u64(x, &low, &high) : ends_u32(x, &low, &high))) return 0;
    if (((u64)low ^ (u64)high) & ~mask->base) return 0;
    return wide ? put64(d, (u64)low & mask->base, (u64)x->step) : put32(d, (u64)low & mask->base, (u64)x->step);
}
LINED2(and32, "and.b32", "=any any any", 32, 32, 32, masked(d, a, b, 0))
LINED2(and64, "and.b64", "=b64 b64 b64", 64, 64, 64, masked(d, a, b, 1))
LINED2(or32, "or.b32", "=any any any", 32, 32, 32, NO_STEP && put32(d, a->base | b->base, 0))
LINED2(or64, "or.b64", "=b64 b64 b64", 64, 64, 64, NO_STEP && put64(d, a->base | b->base, 0))
LINED2(xor32, "xor.b32", "=any any any", 32, 32, 32, NO_STEP && put32(d, a->base ^ b->base, 0))
LINED1(not32, "not.b32", "=any any", 32, 32, put32(d, ~a->base, 0 - (u64)a->step))
LINED1(not64, "not.b64", "=b64 b64", 64, 64, put64(d, ~a->base, 0 - (u64)a->step))
LINED1(neg32, "neg.s32", "=b32 b32", 32, 32, put32(d, 0 - a->base, 0 - (u64)a->step))
LINED1(neg64, "neg.s64", "=b64 b64", 64, 64, put64(d, 0 - a->base, 0 - (u64)a->step))
#define LINED_SHIFTS(bits)                                                                                             \
    INLINE int left##bits(Line *d, const Line *a, const Line *b) {                                                     \
        if (b->step) return 0;                                                                                         \
        return b->base < bits ? put##bits(d, a->base << b->base, (u64)a->step << b->base) : put##bits(d, 0, 0);        \
    }                                                                                                                  \
    INLINE int right##bits(Line *d, const Line *a, const Line *b) {                                                    \
        i64 low, high;                                                                                                 \
        if (b->step) return 0;                                                                                         \
        if (b->base >= bits || !a->step) return put##bits(d, b->base < bits ? a->base >> b->base : 0, 0);              \
        if (!ends_u##bits(a, &low, &high) || low >> b->base != high >> b->base) return 0;                              \
        return put##bits(d, (u64)low >> b->base, 0);                                                                   \
    }                                                                                                                  \
    LINED2(shl##bits, "shl.b" #bits, "=b" #bits " b" #bits " b32", bits, bits, 32, left##bits(d, a, b))                \
    LINED2(shr_u##bits, "shr.b" #bits, "=b" #bits " b" #bits " b32", bits, bits, 32, right##bits(d, a, b))
LINED_SHIFTS(32)
LINED_SHIFTS(64)
LINED2(shr_s32, "shr.s32", "=b32 b32 b32", 32, 32, 32,
       NO_STEP && put32(d, (u64)((i32)a->base >> (b->base < 31 ? b->base : 31)), 0))

#define CHOSEN_LINE(bits)                                                                                              \
    c->kind && (c->base ? a : b)->kind && put##bits(d, (c->base ? a : b)->base, (u64)(c->base ? a : b)->step)
#define LINED_CHOICE(bits, names)                                                                                      \
    LINED(selp##bits, "selp.b" #bits, names, bits, Line *a = LINE(1); Line *b = LINE(2); Line *c = LINE(3), 1,         \
          spread##bits(a); spread##bits(b); spread32(c), CHOSEN_LINE(bits))
LINED_CHOICE(32, "=any any any p")
LINED_CHOICE(64, "=b64 b64 b64 p")

/* The difference of two lines is a line: what holds at both ends of an order holds between. */
#define LINED_ORDER(name, c_op, type, T, bits)                                                                         \
    INLINE int name##_line_##type(Line *d, const Line *a, const Line *b) {                                             \
        i64 a0, a1, b0, b1;                                                                                            \
        if (!ends_##T(a, &a0, &a1) || !ends_##T(b, &b0, &b1) || (a0 c_op b0) != (a1 c_op b1)) return 0;                \
        return put32(d, a0 c_op b0 ? ALL : 0, 0);                                                                      \
    }                                                                                                                  \
    LINED2(setp_##name##_##type, "setp." #name "." #type, "=p b" #bits " b" #bits, 32, bits, bits,                     \
           name##_line_##type(d, a, b))
#define LINED_ORDERS(name, c_op)                                                                                       \
    LINED_ORDER(name, c_op, u32, u32, 32)                                                                              \
    LINED_ORDER(name, c_op, s32, i32, 32)                                                                              \
    LINED_ORDER(name, c_op, u64, u64, 64)                                                                              \
    LINED_ORDER(name, c_op, s64, i64, 64)
LINED_ORDERS(lt, <)
LINED_ORDERS(le, <=)
LINED_ORDERS(gt, >)
LINED_ORDERS(ge, >=)
#define LINED_EQUALITY(name, bits, same)                                                                               \
    INLINE int name##_line_##bits(Line *d, const Line *a, const Line *b) {                                             \
        i64 a0, a1, b0, b1;                                                                                            \
        if (!a->step && !b->step) return put32(d, (a->base == b->base) == same ? ALL : 0, 0);                          \
        if (!ends_i##bits(a, &a0, &a1) || !ends_i##bits(b, &b0, &b1)) return 0;                                        \
        if ((a0 < b0 && a1 < b1) || (a0 > b0 && a1 > b1)) return put32(d, same ? 0 : ALL, 0);                          \
        return 0;                                                                                                      \
    }                                                                                                                  \
    LINED2(setp_##name##bits, "setp." #name ".b" #bits, "=p b" #bits " b" #bits, 32, bits, bits,                       \
           name##_line_##bits(d, a, b))
LINED_EQUALITY(eq, 32, 1)
LINED_EQUALITY(eq, 64, 1)
LINED_EQUALITY(ne, 32, 0)
LINED_EQUALITY(ne, 64, 0)
