/* Where the lanes of a load or a store go: a row of all lanes, one place for all, or any places. */
#ifndef ROWS_H
#define ROWS_H

#include "lines.h"

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

static __attribute__((noinline, unused)) int anywhere(Warp *w, const Op *op, u64 *x, u32 space, u32 width, u32 how, Where *to) {
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

enum { AHEAD = 4, NEAR = 4096 };   /* rows; bytes from one to the next within which the processor prefetches by itself */

/* The row of an instruction, whose rows to come are prefetched where they lie far apart, one as far as the other. */
INLINE u8 *expected(Window *window, u64 start, u32 width) {
    u64 by = start - window->last;
    if (by == window->by && by + NEAR > 2 * NEAR)
        for (u32 i = 0; i < WARP * width; i += 64) __builtin_prefetch(window->base + start + AHEAD * by + i);
    window->last = start, window->by = by;
    return window->base + start;
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
    Window *window = &w->worker->windows[op->o[2]];
    u64 start = from[0] + offset;
    if (w->mask != ALL || window->lo == ~0ull || !evenly(from, width)) return NULL;
    return fits(start, start + (WARP - 1) * width, window, width) ? expected(window, start, width) : NULL;
}
#define ROW(A, SPACE, width)                                                                                           \
    (SPACE == SHARED && sizeof(A) == 4 ? row_near(w, REG(u32, 1), (u32)op->imm, width)                                 \
     : SPACE == GLOBAL || SPACE == GENERIC ? row_known(w, op, REG(u64, 1), (u64)op->imm, width) : NULL)

/* The same where the addresses are a line: no look at the lanes is needed. width: of a lane, step: to the next. */
INLINE u8 *line_near(const Warp *w, const Line *x, u32 offset, u32 width) {
    Window own = w->block->window;
    u32 start = (u32)x->base + offset;
    if (w->mask != ALL || own.span < width || (x->step && x->step != width)) return NULL;
    own.span -= width;
    return fits(start, (u64)start + (WARP - 1) * (u64)x->step, &own, width) ? own.base + start : NULL;
}
INLINE u8 *line_known(const Warp *w, const Op *op, const Line *x, u64 offset, u32 width) {
    Window *window = &w->worker->windows[op->o[2]];
    u64 start = x->base + offset;
    if (w->mask != ALL || window->lo == ~0ull || (x->step && x->step != width)) return NULL;
    if (!fits(start, start + (WARP - 1) * (u64)x->step, window, width)) return NULL;
    return expected(window, start, width);
}
#define LINE_ROW(A, SPACE, x, width)                                                                                   \
    (!(x)->kind ? NULL                                                                                                 \
     : sizeof(A) == 4 ? line_near(w, x, (u32)op->imm, width) : line_known(w, op, x, (u64)op->imm, width))
INLINE void spread_address(Line *x, u32 bytes) {
    if (bytes == 4) spread32(x);
    else spread64(x);
}

#endif
