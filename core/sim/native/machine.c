/* A launch: workers take thread blocks in the order of their numbers; a block's warps run in turn, up to barriers. */
#include "machine.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

enum { SLICE = 1 << 14, QUANTUM = 256, MOST_ROWS = 4096, STALLED = 1000 };

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
        for (u32 l = 0; l < WARP; l++) {
            u32 value = special(launch, b, w, s->kind, s->axis, l);
            if (s->wide) ((u64 *)(w->r + s->offset))[l] = value;
            else ((u32 *)(w->r + s->offset))[l] = value;
        }
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

/* Thread blocks `number` and on, to their end. */
static void run_blocks(Worker *t, i64 number, i64 blocks) {
    const Launch *launch = t->launch;
    i64 slice = launch->fair ? QUANTUM : SLICE, idle = 0;
    u64 before = t->progress, polled = t->polled;
    for (i64 i = 0; i < blocks; i++) begin_block(launch, &t->blocks[i], number + i);
    for (int some = 1; some && !t->fault.kind;) {
        some = 0;
        for (i64 i = 0; i < blocks; i++)
            for (u32 j = 0; j < t->blocks[i].warps && !t->fault.kind; j++) {
                Warp *w = &t->blocks[i].warp[j];
                if (!w->ready) continue;
                some = 1;
                do {
                    turn(w);
                    if (!refuel(w, slice)) return;
                } while (w->ready && !launch->fair && !t->fault.kind);
            }
        idle = t->progress == before && t->polled != polled ? idle + 1 : 0;
        before = t->progress;
        polled = t->polled;
        if (idle > STALLED) polls_in_vain(t, blocks);
    }
    for (i64 i = 0; launch->loops && i < blocks; i++)
        for (u32 j = 0; j < t->blocks[i].warps; j++)
            for (i64 k = 0; k < launch->loops; k++)
                if (t->blocks[i].warp[j].loops[k] > t->looped[k]) t->looped[k] = t->blocks[i].warp[j].loops[k];
    if (!t->fault.kind) in_vain(t, blocks);
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
    t->room = aligned_alloc(4096, up(size, 4096));
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
        }
    }
    return 1;
}

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t done;
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

/* A fault is the lowest thread block's: those below one that failed run to their end, none above is begun. */
static void *work(void *given) {
    Launch *launch = given;
    Pool *pool = launch->pool;
    Worker t = {0};
    if (!furnish(&t, launch)) {
        t.fault.kind = STOPPED;
        failed(launch, &t.fault);
    }
    while (!t.fault.kind) {
        i64 number = __atomic_fetch_add(&launch->next, launch->together, __ATOMIC_RELAXED);
        if (number >= launch->blocks || number > __atomic_load_n(&launch->failed, __ATOMIC_RELAXED)) break;
        i64 left = launch->blocks - number;
        run_blocks(&t, number, left < launch->together ? left : launch->together);
        if (t.fault.kind) failed(launch, &t.fault);
    }
    for (i64 i = 0; t.room && i < launch->together; i++) phases_end(&t.blocks[i]);
    pthread_mutex_lock(&pool->lock);
    if (t.room) summed(launch, &t);
    free(t.room);
    if (--launch->running == 0) pthread_cond_signal(&pool->done);
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

/* Start a launch on threads of its own. 0 where the system gives none. */
int machine_begin(Launch *launch) {
    Pool *pool = malloc(sizeof(Pool) + (size_t)launch->workers * sizeof(pthread_t));
    if (!pool) return 0;
    launch->pool = pool;
    launch->next = launch->stop = launch->running = 0;
    launch->failed = INT64_MAX;
    launch->fault = (Fault){0};
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->done, NULL);
    pthread_mutex_lock(&pool->lock);
    for (i64 i = 0; i < launch->workers; i++) {
        if (pthread_create(&pool->threads[launch->running], NULL, work, launch)) break;
        launch->running++;
    }
    launch->workers = launch->running;
    pthread_mutex_unlock(&pool->lock);
    return launch->workers > 0;
}

/* Wait for at most `milliseconds`; 1 when the launch is over, whose threads are then gone. */
int machine_wait(Launch *launch, int milliseconds) {
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
    if (!over) return 0;
    for (i64 i = 0; i < launch->workers; i++) pthread_join(pool->threads[i], NULL);
    pthread_mutex_destroy(&pool->lock);
    pthread_cond_destroy(&pool->done);
    free(pool);
    return 1;
}

void machine_stop(Launch *launch) { __atomic_store_n(&launch->stop, 1, __ATOMIC_RELAXED); }
