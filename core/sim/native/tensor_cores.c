/* mma but with sums in f32 (products.c), wmma, ldmatrix, stmatrix and movmatrix: whole warps, on tensor cores.
Fragments as in PTX ISA 9.7.14.

Products are exact in f64, their sums run from k = 0 up, the accumulator is added last, and the sum is rounded once to
f32, as in core/sim/instructions/tensor_cores.py. */
#include "floats.h"

enum { M = 16, N = 8, DEEPEST = 32 };

/* Kinds of accumulators, by their numbers in a record's imm: of d (bits 0-1) and c (2-3); bit 4: satfinite. */
enum { F32, F16, S32, F64 };

INLINE f64 term_of(u32 bits, u32 kind) {
    return kind == F32 ? (f64)f32_of(bits) : kind == F16 ? of_f16(bits) : (f64)(i32)bits;
}
INLINE u32 sum_bits(f64 total, u32 kind, u32 saturate) {
    if (kind == F32) return bits_of(canonical((f32)total));
    if (kind == F16) return to_f16(total);
    if (saturate && total < -2147483648.0) return 0x80000000u;
    if (saturate && total > 2147483647.0) return 0x7FFFFFFFu;
    return (u32)(i64)total;
}

INLINE f64 of_half(u32 bits) { return of_f16(bits); }
INLINE f64 of_s8(u32 bits) { return (i8)bits; }
INLINE f64 of_u8(u32 bits) { return (u8)bits; }

/* Registers of A and B hold `each` elements, 4 of 8 bits or 2 of 16; the 4 lanes of a group, half of a pair's
k. The list: the registers of d, a, b and c; two of d or c where they are f16. */
INLINE const Op *mma(Warp *w, const Op *op, int depth, int each, f64 (*of_a)(u32), f64 (*of_b)(u32)) {
    const u32 *list = w->launch->lists + op->o[3];
    f64 a[M][DEEPEST], b[DEEPEST][N], sums[M][N];
    u32 to = op->imm & 3, from = op->imm >> 2 & 3, saturate = op->imm >> 4 & 1;
    int half = 4 * each, pairs = depth / half, width = 32 / each, at = to == F16 ? 2 : 4;
    u32 low = (1u << width) - 1;
    if (w->mask != ALL) return parted(w, op, WARP);
    for (int i = 0; i < 2 * pairs; i++) {
        const u32 *given = LIST(u32, at + i);
        for (int l = 0; l < WARP; l++)
            for (int e = 0; e < each; e++)
                a[i % 2 * 8 + l / 4][i / 2 * half + l % 4 * each + e] = of_a(given[l] >> e * width & low);
    }
    for (int i = 0; i < pairs; i++) {
        const u32 *given = LIST(u32, at + 2 * pairs + i);
        for (int l = 0; l < WARP; l++)
            for (int e = 0; e < each; e++)
                b[i * half + l % 4 * each + e][l / 4] = of_b(given[l] >> e * width & low);
    }
    for (int m = 0; m < M; m++) {
        f64 row[N];
        for (int n = 0; n < N; n++) row[n] = a[m][0] * b[0][n];
        for (int k = 1; k < depth; k++)
            for (int n = 0; n < N; n++) row[n] = ADD_PRODUCT(a[m][k], b[k][n], row[n]);
        memcpy(sums[m], row, sizeof row);
    }
    at += 3 * pairs;
    for (int i = 0; i < 4; i++) {
        u32 *d = LIST(u32, to == F16 ? i / 2 : i), *c = LIST(u32, at + (from == F16 ? i / 2 : i));
        for (int l = 0; l < WARP; l++) {
            u32 bits = from == F16 ? c[l] >> i % 2 * 16 & 0xFFFF : c[l];
            f64 *sum = &sums[i / 2 * 8 + l / 4][l % 4 * 2 + i % 2];
            *sum += term_of(bits, from);
            if (to != F16) d[l] = sum_bits(*sum, to, saturate);
        }
    }
    for (int i = 0; to == F16 && i < 2; i++) {   /* last: d may be c */
        u32 *d = LIST(u32, i);
        for (int l = 0; l < WARP; l++) {
            const f64 *pair = &sums[i * 8 + l / 4][l % 4 * 2];
            d[l] = to_f16(pair[0]) | to_f16(pair[1]) << 16;
        }
    }
    return op + 1;
}
#define MMA(shape, kinds, depth, each, of_a, of_b)                                                                     \
    WHOLE(mma_##shape##_##depth##_##of_a##_##of_b, "mma." #shape "." kinds, "fragments") {                             \
        return mma(w, op, depth, each, of_a, of_b);                                                                    \
    }
