/* Barriers of phases: mbarriers in shared memory, and the barrier of a cluster. Threads and copies arrive, a phase
completes, those that wait for it go on. The steps of core/sim/instructions/mbarrier.py. */
#include "machine.h"

#include <stdlib.h>

typedef struct {
    u32 offset;           /* in shared memory */
    u32 phase;
    i64 expected, pending, bytes_left;
} MBarrier;

typedef struct {
    i64 arrived, phase;
} ClusterBarrier;

struct Phases {
    u32 count, most;
    ClusterBarrier cluster;
    MBarrier *barriers;
};

enum Trouble { NOT_INITIALISED, NO_PLACE, TOO_MANY, ITS_BLOCK_EXITED };   /* x of an MBARRIER fault */

void phases_begin(Block *b) {
    if (!b->phases) return;
    b->phases->count = 0;
    b->phases->cluster = (ClusterBarrier){0, 0};
}

void phases_end(Block *b) {
    if (b->phases) free(b->phases->barriers);
    free(b->phases);
    b->phases = NULL;
}

static Phases *phases_of(Block *b) {
    if (!b->phases) b->phases = calloc(1, sizeof(Phases));
    return b->phases;
}

/* Let go all lanes of the cluster that wait for a barrier. */
static void wake(Block *b, const void *barrier) {
    b->warp->worker->progress++;
    for (i64 i = 0; i < b->warp->launch->cluster; i++)
        for (u32 j = 0; j < b->cluster[i].warps; j++) {
            Warp *w = &b->cluster[i].warp[j];
            for (u32 left = w->phased; left; left &= left - 1)
                if (w->awaits[first(left)] == barrier) {
                    w->phased &= ~(1u << first(left));
                    w->ready |= 1u << first(left);
                }
        }
}

/* --- mbarriers ------------------------------------------------------------------------------------------------------- */
static Block *owner(Warp *w, u64 address) {
    i64 rank = (i64)(address >> RANK_SHIFT & 0xFF) - 1;
    return rank < 0 ? w->block : rank < w->launch->cluster ? w->block->cluster + rank : NULL;
}

static MBarrier *known(Block *b, u32 offset) {
    for (u32 i = 0; b && b->phases && i < b->phases->count; i++)
        if (b->phases->barriers[i].offset == offset) return &b->phases->barriers[i];
    return NULL;
}

static MBarrier *find(Warp *w, const Op *op, u32 lane, u64 address) {
    Block *b = owner(w, address);
    u32 offset = (u32)(address & ((1u << RANK_SHIFT) - 1));
    if (b && b->remaining == 0) {
        fault(w, op, MBARRIER, lane, offset, ITS_BLOCK_EXITED, (u64)b->number);
        return NULL;
    }
    MBarrier *found = known(b, offset);
    if (!found) fault(w, op, MBARRIER, lane, offset, NOT_INITIALISED, 0);
    return found;
}

static void settle(Block *b, MBarrier *m) {
    if (m->pending || m->bytes_left) return;
    m->phase ^= 1;
    m->pending = m->expected;
    wake(b, m->offset + (const u8 *)b->shared);
}

int landed(Warp *w, const Op *op, u32 lane, u64 barrier, i64 bytes) {
    MBarrier *m = find(w, op, lane, barrier);
    if (!m) return 0;
    m->bytes_left -= bytes;
    settle(owner(w, barrier), m);
    return 1;
}

/* o: the address, the count; imm: the address's offset. */
WHOLE(mbarrier_init, "mbarrier.init", "b64 b32") {
    const u64 *x = REG(u64, 0);
    const u32 *counts = REG(u32, 1);
    for (u32 left = w->mask; left; left &= left - 1) {
        u64 at = x[first(left)] + (u64)op->imm, offset = at & ((1u << RANK_SHIFT) - 1);
        if (offset % 8 || offset < SHARED_START || offset + 8 > (u64)w->launch->shared_end || !owner(w, at))
            return fault(w, op, MBARRIER, first(left), at, NO_PLACE, 0);
    }
    for (u32 left = w->mask; left; left &= left - 1) {
        u64 at = x[first(left)] + (u64)op->imm;
        u32 offset = (u32)(at & ((1u << RANK_SHIFT) - 1)), expected = counts[first(left)];
        Block *b = owner(w, at);
        MBarrier *m = known(b, offset);
        Phases *all = phases_of(b);
        if (!m) {
            if (all->count == all->most) {
                all->most = all->most ? 2 * all->most : 16;
                all->barriers = realloc(all->barriers, all->most * sizeof(MBarrier));
            }
            m = &all->barriers[all->count++];
        }
        *m = (MBarrier){offset, 0, expected, expected, 0};
    }
    return op + 1;
}

