/* A launch: workers take thread blocks in the order of their numbers; a block's warps run in turn, up to barriers. */
#include "machine.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

enum { SLICE = 1 << 10, QUANTUM = 256, MOST_ROWS = 4096, STALLED = 1000 };
enum { ALONE = 200000 };   /* nanoseconds */

/* --- the table of instructions ----------------------------------------------------------------------------------- */

static Row rows[MOST_ROWS];
static int row_count;

void add_row(const char *names, const char *operands, Run full, Run some) {
    if (row_count < MOST_ROWS) rows[row_count++] = (Row){names, operands, full, some};
}

int machine_rows(void) { return row_count; }
const char *machine_names(int row) { return rows[row].names; }
const char *machine_operands(int row) { return rows[row].operands; }

/* Records come with the number of a row in place of the function. */
void machine_link(Op *ops, Run *some, i64 count) {
    for (i64 i = 0; i < count; i++) {
        const Row *row = &rows[(u64)(uintptr_t)ops[i].run];
        ops[i].run = row->full;
        some[i] = row->some;
    }
}

/* --- lanes --------------------------------------------------------------------------------------------------------- */

void enter(Warp *w, u32 mask) {
    w->mask = mask;
    EACH w->on[l] = -(i32)(mask >> l & 1);
}

static void queue_at(Warp *w, u32 lanes, u32 at) {
    EACH w->at[l] = lanes >> l & 1 ? at : w->at[l];
    w->ready |= lanes;
}

void queue(Warp *w, u32 lanes, const Op *to) { queue_at(w, lanes, (u32)(to - w->ops)); }

const Op *paused(Warp *w, const Op *to) {
    queue(w, w->mask, to);
    w->paused = 1;
    return NULL;
}

const Op *fault(Warp *w, const Op *op, u32 kind, u32 lane, u64 address, u64 x, u64 y) {
    Fault *f = &w->worker->fault;
    if (f->kind == FINE)
        *f = (Fault){kind, lane, op - w->ops, w->block->number, (i64)w->number * WARP + lane, address, x, y};
    return NULL;
}

void released(Block *b, u32 number) {
    Barrier *bar = &b->barriers[number];
    if (!bar->open || bar->arrived < (bar->count < 0 ? (i64)b->remaining : bar->count)) return;
    *bar = (Barrier){0, 0, -1, 0, bar->yes, bar->arrived};
    b->warp->worker->progress++;
    for (u32 i = 0; i < b->warps; i++) {
        b->warp[i].ready |= b->warp[i].waits[number];
        b->warp[i].waits[number] = 0;
    }
}

void meeting_over(Warp *w) {
    u32 met = 0;
    for (u32 left = w->meeting; left; left &= left - 1) {
        u32 lane = first(left), named = w->meet[lane] & w->live, there = 0;
        for (u32 others = w->meeting; others; others &= others - 1)
            there |= (u32)(w->meet[first(others)] == w->meet[lane]) << first(others);
        met |= (u32)((named & ~there) == 0) << lane;
    }
    for (u32 left = met; left; left &= left - 1) w->meet[first(left)] = 0;
    w->meeting &= ~met;
    w->ready |= met;
    w->worker->progress += met != 0;
}

void leave(Warp *w, u32 lanes) {
    Block *b = w->block;
    w->live &= ~lanes;
    b->remaining -= count(lanes);
    w->worker->progress++;
    for (u32 n = 0; n < BARRIERS; n++) released(b, n);
    if (w->meeting) meeting_over(w);
    phases_left(b);
}

/* --- a warp's turn ------------------------------------------------------------------------------------------------- */

/* The lanes with the lowest record run. Returns the record at which they stop: where the next ones wait. */
static const Op *choose(Warp *w, const Op **limit) {
    u32 lowest = ALL, others = ALL, mask = 0;
    for (int l = 0; l < WARP; l++) {
        u32 at = w->ready >> l & 1 ? w->at[l] : ALL;
        lowest = at < lowest ? at : lowest;
    }
    for (int l = 0; l < WARP; l++) {
        u32 here = w->ready >> l & 1 && w->at[l] == lowest;
        u32 at = w->ready >> l & 1 && !here ? w->at[l] : ALL;
        mask |= here << l;
        others = at < others ? at : others;
    }
    w->ready &= ~mask;
    enter(w, mask);
    *limit = w->ops + others;
    return w->ops + lowest;
}

static void turn(Warp *w) {
    w->paused = 0;
    while (w->ready && !w->paused && !w->worker->fault.kind) {
        const Op *limit, *op = choose(w, &limit);
        if (w->mask == w->live) {
            while (op) op = op->run(w, op);
            continue;
        }
        const Run *some = w->launch->some;
        while (op && op < limit) op = some[op - w->ops](w, op);
        if (op) queue(w, w->mask, op);
    }
}

