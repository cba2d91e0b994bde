/* Control flow: branches, exits and barriers. */
#include "lines.h"

static const Op *exit_full(Warp *w, const Op *op);

/* Loops are counted at their branch back. */
INLINE const Op *jump(Warp *w, const Op *op, const Op *to) {
    if (to <= op && UNLIKELY(--w->fuel <= 0)) return paused(w, to);
    return to;
}

/* Lanes part. Those that would only exit do so at once, so that the others count as everybody again. */
static const Op *part(Warp *w, const Op *op, u32 lanes, const Op *to) {
    (void)op;
    if (to->run == exit_full) leave(w, lanes);
    else queue(w, lanes, to);
    return NULL;
}

static __attribute__((noinline)) const Op *branch(Warp *w, const Op *op, u32 taken) {
    const Op *to = op + op->imm;
    taken &= w->mask;
    if (taken == w->mask) return jump(w, op, to);
    if (!taken) return op + 1;
    w->fuel--;
    part(w, op, taken, to);
    part(w, op, w->mask & ~taken, op + 1);
    if (w->fuel <= 0) w->paused = 1;
    return NULL;
}

/* The full form is of a warp whose live lanes are all here. */
#define BRANCH(id, names, operands, lanes)                                                                             \
    static const Op *id##_some(Warp *w, const Op *op) { return branch(w, op, lanes); }                                 \
    static const Op *id##_full(Warp *w, const Op *op) {                                                                \
        u32 taken = (lanes) & w->mask;                                                                                 \
        const Op *to = op + op->imm;                                                                                   \
        if (!taken) NEXT;                                                                                              \
        if (taken != w->mask) return branch(w, op, taken);                                                             \
        if (to <= op && UNLIKELY(--w->fuel <= 0)) return paused(w, to);                                                \
        GO(to);                                                                                                        \
    }                                                                                                                  \
    __attribute__((constructor)) static void id##_row(void) { add_row(names, operands, id##_full, id##_some, 0); }

/* Where the predicate is a line, it is the same in all lanes. */
#define BRANCH_BY_LINE(id, name, holds)                                                                                \
    static const Op *id##_line_some(Warp *w, const Op *op) {                                                           \
        spread32(LINE(0));                                                                                             \
        return id##_some(w, op);                                                                                       \
    }                                                                                                                  \
    static const Op *id##_line(Warp *w, const Op *op) {                                                                \
        const Line *p = LINE(0);                                                                                       \
        const Op *to = op + op->imm;                                                                                   \
        if (!p->kind) return id##_full(w, op);                                                                         \
        if (!(holds)) NEXT;                                                                                            \
        if (to <= op && UNLIKELY(--w->fuel <= 0)) return paused(w, to);                                                \
        GO(to);                                                                                                        \
    }                                                                                                                  \
    __attribute__((constructor)) static void id##_line_row(void) {                                                     \
        add_row(name ".line", "p @", id##_line, id##_line_some, 0);                                                    \
    }

BRANCH(bra, "bra", "@", ALL)
BRANCH(bra_if, "bra.if", "p @", bits(REG(u32, 0)))
BRANCH(bra_unless, "bra.unless", "p @", ~bits(REG(u32, 0)))
BRANCH_BY_LINE(bra_if, "bra.if", p->base)
BRANCH_BY_LINE(bra_unless, "bra.unless", !p->base)

/* brx.idx: o[0] the index, o[1] where the targets lie in the lists, o[2] how many. Beyond the table: the last one. */
WHOLE(brx, "brx.idx", "b32 list") {
    const u32 *index = REG(u32, 0), *list = w->launch->lists + op->o[1];
    u32 left = w->mask, last = op->o[2] - 1;
    while (left) {
        u32 place = index[first(left)], same = 0;
        for (u32 l = 0; l < WARP; l++) same |= (u32)(index[l] == place) << l;
        same &= left;
        const Op *to = w->ops + list[place < last ? place : last];
        if (same == w->mask) return jump(w, op, to);
        w->fuel--;
        part(w, op, same, to);
        left &= ~same;
    }
    if (w->fuel <= 0) w->paused = 1;
    return NULL;
}

