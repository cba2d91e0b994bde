/* mma with sums in f32, the one that matrix products of models are made of: as tensor_cores.c defines it, a row at once.

Products are exact in f64, their sums run from k = 0 up, the accumulator is added last, and the sum is rounded once. */
#include "floats.h"

enum { M = 16, DEEPEST = 16 };

/* ADD_PRODUCT of vectors. */
#if defined(__clang__)
#pragma STDC FP_CONTRACT ON
#else
#pragma GCC optimize("fp-contract=fast")
#endif
typedef f64 Row8 __attribute__((vector_size(64), may_alias));
typedef f64 Row4 __attribute__((vector_size(32), aligned(8), may_alias));
typedef f32 Row8f __attribute__((vector_size(32), aligned(4), may_alias));
typedef f32 Row4f __attribute__((vector_size(16), aligned(4), may_alias));
typedef i32 Bits4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef u32 Lanes16 __attribute__((vector_size(64), aligned(4), may_alias));

/* The sums of a[m][k] * b[k], and then the accumulators; d and c are fragments. The columns of b are in the order of the
fragments' registers: 0 2 4 6 and 1 3 5 7. */
INLINE void multiply(f64 a[M][DEEPEST], const Row8 *b, int depth, f32 *const *d, f32 *const *c) {
    Row8 sums[M];
#pragma GCC unroll 16
    for (int m = 0; m < M; m++) sums[m] = a[m][0] * b[0];
    for (int k = 1; k < depth; k++) {
#pragma GCC unroll 16
        for (int m = 0; m < M; m++) sums[m] = sums[m] + a[m][k] * b[k];
    }
    for (int i = 0; i < 4; i++)
        for (int m = 0; m < 8; m++) {
            Row4 sum = *(const Row4 *)((const f64 *)&sums[i / 2 * 8 + m] + i % 2 * 4);
            sum = sum + __builtin_convertvector(*(const Row4f *)(c[i] + 4 * m), Row4);
            Row4f found = __builtin_convertvector(sum, Row4f);
            Bits4 good = found == found;
            *(Bits4 *)(d[i] + 4 * m) = (good & (Bits4)found) | (~good & 0x7FFFFFFF);
        }
}

/* n is 4 or 8. */
INLINE void widened(f64 *to, const f32 *from, int n) {
    if (n == 8) *(Row8 *)to = __builtin_convertvector(*(const Row8f *)from, Row8);
    else *(Row4 *)to = __builtin_convertvector(*(const Row4f *)from, Row4);
}

/* Four 32-bit words of each of 8 rows -> the p-th (0 or 2) and the next word of all rows, in the columns' order. */
INLINE void words(const u32 *from, int p, u32 *to) {
    Lanes16 low = *(const Lanes16 *)from, high = *(const Lanes16 *)(from + 16);
    *(Lanes16 *)to = p ? CHOSEN(Lanes16, low, high, 2, 10, 18, 26, 6, 14, 22, 30, 3, 11, 19, 27, 7, 15, 23, 31)
                       : CHOSEN(Lanes16, low, high, 0, 8, 16, 24, 4, 12, 20, 28, 1, 9, 17, 25, 5, 13, 21, 29);
}

/* A loop that the compiler shall make vectors of, not straight code. */
#if defined(__clang__)
#define TOGETHER(i, n) _Pragma("clang loop unroll(disable)") for (int i = 0; i < (n); i++)
#else
#define TOGETHER(i, n) _Pragma("GCC unroll 1") for (int i = 0; i < (n); i++)
#endif

/* A register of A or B holds, of 8 rows, four words of one element of 32 bits or two (`each`) of 16. */
#define MMA(shape, kind, depth, each, value)                                                                           \
    WHOLE(mma_f32_##shape##_##kind, "mma.f32." #shape "." #kind "." #kind, "fragments") {                                  \
        enum { SPAN = 4 * each, PAIRS = depth / SPAN };                                                                \
        const u32 *list = w->launch->lists + op->o[3];                                                                 \
        f64 a[M][DEEPEST] __attribute__((aligned(64)));                                                                \
        Row8 b[DEEPEST];                                                                                               \
        f32 *d[4], *c[4], wide[8 * SPAN];                                                                              \
        if (w->mask != ALL) return parted(w, op, WARP);                                                                      \
        for (int i = 0; i < 2 * PAIRS; i++) {                                                                          \
            const void *from = LIST(u32, 4 + i);                                                                       \
            TOGETHER(e, 8 * SPAN) {                                                                                    \
                u32 bits = each == 2 ? ((const u16 *)from)[e] : ((const u32 *)from)[e];                                \
                wide[e] = (f32)(value);                                                                                \
            }                                                                                                          \
            for (int m = 0; m < 8; m++) widened(&a[i % 2 * 8 + m][i / 2 * SPAN], wide + m * SPAN, SPAN);               \
        }                                                                                                              \
        for (int i = 0; i < PAIRS; i++)                                                                                \
            for (int p = 0; p < 4; p += 2) {                                                                           \
                u32 two[16] __attribute__((aligned(64)));                                                              \
                words(LIST(u32, 4 + 2 * PAIRS + i), p, two);                                                           \
                for (int e = 0; e < each; e++) {                                                                       \
                    f32 row[16] __attribute__((aligned(64)));                                                          \
                    TOGETHER(n, 16) {                                                                                  \
                        u32 bits = each == 2 ? (e ? two[n] >> 16 : two[n] & 0xFFFF) : two[n];                          \
                        row[n] = (f32)(value);                                                                         \
                    }                                                                                                  \
                    for (int q = 0; q < 2; q++) widened((f64 *)&b[i * SPAN + (p + q) * each + e], row + 8 * q, 8);     \
                }                                                                                                      \
            }                                                                                                          \
        for (int i = 0; i < 4; i++) d[i] = LIST(f32, i), c[i] = LIST(f32, 4 + 3 * PAIRS + i);                          \
        multiply(a, b, depth, d, c);                                                                                   \
        return op + 1;                                                                                                 \
    }
MMA(m16n8k16, bf16, 16, 2, of_bf16(bits))
MMA(m16n8k8, bf16, 8, 2, of_bf16(bits))
MMA(m16n8k16, f16, 16, 2, of_f16(bits))
MMA(m16n8k8, f16, 8, 2, of_f16(bits))
MMA(m16n8k8, tf32, 8, 1, of_tf32(bits))
MMA(m16n8k4, tf32, 4, 1, of_tf32(bits))