MMA(m16n8k16, "f16.f16", 16, 2, of_half, of_half)
MMA(m16n8k8, "f16.f16", 8, 2, of_half, of_half)
#define WHOLE_NUMBERS(shape, depth)                                                                                    \
    MMA(shape, "s8.s8", depth, 4, of_s8, of_s8)                                                                        \
    MMA(shape, "s8.u8", depth, 4, of_s8, of_u8)                                                                        \
    MMA(shape, "u8.s8", depth, 4, of_u8, of_s8)                                                                        \
    MMA(shape, "u8.u8", depth, 4, of_u8, of_u8)
WHOLE_NUMBERS(m16n8k32, 32)
WHOLE_NUMBERS(m16n8k16, 16)

/* f64: one fused multiply-add for each k, starting with the accumulator. imm: halves of rows. */
WHOLE(mma_f64, "mma.f64", "fragments") {
    const u32 *list = w->launch->lists + op->o[3];
    int halves = (int)op->imm;
    f64 total[4][WARP];
    if (w->mask != ALL) return parted(w, op, WARP);
    for (int i = 0; i < 2 * halves; i++) {
        const f64 *a = LIST(f64, 2 * halves + i / 2), *b = LIST(f64, 3 * halves), *c = LIST(f64, 3 * halves + 1 + i);
        for (int l = 0; l < WARP; l++) {
            f64 sum = c[l];
            for (int k = 0; k < 4; k++) sum = __builtin_fma(a[l / 4 * 4 + k], b[(l % 4 * 2 + i % 2) * 4 + k], sum);
            total[i][l] = canonical_f64(sum);
        }
    }
    for (int i = 0; i < 2 * halves; i++) memcpy(LIST(f64, i), total[i], sizeof total[i]);
    return op + 1;
}

/* --- wmma: element number i of a matrix, row by row, is slot i % slots of lane i / slots, and so on from the start ---- */
typedef struct {
    u32 bytes, rows, columns, slots, by_row;
} Spread;
INLINE Spread spread_of(i64 imm) {
    return (Spread){imm & 15, imm >> 4 & 63, imm >> 10 & 63, imm >> 16 & 31, imm >> 21 & 1};
}
INLINE u32 number_of(const Spread *s, u32 lane, u32 slot) { return (lane * s->slots + slot) % (s->rows * s->columns); }
INLINE u64 slot_bits(const Warp *w, const u32 *list, const Spread *s, u32 lane, u32 slot) {
    if (s->bytes == 8) return LIST(u64, slot)[lane];
    u32 each = 4 / s->bytes, bits = 8 * s->bytes, value = LIST(u32, slot / each)[lane] >> slot % each * bits % 32;
    return bits == 32 ? value : value & ((1u << bits) - 1);
}
INLINE void set_slot(Warp *w, const u32 *list, const Spread *s, u32 lane, u32 slot, u64 value) {
    if (s->bytes == 8) {
        LIST(u64, slot)[lane] = value;
        return;
    }
    u32 each = 4 / s->bytes, bits = 8 * s->bytes, shift = slot % each * bits % 32;
    u32 low = bits == 32 ? ALL : ((1u << bits) - 1) << shift, *d = LIST(u32, slot / each);
    d[lane] = (d[lane] & ~low) | ((u32)value << shift & low);
}

