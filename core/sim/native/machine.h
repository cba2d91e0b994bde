/* The machine's types, and the macros by which an instruction is written.

A kernel is an array of records (Op), made by translation.py from its PTX. A record's function does one PTX instruction
for the 32 lanes of a warp and returns the record that comes next; NULL when the warp has to choose anew which of its
lanes run. A function goes through a run of records of its own kind by itself, which saves the jump.

A register is 32 lanes of 4 bytes, or of 8 for 64 bits. Narrower values are zero-extended, predicates are 0 or ~0.

Each instruction has two forms: `full`, for a warp whose live lanes all run it, and `some`, which leaves the lanes alone
that are not in w->mask. Lanes that have exited may hold anything, so a full form computes for them as well; what
touches memory or other lanes looks at w->mask in both forms.

To add an instruction: one line with a macro below (LANEWISE for what computes each lane by itself), with the PTX names
that it stands for and its operands; see README.md. */
#ifndef MACHINE_H
#define MACHINE_H

#include <math.h>
#include <stdint.h>
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t i8;
typedef int16_t i16;
typedef int32_t i32;
typedef int64_t i64;
typedef float f32;
typedef double f64;

enum { WARP = 32, BARRIERS = 16 };
#define ALL 0xFFFFFFFFu
#define INLINE static inline __attribute__((always_inline))
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

/* Lanes are independent of each other: the compiler may compute them together. */
#if defined(__clang__)
#define EACH _Pragma("clang loop vectorize(assume_safety)") for (int l = 0; l < WARP; l++)
#else
#define EACH _Pragma("GCC ivdep") for (int l = 0; l < WARP; l++)
#endif

/* A vector of elements of two others, by constant numbers; those of b come after a's. */
#ifndef __has_builtin
#define __has_builtin(name) 0
#endif
#if __has_builtin(__builtin_shufflevector)
#define CHOSEN(T, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define CHOSEN(T, a, b, ...) __builtin_shuffle(a, b, (T){__VA_ARGS__})
#endif

typedef struct Op Op;
typedef struct Warp Warp;
typedef struct Block Block;
typedef struct Worker Worker;
typedef struct Launch Launch;
typedef struct Phases Phases;
typedef const Op *(*Run)(Warp *, const Op *);

/* o: byte offsets of registers in the warp's file, or small numbers; imm: a constant, an offset, a target. */
struct Op {
    Run run;
    u32 o[4];
    union {
        i64 imm;
        u32 more[2];
    };
};

/* A row of the table of instructions. names: PTX's, separated by spaces; operands: as README.md says. */
typedef struct {
    const char *names, *operands;
    Run full, some;
    int lanewise;
} Row;
void add_row(const char *names, const char *operands, Run full, Run some, int lanewise);

/* Bytes that an access may touch: addresses lo to lo + span, at base + address. */
typedef struct {
    u8 *base;
    u64 lo, span;
    u64 last, by;         /* where the row of an instruction began last, and how far from the one before */
} Window;

typedef struct {
    u32 kind, lane;
    i64 at;               /* the record, by its number */
    i64 block, thread;
    u64 address, x, y;    /* further numbers of the message, by kind */
} Fault;

enum Kind {               /* faulted.py says them in words, by these numbers */
    FINE, STOPPED, MISALIGNED, OUTSIDE, GONE_BLOCK, ENDLESS, NEVER, TRAP, BAR_COUNT, DIVERGENT, NOT_NAMED, ABSENT,
    TWO_MASKS, WAITS_FOR, DEADLOCK, POLLS, DIVERGENT_RED, MBARRIER, CLUSTER_WAIT, TENSOR_MAP, BULK, NOWHERE,
    ASSERT, ITSELF, SUSPECT   /* the last: screen.c's, which has no words */
};
enum Space { GLOBAL, SHARED, LOCAL, GENERIC };
enum How { READ, WRITE, ATOMIC };

#define SHARED_WINDOW 1
#define LOCAL_WINDOW 2
#define WINDOW_SHIFT 40
#define WINDOW_MASK ((1ull << WINDOW_SHIFT) - 1)
#define RANK_SHIFT 24
#define SHARED_START 1024

typedef struct {
    u32 arrived, open;
    i64 count;            /* -1: all threads that have not exited */
    u32 yes;              /* of a reduction: threads that came with a predicate that holds */
    u32 last_yes, last_arrived;   /* and the results when the barrier was last complete */
} Barrier;

