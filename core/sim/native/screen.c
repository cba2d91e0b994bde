/* Screening, for strict mode: could it find anything in this launch? Records of screening.py stand before the
instructions that they are about; a fault SUSPECT ends the launch, which the interpreter then repeats in strict mode, with
its words. So these records may suspect too much, but never too little.

Threads of a thread block are ordered by its barriers, which all of its threads meet, and the lanes of a warp by
bar.warp.sync as well. Kernels in which anything else orders threads are not screened, but for one pattern: a barrier, then
a thread's fence, atomic and fence, then a barrier; what came before the fence of one thread block is known after the
barrier of another whose atomic at the same place comes later. Thread blocks run one after the other, so that times are
numbers: an epoch begins with each thread block and each barrier, a join of a warp with each bar.warp.sync too. */
#include "lines.h"

enum { SEVERAL = 32, MANY = -2, OPEN = -1, PENDING = 4096, FLAGS = 4096, COPY = 3, TURN = 4 };   /* TURN: its order may show */
/* Atomics need no order among each other, so the last of them does not stand for those before. */
enum { STRONG = 1, UNORDERED = 2, ELSEWHERE = 4 };

/* The last accesses to a grain of memory. Epochs are 0 where there was none. */
typedef struct {
    u32 written, write_join, read, read_join;
    i32 writer;           /* thread of the grid */
    i32 reader;           /* warp of the thread block, or MANY */
    u8 lane;              /* of the reader, or SEVERAL */
    u8 atomics;           /* STRONG: all writes of the epoch were atomic, UNORDERED: some are not ordered among each
                             other, ELSEWHERE: an earlier thread block made some */
    u8 busy;              /* a copy into it is under way; of global memory, a copy has read it */
    u8 elsewhere;         /* an earlier thread block has read it */
} Cell;

/* A copy that its lane has not waited for, into `cells` cells. */
typedef struct {
    u32 place;
    u16 lane, cells;
    i32 group;            /* its number, or OPEN */
} Copy;

typedef struct {
    u32 join, waited, copies;   /* waited: lanes that have passed griddepcontrol.wait */
    u32 fenced;           /* the epoch of its last fence in this thread block; 0: none */
    i32 groups[WARP];     /* that each lane has committed */
    Copy copy[PENDING];
} Seen;

/* An atomic after a fence: with it, a thread block gives notice of its epochs before `epoch`. */
typedef struct {
    u64 place;
    i32 block;
    u32 epoch;
} Flag;

struct Screen {
    Cell *shared, *global;
    const u8 *unowned;    /* by grain of shared memory, whether no variable holds it */
    Seen *seen;           /* by warp */
    u32 *heard;           /* by thread block, the epoch before which its accesses are known: to `hearer`, after its next
                             fence, and after the next barrier to all */
    Flag *flag;
    const i32 *order;     /* of the thread blocks */
    i64 shared_shift, global_shift, top, waits, first_address;
    /* while it runs */
    u32 epoch, begun, joins, arrived;   /* begun: the thread block's first epoch */
    u32 flags;
    i32 hearer;           /* a warp, or OPEN */
    const Op *barrier;
};

enum { CELL, SEEN, FLAG_LIST };
i64 screen_size(int kind) { return kind == CELL ? sizeof(Cell) : kind == SEEN ? sizeof(Seen) : sizeof(Flag) * FLAGS; }
i64 screen_block(const Launch *launch, i64 place) { return launch->screen->order[place]; }

void screen_begins(const Launch *launch, const Block *b) {
    struct Screen *s = launch->screen;
    s->begun = ++s->epoch;
    s->arrived = 0;
    s->hearer = OPEN;
    memset(s->heard, 0, 3 * (size_t)launch->blocks * sizeof(u32));
    for (u32 i = 0; i < b->warps; i++) {
        Seen *seen = &s->seen[i];
        seen->join = ++s->joins;
        seen->waited = seen->copies = seen->fenced = 0;
        memset(seen->groups, 0, sizeof seen->groups);
    }
}

static const Op *suspect(Warp *w, const Op *op) { return fault(w, op, SUSPECT, first(w->mask), 0, 0, 0); }

/* A thread block has ended: no thread waits, and no copy is under way. */
void screen_ends(const Launch *launch, Block *b) {
    struct Screen *s = launch->screen;
    for (u32 i = 0; i < b->warps; i++)
        if (s->arrived || s->seen[i].copies) fault(&b->warp[i], b->warp[i].ops, SUSPECT, 0, 0, 0, 0);
}

