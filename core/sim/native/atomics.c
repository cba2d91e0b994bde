/* atom and red: read, change, write as one step. Lanes at one address take their turns in their order.

Thread blocks of a kernel with atomics in global memory run in the order of their numbers on one thread, so that nothing
else changes the memory between the read and the write. */
#include "floats.h"

/* o: the register for the old contents (unread for a red), the address, the window's slot, the operand; more:
compare-and-swap's other operand. `change`: what will be there, of `old`, the operand b and the other one c. */
#define ATOM(id, name, width, A, T, SPACE, change, polls)                                                              \
    WHOLE(id, name, width) {                                                                                           \
        u64 x[WARP] __attribute__((aligned(64)));                                                                      \
        const A *from = REG(A, 1);                                                                                     \
        EACH x[l] = from[l];                                                                                           \
        u8 *base;                                                                                                      \
        T *d = REG(T, 0);                                                                                              \
        const T *given = REG(T, 3), *other = (const T *)(w->r + op->more[0]);                                          \
        u32 swapped = 0;                                                                                               \
        if (UNLIKELY(!places(w, op, x, &base, SPACE, op->o[2], sizeof(T), ATOMIC))) return NULL;                       \
        for (u32 left = w->mask; left; left &= left - 1) {                                                             \
            u32 l = first(left);                                                                                       \
            T *at = (T *)(base + x[l]), old = *at, b = given[l], c = other[l];                                         \
            (void)c;                                                                                                   \
            swapped |= old == b;                                                                                       \
            *at = (T)(change);                                                                                         \
            d[l] = old;                                                                                                \
        }                                                                                                              \
        if (polls && !swapped) w->worker->polled++;                                                                    \
        else w->worker->progress++;                                                                                    \
        return op + 1;                                                                                                 \
    }

#define IN_SPACES(id, name, T, change, polls)                                                                          \
    ATOM(id##_global, "atom.global." name, "[b64]", u64, T, GLOBAL, change, polls)                                     \
    ATOM(id##_generic, "atom.generic." name, "[b64]", u64, T, GENERIC, change, polls)                                  \
    ATOM(id##_shared, "atom.shared." name, "[b64]", u64, T, SHARED, change, polls)                                     \
    ATOM(id##_shared32, "atom.shared." name, "[b32]", u32, T, SHARED, change, polls)

#define BITWISE(bits, T)                                                                                               \
    IN_SPACES(and_b##bits, "and.b" #bits, T, old & b, 0)                                                               \
    IN_SPACES(or_b##bits, "or.b" #bits, T, old | b, 0)                                                                 \
    IN_SPACES(xor_b##bits, "xor.b" #bits, T, old ^ b, 0)                                                               \
    IN_SPACES(exch_b##bits, "exch.b" #bits, T, b, 0)                                                                   \
    IN_SPACES(cas_b##bits, "cas.b" #bits, T, old == b ? c : old, 1)
BITWISE(32, u32)
BITWISE(64, u64)

#define NUMBERS(type, T)                                                                                               \
    IN_SPACES(add_##type, "add." #type, T, old + b, 0)                                                                 \
    IN_SPACES(min_##type, "min." #type, T, b < old ? b : old, 0)                                                       \
    IN_SPACES(max_##type, "max." #type, T, b > old ? b : old, 0)                                                       \
    IN_SPACES(inc_##type, "inc." #type, T, old >= b ? 0 : old + 1, 0)                                                  \
    IN_SPACES(dec_##type, "dec." #type, T, old == 0 || old > b ? b : old - 1, 0)
NUMBERS(u32, u32)
NUMBERS(s32, i32)
NUMBERS(u64, u64)
NUMBERS(s64, i64)

IN_SPACES(add_f32, "add.f32", f32, canonical(old + b), 0)
IN_SPACES(add_f64, "add.f64", f64, old + b, 0)
