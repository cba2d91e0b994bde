/* Instructions of a whole warp: shuffles, votes, and its barrier. */
#include "lines.h"

/* Every lane that arrives is in its own mask. */
static int named(Warp *w, const Op *op, const u32 *masks) {
    u32 outside = 0;
    for (u32 l = 0; l < WARP; l++) outside |= (~masks[l] >> l & 1) << l;
    outside &= w->mask;
    if (!outside) return 1;
    fault(w, op, NOT_NAMED, first(outside), 0, masks[first(outside)], 0);
    return 0;
}

/* Every live lane that a mask names is here, with the same mask. */
int members(Warp *w, const Op *op, const u32 *masks) {
    u32 here = w->mask;
    if (!(unlike(masks, ALL) & here) && here == w->live) return 1;
    if (!named(w, op, masks)) return 0;
    for (u32 left = here; left; left &= left - 1) {
        u32 missing = masks[first(left)] & w->live & ~here;
        if (missing) {
            fault(w, op, ABSENT, first(missing), 0, first(left), 0);
            return 0;
        }
    }
    for (u32 left = here; left; left &= left - 1)
        for (u32 others = masks[first(left)] & here; others; others &= others - 1)
            if (masks[first(others)] != masks[first(left)]) {
                fault(w, op, TWO_MASKS, first(others), first(left), masks[first(left)], masks[first(others)]);
                return 0;
            }
    return 1;
}

/* d[l] = a[from[l]] */
#ifdef __AVX512F__
INLINE void permute(u32 *d, const u32 *a, const u32 *from) {
    __m512i low = _mm512_load_si512(a), high = _mm512_load_si512(a + 16);
    for (int l = 0; l < WARP; l += 16)
        _mm512_storeu_si512(d + l, _mm512_permutex2var_epi32(low, _mm512_loadu_si512(from + l), high));
}
#else
INLINE void permute(u32 *d, const u32 *a, const u32 *from) {
    for (int l = 0; l < WARP; l++) d[l] = a[from[l]];
}
#endif

/* shfl.sync.mode d|p, a, b, c, membermask: PTX's pseudo-code. o: d, a, b, c; more: membermask, p. */
#define SHUFFLE(mode, place, holds)                                                                                    \
    WHOLE(shfl_##mode, "shfl.sync." #mode ".b32", "=b32 b32 b32 b32 more:b32 more:=p") {                               \
        const u32 *a = REG(u32, 1), *b = REG(u32, 2), *c = REG(u32, 3);                                                \
        u32 *d = REG(u32, 0), *inside = (u32 *)(w->r + op->more[1]);                                                   \
        u32 found[WARP] __attribute__((aligned(64))), from[WARP] __attribute__((aligned(64)));                         \
        i32 good[WARP] __attribute__((aligned(64)));                                                                   \
        const i32 *on = w->on;                                                                                         \
        if (!members(w, op, (const u32 *)(w->r + op->more[0]))) return NULL;                                           \
        EACH {                                                                                                         \
            i32 segment = c[l] >> 8 & 31, by = b[l] & 31, bound = c[l] & 31;                                           \
            i32 bottom = l & segment, top = bottom | (bound & ~segment), source = (place) & 31;                        \
            (void)bottom, (void)by, (void)top;                                                                         \
            good[l] = -(i32)(holds);                                                                                   \
            from[l] = (u32)(good[l] ? source : l);                                                                     \
        }                                                                                                              \
        permute(found, a, from);                                                                                       \
        EACH d[l] = on[l] ? found[l] : d[l];                                                                           \
        EACH inside[l] = on[l] ? (u32)good[l] : inside[l];                                                             \
        return op + 1;                                                                                                 \
    }
SHUFFLE(up, l - by, l - by >= top)
SHUFFLE(down, l + by, l + by <= top)
SHUFFLE(bfly, l ^ by, (l ^ by) <= top)
SHUFFLE(idx, bottom | (by & ~segment), (bottom | (by & ~segment)) <= top)