/* `heard` holds three rows, of what is heard, learnt by a fence, and known since a barrier. */
static void learn(const Launch *launch, int row) {
    u32 *from = launch->screen->heard + row * launch->blocks, *to = from + launch->blocks;
    for (i64 i = 0; i < launch->blocks; i++) to[i] = from[i] > to[i] ? from[i] : to[i];
}

/* A warp's atomic at a place: it hears of those before it, and gives notice of what came before its last fence. */
static int flags(Warp *w, u64 place) {
    struct Screen *s = w->launch->screen;
    const Seen *seen = &s->seen[w->number];
    if ((s->hearer != OPEN && s->hearer != (i32)w->number) || s->flags == FLAGS) return 0;
    s->hearer = (i32)w->number;
    for (u32 i = 0; i < s->flags; i++) {
        u32 *heard = &s->heard[s->flag[i].block];
        if (s->flag[i].place == place && *heard < s->flag[i].epoch) *heard = s->flag[i].epoch;
    }
    if (seen->fenced) s->flag[s->flags++] = (Flag){place, (i32)w->block->number, seen->fenced};
    return 1;
}

/* Whether a thread comes to a cell after its last write. */
INLINE int after_write(const Warp *w, const Seen *seen, const Cell *c, i32 thread) {
    const struct Screen *s = w->launch->screen;
    if (!c->written) return 1;
    if (c->atomics & ELSEWHERE) return 0;
    int here = c->written == s->epoch && c->atomics & UNORDERED;
    if (c->writer == thread && !here) return 1;
    if (c->written < s->begun)
        return c->written < s->heard[2 * w->launch->blocks + c->writer / (i64)(w->block->warps * WARP)];
    if (c->written < s->epoch) return 1;
    return !here && c->writer >> 5 == thread >> 5 && c->write_join < seen->join;
}

INLINE int reads(const Warp *w, const Seen *seen, Cell *c, i32 thread, i32 warp) {
    const struct Screen *s = w->launch->screen;
    u8 lane = thread & 31;
    if (!after_write(w, seen, c, thread)) return 0;
    if (c->read && c->read < s->begun) c->elsewhere = 1;
    if (c->read < s->epoch || (c->reader == warp && c->read_join < seen->join))
        c->read = s->epoch, c->reader = warp, c->read_join = seen->join, c->lane = lane;
    else if (c->reader != warp) c->reader = MANY;
    else if (c->lane != lane) c->lane = SEVERAL;
    return 1;
}

/* Whether a thread comes to a cell after its last reads. */
INLINE int after_reads(const struct Screen *s, const Seen *seen, const Cell *c, i32 thread, i32 warp) {
    if (c->elsewhere || (c->read && c->read < s->begun)) return 0;
    if (c->read < s->epoch) return 1;
    return c->reader == warp && (c->read_join < seen->join || c->lane == (thread & 31));
}

INLINE int writes(const Warp *w, const Seen *seen, Cell *c, i32 thread, i32 warp, u32 how) {
    const struct Screen *s = w->launch->screen;
    int ordered = after_write(w, seen, c, thread);
    u8 atomics = how == ATOMIC || how == TURN ? STRONG : 0;
    if (how == TURN && c->written >= s->begun) return 0;   /* nor may the order of a thread block's own threads show */
    if (!ordered && !(atomics && c->atomics & STRONG)) return 0;
    if (!after_reads(s, seen, c, thread, warp)) return 0;
    if (atomics && c->written == s->epoch) atomics = c->atomics | (ordered ? 0 : UNORDERED);   /* a weak write stands */
    else if (how == ATOMIC && !ordered) atomics |= ELSEWHERE;   /* a turn is ordered after those before */
    c->written = s->epoch, c->write_join = seen->join, c->writer = thread, c->atomics = atomics;
    return 1;
}

