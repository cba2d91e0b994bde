/* The table of instructions, and a warp's turn: its lanes run until they wait, part or exit. */
#include "machine.h"

enum { MOST_ROWS = 4096 };

/* --- the table of instructions ----------------------------------------------------------------------------------- */

static Row rows[MOST_ROWS];
static int row_count;

void add_row(const char *names, const char *operands, Run full, Run some, int lanewise) {
    if (row_count < MOST_ROWS) rows[row_count++] = (Row){names, operands, full, some, lanewise};
}

int machine_rows(void) { return row_count; }
const char *machine_names(int row) { return rows[row].names; }
const char *machine_operands(int row) { return rows[row].operands; }
int machine_lanewise(int row) { return rows[row].lanewise; }

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
    if (w->mask == mask) return;
    w->mask = mask;
    EACH w->on[l] = -(i32)(mask >> l & 1);
}

static void queue_at(Warp *w, u32 lanes, u32 at) {
    EACH w->at[l] = lanes >> l & 1 ? at : w->at[l];
    w->whole = lanes == w->live ? (i64)at : -1;
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

const Op *parted(Warp *w, const Op *op, u32 threads) {
    return fault(w, op, DIVERGENT, first(w->mask), 0, threads, 0);
}

void released(Block *b, u32 number) {
    Barrier *bar = &b->barriers[number];
    if (!bar->open || bar->arrived < (bar->count < 0 ? (i64)b->remaining : bar->count)) return;
    *bar = (Barrier){0, 0, -1, 0, bar->yes, bar->arrived};
    b->open &= ~(1u << number);
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
    for (u32 left = b->open; left; left &= left - 1) released(b, first(left));
    if (w->meeting) meeting_over(w);
    phases_left(b);
}

/* --- a warp's turn ------------------------------------------------------------------------------------------------- */

/* The lanes with the lowest record run. Returns the record at which they stop: where the next ones wait. */
static const Op *choose(Warp *w, const Op **limit) {
    u32 lowest = ALL, others = ALL, mask = 0;
    if (w->ready == w->live && w->whole >= 0) {
        w->ready = 0;
        enter(w, w->live);
        return w->ops + w->whole;
    }
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

void turn(Warp *w) {
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

int refuel(Warp *w, i64 slice) {
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