/* All lanes take the value of one. o: d, a, b, c as above, of which b and c are lines; the mask too. */
static const Op *shfl_idx_line_some(Warp *w, const Op *op) {
    Line *d = LINE(0), *inside = (Line *)(w->r + op->more[1] - HEAD);
    spread32(LINE(2));
    spread32(LINE(3));
    spread32((Line *)(w->r + op->more[0] - HEAD));
    spread32(d);
    spread32(inside);
    d->kind = inside->kind = LANES;
    return shfl_idx(w, op);
}
static const Op *shfl_idx_line(Warp *w, const Op *op) {
    const Line *b = LINE(2), *c = LINE(3), *mask = (Line *)(w->r + op->more[0] - HEAD);
    int one = b->kind && c->kind && mask->kind && !b->step && !c->step && !mask->step;
    if (!one || c->base != 31 || mask->base != ALL || w->mask != w->live) return shfl_idx_line_some(w, op);
    put32(LINE(0), REG(u32, 1)[b->base & 31], 0);
    put32((Line *)(w->r + op->more[1] - HEAD), ALL, 0);
    NEXT;
}
__attribute__((constructor)) static void shfl_idx_line_row(void) {
    add_row("shfl.sync.idx.b32.line", "=b32 b32 b32 b32 more:b32 more:=p", shfl_idx_line, shfl_idx_line_some, 0);
}

/* vote.sync.mode d, p, membermask */
#define VOTE(mode, operands, T, value)                                                                                 \
    WHOLE(vote_##mode, "vote.sync." #mode, operands) {                                                                 \
        const u32 *holds = REG(u32, 1), *mask = REG(u32, 2);                                                           \
        T *d = REG(T, 0);                                                                                              \
        const i32 *on = w->on;                                                                                         \
        u32 all = bits(holds) & w->mask, here = w->mask;                                                               \
        if (!members(w, op, mask)) return NULL;                                                                        \
        EACH {                                                                                                         \
            u32 yes = all & mask[l], present = here & mask[l];                                                         \
            T v = (T)(value);                                                                                          \
            (void)present;                                                                                             \
            d[l] = on[l] ? v : d[l];                                                                                   \
        }                                                                                                              \
        return op + 1;                                                                                                 \
    }
VOTE(ballot, "=b32 p b32", u32, yes)
VOTE(any, "=p p b32", i32, -(i32)(yes != 0))
VOTE(all, "=p p b32", i32, -(i32)(yes == present))
VOTE(uni, "=p p b32", i32, -(i32)(yes == 0 || yes == present))

WHOLE(activemask, "activemask", "=b32") {
    u32 *d = REG(u32, 0), here = w->mask;
    const i32 *on = w->on;
    EACH d[l] = on[l] ? here : d[l];
    return op + 1;
}

/* match.any d, a, membermask: the members with the same value. match.all d|p: all members, if all values agree. */
#define MATCH(bits, T)                                                                                                 \
    INLINE u32 same_##bits(const T *a, T value, u32 members_) {                                                        \
        u32 same = 0;                                                                                                  \
        for (int l = 0; l < WARP; l++) same |= (u32)(a[l] == value) << l;                                              \
        return same & members_;                                                                                        \
    }                                                                                                                  \
    WHOLE(match_any_##bits, "match.any.sync.b" #bits, "=b32 b" #bits " b32") {                                         \
        const T *a = REG(T, 1);                                                                                        \
        const u32 *mask = REG(u32, 2);                                                                                 \
        u32 found[WARP], *d = REG(u32, 0);                                                                             \
        if (!members(w, op, mask)) return NULL;                                                                        \
        for (int l = 0; l < WARP; l++) found[l] = same_##bits(a, a[l], mask[l] & w->mask);                             \
        for (u32 left = w->mask; left; left &= left - 1) d[first(left)] = found[first(left)];                          \
        return op + 1;                                                                                                 \
    }                                                                                                                  \
    WHOLE(match_all_##bits, "match.all.sync.b" #bits, "=b32 b" #bits " b32 more:=p") {                                 \
        const T *a = REG(T, 1);                                                                                        \
        const u32 *mask = REG(u32, 2);                                                                                 \
        u32 found[WARP], *d = REG(u32, 0), *agreed = (u32 *)(w->r + op->more[0]);                                      \
        if (!members(w, op, mask)) return NULL;                                                                        \
        for (int l = 0; l < WARP; l++) {                                                                               \
            u32 all = mask[l] & w->mask;                                                                               \
            found[l] = same_##bits(a, a[l], all) == all ? all : 0;                                                     \
        }                                                                                                              \
        for (u32 left = w->mask; left; left &= left - 1) {                                                             \
            u32 l = first(left), all = mask[l] & w->mask;                                                              \
            agreed[l] = found[l] == all ? ALL : 0;                                                                     \
            d[l] = found[l];                                                                                           \
        }                                                                                                              \
        return op + 1;                                                                                                 \
    }
