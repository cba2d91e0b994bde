/* mma, ldmatrix, stmatrix and movmatrix: whole warps, on tensor cores. Fragments as in PTX ISA 9.7.14.

Products are exact in f64, their sums run from k = 0 up, the accumulator is added last, and the sum is rounded once to
f32, as in core/sim/instructions/tensor_cores.py. */
#include "floats.h"

enum { M = 16, N = 8, DEEPEST = 16 };

/* A product of formats up to 12 bits is exact, so that a fused multiply-add is the sum of it, rounded once. */
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
#define ADD_PRODUCT(a, b, sum) __builtin_fma(a, b, sum)
#else
#define ADD_PRODUCT(a, b, sum) ((sum) + (a) * (b))
#endif

static const Op *parted(Warp *w, const Op *op) { return fault(w, op, DIVERGENT, first(w->mask), 0, WARP, 0); }

INLINE f64 of_half(u32 bits) {
    u32 exponent = bits >> 10 & 31, mantissa = bits & 1023;
    f32 normal = f32_of((exponent == 31 ? 255 : exponent + 112) << 23 | mantissa << 13);
    f32 size = exponent ? normal : (f32)mantissa * 0x1p-24f;
    return bits & 0x8000 ? -size : size;
}

/* sums[m][n] of a[m][k] * b[k][n], and then the accumulators; d and c are fragments. */
INLINE void multiply(f64 a[M][DEEPEST], f64 b[DEEPEST][N], int depth, f32 *const *d, f32 *const *c) {
    f64 sums[M][N];
    for (int m = 0; m < M; m++) {
        f64 row[N];
        for (int n = 0; n < N; n++) row[n] = a[m][0] * b[0][n];
        for (int k = 1; k < depth; k++)
            for (int n = 0; n < N; n++) row[n] = ADD_PRODUCT(a[m][k], b[k][n], row[n]);
        memcpy(sums[m], row, sizeof row);
    }
    for (int i = 0; i < 4; i++)
        for (int l = 0; l < WARP; l++)
            d[i][l] = canonical((f32)(sums[i / 2 * 8 + l / 4][l % 4 * 2 + i % 2] + (f64)c[i][l]));
}

/* Registers of A and B are two elements of 16 bits, or one of 32: `each`. half: the k that one register's lanes span. */
#define MMA(shape, kind, depth, each, value)                                                                           \
    WHOLE(mma_##shape##_##kind, "mma." #shape "." #kind, "fragments") {                                                \
        enum { HALF = 4 * each, PAIRS = depth / HALF };                                                                \
        const u32 *list = w->launch->lists + op->o[3];                                                                 \
        f64 a[M][DEEPEST], b[DEEPEST][N];                                                                              \
        f32 *d[4], *c[4];                                                                                              \
        if (w->mask != ALL) return parted(w, op);                                                                      \
        for (int i = 0; i < 2 * PAIRS; i++) {                                                                          \
            const u32 *from = LIST(u32, 4 + i);                                                                        \
            for (int l = 0; l < WARP; l++)                                                                             \
                for (int e = 0; e < each; e++) {                                                                       \
                    u32 bits = each == 2 ? from[l] >> 16 * e & 0xFFFF : from[l];                                       \
                    a[i % 2 * 8 + l / 4][i / 2 * HALF + l % 4 * each + e] = value;                                     \
                }                                                                                                      \
        }                                                                                                              \
        for (int i = 0; i < PAIRS; i++) {                                                                              \
            const u32 *from = LIST(u32, 4 + 2 * PAIRS + i);                                                            \
            for (int l = 0; l < WARP; l++)                                                                             \
                for (int e = 0; e < each; e++) {                                                                       \
                    u32 bits = each == 2 ? from[l] >> 16 * e & 0xFFFF : from[l];                                       \
                    b[i * HALF + l % 4 * each + e][l / 4] = value;                                                     \
                }                                                                                                      \
        }                                                                                                              \
        for (int i = 0; i < 4; i++) d[i] = LIST(f32, i), c[i] = LIST(f32, 4 + 3 * PAIRS + i);                          \
        multiply(a, b, depth, d, c);                                                                                   \
        return op + 1;                                                                                                 \
    }
MMA(m16n8k16, bf16, 16, 2, of_bf16(bits))
MMA(m16n8k8, bf16, 8, 2, of_bf16(bits))
MMA(m16n8k16, f16, 16, 2, of_half(bits))
MMA(m16n8k8, f16, 8, 2, of_half(bits))
MMA(m16n8k8, tf32, 8, 1, f32_of(bits & 0xFFFFE000u))
MMA(m16n8k4, tf32, 4, 1, f32_of(bits & 0xFFFFE000u))

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
        if (w->mask != ALL) return parted(w, op);                                                                      \
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
        if (w->mask != ALL) return parted(w, op);                                                                      \
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

/* An 8 x 8 matrix that lies across the warp, transposed. */
WHOLE(movmatrix, "movmatrix.sync.aligned.m8n8.trans.b16", "=b32 b32") {
    u16 matrix[8][8];
    u32 *d = REG(u32, 0);
    if (w->mask != ALL) return parted(w, op);
    memcpy(matrix, REG(u32, 1), sizeof matrix);
    for (int l = 0; l < WARP; l++) d[l] = matrix[l % 4 * 2][l / 4] | (u32)matrix[l % 4 * 2 + 1][l / 4] << 16;
    return op + 1;
}