struct Warp {
    u8 *r;
    Block *block;
    Worker *worker;
    const Launch *launch;
    const Op *ops;
    u32 mask;             /* lanes that the instruction at hand concerns */
    u32 live, ready;      /* not exited; may run, but do not at the moment */
    u32 number;           /* in the thread block */
    i32 paused;
    i64 whole;            /* where all live lanes go on, if they are ready; -1: each where `at` says */
    i64 fuel, taken;      /* branches until the next look at the limit; those before */
    i32 on[WARP] __attribute__((aligned(64)));   /* mask, by lane: 0 or ~0 */
    u32 at[WARP] __attribute__((aligned(64)));   /* where ready and waiting lanes go on, by number of the record */
    u32 waits[BARRIERS];  /* lanes in a barrier of the thread block */
    u32 meet[WARP];       /* masks of lanes in bar.warp.sync, 0 for the others */
    u32 meeting;          /* those lanes */
    u32 phased;           /* lanes that wait for a phase, of an mbarrier or of the cluster's barrier */
    const void *awaits[WARP];   /* which barrier of phases that is, by lane */
    i64 came[WARP];       /* the phase of the cluster's barrier at which a lane last arrived; -1 for none */
    u8 *local;
    u32 *loops;           /* by branch back of a marked kernel: how often the warp took it */
};

struct Block {
    i64 number;           /* in the grid */
    u32 rank;             /* in the cluster */
    u32 remaining;        /* threads that have not exited */
    u8 *shared;
    Window window;
    Barrier barriers[BARRIERS];
    u32 open;             /* barriers that threads have come to, by bit */
    u32 warps;
    Warp *warp;
    Block *cluster;       /* its first block */
    Phases *phases;       /* its mbarriers; with rank 0, the cluster's barrier */
};

struct Worker {
    Launch *launch;
    Window *windows;      /* by instruction that accesses global memory: where it went last */
    Block *blocks;
    Warp *warps;
    u8 *room;
    u64 size;             /* of the room, in bytes */
    i64 resident;         /* thread blocks at hand */
    i64 turn, some, idle; /* the warp whose turn it is; whether any ran in this round; rounds in which all only polled */
    i64 until;            /* nanoseconds at which the calling thread looks elsewhere; 0 for other threads */
    i64 unwatched;        /* turns and branches since the last look at the clock */
    u64 progress_before, polled_before;
    u64 progress, polled;
    u64 clock;            /* how often threads looked at it */
    u64 *ran, *lanes;     /* by block of instructions of a marked kernel: warps and lanes that ran it */
    u32 *looped;          /* by branch back: the most that a warp took it */
    Fault fault;
};

u8 *take_room(u64 size);
void leave_room(u8 *at, u64 size);

typedef struct {
    u32 offset;
    u16 wide, bytes;      /* bytes: of memory at `value`, where not 0 */
    u64 value;
} Constant;
typedef struct { u32 offset, wide, kind, axis; } Special;
typedef struct { u32 offset, bytes; } Stretch;

struct Launch {
    const Op *ops;
    const Run *some;
    const u32 *lists;
    u8 *memory;
    const u64 *starts, *ends;
    const Constant *constants;
    const Special *specials;
    const Stretch *fresh; /* registers that may be read before they are written */
    i64 count, entry, regions, constants_count, specials_count, fresh_count, windows;
    i64 registers;        /* bytes of a warp's register file */
    i64 grid[3], block[3], blocks, threads, cluster;
    i64 shared_end, dynamic, total_shared, local;
    i64 limit, workers, together, fair;
    u64 *ran, *lanes;     /* the work of a marked kernel, of all workers */
    u32 *looped;
    i64 marks, loops;
    i64 (*print)(u64 format, u64 buffer, const u8 *local, const u8 *shared);   /* arguments, or ~a bad address */
    struct Screen *screen;   /* of a screened launch */
    /* while it runs */
    i64 next, failed, stop, running;
    void *pool;
    Fault fault;
};

#define REG(T, n) ((T *)__builtin_assume_aligned(w->r + op->o[n], 64))
#define LIST(T, n) ((T *)__builtin_assume_aligned(w->r + list[n], 64))

/* Forms for a full warp run the next record themselves (a jump, as the compiler makes it), which saves the way back to
turn(). Others return it. */
#define GO(to) return (to)->run(w, to)
#define NEXT GO(op + 1)

/* An instruction in its two forms, for each lane by itself. `full` and `some` are statements; runs of the same
instruction stay inside. */
#define FORMS(id, names, operands, full, some)                                                                         \
    static const Op *id##_full(Warp *w, const Op *op) {                                                                \
        do { full; op++; } while (op->run == id##_full);                                                               \
        GO(op);                                                                                                        \
    }                                                                                                                  \
    static const Op *id##_some(Warp *w, const Op *op) {                                                                \
        const i32 *on = w->on;                                                                                         \
        some;                                                                                                          \
        return op + 1;                                                                                                 \
    }                                                                                                                  \
    __attribute__((constructor)) static void id##_row(void) { add_row(names, operands, id##_full, id##_some, 1); }