/* o: the address, the stride, the window's slot, the list. imm: how the matrix is spread; bit 22: it is stored. */
INLINE const Op *move_matrix(Warp *w, const Op *op, u32 space) {
    const u64 *start = REG(u64, 0);
    const u32 *strides = REG(u32, 1), *list = w->launch->lists + op->o[3];
    Spread s = spread_of(op->imm);
    u32 stores = op->imm >> 22 & 1;
    if (w->mask != ALL) return parted(w, op, WARP);
    for (u32 slot = 0; slot < s.slots; slot++) {
        u64 x[WARP] __attribute__((aligned(64)));
        u8 *base;
        for (u32 l = 0; l < WARP; l++) {
            u32 number = number_of(&s, l, slot), row = number / s.columns, column = number % s.columns;
            u64 outer = s.by_row ? row : column, inner = s.by_row ? column : row;
            x[l] = start[l] + (outer * strides[l] + inner) * s.bytes;
        }
        if (!places(w, op, x, &base, space, op->o[2], s.bytes, stores ? WRITE : READ)) return NULL;
        for (u32 l = 0; l < WARP; l++) {
            u64 value = stores ? slot_bits(w, list, &s, l, slot) : 0;
            if (stores) memcpy(base + x[l], &value, s.bytes);
            else memcpy(&value, base + x[l], s.bytes), set_slot(w, list, &s, l, slot, value);
        }
    }
    w->worker->progress += stores;
    return op + 1;
}
WHOLE(wmma_global, "wmma.move.global", "fragments") { return move_matrix(w, op, GLOBAL); }
WHOLE(wmma_shared, "wmma.move.shared", "fragments") { return move_matrix(w, op, SHARED); }
WHOLE(wmma_generic, "wmma.move.generic", "fragments") { return move_matrix(w, op, GENERIC); }

enum { AS_BF16, AS_F16, AS_TF32, AS_S8, AS_U8, AS_F64, LARGEST = 32 * 16 };
INLINE f64 factor_of(u64 bits, u32 kind) {
    f64 wide;
    memcpy(&wide, &bits, 8);
    return kind == AS_BF16 ? of_bf16((u32)bits) : kind == AS_F16 ? of_f16((u32)bits) : kind == AS_TF32 ? of_tf32((u32)bits)
         : kind == AS_S8 ? of_s8((u32)bits) : kind == AS_U8 ? of_u8((u32)bits) : wide;
}
static void gathered(const Warp *w, const u32 *list, const Spread *s, u64 *to) {
    for (u32 number = s->rows * s->columns; number--;)
        to[number] = slot_bits(w, list, s, number / s->slots, number % s->slots);
}

/* imm: kinds of d and c and satfinite as above, of A (bits 5-7) and B (8-10). The lists: where the words of d's, A's,
B's and c's spreads and lists are: o[0] to o[3] of them. */
WHOLE(wmma_mma, "wmma.mma", "fragments") {
    const u32 *words = w->launch->lists + op->o[3], *list[4];
    Spread s[4];
    u64 bits[4][LARGEST];
    u32 to = op->imm & 3, from = op->imm >> 2 & 3, saturate = op->imm >> 4 & 1;
    u32 of_a = op->imm >> 5 & 7, of_b = op->imm >> 8 & 7;
    if (w->mask != ALL) return parted(w, op, WARP);
    for (int i = 0; i < 4; i++) s[i] = spread_of(words[2 * i]), list[i] = words + words[2 * i + 1];
    for (int i = 1; i < 4; i++) gathered(w, list[i], &s[i], bits[i]);
    u32 m = s[1].rows, n = s[2].columns, depth = s[1].columns;
    for (u32 r = 0; r < m; r++)
        for (u32 c = 0; c < n; c++) {
            f64 old, sum;
            memcpy(&old, &bits[3][r * n + c], 8);
            sum = to == F64 ? old : factor_of(bits[1][r * depth], of_a) * factor_of(bits[2][c], of_b);
            for (u32 k = to == F64 ? 0 : 1; k < depth; k++) {
                f64 x = factor_of(bits[1][r * depth + k], of_a), y = factor_of(bits[2][k * n + c], of_b);
                sum = to == F64 ? __builtin_fma(x, y, sum) : ADD_PRODUCT(x, y, sum);
            }
            if (to == F64) sum = canonical_f64(sum), memcpy(&bits[0][r * n + c], &sum, 8);
            else bits[0][r * n + c] = sum_bits(sum + term_of((u32)bits[3][r * n + c], from), to, saturate);
        }
    for (u32 l = 0; l < WARP; l++)
        for (u32 slot = 0; slot < s[0].slots; slot++)
            set_slot(w, list[0], &s[0], l, slot, bits[0][number_of(&s[0], l, slot)]);
    return op + 1;
}

