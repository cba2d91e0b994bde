/* Loads and stores: whole warps within what is known at once, any others by places.c. */
#include "machine.h"

/* Where the lanes of an instruction go: pointers, and whether all lanes run, at one place, the first pointer. */
typedef struct {
    u8 *at[WARP] __attribute__((aligned(64)));
    int same;
} Where;

/* Whether each lane's address is `step` above that of the lane before; 0: all have the same. */
#ifdef __AVX512F__
INLINE int evenly(const u64 *x, u64 step) {
    __m512i first = _mm512_set1_epi64((i64)x[0]), by = _mm512_set1_epi64((i64)(8 * step));
    __m512i at = _mm512_add_epi64(first, _mm512_mullo_epi64(_mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0), _mm512_set1_epi64((i64)step)));
    u32 off = 0;
    for (int l = 0; l < WARP; l += 8, at = _mm512_add_epi64(at, by)) off |= _mm512_cmpneq_epi64_mask(at, _mm512_load_si512(x + l));
    return off == 0;
}
INLINE int evenly_near(const u32 *x, u32 step) {
    __m512i first = _mm512_set1_epi32((i32)x[0]), low, high;
    __m512i order = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    low = _mm512_add_epi32(first, _mm512_mullo_epi32(order, _mm512_set1_epi32((i32)step)));
    high = _mm512_add_epi32(low, _mm512_set1_epi32((i32)(16 * step)));
    return !(_mm512_cmpneq_epi32_mask(low, _mm512_load_si512(x)) | _mm512_cmpneq_epi32_mask(high, _mm512_load_si512(x + 16)));
}
#else
INLINE int evenly(const u64 *x, u64 step) {
    u64 off = 0, start = x[0];
    EACH off |= x[l] ^ (start + (u64)l * step);
    return off == 0;
}
INLINE int evenly_near(const u32 *x, u32 step) {
    u32 off = 0, start = x[0];
    EACH off |= x[l] ^ (start + (u32)l * step);
    return off == 0;
}
#endif

/* All lanes, from `start` to `last`, within a window, which has room for the accesses' width at its end. */
INLINE int fits(u64 start, u64 last, const Window *in, u32 width) {
    return start - in->lo <= in->span && last - in->lo <= in->span && last >= start && !(start & (width - 1));
}

/* All lanes within the thread block's own shared memory, by 32-bit addresses. */
INLINE int near(const Warp *w, const u32 *from, u32 offset, u32 width, Where *to) {
    Window own = w->block->window;
    u32 start = from[0] + offset, bad = 0;
    if (w->mask != ALL || own.span < width) return 0;
    own.span -= width;
    to->same = evenly_near(from, 0);
    if (to->same) {
        to->at[0] = own.base + start;
        return fits(start, start, &own, width);
    }
    u32 lo = (u32)own.lo, span = (u32)own.span;
    EACH {
        u32 x = from[l] + offset;
        bad |= (u32)-(x - lo > span) | (x & (width - 1));
    }
    if (bad) return 0;
    EACH to->at[l] = own.base + (u32)(from[l] + offset);
    return 1;
}

/* The same for four values each, without a look at the order: places behind the block's shared memory. */
INLINE int near_fours(const Warp *w, const u32 *from, u32 offset, u32 *x) {
    Window own = w->block->window;
    u32 lo = (u32)own.lo, span = (u32)own.span - 16, bad = 0;
    if (w->mask != ALL || own.span < 16) return 0;
#ifdef __AVX512F__
    __m512i by = _mm512_set1_epi32((int)offset), low = _mm512_set1_epi32((int)lo), most = _mm512_set1_epi32((int)span);
    for (int l = 0; l < WARP; l += 16) {
        __m512i at = _mm512_add_epi32(_mm512_load_si512(from + l), by);
        _mm512_store_si512(x + l, at);
        bad |= _mm512_cmpgt_epu32_mask(_mm512_sub_epi32(at, low), most);
        bad |= _mm512_test_epi32_mask(at, _mm512_set1_epi32(15));
    }
#else
    EACH {
        u32 at = from[l] + offset;
        bad |= (u32)-(at - lo > span) | (at & 15);
        x[l] = at;
    }
#endif
    return bad == 0;
}