/* Whether the warp has branches left; looks at signals and takes new fuel. */
static int refuel(Warp *w, i64 slice) {
    Launch *launch = w->worker->launch;
    if (w->fuel > 0) return 1;
    w->taken += slice - w->fuel;
    w->fuel = slice;
    if (__atomic_load_n(&launch->stop, __ATOMIC_RELAXED)) {
        fault(w, w->ops, STOPPED, 0, 0, 0, 0);
    } else if (w->taken > launch->limit && w->ready) {
        u32 lane = first(w->ready);
        for (u32 left = w->ready; left; left &= left - 1)
            if (w->at[first(left)] < w->at[lane]) lane = first(left);
        fault(w, w->ops + w->at[lane], ENDLESS, lane, 0, 0, 0);
    }
    return w->worker->fault.kind == FINE;
}

/* --- thread blocks ------------------------------------------------------------------------------------------------- */

static u32 along(i64 flat, const i64 *sizes, u32 axis) {
    for (u32 i = 0; i < axis; i++) flat /= sizes[i];
    return (u32)(flat % sizes[axis]);
}

enum { TID, NTID, CTAID, NCTAID, CLUSTERID, NCLUSTERID, CLUSTER_CTAID, CLUSTER_NCTAID, LANEID, WARPID, NWARPID, SMID,
       NSMID, ZERO, CLUSTER_RANK, CLUSTER_SIZE, EXPLICIT_CLUSTER, DYNAMIC, TOTAL_SHARED, MASK_EQ, MASK_LT, MASK_LE,
       MASK_GT, MASK_GE };

