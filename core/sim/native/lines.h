/* Registers whose lanes form a line: lane l has base + l * step.

Indices, addresses and what is the same in all lanes are such values, and a kernel's integers are little else. Their
records compute a base and a step instead of 32 lanes. affine.py finds the registers that can be written so; each has a
head of HEAD bytes before its lanes. What the line does not give (a shift of a line to the right, a product of two) is
computed by lanes, as the record without lines does it; whether a register holds a line is known only when it runs. */
#ifndef LINES_H
#define LINES_H

#include "machine.h"

enum { HEAD = 64 };
enum { LANES, STRAIGHT, BOTH };   /* the valid form: lanes, line, or both */

/* Of 32 bits: base is zero-extended and step sign-extended; sums wrap around. */
typedef struct {
    u64 base;
    i64 step;
    u64 kind;
} Line;

#define LINE(n) ((Line *)(w->r + op->o[n] - HEAD))

/* lines.c: write the lanes of a line. */
void spread_32(Line *x);
void spread_64(Line *x);
INLINE void spread32(Line *x) { if (x->kind == STRAIGHT) spread_32(x); }
INLINE void spread64(Line *x) { if (x->kind == STRAIGHT) spread_64(x); }

/* The result of a rule: 1, and its line. */
INLINE int put32(Line *d, u64 base, u64 step) {
    *d = (Line){(u32)base, (i32)step, STRAIGHT};
    return 1;
}
INLINE int put64(Line *d, u64 base, u64 step) {
    *d = (Line){base, (i64)step, STRAIGHT};
    return 1;
}

/* The first and the last lane as numbers of a type, where no lane between wraps around; else 0. */
INLINE int ends_i32(const Line *x, i64 *low, i64 *high) {
    *low = (i32)x->base, *high = *low + (WARP - 1) * x->step;
    return *high == (i32)*high;
}
INLINE int ends_u32(const Line *x, i64 *low, i64 *high) {
    *low = (i64)x->base, *high = *low + (WARP - 1) * x->step;
    return *high == (i64)(u32)*high;
}
INLINE int ends_i64(const Line *x, i64 *low, i64 *high) {
    const i64 far = 1ll << 61, steep = 1ll << 55;
    *low = (i64)x->base, *high = *low + (WARP - 1) * x->step;
    return *low < far && *low > -far && x->step < steep && x->step > -steep;
}
INLINE int ends_u64(const Line *x, i64 *low, i64 *high) { return ends_i64(x, low, high) && (*low | *high) >= 0; }

/* The record `id` with lines: `known`: its sources are lines; `rule`: gives the result's line, or 0. */
#define LINED(id, name, operands, bits, let, known, spreads, rule)                                                     \
    static __attribute__((noinline)) const Op *id##_lanes(Warp *w, const Op *op) {                                     \
        Line *d = LINE(0);                                                                                             \
        let;                                                                                                           \
        spreads;                                                                                                       \
        d->kind = LANES;                                                                                               \
        return id##_full(w, op);                                                                                       \
    }                                                                                                                  \
    static const Op *id##_line(Warp *w, const Op *op) {                                                                \
        Line *d = LINE(0);                                                                                             \
        let;                                                                                                           \
        if ((known) && (rule)) NEXT;                                                                                   \
        return id##_lanes(w, op);                                                                                      \
    }                                                                                                                  \
    static const Op *id##_line_some(Warp *w, const Op *op) {                                                           \
        Line *d = LINE(0);                                                                                             \
        let;                                                                                                           \
        spreads;                                                                                                       \
        spread##bits(d);                                                                                               \
        d->kind = LANES;                                                                                               \
        return id##_some(w, op);                                                                                       \
    }                                                                                                                  \
    __attribute__((constructor)) static void id##_line_row(void) {                                                     \
        add_row(name ".line", operands, id##_line, id##_line_some, 0);                                                 \
    }
#define LINED1(id, name, operands, bits, of_a, rule)                                                                   \
    LINED(id, name, operands, bits, Line *a = LINE(1), a->kind, spread##of_a(a), rule)
#define LINED2(id, name, operands, bits, of_a, of_b, rule)                                                             \
    LINED(id, name, operands, bits, Line *a = LINE(1); Line *b = LINE(2), a->kind && b->kind,                          \
          spread##of_a(a); spread##of_b(b), rule)
#define LINED3(id, name, operands, bits, of_a, of_b, of_c, rule)                                                       \
    LINED(id, name, operands, bits, Line *a = LINE(1); Line *b = LINE(2); Line *c = LINE(3),                           \
          a->kind && b->kind && c->kind, spread##of_a(a); spread##of_b(b); spread##of_c(c), rule)

#endif