/* All lanes within the region of global memory where this instruction went last. */
INLINE int known(const Warp *w, const Op *op, const u64 *from, u64 offset, u32 width, Where *to) {
    const Window *window = &w->worker->windows[op->o[2]];
    u64 start = from[0] + offset, bad = 0;
    if (w->mask != ALL || window->lo == ~0ull) return 0;
    to->same = evenly(from, 0);
    if (to->same) {
        to->at[0] = window->base + start;
        return fits(start, start, window, width);
    }
    u64 lo = window->lo, span = window->span;
    EACH {
        u64 x = from[l] + offset;
        bad |= (u64)-(i64)(x - lo > span) | (x & (width - 1));
    }
    if (bad) return 0;
    EACH to->at[l] = window->base + (from[l] + offset);
    return 1;
}

static __attribute__((noinline)) int anywhere(Warp *w, const Op *op, u64 *x, u32 space, u32 width, u32 how, Where *to) {
    u8 *base;
    if (!places(w, op, x, &base, space, op->o[2], width, how)) return 0;
    for (int l = 0; l < WARP; l++) to->at[l] = base + x[l];
    to->same = 0;
    return 1;
}

/* Operands: o[0] the (first) register, o[1] the address, o[2] the slot of its window, o[3] where the other registers of
a vector lie in the lists; imm is the offset. */
#define FIND(A, SPACE, width, how)                                                                                     \
    Where to;                                                                                                          \
    const A *from = REG(A, 1);                                                                                         \
    A offset = (A)op->imm;                                                                                             \
    if (!(SPACE == SHARED && sizeof(A) == 4 ? near(w, (const u32 *)from, (u32)offset, width, &to)                      \
          : SPACE == GLOBAL || SPACE == GENERIC ? known(w, op, (const u64 *)from, (u64)offset, width, &to) : 0)) {     \
        u64 x[WARP] __attribute__((aligned(64)));                                                                      \
        EACH x[l] = (A)(from[l] + offset);                                                                             \
        if (UNLIKELY(!anywhere(w, op, x, SPACE, width, how, &to))) return NULL;                                        \
    }

/* A row of all lanes, one behind the other: where it begins; NULL where it is none, or not within what is known. This is
how most accesses go, and the rest has functions of its own. */
INLINE u8 *row_near(const Warp *w, const u32 *from, u32 offset, u32 width) {
    Window own = w->block->window;
    u32 start = from[0] + offset;
    if (w->mask != ALL || own.span < width || !evenly_near(from, width)) return NULL;
    own.span -= width;
    return fits(start, (u64)start + (WARP - 1) * width, &own, width) ? own.base + start : NULL;
}
INLINE u8 *row_known(const Warp *w, const Op *op, const u64 *from, u64 offset, u32 width) {
    const Window *window = &w->worker->windows[op->o[2]];
    u64 start = from[0] + offset;
    if (w->mask != ALL || window->lo == ~0ull || !evenly(from, width)) return NULL;
    return fits(start, start + (WARP - 1) * width, window, width) ? window->base + start : NULL;
}
#define ROW(A, SPACE, width)                                                                                           \
    (SPACE == SHARED && sizeof(A) == 4 ? row_near(w, REG(u32, 1), (u32)op->imm, width)                                 \
     : SPACE == GLOBAL || SPACE == GENERIC ? row_known(w, op, REG(u64, 1), (u64)op->imm, width) : NULL)

