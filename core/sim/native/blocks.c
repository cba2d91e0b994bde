/* Thread blocks: their special registers, their beginning, and their warps, which run in turn up to barriers. */
#include "lines.h"

#include <time.h>

enum { SLICE = 1 << 10, QUANTUM = 256, STALLED = 1000, WATCH = 32 };

/* --- special registers --------------------------------------------------------------------------------------------- */

static u32 along(i64 flat, const i64 *sizes, u32 axis) {
    for (u32 i = 0; i < axis; i++) flat /= sizes[i];
    return (u32)(flat % sizes[axis]);
}

enum { TID, NTID, CTAID, NCTAID, CLUSTERID, NCLUSTERID, CLUSTER_CTAID, CLUSTER_NCTAID, LANEID, WARPID, NWARPID, SMID,
       NSMID, ZERO, CLUSTER_RANK, CLUSTER_SIZE, EXPLICIT_CLUSTER, DYNAMIC, TOTAL_SHARED, MASK_EQ, MASK_LT, MASK_LE,
       MASK_GT, MASK_GE };

/* The thread's index along an axis, for all lanes: one after the other, without a division for each. */
static void indices(const Launch *launch, const Warp *w, u32 axis, u32 *values) {
    i64 at[3];
    for (u32 i = 0; i < 3; i++) at[i] = along((i64)w->number * WARP, launch->block, i);
    for (u32 l = 0; l < WARP; l++) {
        values[l] = (u32)at[axis];
        for (u32 i = 0; i < 3; i++) {
            if (++at[i] < launch->block[i]) break;
            at[i] = 0;
        }
    }
}

static u32 special(const Launch *launch, const Block *b, const Warp *w, u32 kind, u32 axis, u32 lane) {
    i64 cluster = axis == 0 ? launch->cluster : 1;
    switch (kind) {
    case NTID: return (u32)launch->block[axis];
    case CTAID: return along(b->number, launch->grid, axis);
    case NCTAID: return (u32)launch->grid[axis];
    case CLUSTERID: return along(b->number, launch->grid, axis) / (u32)cluster;
    case NCLUSTERID: return (u32)(launch->grid[axis] / cluster);
    case CLUSTER_CTAID: return axis == 0 ? (u32)(b->number % launch->cluster) : 0;
    case CLUSTER_NCTAID: return (u32)cluster;
    case LANEID: return lane;
    case WARPID: return w->number;
    case NWARPID: return b->warps;
    case SMID: return (u32)b->number;
    case NSMID: return (u32)launch->blocks;
    case CLUSTER_RANK: return b->rank;
    case CLUSTER_SIZE: return (u32)launch->cluster;
    case EXPLICIT_CLUSTER: return launch->cluster > 1;
    case DYNAMIC: return (u32)launch->dynamic;
    case TOTAL_SHARED: return (u32)launch->total_shared;
    case MASK_EQ: return 1u << lane;
    case MASK_LT: return (1u << lane) - 1;
    case MASK_LE: return (1u << lane) | ((1u << lane) - 1);
    case MASK_GT: return ~((1u << lane) | ((1u << lane) - 1));
    case MASK_GE: return ~((1u << lane) - 1);
    default: return 0;
    }
}

/* Those that differ between thread blocks are the same in all lanes. */
int machine_varies(int kind) {
    return kind == CTAID || kind == CLUSTERID || kind == CLUSTER_CTAID || kind == SMID || kind == CLUSTER_RANK;
}

/* value: of lane l, or of all. */
#define FILL(w, s, value)                                                                                              \
    if ((s)->wide) { u64 *r = (u64 *)((w)->r + (s)->offset); EACH r[l] = value; }                                      \
    else { u32 *r = (u32 *)((w)->r + (s)->offset); EACH r[l] = (u32)(value); }

/* The line of a register that keeps its value, if it has one. */
static void lined(Warp *w, u32 offset, u32 wide) {
    Line *x = (Line *)(w->r + offset - HEAD);
    const u64 *r = (const u64 *)(w->r + offset);
    const u32 *n = (const u32 *)r;
    u64 step = wide ? r[1] - r[0] : (u64)(i64)(i32)(n[1] - n[0]), off = 0;
    for (u32 l = 0; l < WARP; l++) off |= wide ? r[l] ^ (r[0] + l * step) : n[l] ^ (n[0] + l * (u32)step);
    *x = (Line){wide ? r[0] : n[0], (i64)step, off ? LANES : BOTH};
}
static void level(Warp *w, u32 offset, u64 value) { *(Line *)(w->r + offset - HEAD) = (Line){value, 0, BOTH}; }

static u64 constant(const Launch *launch, const Constant *c) {
    u64 value = 0;
    if (!c->bytes) return c->value;
    memcpy(&value, launch->memory + c->value, c->bytes);
    return value;
}

void prepare(Warp *w) {
    const Launch *launch = w->launch;
    for (i64 i = 0; i < launch->constants_count; i++) {
        const Constant *c = &launch->constants[i];
        u64 value = constant(launch, c);
        FILL(w, c, value)
        level(w, c->offset, c->wide ? value : (u32)value);
    }
    for (i64 i = 0; i < launch->specials_count; i++) {
        const Special *s = &launch->specials[i];
        u32 values[WARP];
        if (machine_varies((int)s->kind)) continue;
        if (s->kind == TID) indices(launch, w, s->axis, values);
        else for (u32 l = 0; l < WARP; l++) values[l] = special(launch, w->block, w, s->kind, s->axis, l);
        FILL(w, s, values[l])
        lined(w, s->offset, s->wide);
    }
    enter(w, ALL);
    for (const Op *op = launch->entry ? w->ops : NULL; op;) op = op->run(w, op);
}