/* An access of a lane to `cells` cells from a place on. */
INLINE int accesses(Warp *w, Cell *cells, const u8 *unowned, u64 place, u32 count, u32 lane, u32 how, int shared) {
    struct Screen *s = w->launch->screen;
    Seen *seen = &s->seen[w->number];
    i32 warp = (i32)w->number, thread = (i32)((w->block->number * w->block->warps + warp) * WARP + lane);
    for (u64 i = place; i < place + count; i++) {
        Cell *c = &cells[i];
        if (shared && (unowned[i] || c->busy)) return 0;
        if (shared && (how == READ || how == ATOMIC) && c->written < s->begun) return 0;
        if (shared && c->written < s->begun) *c = (Cell){0};   /* of another thread block */
        if (how == READ || (how == COPY && !shared)) {
            if (!reads(w, seen, c, thread, warp)) return 0;
        } else if (c->busy || !writes(w, seen, c, thread, warp, how)) {
            return 0;
        }
        c->busy |= how == COPY;
    }
    if (how == TURN) return flags(w, place);
    if (how != COPY || !shared) return 1;
    if (seen->copies == PENDING) return 0;
    seen->copy[seen->copies++] = (Copy){(u32)place, (u16)lane, (u16)count, OPEN};
    return 1;
}

/* One lane's access. Addresses outside of all memory are the instruction's own affair. */
INLINE int touches(Warp *w, u64 x, u32 lane, u32 space, u32 width, u32 how) {
    const struct Screen *s = w->launch->screen;
    if (space == GENERIC) {
        u64 window = x >> WINDOW_SHIFT;
        if (window == LOCAL_WINDOW) return 1;
        space = window == SHARED_WINDOW ? SHARED : GLOBAL;
        x = space == SHARED ? x & WINDOW_MASK : x;
    }
    i64 shift = space == SHARED ? s->shared_shift : s->global_shift;
    u32 count = width >> shift ? width >> shift : 1;
    if (space == SHARED) {
        if (x >> RANK_SHIFT) return 0;
        if (x < SHARED_START || x + width > (u64)w->launch->shared_end) return 1;
        return accesses(w, s->shared, s->unowned, x >> shift, count, lane, how, 1);
    }
    if (x + width > (u64)s->top || x + width < x) return 1;
    if (s->waits && x >= (u64)s->first_address && !(s->seen[w->number].waited >> lane & 1)) return 0;
    return accesses(w, s->global, NULL, x >> shift, count, lane, how, 0);
}

/* The records do nothing in a launch that is not screened. */
#define IF_SCREENED if (!w->launch->screen) return op + 1

/* An access. o[0]: the address, imm: its offset, o[1]: its width, how it is made, and how many lanes have addresses. */
#define SCREENED(space, SPACE, bits, A)                                                                                \
    WHOLE(screen_##space##_a##bits, "screen." #space, "[b" #bits "]") {                                                \
        IF_SCREENED;                                                                                                   \
        const A *from = REG(A, 0);                                                                                     \
        u32 width = op->o[1] & 255, how = op->o[1] >> 8 & 7, lanes = op->o[1] >> 16;                                   \
        for (u32 left = w->mask; left; left &= left - 1) {                                                             \
            u32 l = first(left);                                                                                       \
            if (l < lanes && !touches(w, (A)(from[l] + (A)op->imm), l, SPACE, width, how)) return suspect(w, op);      \
        }                                                                                                              \
        return op + 1;                                                                                                 \
    }                                                                                                                  \
    static const Op *screen_##space##_a##bits##_line(Warp *w, const Op *op) {                                          \
        IF_SCREENED;                                                                                                   \
        spread##bits(LINE(0));                                                                                         \
        return screen_##space##_a##bits(w, op);                                                                        \
    }                                                                                                                  \
    __attribute__((constructor)) static void screen_##space##_a##bits##_line_row(void) {                               \
        Run run = screen_##space##_a##bits##_line;                                                                     \
        add_row("screen." #space ".line", "[b" #bits "]", run, run, 0);                                                \
    }
SCREENED(global, GLOBAL, 64, u64)
SCREENED(generic, GENERIC, 64, u64)
SCREENED(shared, SHARED, 64, u64)
SCREENED(shared, SHARED, 32, u32)

/* What a copy reads: nothing may write it any more, since a copy may be late. o[1]: as above; o[2]: bytes of each lane. */
WHOLE(screen_source, "screen.source", "[b64] plain b32") {
    IF_SCREENED;
    const u64 *from = REG(u64, 0);
    const u32 *bytes = REG(u32, 2);
    for (u32 left = w->mask; left; left &= left - 1) {
        u32 l = first(left);
        if (bytes[l] && !touches(w, from[l] + (u64)op->imm, l, GLOBAL, op->o[1] & 255, COPY)) return suspect(w, op);
    }
    return op + 1;
}