#define LOAD1(id, names, operands, A, T, R, SPACE)                                                                     \
    static __attribute__((noinline)) const Op *id##_anywhere(Warp *w, const Op *op) {                                  \
        FIND(A, SPACE, sizeof(T), READ)                                                                                \
        R *d = REG(R, 0);                                                                                              \
        if (to.same) {                                                                                                 \
            R one = *(const T *)to.at[0];                                                                              \
            EACH d[l] = one;                                                                                           \
        } else if (w->mask == ALL) {                                                                                   \
            for (int l = 0; l < WARP; l++) d[l] = *(const T *)to.at[l];                                                \
        } else {                                                                                                       \
            for (u32 left = w->mask; left; left &= left - 1) d[first(left)] = *(const T *)to.at[first(left)];          \
        }                                                                                                              \
        return op + 1;                                                                                                 \
    }                                                                                                                  \
    WHOLE(id, names, operands) {                                                                                       \
        const T *row = (const T *)ROW(A, SPACE, sizeof(T));                                                            \
        R *d = REG(R, 0);                                                                                              \
        if (!row) return id##_anywhere(w, op);                                                                         \
        EACH d[l] = row[l];                                                                                            \
        return op + 1;                                                                                                 \
    }

/* Four lanes of four 32-bit values each: rows become columns. */
typedef u32 Four __attribute__((vector_size(16), aligned(4), may_alias));
INLINE void transpose(Four *v) {
    Four low = CHOSEN(Four, v[0], v[1], 0, 4, 1, 5), high = CHOSEN(Four, v[0], v[1], 2, 6, 3, 7);
    Four low2 = CHOSEN(Four, v[2], v[3], 0, 4, 1, 5), high2 = CHOSEN(Four, v[2], v[3], 2, 6, 3, 7);
    v[0] = CHOSEN(Four, low, low2, 0, 1, 4, 5);
    v[1] = CHOSEN(Four, low, low2, 2, 3, 6, 7);
    v[2] = CHOSEN(Four, high, high2, 0, 1, 4, 5);
    v[3] = CHOSEN(Four, high, high2, 2, 3, 6, 7);
}

/* Lane l's four values at `place`, an expression of l, into four registers. */
#define FOURS(d, place)                                                                                                \
    for (int q = 0; q < WARP; q += 4) {                                                                                \
        Four v[4];                                                                                                     \
        for (int i = 0, l = q; i < 4; i++, l++) v[i] = *(const Four *)(place);                                         \
        transpose(v);                                                                                                  \
        for (int i = 0; i < 4; i++) *(Four *)(d[i] + q) = v[i];                                                        \
    }

INLINE void put_fours(const u32 *const *d, u8 *const *at, u8 *row) {
    for (int q = 0; q < WARP; q += 4) {
        Four v[4];
        for (int i = 0; i < 4; i++) v[i] = *(const Four *)(d[i] + q);
        transpose(v);
        for (int i = 0, l = q; i < 4; i++, l++) *(Four *)(row ? row + 16 * l : at[l]) = v[i];
    }
}

#define REGISTERS(R, N)                                                                                                \
    const u32 *list = w->launch->lists + op->o[3];                                                                     \
    R *d[N];                                                                                                           \
    for (int i = 0; i < N; i++) d[i] = LIST(R, i);