/* --- from the beginning to the end ---------------------------------------------------------------------------------- */

/* A warp's end leaves no waiting lane; a fault ends the launch. */
static void begin_warp(const Launch *launch, Block *b, Warp *w) {
    i64 first_thread = (i64)w->number * WARP, left = launch->threads - first_thread;
    u32 entry = (u32)launch->entry;
    w->live = left >= WARP ? ALL : (1u << left) - 1;
    w->ready = w->live;
    w->whole = entry;
    EACH w->at[l] = entry;
    w->fuel = launch->fair ? QUANTUM : SLICE;
    w->taken = 0;
    if (launch->loops) memset(w->loops, 0, (size_t)launch->loops * sizeof(u32));
    if (b->cluster->phases) memset(w->came, 0xFF, sizeof w->came);
    for (i64 i = 0; i < launch->fresh_count; i++) memset(w->r + launch->fresh[i].offset, 0, launch->fresh[i].bytes);
    if (launch->local) memset(w->local, 0, (size_t)launch->local * WARP);
}

void begin_block(const Launch *launch, Block *b, i64 number) {
    b->number = number;
    b->rank = (u32)(number % launch->cluster);
    b->remaining = (u32)launch->threads;
    for (; b->open; b->open &= b->open - 1) b->barriers[first(b->open)] = (Barrier){0, 0, -1, 0, 0, 0};
    if (launch->shared_end > SHARED_START) memset(b->shared + SHARED_START, 0, b->window.span);
    phases_begin(b);
    for (u32 i = 0; i < b->warps; i++) begin_warp(launch, b, &b->warp[i]);
    for (i64 i = 0; i < launch->specials_count; i++) {
        const Special *s = &launch->specials[i];
        if (!machine_varies((int)s->kind)) continue;
        u32 value = special(launch, b, b->warp, s->kind, s->axis, 0);
        for (u32 j = 0; j < b->warps; j++) {
            FILL(&b->warp[j], s, value)
            level(&b->warp[j], s->offset, value);
        }
    }
    if (launch->screen) screen_begins(launch, b);
}

/* No thread can continue: all have exited, or one waits in vain. */
static void in_vain(Worker *t, i64 blocks) {
    for (i64 i = 0; i < blocks; i++)
        for (u32 j = 0; j < t->blocks[i].warps; j++) {
            Warp *w = &t->blocks[i].warp[j];
            if (!w->meeting) continue;
            u32 lane = first(w->meeting), there = 0;
            for (u32 others = w->meeting; others; others &= others - 1)
                there |= (u32)(w->meet[first(others)] == w->meet[lane]) << first(others);
            fault(w, w->ops + w->at[lane], WAITS_FOR, lane, 0, first(w->meet[lane] & w->live & ~there), w->meet[lane]);
        }
    for (i64 i = 0; i < blocks; i++)
        for (u32 n = 0; n < BARRIERS; n++)
            for (u32 j = 0; t->blocks[i].barriers[n].open && j < t->blocks[i].warps; j++) {
                Warp *w = &t->blocks[i].warp[j];
                if (w->waits[n])
                    fault(w, w->ops + w->at[first(w->waits[n])], NEVER, first(w->waits[n]), 0, n,
                          t->blocks[i].barriers[n].arrived);
            }
    for (i64 i = 0; i < blocks; i++)
        for (u32 j = 0; j < t->blocks[i].warps; j++) {
            Warp *w = &t->blocks[i].warp[j];
            if (w->phased) fault(w, w->ops + w->at[first(w->phased)], DEADLOCK, first(w->phased), 0, 0, 0);
        }
}

static void polls_in_vain(Worker *t, i64 blocks) {
    for (i64 i = 0; i < blocks; i++)
        for (u32 j = 0; j < t->blocks[i].warps; j++) {
            Warp *w = &t->blocks[i].warp[j];
            if (w->ready) fault(w, w->ops + w->at[first(w->ready)], POLLS, first(w->ready), 0, 0, 0);
        }
}

i64 now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (i64)at.tv_sec * 1000000000 + at.tv_nsec;
}

int run_blocks(Worker *t) {
    const Launch *launch = t->launch;
    i64 slice = launch->fair ? QUANTUM : SLICE, warps = t->resident * t->blocks[0].warps;
    for (;; t->turn = t->some = 0) {
        while (t->turn < warps) {
            Warp *w = &t->warps[t->turn];
            if (w->ready) {
                i64 before = w->fuel;
                t->some = 1;
                turn(w);
                t->unwatched += 1 + before - w->fuel;
                if (!refuel(w, slice) || t->fault.kind) return 1;
            }
            if (!w->ready || launch->fair) t->turn++;
            if (t->until && t->unwatched > WATCH) {
                t->unwatched = 0;
                if (now() >= t->until) return 0;
            }
        }
        if (!t->some) break;
        t->idle = t->progress == t->progress_before && t->polled != t->polled_before ? t->idle + 1 : 0;
        t->progress_before = t->progress;
        t->polled_before = t->polled;
        if (t->idle > STALLED) polls_in_vain(t, t->resident);
        if (t->fault.kind) return 1;
    }
    for (i64 i = 0; launch->loops && i < warps; i++)
        for (i64 k = 0; k < launch->loops; k++)
            if (t->warps[i].loops[k] > t->looped[k]) t->looped[k] = t->warps[i].loops[k];
    in_vain(t, t->resident);
    return 1;
}