WHOLE(mbarrier_inval, "mbarrier.inval", "b64") {
    const u64 *x = REG(u64, 0);
    for (u32 left = w->mask; left; left &= left - 1) {
        u64 at = x[first(left)] + (u64)op->imm;
        MBarrier *m = find(w, op, first(left), at);
        if (!m) return NULL;
        Phases *all = owner(w, at)->phases;
        *m = all->barriers[--all->count];
    }
    return op + 1;
}

/* o: the state (its low bit is the phase), the address, the count or the bytes. */
#define ARRIVES(id, name, expects, completes, arrivals, drops)                                                         \
    WHOLE(id, name, "=b64 b64 b32") {                                                                                  \
        u64 states[WARP], *d = REG(u64, 0);                                                                            \
        const u64 *x = REG(u64, 1);                                                                                    \
        const u32 *amount = REG(u32, 2);                                                                               \
        for (u32 left = w->mask; left; left &= left - 1) {                                                             \
            u32 l = first(left);                                                                                       \
            u64 at = x[l] + (u64)op->imm;                                                                              \
            MBarrier *m = find(w, op, l, at);                                                                          \
            if (!m) return NULL;                                                                                       \
            states[l] = m->phase;                                                                                      \
            m->bytes_left += (expects) ? (i64)amount[l] : 0;                                                           \
            m->bytes_left -= (completes) ? (i64)amount[l] : 0;                                                         \
            i64 come = arrivals;                                                                                       \
            if (m->pending < come)                                                                                     \
                return fault(w, op, MBARRIER, l, at & ((1u << RANK_SHIFT) - 1), TOO_MANY, (u64)m->expected);           \
            m->pending -= come;                                                                                        \
            m->expected -= (drops) ? come : 0;                                                                         \
            settle(owner(w, at), m);                                                                                   \
        }                                                                                                              \
        for (u32 left = w->mask; left; left &= left - 1) d[first(left)] = states[first(left)];                         \
        return op + 1;                                                                                                 \
    }
ARRIVES(mbarrier_arrive, "mbarrier.arrive", 0, 0, amount[l], 0)
ARRIVES(mbarrier_arrive_expect, "mbarrier.arrive.expect_tx", 1, 0, 1, 0)
ARRIVES(mbarrier_drop, "mbarrier.arrive_drop", 0, 0, amount[l], 1)
ARRIVES(mbarrier_drop_expect, "mbarrier.arrive_drop.expect_tx", 1, 0, 1, 1)
ARRIVES(mbarrier_expect, "mbarrier.expect_tx", 1, 0, 0, 0)
ARRIVES(mbarrier_complete, "mbarrier.complete_tx", 0, 1, 0, 0)

/* cp.async.mbarrier.arrive{.noinc}: arrives when the thread's copies are there, which they are. o: address; imm >> 1. */
WHOLE(cp_async_arrive, "cp.async.mbarrier.arrive", "b64") {
    const u64 *x = REG(u64, 0);
    for (u32 left = w->mask; left; left &= left - 1)
        if (!find(w, op, first(left), x[first(left)] + (u64)(op->imm >> 1))) return NULL;
    for (u32 left = w->mask; left; left &= left - 1) {
        u64 at = x[first(left)] + (u64)(op->imm >> 1);
        MBarrier *m = find(w, op, first(left), at);
        m->pending -= op->imm & 1;
        settle(owner(w, at), m);
    }
    return op + 1;
}

