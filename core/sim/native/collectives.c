/* Instructions of a whole warp: shuffles, votes, and its barrier. */
#include "machine.h"

/* Every lane that comes is in its own mask. */
static int named(Warp *w, const Op *op, const u32 *masks) {
    u32 outside = 0;
    for (u32 l = 0; l < WARP; l++) outside |= (~masks[l] >> l & 1) << l;
    outside &= w->mask;
    if (!outside) return 1;
    fault(w, op, NOT_NAMED, first(outside), 0, masks[first(outside)], 0);
    return 0;
}

/* Every live lane that a mask names is here, with the same mask. */
static int members(Warp *w, const Op *op, const u32 *masks) {
    u32 off = 0, here = w->mask;
    for (u32 l = 0; l < WARP; l++) off |= masks[l] != ALL ? 1u << l : 0;
    if (!(off & here) && here == w->live) return 1;
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

/* shfl.sync.mode d|p, a, b, c, membermask: PTX's pseudo-code. o: d, a, b, c; more: membermask, p. */
#define SHUFFLE(mode, place, holds)                                                                                    \
    WHOLE(shfl_##mode, "shfl.sync." #mode ".b32", "=b32 b32 b32 b32 more:b32 more:=p") {                               \
        const u32 *a = REG(u32, 1), *b = REG(u32, 2), *c = REG(u32, 3);                                                \
        u32 *d = REG(u32, 0), *inside = (u32 *)(w->r + op->more[1]), found[WARP];                                      \
        i32 good[WARP];                                                                                                \
        const i32 *on = w->on;                                                                                         \
        if (!members(w, op, (const u32 *)(w->r + op->more[0]))) return NULL;                                           \
        for (i32 l = 0; l < WARP; l++) {                                                                               \
            i32 segment = c[l] >> 8 & 31, by = b[l] & 31, bound = c[l] & 31;                                           \
            i32 bottom = l & segment, top = bottom | (bound & ~segment), source = (place) & 31;                        \
            (void)bottom, (void)by, (void)top;                                                                         \
            good[l] = -(i32)(holds);                                                                                   \
            found[l] = a[good[l] ? source : l];                                                                        \
        }                                                                                                              \
        EACH d[l] = on[l] ? found[l] : d[l];                                                                           \
        EACH inside[l] = on[l] ? (u32)good[l] : inside[l];                                                             \
        return op + 1;                                                                                                 \
    }
SHUFFLE(up, l - by, l - by >= top)
SHUFFLE(down, l + by, l + by <= top)
SHUFFLE(bfly, l ^ by, (l ^ by) <= top)
SHUFFLE(idx, bottom | (by & ~segment), (bottom | (by & ~segment)) <= top)

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

/* bar.warp.sync membermask: waits until the lanes named have come to one, here or elsewhere, with the same mask. */
WHOLE(bar_warp, "bar.warp.sync", "b32") {
    const u32 *masks = REG(u32, 0);
    u32 off = 0, at = (u32)(op + 1 - w->ops);
    for (u32 l = 0; l < WARP; l++) off |= masks[l] != ALL ? 1u << l : 0;
    w->worker->progress++;
    if (!(off & w->mask) && w->mask == w->live) return op + 1;
    if (!named(w, op, masks)) return NULL;
    for (u32 left = w->mask; left; left &= left - 1) {
        w->meet[first(left)] = masks[first(left)];
        w->at[first(left)] = at;
    }
    w->meeting |= w->mask;
    meeting_over(w);
    return NULL;
}
