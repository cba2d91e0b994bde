/* Sums of products in registers, several instructions at once, as in the inner loops of matrix products.

fusing.py makes one record of fma instructions that add to each other (a chain), and of chains that share factors: the
shared factors stay in the processor's registers, and the sums between are neither stored nor loaded. */
#include "floats.h"

enum { LONGEST = 4 };

#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
#if defined(__clang__)
#define FUSED _Pragma("clang fp contract(fast)")
#else
#pragma GCC optimize("fp-contract=fast")
#define FUSED
#endif
typedef f32 V __attribute__((vector_size(64), may_alias));
typedef i32 M __attribute__((vector_size(64), may_alias));
enum { PIECE = 16 };

INLINE V fma_v(V a, V b, V c) {
    FUSED
    return a * b + c;
}
INLINE V canonical_v(V v) {
    M good = v == v;
    return (V)((good & (M)v) | (~good & 0x7FFFFFFF));
}
#else
typedef struct { f32 x; } V;
typedef struct { i32 x; } M;
enum { PIECE = 1 };
INLINE V fma_v(V a, V b, V c) { return (V){__builtin_fmaf(a.x, b.x, c.x)}; }
INLINE V canonical_v(V v) { return (V){canonical(v.x)}; }
#endif

/* list: the shared factors, then for each chain its result, its addend and its own factors. */
INLINE void chains(Warp *w, const u32 *list, int n, u32 count, int masked) {
    for (int at = 0; at < WARP; at += PIECE) {
        V shared[LONGEST];
        for (int i = 0; i < n; i++) shared[i] = *(const V *)(LIST(f32, i) + at);
        const u32 *chain = list + n;
        for (u32 j = 0; j < count; j++, chain += n + 2) {
            V sum = *(const V *)((const f32 *)(w->r + chain[1]) + at);
            for (int i = 0; i < n; i++) sum = fma_v(shared[i], *(const V *)((const f32 *)(w->r + chain[2 + i]) + at), sum);
            sum = canonical_v(sum);
            f32 *d = (f32 *)(w->r + chain[0]) + at;
            if (!masked) {
                *(V *)d = sum;
            } else {
                f32 found[PIECE];
                memcpy(found, &sum, sizeof sum);
                for (int l = 0; l < PIECE; l++) d[l] = w->on[at + l] ? found[l] : d[l];
            }
        }
    }
}

/* o[0]: factors of a chain; o[1]: chains; o[2]: the place of the list. */
#define CHAINS(n)                                                                                                      \
    static const Op *chains##n##_full(Warp *w, const Op *op) {                                                         \
        do { chains(w, w->launch->lists + op->o[2], n, op->o[1], 0); op++; } while (op->run == chains##n##_full);      \
        return op;                                                                                                     \
    }                                                                                                                  \
    static const Op *chains##n##_some(Warp *w, const Op *op) {                                                         \
        chains(w, w->launch->lists + op->o[2], n, op->o[1], 1);                                                        \
        return op + 1;                                                                                                 \
    }                                                                                                                  \
    __attribute__((constructor)) static void chains##n##_row(void) {                                                   \
        add_row("chains." #n ".f32", "list", chains##n##_full, chains##n##_some, 0);                                    \
    }
CHAINS(1)
CHAINS(2)
CHAINS(3)
CHAINS(4)