/* Never waits: whether the phase of that parity has completed. o: the predicate, the address, the parity. */
WHOLE(mbarrier_test, "mbarrier.test_wait", "=p b64 b64") {
    u32 over = 0, *d = REG(u32, 0);
    const u64 *x = REG(u64, 1), *parity = REG(u64, 2);
    for (u32 left = w->mask; left; left &= left - 1) {
        MBarrier *m = find(w, op, first(left), x[first(left)] + (u64)op->imm);
        if (!m) return NULL;
        over |= (u32)(m->phase != (parity[first(left)] & 1)) << first(left);
    }
    w->worker->polled += over != w->mask;
    for (u32 left = w->mask; left; left &= left - 1) d[first(left)] = over >> first(left) & 1 ? ALL : 0;
    return op + 1;
}

/* Lanes wait for a phase of the barrier that awaits[] names; the others go on. */
static const Op *wait_for(Warp *w, const Op *op, u32 parked) {
    if (!parked) return op + 1;
    u32 at = (u32)(op + 1 - w->ops), free = w->mask & ~parked;
    for (u32 left = parked; left; left &= left - 1) w->at[first(left)] = at;
    w->whole = -1;
    w->phased |= parked;
    if (free) queue(w, free, op + 1);
    return NULL;
}

WHOLE(mbarrier_wait, "mbarrier.try_wait", "=p b64 b64") {
    u32 parked = 0, *d = REG(u32, 0);
    const u64 *x = REG(u64, 1), *parity = REG(u64, 2);
    for (u32 left = w->mask; left; left &= left - 1) {
        u32 l = first(left);
        MBarrier *m = find(w, op, l, x[l] + (u64)op->imm);
        if (!m) return NULL;
        if (m->phase != (parity[l] & 1)) continue;
        parked |= 1u << l;
        w->awaits[l] = owner(w, x[l] + (u64)op->imm)->shared + m->offset;
    }
    for (u32 left = w->mask; left; left &= left - 1) d[first(left)] = ALL;
    return wait_for(w, op, parked);
}

/* --- the barrier of a cluster ---------------------------------------------------------------------------------------- */
static void settle_cluster(Block *b) {
    Block *head = b->cluster;
    if (!head->phases) return;
    ClusterBarrier *bar = &head->phases->cluster;
    i64 remaining = 0;
    for (i64 i = 0; i < b->warp->launch->cluster; i++) remaining += head[i].remaining;
    if (!bar->arrived || bar->arrived < remaining) return;
    bar->arrived = 0;
    bar->phase++;
    wake(b, bar);
}

void phases_left(Block *b) { settle_cluster(b); }

WHOLE(cluster_arrive, "barrier.cluster.arrive", "") {
    ClusterBarrier *bar = &phases_of(w->block->cluster)->cluster;
    for (u32 left = w->mask; left; left &= left - 1) w->came[first(left)] = bar->phase;
    bar->arrived += count(w->mask);
    settle_cluster(w->block);
    return op + 1;
}

WHOLE(cluster_wait, "barrier.cluster.wait", "") {
    ClusterBarrier *bar = &phases_of(w->block->cluster)->cluster;
    u32 parked = 0;
    for (u32 left = w->mask; left; left &= left - 1)
        if (w->came[first(left)] < 0) return fault(w, op, CLUSTER_WAIT, first(w->mask), 0, 0, 0);
    for (u32 left = w->mask; left; left &= left - 1)
        if (w->came[first(left)] >= bar->phase) {
            parked |= 1u << first(left);
            w->awaits[first(left)] = bar;
        }
    return wait_for(w, op, parked);
}

/* --- addresses within a cluster -------------------------------------------------------------------------------------- */
LANEWISE(mapa, "mapa", "=b64 b64 b32", u64, const u64 *a = REG(u64, 1); const u32 *b = REG(u32, 2);
         u64 window = (u64)op->imm, (a[l] & ((1u << RANK_SHIFT) - 1)) | ((u64)b[l] + 1) << RANK_SHIFT | window)
LANEWISE(getctarank, "getctarank", "=b32 b64 b32", u32, const u64 *a = REG(u64, 1); const u32 *own = REG(u32, 2),
         (a[l] & WINDOW_MASK) >> RANK_SHIFT ? (u32)((a[l] & WINDOW_MASK) >> RANK_SHIFT) - 1 : own[l])
LANEWISE(isspacep, "isspacep", "=p b64", i32, const i64 *a = REG(i64, 1); i64 window = op->imm,
         -(i32)(a[l] >> WINDOW_SHIFT == window))
