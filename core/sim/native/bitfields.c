/* Integer instructions beyond arithmetic: bits counted, searched, moved and selected; sums over several words. */
#include "machine.h"

/* --- counting and finding -------------------------------------------------------------------------------------------- */
UNARY(popc32, "popc.b32", "=b32 b32", u32, u32, __builtin_popcount(a[l]))
UNARY(popc64, "popc.b64", "=b32 b64", u32, u64, __builtin_popcountll(a[l]))
INLINE u32 zeros32(u32 x) { return x ? (u32)__builtin_clz(x) : 32; }
INLINE u32 zeros64(u64 x) { return x ? (u32)__builtin_clzll(x) : 64; }
UNARY(clz32, "clz.b32", "=b32 b32", u32, u32, zeros32(a[l]))
UNARY(clz64, "clz.b64", "=b32 b64", u32, u64, zeros64(a[l]))

INLINE u32 reversed32(u32 x) {
    x = (x >> 1 & 0x55555555u) | (x & 0x55555555u) << 1;
    x = (x >> 2 & 0x33333333u) | (x & 0x33333333u) << 2;
    x = (x >> 4 & 0x0F0F0F0Fu) | (x & 0x0F0F0F0Fu) << 4;
    return __builtin_bswap32(x);
}
UNARY(brev32, "brev.b32", "=b32 b32", u32, u32, reversed32(a[l]))
UNARY(brev64, "brev.b64", "=b64 b64", u64, u64, (u64)reversed32((u32)a[l]) << 32 | reversed32((u32)(a[l] >> 32)))

/* bfind: the place of the top bit, of a signed value the top bit that differs from the sign; all ones for none.
   .shiftamt: how far left that bit has to go to become the top one. */