static u32 special(const Launch *launch, const Block *b, const Warp *w, u32 kind, u32 axis, u32 lane) {
    i64 thread = (i64)w->number * WARP + lane, cluster = axis == 0 ? launch->cluster : 1;
    switch (kind) {
    case TID: return along(thread, launch->block, axis);
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
static int of_block(u32 kind) {
    return kind == CTAID || kind == CLUSTERID || kind == CLUSTER_CTAID || kind == SMID || kind == CLUSTER_RANK;
}

static void fill(Warp *w, const Special *s, u32 lane, u32 value) {
    if (s->wide) ((u64 *)(w->r + s->offset))[lane] = value;
    else ((u32 *)(w->r + s->offset))[lane] = value;
}

static void begin_warp(const Launch *launch, Block *b, Warp *w) {
    i64 first_thread = (i64)w->number * WARP, left = launch->threads - first_thread;
    w->live = left >= WARP ? ALL : (1u << left) - 1;
    w->ready = w->live;
    w->paused = 0;
    w->fuel = launch->fair ? QUANTUM : SLICE;
    w->taken = 0;
    w->meeting = w->phased = 0;
    memset(w->at, 0, sizeof w->at);
    memset(w->waits, 0, sizeof w->waits);
    memset(w->meet, 0, sizeof w->meet);
    if (launch->loops) memset(w->loops, 0, (size_t)launch->loops * sizeof(u32));
    memset(w->came, 0xFF, sizeof w->came);
    for (i64 i = 0; i < launch->fresh_count; i++) memset(w->r + launch->fresh[i], 0, 8 * WARP);
    for (i64 i = 0; i < launch->specials_count; i++) {
        const Special *s = &launch->specials[i];
        if (!of_block(s->kind)) continue;
        u32 value = special(launch, b, w, s->kind, s->axis, 0);
        for (u32 l = 0; l < WARP; l++) fill(w, s, l, value);
    }
    if (launch->local) memset(w->local, 0, (size_t)launch->local * WARP);
}

static void begin_block(const Launch *launch, Block *b, i64 number) {
    b->number = number;
    b->rank = (u32)(number % launch->cluster);
    b->remaining = (u32)launch->threads;
    for (u32 n = 0; n < BARRIERS; n++) b->barriers[n] = (Barrier){0, 0, -1, 0, 0, 0};
    memset(b->shared, 0, (size_t)launch->shared_end);
    phases_begin(b);
    for (u32 i = 0; i < b->warps; i++) begin_warp(launch, b, &b->warp[i]);
}

/* Nobody can go on: all have exited, or somebody waits in vain. */
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

static i64 now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (i64)at.tv_sec * 1000000000 + at.tv_nsec;
}

/* The resident thread blocks, on from where they are: 1 at their end, 0 when it is time to look elsewhere. */
static int run_blocks(Worker *t) {
    const Launch *launch = t->launch;
    i64 slice = launch->fair ? QUANTUM : SLICE, warps = t->resident * t->blocks[0].warps;
    for (;; t->turn = t->some = 0) {
        while (t->turn < warps) {
            Warp *w = &t->warps[t->turn];
            if (w->ready) {
                t->some = 1;
                turn(w);
                if (!refuel(w, slice) || t->fault.kind) return 1;
            }
            if (!w->ready || launch->fair) t->turn++;
            if (t->until && t->some && now() >= t->until) return 0;
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

/* --- workers ------------------------------------------------------------------------------------------------------- */

static u64 up(u64 size, u64 to) { return (size + to - 1) / to * to; }

/* All memory of a worker in one piece; 0 where there is not enough. */
static int furnish(Worker *t, Launch *launch) {
    u64 warps = (u64)(launch->threads + WARP - 1) / WARP, blocks = (u64)launch->together;
    u64 registers = up((u64)launch->registers, 64), shared = up((u64)launch->shared_end, 128);
    u64 local = up((u64)launch->local * WARP, 64);
    u64 marks = up((u64)launch->marks * sizeof(u64), 64), loops = up((u64)launch->loops * sizeof(u32), 64);
    u64 size = blocks * (sizeof(Block) + 64 + shared + warps * (sizeof(Warp) + registers + local + loops)) + 4096
             + (u64)launch->windows * sizeof(Window) + 2 * marks + loops;
    t->launch = launch;
    t->size = up(size, 4096);
    t->room = take_room(t->size);
    if (!t->room) return 0;
    u8 *at = t->room;
    t->warps = (Warp *)at, at += blocks * warps * sizeof(Warp);
    t->blocks = (Block *)at, at += up(blocks * sizeof(Block), 64);
    t->ran = (u64 *)at, at += marks;
    t->lanes = (u64 *)at, at += marks;
    t->looped = (u32 *)at, at += loops;
    memset(t->room, 0, (size_t)(at - t->room));
    t->windows = (Window *)at;
    u64 windows = up((u64)launch->windows * sizeof(Window), 64);
    memset(at, 0xFF, windows), at += windows;
    for (u64 i = 0; i < blocks; i++) {
        Block *b = &t->blocks[i];
        b->warp = &t->warps[i * warps], b->warps = (u32)warps;
        b->cluster = &t->blocks[i / (u64)launch->cluster * (u64)launch->cluster];
        b->shared = at, at += shared;
        b->window = (Window){b->shared, SHARED_START, (u64)launch->shared_end - SHARED_START};
        for (u64 j = 0; j < warps; j++) {
            Warp *w = &b->warp[j];
            w->r = at, at += registers;
            w->local = at, at += local;
            w->loops = (u32 *)at, at += loops;
            w->block = b, w->worker = t, w->launch = launch, w->ops = launch->ops, w->number = (u32)j;
            for (i64 c = 0; c < launch->constants_count; c++) {
                const Constant *one = &launch->constants[c];
                for (int l = 0; l < WARP; l++)
                    if (one->wide) ((u64 *)(w->r + one->offset))[l] = one->value;
                    else ((u32 *)(w->r + one->offset))[l] = (u32)one->value;
            }
            for (i64 i = 0; i < launch->specials_count; i++)
                for (u32 l = 0; l < WARP && !of_block(launch->specials[i].kind); l++)
                    fill(w, &launch->specials[i], l,
                         special(launch, b, w, launch->specials[i].kind, launch->specials[i].axis, l));
        }
    }
    return 1;
}

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t done;
    Worker own;           /* of the thread that called */
    i64 begun, over;      /* threads besides; whether the own work is done */
    pthread_t threads[];
} Pool;

static void failed(Launch *launch, const Fault *f) {
    Pool *pool = launch->pool;
    pthread_mutex_lock(&pool->lock);
    if (launch->fault.kind == FINE || f->block < launch->fault.block) launch->fault = *f;
    if (f->block < launch->failed) __atomic_store_n(&launch->failed, f->block, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&pool->lock);
}

static void summed(Launch *launch, const Worker *t) {
    for (i64 i = 0; i < launch->marks; i++) {
        launch->ran[i] += t->ran[i];
        launch->lanes[i] += t->lanes[i];
    }
    for (i64 i = 0; i < launch->loops; i++)
        if (t->looped[i] > launch->looped[i]) launch->looped[i] = t->looped[i];
}

/* Thread blocks to the last: 1 when none is left, 0 when it is time to look elsewhere.
   A fault is the lowest thread block's: those below one that failed run to their end, none above is begun. */
static int go_on(Worker *t) {
    Launch *launch = t->launch;
    while (!t->fault.kind) {
        if (!t->resident) {
            i64 number = __atomic_fetch_add(&launch->next, launch->together, __ATOMIC_RELAXED);
            if (number >= launch->blocks || number > __atomic_load_n(&launch->failed, __ATOMIC_RELAXED)) break;
            i64 left = launch->blocks - number;
            t->resident = left < launch->together ? left : launch->together;
            t->turn = t->some = t->idle = 0;
            t->progress_before = t->progress, t->polled_before = t->polled;
            for (i64 i = 0; i < t->resident; i++) begin_block(launch, &t->blocks[i], number + i);
        }
        if (!run_blocks(t)) return 0;
        t->resident = 0;
        if (t->fault.kind) failed(launch, &t->fault);
    }
    return 1;
}

static void begin_work(Worker *t, Launch *launch) {
    *t = (Worker){0};
    if (furnish(t, launch)) return;
    t->fault.kind = STOPPED;
    failed(launch, &t->fault);
}

static void end_work(Worker *t) {
    Launch *launch = t->launch;
    Pool *pool = launch->pool;
    for (i64 i = 0; t->room && i < launch->together; i++) phases_end(&t->blocks[i]);
    pthread_mutex_lock(&pool->lock);
    if (t->room) summed(launch, t);
    leave_room(t->room, t->size);
    if (--launch->running == 0) pthread_cond_signal(&pool->done);
    pthread_mutex_unlock(&pool->lock);
}

static void *work(void *given) {
    Worker t;
    begin_work(&t, given);
    go_on(&t);
    end_work(&t);
    return NULL;
}

/* Prepare a launch. 0 where there is no memory. */
int machine_begin(Launch *launch) {
    Pool *pool = calloc(1, sizeof(Pool) + (size_t)launch->workers * sizeof(pthread_t));
    if (!pool) return 0;
    launch->pool = pool;
    launch->next = launch->stop = 0;
    launch->running = 1;
    launch->failed = INT64_MAX;
    launch->fault = (Fault){0};
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->done, NULL);
    begin_work(&pool->own, launch);
    return 1;
}

/* Threads for what is left, where that is more than the calling thread has at hand. */
static void share(Launch *launch) {
    Pool *pool = launch->pool;
    i64 left = (launch->blocks - launch->next + launch->together - 1) / launch->together;
    while (pool->begun < launch->workers - 1 && pool->begun < left) {
        pthread_mutex_lock(&pool->lock);
        launch->running++;
        pthread_mutex_unlock(&pool->lock);
        if (pthread_create(&pool->threads[pool->begun], NULL, work, launch)) {
            launch->workers = pool->begun + 1;
            pthread_mutex_lock(&pool->lock);
            launch->running--;
            pthread_mutex_unlock(&pool->lock);
        } else {
            pool->begun++;
        }
    }
}

static int all_done(Launch *launch, int milliseconds) {
    Pool *pool = launch->pool;
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    i64 nanoseconds = until.tv_nsec + (i64)milliseconds * 1000000;
    until.tv_sec += nanoseconds / 1000000000;
    until.tv_nsec = nanoseconds % 1000000000;
    pthread_mutex_lock(&pool->lock);
    while (launch->running)
        if (pthread_cond_timedwait(&pool->done, &pool->lock, &until)) break;
    int over = launch->running == 0;
    pthread_mutex_unlock(&pool->lock);
    return over;
}

/* Run a launch for about `milliseconds`; 1 when it is over, whose threads are then gone. What takes longer than ALONE
   is shared with other threads; most launches are over before those would have begun. */
int machine_run(Launch *launch, int milliseconds) {
    Pool *pool = launch->pool;
    i64 start = now(), end = start + (i64)milliseconds * 1000000;
    pool->own.until = pool->begun || launch->workers == 1 ? end : start + ALONE;
    while (!pool->over) {
        if (go_on(&pool->own)) {
            end_work(&pool->own);
            pool->over = 1;
        } else if (now() >= end) {
            return 0;
        } else {
            share(launch);
            pool->own.until = end;
        }
    }
    if (!all_done(launch, milliseconds)) return 0;
    for (i64 i = 0; i < pool->begun; i++) pthread_join(pool->threads[i], NULL);
    pthread_mutex_destroy(&pool->lock);
    pthread_cond_destroy(&pool->done);
    free(pool);
    return 1;
}

void machine_stop(Launch *launch) {
    __atomic_store_n(&launch->stop, 1, __ATOMIC_RELAXED);
    __atomic_store_n(&launch->failed, -1, __ATOMIC_RELAXED);
}