/* An instruction under a predicate, o[0]: its imm records follow. o[1]: lanes where it does not hold. */
WHOLE(guard, "guard", "p") {
    u32 mask = w->mask, chosen = bits(REG(u32, 0)) & mask;
    if (op->o[1]) chosen = mask & ~chosen;
    const Op *end = op + 1 + op->imm, *next = op + 1;
    if (chosen == mask) return next;
    if (!chosen) return end;
    enter(w, chosen);
    while (next && next < end) next = w->launch->some[next - w->ops](w, next);
    enter(w, mask);
    return next ? end : NULL;
}

static const Op *exit_full(Warp *w, const Op *op) {
    (void)op;
    leave(w, w->mask);
    return NULL;
}
__attribute__((constructor)) static void exit_row(void) { add_row("exit ret", "", exit_full, exit_full, 0); }

WHOLE(trap, "trap", "") { return fault(w, op, TRAP, first(w->mask), 0, 0, 0); }
WHOLE(nowhere, "call.nowhere", "b64") {
    u32 lane = first(w->mask);
    return fault(w, op, NOWHERE, lane, REG(u64, 0)[lane], 0, 0);
}
WHOLE(itself, "call.itself", "") { return fault(w, op, ITSELF, first(w->mask), 0, 0, 0); }
WHOLE(assertfail, "call.assertfail", "b64 b64 b64 b32") { /* text, file, function, line; one of the warp's says it */
    u32 lane = first(w->mask);
    return fault(w, op, ASSERT, lane, REG(u64, 0)[lane], REG(u64, 1)[lane] << 24 | REG(u32, 3)[lane], REG(u64, 2)[lane]);
}
WHOLE(vprintf_, "call.vprintf", "=b32 b64 b64") { /* arguments, format, buffer: one thread after the other */
    const Launch *launch = w->launch;
    u32 counts[WARP], *d = REG(u32, 0);
    w->worker->progress++;
    for (u32 left = w->mask; left; left &= left - 1) {
        u32 l = first(left);
        i64 count = launch->print(REG(u64, 1)[l], REG(u64, 2)[l], w->local + l * (u64)launch->local, w->block->shared);
        if (count < 0) {
            u64 at = ~(u64)count, window = at >> WINDOW_SHIFT;
            u32 space = window == SHARED_WINDOW ? SHARED : window == LOCAL_WINDOW ? LOCAL : GLOBAL;
            return fault(w, op, OUTSIDE, l, space == GLOBAL ? at : at & WINDOW_MASK, space << 8 | 1, READ);
        }
        counts[l] = (u32)count;
    }
    for (u32 left = w->mask; left; left &= left - 1) d[first(left)] = counts[first(left)];
    return op + 1;
}
WHOLE(clock_, "clock", "=b64") { /* no time: each look at it finds a larger number */
    u64 *d = REG(u64, 0), count = ++w->worker->clock;
    const i32 *on = w->on;
    EACH d[l] = on[l] ? count : d[l];
    return op + 1;
}
WHOLE(nothing, "nop", "") { (void)w; return op + 1; }
WHOLE(prepared, "prepared", "") { (void)w, (void)op; return NULL; }   /* the end of a prologue */

/* --- barriers ------------------------------------------------------------------------------------------------------ */

enum { BAR_TURNS = 20 };   /* branches that a barrier counts as */

/* w->mask arrives at barrier `number`, for `wanted` threads (-1: all that have not exited). */
static const Op *arrive(Warp *w, const Op *op, u32 number, i64 wanted, int wait) {
    Block *b = w->block;
    Barrier *bar = &b->barriers[number % BARRIERS];
    number %= BARRIERS;
    w->fuel -= BAR_TURNS;
    if (bar->open && bar->count >= 0 && wanted >= 0 && bar->count != wanted)
        return fault(w, op, BAR_COUNT, first(w->mask), number, (u64)bar->count, (u64)wanted);
    bar->open = 1;
    b->open |= 1u << number;
    bar->count = wanted;
    bar->arrived += count(w->mask);
    if (!wait) {
        released(b, number);
        return op + 1;
    }
    u32 at = (u32)(op + 1 - w->ops);
    EACH w->at[l] = w->on[l] ? at : w->at[l];
    w->whole = w->mask == w->live ? (i64)at : -1;
    w->waits[number] |= w->mask;
    released(b, number);
    return NULL;
}