#define FINDS(bits, U, S, sources)                                                                                     \
    UNARY(bfind_u##bits, "bfind.u" #bits, sources, u32, U, bits - 1 - zeros##bits(a[l]))                               \
    UNARY(bfind_s##bits, "bfind.s" #bits, sources, u32, S, bits - 1 - zeros##bits((U)(a[l] < 0 ? ~a[l] : a[l])))       \
    UNARY(bfindshift_u##bits, "bfind.shiftamt.u" #bits, sources, u32, U, a[l] ? zeros##bits(a[l]) : ALL)               \
    UNARY(bfindshift_s##bits, "bfind.shiftamt.s" #bits, sources, u32, S,                                               \
          (a[l] < 0 ? ~a[l] : a[l]) ? zeros##bits((U)(a[l] < 0 ? ~a[l] : a[l])) : ALL)
FINDS(32, u32, i32, "=b32 b32")
FINDS(64, u64, i64, "=b32 b64")

/* fns d, mask, base, offset: the offset-th bit that is set, from bit base up, or down for a negative offset. */
INLINE u32 nth_set(u32 mask, u32 base, i32 offset) {
    i64 step = offset < 0 ? -1 : 1, left = offset < 0 ? -(i64)offset : offset ? offset : 1;
    i64 from = offset < 0 && base > 31 ? 31 : (i64)base, end = offset == 0 ? (i64)base + 1 : step < 0 ? -1 : 32;
    for (i64 bit = from; bit >= 0 && bit < 32 && bit != end; bit += step)
        if (mask >> bit & 1 && --left == 0) return (u32)bit;
    return ALL;
}
LANEWISE(fns, "fns.b32", "=b32 b32 b32 b32", u32,
         const u32 *a = REG(u32, 1); const u32 *b = REG(u32, 2); const i32 *c = REG(i32, 3), nth_set(a[l], b[l], c[l]))

/* --- fields ---------------------------------------------------------------------------------------------------------- */
#define LOW(n) ((n) >= 64 ? ~(u64)0 : ((u64)1 << (n)) - 1)
INLINE u64 extracted(i64 value, u64 at, u64 n, u32 bits, int sign) {
    u64 width = n < bits ? n : bits, low = at < bits ? at : bits, field;
    if (!width) return 0;
    field = low >= 64 ? (sign ? (u64)(value >> 63) : 0) : sign ? (u64)(value >> low) : (u64)value >> low;
    field &= LOW(width);
    u64 top = low + width - 1 < bits - 1 ? low + width - 1 : bits - 1;
    return sign && (u64)value >> top & 1 ? field | ~LOW(width) : field;
}
#define EXTRACT(bits, name, T, R, sign)                                                                                \
    LANEWISE(bfe_##name, "bfe." #name, "=b" #bits " b" #bits " b32 b32", R,                                            \
             const T *a = REG(T, 1); const u32 *b = REG(u32, 2); const u32 *c = REG(u32, 3),                           \
             extracted((i64)a[l], b[l] & 255, c[l] & 255, bits, sign))
EXTRACT(32, u32, u32, u32, 0)
EXTRACT(32, s32, i32, u32, 1)
EXTRACT(64, u64, u64, u64, 0)
EXTRACT(64, s64, i64, u64, 1)

/* bfi d, a, b, start, length: a's low bits into b. */
INLINE u64 inserted(u64 a, u64 b, u64 at, u64 n, u32 bits) {
    u64 moved = at >= bits ? 0 : LOW(n < bits ? n : bits) << at;
    return (b & ~moved) | (a << (at < 63 ? at : 63) & moved);
}
#define INSERT(bits, T)                                                                                                \
    LANEWISE(bfi_b##bits, "bfi.b" #bits, "=b" #bits " b" #bits " b" #bits " b32 more:b32", T,                          \
             const T *a = REG(T, 1); const T *b = REG(T, 2); const u32 *c = REG(u32, 3);                               \
             const u32 *n = (const u32 *)(w->r + op->more[0]), inserted(a[l], b[l], c[l] & 255, n[l] & 255, bits))
INSERT(32, u32)
INSERT(64, u64)

/* --- bytes and logic ------------------------------------------------------------------------------------------------- */
/* prmt: four bytes of b:a chosen by c's nibbles; a nibble's top bit repeats the byte's sign. */
INLINE u32 permuted(u32 a, u32 b, u32 chosen) {
    u64 both = (u64)b << 32 | a;
    u32 result = 0;
    for (int i = 0; i < 4; i++) {
        u32 nibble = chosen >> 4 * i & 15, octet = (u32)(both >> 8 * (nibble & 7)) & 255;
        result |= (nibble < 8 ? octet : octet >= 128 ? 255 : 0) << 8 * i;
    }
    return result;
}
TERNARY(prmt, "prmt.b32", "=b32 b32 b32 b32", u32, u32, permuted(a[l], b[l], c[l]))

/* prmt's modes: imm is the mode's table, four nibbles for each of c's two low bits: the places in b:a. */
INLINE u32 permuted_by(u32 a, u32 b, u32 chosen, u64 table) {
    u64 both = (u64)b << 32 | a;
    u32 result = 0, places = (u32)(table >> 16 * (chosen & 3)) & 0xFFFF;
    for (int i = 0; i < 4; i++) result |= ((u32)(both >> 8 * (places >> 4 * i & 7)) & 255) << 8 * i;
    return result;
}
LANEWISE(prmt_mode, "prmt.mode", "=b32 b32 b32 b32", u32, const u32 *a = REG(u32, 1); const u32 *b = REG(u32, 2);
         const u32 *c = REG(u32, 3); u64 table = (u64)op->imm, permuted_by(a[l], b[l], c[l], table))

/* bmsk: a mask of b bits from bit a up. szext: the low b bits of a, with their sign or zeros above. */
INLINE u32 ones_from(u32 place) { return (u32)(0xFFFFFFFFull << place); }
INLINE u32 bit_mask(u32 at, u32 width, int clamp) {
    u32 low = at & 31, end = low + (width & 31), ones = ones_from(low), beyond = ones_from(end < 32 ? end : 32);
    if (clamp && at >= 32) ones = beyond = 0;
    if (clamp && width >= 32) beyond = 0;
    return ones & ~beyond;
}
BINARY(bmsk_clamp, "bmsk.clamp.b32", "=b32 b32 b32", u32, u32, bit_mask(a[l], b[l], 1))
BINARY(bmsk_wrap, "bmsk.wrap.b32", "=b32 b32 b32", u32, u32, bit_mask(a[l], b[l], 0))
INLINE u32 size_extended(u32 value, u32 count, int clamp, int sign) {
    u32 width = count & 31, large = clamp && count >= 32, above = large ? 0 : ones_from(width);
    u32 negative = sign && !large && width && value >> ((width - 1) & 31) & 1;
    return (value & ~above) | (negative ? above : 0);
}
#define SZEXT(mode, clamp)                                                                                             \
    BINARY(szext_##mode##_u32, "szext." #mode ".u32", "=b32 b32 b32", u32, u32, size_extended(a[l], b[l], clamp, 0))   \
    BINARY(szext_##mode##_s32, "szext." #mode ".s32", "=b32 b32 b32", u32, u32, size_extended(a[l], b[l], clamp, 1))
SZEXT(clamp, 1)
SZEXT(wrap, 0)

/* lop3: any logic of three inputs by its truth table, bit (a << 2 | b << 1 | c) of the immediate. */
#define BIT(n) ((u32) - (i32)(op->imm >> n & 1))
LANEWISE(lop3, "lop3.b32", "=b32 b32 b32 b32", u32,
         const u32 *a = REG(u32, 1); const u32 *b = REG(u32, 2); const u32 *c = REG(u32, 3);
         u32 t0 = BIT(0); u32 t1 = BIT(1); u32 t2 = BIT(2); u32 t3 = BIT(3);
         u32 t4 = BIT(4); u32 t5 = BIT(5); u32 t6 = BIT(6); u32 t7 = BIT(7),
         (~a[l] & ((~b[l] & ((~c[l] & t0) | (c[l] & t1))) | (b[l] & ((~c[l] & t2) | (c[l] & t3)))))
             | (a[l] & ((~b[l] & ((~c[l] & t4) | (c[l] & t5))) | (b[l] & ((~c[l] & t6) | (c[l] & t7))))))

/* shf: 32 bits out of b:a, shifted by c. */
#define FUNNEL(name, by, value)                                                                                        \
    TERNARY(shf_##name, name##_NAME, "=b32 b32 b32 b32", u32, u32, value(((u64)b[l] << 32 | a[l]), (u64)(by)))
#define l_clamp_NAME "shf.l.clamp.b32"
#define l_wrap_NAME "shf.l.wrap.b32"
#define r_clamp_NAME "shf.r.clamp.b32"
#define r_wrap_NAME "shf.r.wrap.b32"
#define UPPER(both, n) (u32)((both) << (n) >> 32)
#define LOWER(both, n) (u32)((both) >> (n))
FUNNEL(l_clamp, c[l] < 32 ? c[l] : 32, UPPER)
FUNNEL(l_wrap, c[l] & 31, UPPER)
FUNNEL(r_clamp, c[l] < 32 ? c[l] : 32, LOWER)
FUNNEL(r_wrap, c[l] & 31, LOWER)

/* --- sums and products ----------------------------------------------------------------------------------------------- */
#define SAD(name, width, T, R, and)                                                                                    \
    TERNARY(sad_##name, "sad." #name, "=b" #width " b" #width " b" #width " b" #width, R, R,                           \
            (c[l] + (R)((T)a[l] < (T)b[l] ? (T)b[l] - (T)a[l] : (T)a[l] - (T)b[l])) and)
SAD(u16, 16, u16, u32, & 0xFFFF)
SAD(s16, 16, i16, u32, & 0xFFFF)
SAD(u32, 32, u32, u32, )
SAD(s32, 32, i32, u32, )
SAD(u64, 64, u64, u64, )
SAD(s64, 64, i64, u64, )

BINARY(mul24_u32, "mul24.lo.u32", "=b32 b32 b32", u32, u32, (a[l] & 0xFFFFFF) * (b[l] & 0xFFFFFF))
BINARY(mul24_s32, "mul24.lo.s32", "=b32 b32 b32", u32, i32, (u32)(a[l] << 8 >> 8) * (u32)(b[l] << 8 >> 8))

#define LOW24(x) ((u64)((x) & 0xFFFFFF))
#define SIGNED24(x) ((i64)((x) << 8 >> 8))
BINARY(mul24hi_u32, "mul24.hi.u32", "=b32 b32 b32", u32, u32, LOW24(a[l]) * LOW24(b[l]) >> 16)
BINARY(mul24hi_s32, "mul24.hi.s32", "=b32 b32 b32", u32, i32, SIGNED24(a[l]) * SIGNED24(b[l]) >> 16)
TERNARY(mad24_u32, "mad24.lo.u32", "=b32 b32 b32 b32", u32, u32, LOW24(a[l]) * LOW24(b[l]) + c[l])
TERNARY(mad24_s32, "mad24.lo.s32", "=b32 b32 b32 b32", u32, i32, (u64)(SIGNED24(a[l]) * SIGNED24(b[l])) + (u32)c[l])
TERNARY(mad24hi_u32, "mad24.hi.u32", "=b32 b32 b32 b32", u32, u32, (LOW24(a[l]) * LOW24(b[l]) >> 16) + c[l])
TERNARY(mad24hi_s32, "mad24.hi.s32", "=b32 b32 b32 b32", u32, i32,
        (u64)(SIGNED24(a[l]) * SIGNED24(b[l]) >> 16) + (u32)c[l])

/* dp2a: two products of 16 by 8 bits, of b's lower or upper two bytes, added to c. */
#define DOT2(n, first, A, B) ((u32)((i64)(A)(a[l] >> 16 * n) * (B)(b[l] >> (8 * (n + first)))))
#define DP2A(half, first, A, B, types)                                                                                 \
    TERNARY(dp2a_##half##_##A##_##B, "dp2a." #half types, "=b32 b32 b32 b32", u32, u32,                                \
            c[l] + DOT2(0, first, A, B) + DOT2(1, first, A, B))
#define DP2AS(half, first)                                                                                             \
    DP2A(half, first, u16, u8, ".u32.u32")                                                                             \
    DP2A(half, first, u16, i8, ".u32.s32")                                                                             \
    DP2A(half, first, i16, u8, ".s32.u32")                                                                             \
    DP2A(half, first, i16, i8, ".s32.s32")
DP2AS(lo, 0)
DP2AS(hi, 2)

#define DOT(n, A, B) ((u32)((A)(a[l] >> 8 * n) * (B)(b[l] >> 8 * n)))
#define DP4A(name, A, B)                                                                                               \
    TERNARY(dp4a_##name, DP4A_##name, "=b32 b32 b32 b32", u32, u32,                                                    \
            c[l] + DOT(0, A, B) + DOT(1, A, B) + DOT(2, A, B) + DOT(3, A, B))
#define DP4A_uu "dp4a.u32.u32"
#define DP4A_us "dp4a.u32.s32"
#define DP4A_su "dp4a.s32.u32"
#define DP4A_ss "dp4a.s32.s32"
DP4A(uu, u8, u8)
DP4A(us, u8, i8)
DP4A(su, i8, u8)
DP4A(ss, i8, i8)

/* Words of a longer number: d, a, b, carry in, carry out. */
#define CARRY(id, T, bits, first_, result_, out_)                                                                      \
    static inline void id##_lanes(T *d, const T *a, const T *b, const u32 *in, u32 *out, const i32 *on, int all) {     \
        EACH {                                                                                                         \
            T x = a[l], y = b[l], first = first_, extra = (T)in[l], result = result_;                                  \
            u32 carried = out_;                                                                                        \
            (void)y;                                                                                                   \
            d[l] = all || on[l] ? result : d[l];                                                                       \
            out[l] = all || on[l] ? carried : out[l];                                                                  \
        }                                                                                                              \
    }                                                                                                                  \
    WHOLE(id, #id, "=b" #bits " b" #bits " b" #bits " b32 more:=b32") {                                                \
        id##_lanes(REG(T, 0), REG(T, 1), REG(T, 2), REG(u32, 3), (u32 *)(w->r + op->more[0]), w->on, w->mask == ALL);  \
        return op + 1;                                                                                                 \
    }
CARRY(carried_add32, u32, 32, x + y, first + extra, first < x || result < first)
CARRY(carried_add64, u64, 64, x + y, first + extra, first < x || result < first)
CARRY(carried_sub32, u32, 32, x - y, first - extra, x < y || first < extra)
CARRY(carried_sub64, u64, 64, x - y, first - extra, x < y || first < extra)

/* slct d, a, b, c: a where c >= 0, else b. */
#define SELECTS(bits, T, S, C)                                                                                         \
    LANEWISE(slct_##bits##_##S, "slct." #bits "." #S, "=b" #bits " b" #bits " b" #bits " b32", T,                      \
             const T *a = REG(T, 1); const T *b = REG(T, 2); const C *c = REG(C, 3), c[l] >= 0 ? a[l] : b[l])
SELECTS(16, u32, s32, i32)
SELECTS(16, u32, f32, f32)
SELECTS(32, u32, s32, i32)
SELECTS(32, u32, f32, f32)
SELECTS(64, u64, s32, i32)
SELECTS(64, u64, f32, f32)