#define LOADN(id, names, operands, A, T, R, SPACE, N)                                                                  \
    static __attribute__((noinline)) const Op *id##_anywhere(Warp *w, const Op *op) {                                  \
        REGISTERS(R, N)                                                                                                \
        FIND(A, SPACE, N * sizeof(T), READ)                                                                            \
        if (to.same) {                                                                                                 \
            R one[N];                                                                                                  \
            for (int i = 0; i < N; i++) one[i] = ((const T *)to.at[0])[i];                                             \
            for (int i = 0; i < N; i++) { R *r = d[i], v = one[i]; EACH r[l] = v; }                                    \
        } else if (w->mask == ALL && N == 4 && sizeof(T) == 4) {                                                       \
            FOURS(((u32 *const *)d), to.at[l])                                                                         \
        } else {                                                                                                       \
            for (u32 left = w->mask; left; left &= left - 1)                                                           \
                for (int i = 0; i < N; i++) d[i][first(left)] = ((const T *)to.at[first(left)])[i];                    \
        }                                                                                                              \
        return op + 1;                                                                                                 \
    }                                                                                                                  \
    WHOLE(id, names, operands) {                                                                                       \
        REGISTERS(R, N)                                                                                                \
        if (SPACE == SHARED && sizeof(A) == 4 && N == 4 && sizeof(T) == 4) {                                           \
            u32 near_x[WARP] __attribute__((aligned(64)));                                                             \
            if (!near_fours(w, REG(u32, 1), (u32)op->imm, near_x)) return id##_anywhere(w, op);                        \
            FOURS(((u32 *const *)d), w->block->shared + near_x[l])                                                     \
            return op + 1;                                                                                             \
        }                                                                                                              \
        const u8 *row = ROW(A, SPACE, N * sizeof(T));                                                                  \
        if (!row) return id##_anywhere(w, op);                                                                         \
        if (N == 4 && sizeof(T) == 4) {                                                                                \
            FOURS(((u32 *const *)d), row + 16 * l)                                                                     \
        } else {                                                                                                       \
            for (int l = 0; l < WARP; l++)                                                                             \
                for (int i = 0; i < N; i++) d[i][l] = ((const T *)row)[l * N + i];                                     \
        }                                                                                                              \
        return op + 1;                                                                                                 \
    }

/* Lanes at one address: the last one's value stays. */
#define STORE1(id, names, operands, A, T, R, SPACE)                                                                    \
    static __attribute__((noinline)) const Op *id##_anywhere(Warp *w, const Op *op) {                                  \
        FIND(A, SPACE, sizeof(T), WRITE)                                                                               \
        const R *d = REG(R, 0);                                                                                        \
        w->worker->progress++;                                                                                         \
        if (to.same) *(T *)to.at[0] = (T)d[WARP - 1];                                                                  \
        else for (u32 left = w->mask; left; left &= left - 1) *(T *)to.at[first(left)] = (T)d[first(left)];            \
        return op + 1;                                                                                                 \
    }                                                                                                                  \
    WHOLE(id, names, operands) {                                                                                       \
        T *row = (T *)ROW(A, SPACE, sizeof(T));                                                                        \
        const R *d = REG(R, 0);                                                                                        \
        if (!row) return id##_anywhere(w, op);                                                                         \
        w->worker->progress++;                                                                                         \
        EACH row[l] = (T)d[l];                                                                                         \
        return op + 1;                                                                                                 \
    }

#define STOREN(id, names, operands, A, T, R, SPACE, N)                                                                 \
    static __attribute__((noinline)) const Op *id##_anywhere(Warp *w, const Op *op) {                                  \
        FIND(A, SPACE, N * sizeof(T), WRITE)                                                                           \
        REGISTERS(R, N)                                                                                                \
        w->worker->progress++;                                                                                         \
        if (w->mask == ALL && !to.same && N == 4 && sizeof(T) == 4) {                                                  \
            put_fours((const u32 *const *)d, to.at, NULL);                                                             \
            return op + 1;                                                                                             \
        }                                                                                                              \
        for (u32 left = w->mask; left; left &= left - 1)                                                               \
            for (int i = 0; i < N; i++) ((T *)(to.same ? to.at[0] : to.at[first(left)]))[i] = (T)d[i][first(left)];    \
        return op + 1;                                                                                                 \
    }                                                                                                                  \
    WHOLE(id, names, operands) {                                                                                       \
        u8 *row = ROW(A, SPACE, N * sizeof(T));                                                                        \
        if (!row) return id##_anywhere(w, op);                                                                         \
        REGISTERS(R, N)                                                                                                \
        w->worker->progress++;                                                                                         \
        if (N == 4 && sizeof(T) == 4) {                                                                                \
            put_fours((const u32 *const *)d, NULL, row);                                                               \
        } else {                                                                                                       \
            for (int l = 0; l < WARP; l++)                                                                             \
                for (int i = 0; i < N; i++) ((T *)row)[l * N + i] = (T)d[i][l];                                        \
        }                                                                                                              \
        return op + 1;                                                                                                 \
    }