/* One whose function has both forms and chooses the next record itself. */
#define WHOLE(id, names, operands)                                                                                     \
    static const Op *id(Warp *w, const Op *op);                                                                        \
    __attribute__((constructor)) static void id##_row(void) { add_row(names, operands, id, id, 0); }                   \
    static const Op *id(Warp *w, const Op *op)

/* d[l] = value, for each lane by itself. `let` declares pointers to the sources with REG. */
#define LANEWISE(id, names, operands, D, let, value)                                                                   \
    FORMS(id, names, operands, { D *d = REG(D, 0); let; EACH d[l] = (D)(value); },                                     \
          { D *d = REG(D, 0); let; EACH { D v = (D)(value); d[l] = on[l] ? v : d[l]; } })

#define UNARY(id, names, operands, D, A, value) LANEWISE(id, names, operands, D, const A *a = REG(A, 1), value)
#define BINARY(id, names, operands, D, A, value)                                                                       \
    LANEWISE(id, names, operands, D, const A *a = REG(A, 1); const A *b = REG(A, 2), value)
#define TERNARY(id, names, operands, D, A, value)                                                                      \
    LANEWISE(id, names, operands, D, const A *a = REG(A, 1); const A *b = REG(A, 2); const A *c = REG(A, 3), value)

/* machine.c */
void enter(Warp *w, u32 mask);                       /* these lanes run from here on */
void queue(Warp *w, u32 lanes, const Op *to);        /* these go on at a record, later */
void leave(Warp *w, u32 lanes);                      /* these exit */
void released(Block *b, u32 number);                 /* complete a barrier if it can be */
const Op *fault(Warp *w, const Op *op, u32 kind, u32 lane, u64 address, u64 x, u64 y);
const Op *parted(Warp *w, const Op *op, u32 threads);   /* a fault: not all of these came */
const Op *paused(Warp *w, const Op *to);             /* the warp's turn is over; its lanes go on at a record */
void meeting_over(Warp *w);                          /* let go the lanes of bar.warp.sync that are complete */
void turn(Warp *w);                                  /* until it waits, is over or paused */
int refuel(Warp *w, i64 slice);                      /* whether it has branches left; looks at signals and takes fuel */

/* blocks.c */
void prepare(Warp *w);                               /* the prologue, the same in all thread blocks */
void begin_block(const Launch *launch, Block *b, i64 number);
int run_blocks(Worker *t);                           /* 1 at the resident blocks' end, 0 when it is time to look elsewhere */
i64 now(void);                                       /* nanoseconds */

/* screen.c: a thread block of a screened launch begins, and has ended */
void screen_begins(const Launch *launch, const Block *b);
void screen_ends(const Launch *launch, Block *b);
i64 screen_block(const Launch *launch, i64 place);   /* the number of the thread block whose turn that is */

/* places.c: the bytes behind one address of a lane; NULL after a fault. */
u8 *place_of(Warp *w, const Op *op, u32 lane, u64 x, u32 space, u32 width, u32 how);

/* phases.c: barriers of phases. `landed`: bytes of a copy are there, which the mbarrier at a shared address counts. */
void phases_begin(Block *b);
void phases_end(Block *b);
void phases_left(Block *b);
int landed(Warp *w, const Op *op, u32 lane, u64 barrier, i64 bytes);

/* collectives.c: whether every live lane that a mask names is here, with the same mask; a fault if not. */
int members(Warp *w, const Op *op, const u32 *masks);

#ifdef __AVX512F__
INLINE u32 bits(const u32 *p) {
    __m512i low = _mm512_load_si512(p), high = _mm512_load_si512(p + 16);
    return _mm512_test_epi32_mask(low, low) | (u32)_mm512_test_epi32_mask(high, high) << 16;
}
INLINE u32 unlike(const u32 *p, u32 value) {
    __m512i all = _mm512_set1_epi32((i32)value);
    u32 low = _mm512_cmpneq_epi32_mask(_mm512_load_si512(p), all);
    return low | (u32)_mm512_cmpneq_epi32_mask(_mm512_load_si512(p + 16), all) << 16;
}
#else
INLINE u32 unlike(const u32 *p, u32 value) {   /* lanes with another one */
    u32 found = 0;
    for (int l = 0; l < WARP; l++) found |= (u32)(p[l] != value) << l;
    return found;
}
INLINE u32 bits(const u32 *p) {
    u32 found = 0;
    for (int l = 0; l < WARP; l++) found |= (p[l] & 1u) << l;
    return found;
}
#endif

INLINE u32 first(u32 lanes) { return (u32)__builtin_ctz(lanes); }
INLINE u32 count(u32 lanes) { return (u32)__builtin_popcount(lanes); }

/* places.c: where the lanes of w->mask go. x: their addresses, replaced by places behind *base. 0 after a fault. */
int places(Warp *w, const Op *op, u64 *x, u8 **base, u32 space, u32 slot, u32 width, u32 how);

#endif