/* Lanes that name different barriers, or counts, come one after the other. */
static const Op *arrive_each(Warp *w, const Op *op, const u32 *numbers, const u32 *counts, int wait) {
    u32 mask = w->mask, left = mask;
    const Op *next = op + 1;
    while (left) {
        u32 number = numbers[first(left)], same = 0;
        for (u32 l = 0; l < WARP; l++) same |= (u32)(numbers[l] == number) << l;
        same &= left;
        left &= ~same;
        if (same != mask) enter(w, same);
        next = arrive(w, op, number, counts ? (i64)counts[first(same)] : -1, wait);
        if (w->worker->fault.kind) return NULL;
    }
    if (w->mask != mask) enter(w, mask);
    return wait ? NULL : op + 1;
}

WHOLE(bar_sync, "bar.sync barrier.sync barrier.sync.aligned", "b32") {
    return arrive_each(w, op, REG(u32, 0), NULL, 1);
}
WHOLE(bar_sync_some, "bar.sync barrier.sync barrier.sync.aligned", "b32 b32") {
    return arrive_each(w, op, REG(u32, 0), REG(u32, 1), 1);
}
WHOLE(bar_arrive, "bar.arrive barrier.arrive barrier.arrive.aligned", "b32 b32") {
    return arrive_each(w, op, REG(u32, 0), REG(u32, 1), 0);
}

/* bar.red in two records: the threads arrive with a predicate; its reduction is ready when they continue. */
WHOLE(bar_red, "bar.red", "b32 p") {
    const u32 *number = REG(u32, 0);
    for (u32 left = w->mask; left; left &= left - 1)
        if (number[first(left)] != number[first(w->mask)])
            return fault(w, op, DIVERGENT_RED, first(w->mask), 0, 0, 0);
    w->block->barriers[number[first(w->mask)] % BARRIERS].yes += count(bits(REG(u32, 1)) & w->mask);
    return arrive(w, op, number[first(w->mask)], -1, 1);
}
#define TAKES(name, operands, value)                                                                                   \
    WHOLE(bar_took_##name, "bar.took." #name, operands) {                                                              \
        const Barrier *bar = &w->block->barriers[REG(u32, 1)[first(w->mask)] % BARRIERS];                              \
        u32 *d = REG(u32, 0), yes = bar->last_yes, all = bar->last_arrived, result = value;                            \
        const i32 *on = w->on;                                                                                         \
        (void)all;                                                                                                     \
        EACH d[l] = on[l] ? result : d[l];                                                                             \
        return op + 1;                                                                                                 \
    }
TAKES(popc, "=b32 b32", yes)
TAKES(and, "=p b32", yes == all ? ALL : 0)
TAKES(or, "=p b32", yes ? ALL : 0)

/* The next record is a load that polls for other threads' writes. */
WHOLE(polls, "polls", "") { w->worker->polled++; return op + 1; }

/* --- marks, of kernels whose work is reported ------------------------------------------------------------------------- */

/* A block of instructions begins, the imm-th. */
WHOLE(mark, "mark", "") {
    w->worker->ran[op->imm]++;
    w->worker->lanes[op->imm] += count(w->mask);
    return op + 1;
}
/* A branch back comes, the imm-th; o[1]: taken by lanes where the predicate does not hold. */
WHOLE(looped, "looped", "p") {
    u32 holds = bits(REG(u32, 0));
    w->loops[op->imm] += ((op->o[1] ? ~holds : holds) & w->mask) != 0;
    return op + 1;
}
