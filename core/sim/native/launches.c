/* A launch: workers take thread blocks in the order of their numbers. */
#include "machine.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

enum { ALONE = 200000 };   /* nanoseconds */

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
            memset(w->came, 0xFF, sizeof w->came);
            w->block = b, w->worker = t, w->launch = launch, w->ops = launch->ops, w->number = (u32)j;
            prepare(w);
        }
    }
    return 1;
}

/* --- threads ------------------------------------------------------------------------------------------------------- */

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t done;
    Worker own;           /* of the thread that called */
    i64 begun, over;      /* threads besides; whether the own work is done */
    pthread_t *threads;
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
            if (launch->screen) number = screen_block(launch, number);   /* one at a time */
            for (i64 i = 0; i < t->resident; i++) begin_block(launch, &t->blocks[i], number + i);
        }
        if (!run_blocks(t)) return 0;
        if (launch->screen && !t->fault.kind) screen_ends(launch, t->blocks);
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

/* Threads for the remaining blocks, where these are more than the calling thread runs at once. */
static void share(Launch *launch) {
    Pool *pool = launch->pool;
    i64 left = (launch->blocks - launch->next + launch->together - 1) / launch->together;
    if (launch->workers > 1 && !pool->threads) pool->threads = calloc((size_t)launch->workers, sizeof(pthread_t));
    while (pool->threads && pool->begun < launch->workers - 1 && pool->begun < left) {
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

/* The calling thread's own part, until a time; 1 when it is over. */
static int own_part(Launch *launch, i64 until) {
    Pool *pool = launch->pool;
    pool->own.until = until;
    if (!pool->over && go_on(&pool->own)) {
        end_work(&pool->own);
        pool->over = 1;
    }
    return (int)pool->over;
}

static int finished(Launch *launch) {
    Pool *pool = launch->pool;
    for (i64 i = 0; i < pool->begun; i++) pthread_join(pool->threads[i], NULL);
    pthread_mutex_destroy(&pool->lock);
    pthread_cond_destroy(&pool->done);
    free(pool->threads);
    free(pool);
    return 1;
}

/* Begin a launch: 1 when it is over already, 0 when machine_run has to go on, -1 where there is no memory. Most launches
   are over before other threads would have begun. */
int machine_start(Launch *launch) {
    Pool *pool = calloc(1, sizeof(Pool));
    if (!pool) return -1;
    launch->pool = pool;
    launch->next = launch->stop = 0;
    launch->running = 1;
    launch->failed = INT64_MAX;
    launch->fault = (Fault){0};
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->done, NULL);
    begin_work(&pool->own, launch);
    return own_part(launch, now() + ALONE) ? finished(launch) : 0;
}

/* Run a launch that machine_start has left for about `milliseconds`, with launch->workers threads; 1 when it is over,
   whose threads are then gone. */
int machine_run(Launch *launch, int milliseconds) {
    if (!((Pool *)launch->pool)->over) share(launch);
    if (!own_part(launch, now() + (i64)milliseconds * 1000000)) return 0;
    return all_done(launch, milliseconds) ? finished(launch) : 0;
}

void machine_stop(Launch *launch) {
    __atomic_store_n(&launch->stop, 1, __ATOMIC_RELAXED);
    __atomic_store_n(&launch->failed, -1, __ATOMIC_RELAXED);
}