/* A barrier of the whole thread block: no thread has exited, and all come to the same one. */
WHOLE(screen_barrier, "screen.barrier", "") {
    IF_SCREENED;
    struct Screen *s = w->launch->screen;
    if (w->block->remaining != w->launch->threads || (s->arrived && s->barrier != op)) return suspect(w, op);
    s->barrier = op;
    s->arrived += count(w->mask);
    if (s->arrived == w->launch->threads) s->arrived = 0, s->epoch++, learn(w->launch, 1);
    return op + 1;
}

WHOLE(screen_fence, "screen.fence", "") {
    IF_SCREENED;
    struct Screen *s = w->launch->screen;
    s->seen[w->number].fenced = s->epoch;
    if (s->hearer == (i32)w->number) learn(w->launch, 0);
    return op + 1;
}

/* bar.warp.sync: of all lanes that have not exited. */
WHOLE(screen_warp, "screen.warp", "b32") {
    IF_SCREENED;
    struct Screen *s = w->launch->screen;
    if (w->mask != w->live) return suspect(w, op);
    for (u32 left = w->mask; left; left &= left - 1)
        if (w->live & ~REG(u32, 0)[first(left)]) return suspect(w, op);
    s->seen[w->number].join = ++s->joins;
    return op + 1;
}

/* The asynchronous copies of these lanes so far are a group. */
WHOLE(screen_commit, "screen.commit", "") {
    IF_SCREENED;
    Seen *seen = &w->launch->screen->seen[w->number];
    for (u32 i = 0; i < seen->copies; i++) {
        Copy *c = &seen->copy[i];
        if (w->mask >> c->lane & 1 && c->group == OPEN) c->group = seen->groups[c->lane];
    }
    for (u32 left = w->mask; left; left &= left - 1) seen->groups[first(left)]++;
    return op + 1;
}

/* Wait until o[0] groups are left, o[1]: for copies in no group too. A copy counts as written now. */
WHOLE(screen_wait, "screen.wait", "") {
    IF_SCREENED;
    struct Screen *s = w->launch->screen;
    Seen *seen = &s->seen[w->number];
    u32 kept = 0;
    for (u32 i = 0; i < seen->copies; i++) {
        Copy c = seen->copy[i];
        int over = c.group == OPEN ? (int)op->o[1] : c.group < seen->groups[c.lane] - (i32)op->o[0];
        if (!(w->mask >> c.lane & 1) || !over) {
            seen->copy[kept++] = c;
            continue;
        }
        for (u32 k = c.place; k < c.place + c.cells; k++)
            s->shared[k].busy = 0, s->shared[k].written = s->epoch, s->shared[k].write_join = seen->join;
    }
    seen->copies = kept;
    return op + 1;
}

WHOLE(screen_waited, "screen.waited", "") {
    IF_SCREENED;
    w->launch->screen->seen[w->number].waited |= w->mask;
    return op + 1;
}

/* A shuffle: each lane within its bounds takes the value of one that is here and that its mask names. */
#define SHUFFLED(mode, place, holds)                                                                                   \
    WHOLE(screen_shfl_##mode, "screen.shfl." #mode, "b32 b32 b32") {                                                   \
        IF_SCREENED;                                                                                                   \
        const u32 *b = REG(u32, 0), *c = REG(u32, 1), *mask = REG(u32, 2);                                             \
        for (u32 left = w->mask; left; left &= left - 1) {                                                             \
            i32 l = (i32)first(left), segment = c[l] >> 8 & 31, by = b[l] & 31, bound = c[l] & 31;                     \
            i32 bottom = l & segment, top = bottom | (bound & ~segment), source = (place) & 31;                        \
            (void)bottom, (void)by, (void)top;                                                                         \
            if ((holds) && !((w->mask & mask[l]) >> source & 1)) return suspect(w, op);                                \
        }                                                                                                              \
        return op + 1;                                                                                                 \
    }
SHUFFLED(up, l - by, l - by >= top)
SHUFFLED(down, l + by, l + by <= top)
SHUFFLED(bfly, l ^ by, (l ^ by) <= top)
SHUFFLED(idx, bottom | (by & ~segment), (bottom | (by & ~segment)) <= top)