/* Each width and vector, in each space, by 64-bit and (shared, local) 32-bit addresses. */
#define WIDTHS(ONE, MANY, op, out, space, SPACE, bits, A)                                                              \
    ONE(op##_##space##_8_a##bits, #op "." #space ".b8", out "b8 [b" #bits "]", A, u8, u32, SPACE)                      \
    ONE(op##_##space##_16_a##bits, #op "." #space ".b16", out "b16 [b" #bits "]", A, u16, u32, SPACE)                  \
    ONE(op##_##space##_32_a##bits, #op "." #space ".b32", out "b32 [b" #bits "]", A, u32, u32, SPACE)                  \
    ONE(op##_##space##_64_a##bits, #op "." #space ".b64", out "b64 [b" #bits "]", A, u64, u64, SPACE)                  \
    MANY(op##_##space##_v2_8_a##bits, #op "." #space ".v2.b8", out "{b8} [b" #bits "]", A, u8, u32, SPACE, 2)          \
    MANY(op##_##space##_v4_8_a##bits, #op "." #space ".v4.b8", out "{b8} [b" #bits "]", A, u8, u32, SPACE, 4)          \
    MANY(op##_##space##_v2_16_a##bits, #op "." #space ".v2.b16", out "{b16} [b" #bits "]", A, u16, u32, SPACE, 2)      \
    MANY(op##_##space##_v4_16_a##bits, #op "." #space ".v4.b16", out "{b16} [b" #bits "]", A, u16, u32, SPACE, 4)      \
    MANY(op##_##space##_v8_16_a##bits, #op "." #space ".v8.b16", out "{b16} [b" #bits "]", A, u16, u32, SPACE, 8)      \
    MANY(op##_##space##_v2_32_a##bits, #op "." #space ".v2.b32", out "{b32} [b" #bits "]", A, u32, u32, SPACE, 2)      \
    MANY(op##_##space##_v4_32_a##bits, #op "." #space ".v4.b32", out "{b32} [b" #bits "]", A, u32, u32, SPACE, 4)      \
    MANY(op##_##space##_v2_64_a##bits, #op "." #space ".v2.b64", out "{b64} [b" #bits "]", A, u64, u64, SPACE, 2)
#define IN_SPACE(space, SPACE, bits, A)                                                                                \
    WIDTHS(LOAD1, LOADN, ld, "=", space, SPACE, bits, A)                                                               \
    WIDTHS(STORE1, STOREN, st, "", space, SPACE, bits, A)

IN_SPACE(global, GLOBAL, 64, u64)
IN_SPACE(generic, GENERIC, 64, u64)
IN_SPACE(shared, SHARED, 64, u64)
IN_SPACE(shared, SHARED, 32, u32)
IN_SPACE(local, LOCAL, 64, u64)
IN_SPACE(local, LOCAL, 32, u32)

/* --- generic addresses --------------------------------------------------------------------------------------------- */
UNARY(cvta_shared, "cvta.shared", "=b64 b64", u64, u64, a[l] + ((u64)SHARED_WINDOW << WINDOW_SHIFT))
UNARY(cvta_local, "cvta.local", "=b64 b64", u64, u64, a[l] + ((u64)LOCAL_WINDOW << WINDOW_SHIFT))
UNARY(cvta_to_shared, "cvta.to.shared", "=b64 b64", u64, u64, a[l] - ((u64)SHARED_WINDOW << WINDOW_SHIFT))
UNARY(cvta_to_local, "cvta.to.local", "=b64 b64", u64, u64, a[l] - ((u64)LOCAL_WINDOW << WINDOW_SHIFT))