/* --- 8 x 8 matrices of 16 bits: the first 8 lanes for each matrix hold the addresses of its rows ---------------------- */
static int rows(Warp *w, const Op *op, u64 *x, u8 **base, u32 space, int matrices, u32 how) {
    for (int l = 8 * matrices; l < WARP; l++) x[l] = x[l % (8 * matrices)];
    return places(w, op, x, base, space, op->o[2], 16, how);
}
#define MATRICES(space, SPACE, bits, A, count)                                                                         \
    WHOLE(ldmatrix_##space##_a##bits##_x##count, "ldmatrix." #space ".x" #count, "={b32} [b" #bits "]") {              \
        u64 x[WARP] __attribute__((aligned(64)));                                                                      \
        const A *from = REG(A, 1);                                                                                     \
        const u32 *list = w->launch->lists + op->o[3];                                                                 \
        u16 matrix[count][8][8];                                                                                       \
        u8 *base;                                                                                                      \
        A offset = (A)(op->imm >> 1);                                                                                  \
        if (w->mask != ALL) return parted(w, op, WARP);                                                                      \
        EACH x[l] = (A)(from[l] + offset);                                                                             \
        if (!rows(w, op, x, &base, SPACE, count, READ)) return NULL;                                                   \
        for (int i = 0; i < 8 * count; i++) memcpy(matrix[i / 8][i % 8], base + x[i], 16);                             \
        for (int i = 0; i < count; i++) {                                                                              \
            u32 *d = LIST(u32, i);                                                                                     \
            if (op->imm & 1)                                                                                           \
                for (int l = 0; l < WARP; l++)                                                                         \
                    d[l] = matrix[i][l % 4 * 2][l / 4] | (u32)matrix[i][l % 4 * 2 + 1][l / 4] << 16;                   \
            else memcpy(d, matrix[i], 4 * WARP);                                                                       \
        }                                                                                                              \
        return op + 1;                                                                                                 \
    }                                                                                                                  \
    WHOLE(stmatrix_##space##_a##bits##_x##count, "stmatrix." #space ".x" #count, "{b32} [b" #bits "]") {               \
        u64 x[WARP] __attribute__((aligned(64)));                                                                      \
        const A *from = REG(A, 1);                                                                                     \
        const u32 *list = w->launch->lists + op->o[3];                                                                 \
        u16 matrix[count][8][8];                                                                                       \
        u8 *base;                                                                                                      \
        A offset = (A)(op->imm >> 1);                                                                                  \
        if (w->mask != ALL) return parted(w, op, WARP);                                                                      \
        EACH x[l] = (A)(from[l] + offset);                                                                             \
        if (!rows(w, op, x, &base, SPACE, count, WRITE)) return NULL;                                                  \
        for (int i = 0; i < count; i++) {                                                                              \
            const u32 *d = LIST(u32, i);                                                                               \
            if (op->imm & 1)                                                                                           \
                for (int l = 0; l < WARP; l++) {                                                                       \
                    matrix[i][l % 4 * 2][l / 4] = (u16)d[l];                                                           \
                    matrix[i][l % 4 * 2 + 1][l / 4] = (u16)(d[l] >> 16);                                               \
                }                                                                                                      \
            else memcpy(matrix[i], d, 4 * WARP);                                                                       \
        }                                                                                                              \
        for (int i = 0; i < 8 * count; i++) memcpy(base + x[i], matrix[i / 8][i % 8], 16);                             \
        w->worker->progress++;                                                                                         \
        return op + 1;                                                                                                 \
    }
#define COUNTS(space, SPACE, bits, A)                                                                                  \
    MATRICES(space, SPACE, bits, A, 1)                                                                                 \
    MATRICES(space, SPACE, bits, A, 2)                                                                                 \
    MATRICES(space, SPACE, bits, A, 4)
COUNTS(shared, SHARED, 32, u32)
COUNTS(shared, SHARED, 64, u64)
COUNTS(generic, GENERIC, 64, u64)

/* An 8 x 8 matrix across the warp, transposed. */
WHOLE(movmatrix, "movmatrix.sync.aligned.m8n8.trans.b16", "=b32 b32") {
    u16 matrix[8][8];
    u32 *d = REG(u32, 0);
    if (w->mask != ALL) return parted(w, op, WARP);
    memcpy(matrix, REG(u32, 1), sizeof matrix);
    for (int l = 0; l < WARP; l++) d[l] = matrix[l % 4 * 2][l / 4] | (u32)matrix[l % 4 * 2 + 1][l / 4] << 16;
    return op + 1;
}