MATCH(32, u32)
MATCH(64, u64)

/* redux.sync.op d, a, membermask: over the lanes that each lane's mask names. */
#define REDUX(op_, type, T, neutral, value)                                                                            \
    WHOLE(redux_##op_##_##type, "redux.sync." #op_ "." #type, "=b32 b32 b32") {                                        \
        const T *a = REG(T, 1);                                                                                        \
        const u32 *mask = REG(u32, 2);                                                                                 \
        T found[WARP], *d = REG(T, 0);                                                                                 \
        u32 known = 0;                                                                                                 \
        T last = neutral;                                                                                              \
        if (!members(w, op, mask)) return NULL;                                                                        \
        for (u32 left = w->mask; left; left &= left - 1) {                                                             \
            u32 set = mask[first(left)] & w->mask;                                                                     \
            if (set != known) {                                                                                        \
                last = neutral;                                                                                        \
                for (u32 in = known = set; in; in &= in - 1) {                                                         \
                    T x = last, y = a[first(in)];                                                                      \
                    last = value;                                                                                      \
                }                                                                                                      \
            }                                                                                                          \
            found[first(left)] = last;                                                                                 \
        }                                                                                                              \
        for (u32 left = w->mask; left; left &= left - 1) d[first(left)] = found[first(left)];                          \
        return op + 1;                                                                                                 \
    }
REDUX(add, u32, u32, 0, x + y)
REDUX(add, s32, u32, 0, x + y)
REDUX(min, u32, u32, UINT32_MAX, y < x ? y : x)
REDUX(max, u32, u32, 0, y > x ? y : x)
REDUX(min, s32, i32, INT32_MAX, y < x ? y : x)
REDUX(max, s32, i32, INT32_MIN, y > x ? y : x)
REDUX(and, b32, u32, ALL, x & y)
REDUX(or, b32, u32, 0, x | y)
REDUX(xor, b32, u32, 0, x ^ y)

/* elect.sync d|p, membermask: the lowest member is the leader. */
WHOLE(elect, "elect.sync", "=b32 =p b32") {
    const u32 *mask = REG(u32, 2);
    u32 *d = REG(u32, 0), *leads = REG(u32, 1), leaders[WARP];
    if (!members(w, op, mask)) return NULL;
    for (u32 left = w->mask; left; left &= left - 1) leaders[first(left)] = first(mask[first(left)] & w->mask);
    for (u32 left = w->mask; left; left &= left - 1) {
        d[first(left)] = leaders[first(left)];
        leads[first(left)] = leaders[first(left)] == first(left) ? ALL : 0;
    }
    return op + 1;
}

/* bar.warp.sync membermask: waits until the lanes named have come to one, here or elsewhere, with the same mask. */
WHOLE(bar_warp, "bar.warp.sync", "b32") {
    const u32 *masks = REG(u32, 0);
    u32 at = (u32)(op + 1 - w->ops);
    w->worker->progress++;
    if (!(unlike(masks, ALL) & w->mask) && w->mask == w->live) return op + 1;
    if (!named(w, op, masks)) return NULL;
    for (u32 left = w->mask; left; left &= left - 1) {
        w->meet[first(left)] = masks[first(left)];
        w->at[first(left)] = at;
    }
    w->whole = -1;
    w->meeting |= w->mask;
    meeting_over(w);
    return NULL;
}
