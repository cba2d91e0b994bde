/* atom and red: read, change, write as one step. Lanes at one address take their turns in their order.

Thread blocks of a kernel with atomics in global memory run in the order of their numbers on one thread, so that nothing
else changes the memory between the read and the write. */
#include "floats.h"

/* o: the register for the old contents (unread for a red), the address, the window's slot, the operand; more:
compare-and-swap's other operand. R: a register's lane; T: what the memory holds. `change`: what will be there, of `old`,
the operand b and the other one c. */
#define ATOM(id, name, width, A, R, T, SPACE, change, polls)                                                              \
    WHOLE(id, name, width) {                                                                                           \
        u64 x[WARP] __attribute__((aligned(64)));                                                                      \
        const A *from = REG(A, 1);                                                                                     \
        EACH x[l] = from[l];                                                                                           \
        u8 *base;                                                                                                      \
        R *d = REG(R, 0);                                                                                              \
        const R *given = REG(R, 3), *other = (const R *)(w->r + op->more[0]);                                          \
        u32 swapped = 0;                                                                                               \
        if (UNLIKELY(!places(w, op, x, &base, SPACE, op->o[2], sizeof(T), ATOMIC))) return NULL;                       \
        for (u32 left = w->mask; left; left &= left - 1) {                                                             \
            u32 l = first(left);                                                                                       \
            T *at = (T *)(base + x[l]), old = *at, b = (T)given[l], c = (T)other[l];                                   \
            (void)c;                                                                                                   \
            swapped |= old == b;                                                                                       \
            *at = (T)(change);                                                                                         \
            d[l] = old;                                                                                                \
        }                                                                                                              \
        if (polls && !swapped) w->worker->polled++;                                                                    \
        else w->worker->progress++;                                                                                    \
        return op + 1;                                                                                                 \
    }

#define IN_ALL(id, name, R, T, change, polls)                                                                          \
    ATOM(id##_global, "atom.global." name, "[b64]", u64, R, T, GLOBAL, change, polls)                                  \
    ATOM(id##_generic, "atom.generic." name, "[b64]", u64, R, T, GENERIC, change, polls)                               \
    ATOM(id##_shared, "atom.shared." name, "[b64]", u64, R, T, SHARED, change, polls)                                  \
    ATOM(id##_shared32, "atom.shared." name, "[b32]", u32, R, T, SHARED, change, polls)
#define IN_SPACES(id, name, T, change, polls) IN_ALL(id, name, T, T, change, polls)

#define BITWISE(bits, R, T)                                                                                            \
    IN_ALL(and_b##bits, "and.b" #bits, R, T, old & b, 0)                                                               \
    IN_ALL(or_b##bits, "or.b" #bits, R, T, old | b, 0)                                                                 \
    IN_ALL(xor_b##bits, "xor.b" #bits, R, T, old ^ b, 0)                                                               \
    IN_ALL(exch_b##bits, "exch.b" #bits, R, T, b, 0)                                                                   \
    IN_ALL(cas_b##bits, "cas.b" #bits, R, T, old == b ? c : old, 1)
BITWISE(16, u32, unsigned short)
BITWISE(32, u32, u32)
BITWISE(64, u64, u64)

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

/* f16 and bf16, alone and in pairs: of two such numbers f64 holds every sum, and f32 enough of bf16's. */
#define ADD_f16(a, b) to_f16((f64)of_f16(a) + (f64)of_f16(b))
#define ADD_bf16(a, b) to_bf16(of_bf16(a) + of_bf16(b))
#define MIN_f16(a, b) to_f16(least(of_f16(a), of_f16(b)))
#define MIN_bf16(a, b) to_bf16(least(of_bf16(a), of_bf16(b)))
#define MAX_f16(a, b) to_f16(most(of_f16(a), of_f16(b)))
#define MAX_bf16(a, b) to_bf16(most(of_bf16(a), of_bf16(b)))
#define EITHER(id, name, type, CHANGE)                                                                                 \
    IN_ALL(id##_##type, name "." #type, u32, unsigned short, CHANGE##_##type(old, b), 0)                               \
    IN_SPACES(id##_##type##x2, name "." #type "x2", u32,                                                               \
              CHANGE##_##type(old & 0xFFFF, b & 0xFFFF) | CHANGE##_##type(old >> 16, b >> 16) << 16, 0)
#define HALVES(type) EITHER(add, "add", type, ADD) EITHER(min, "min", type, MIN) EITHER(max, "max", type, MAX)
HALVES(f16)
HALVES(bf16)
