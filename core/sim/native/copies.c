/* cp.async: copies from global to shared memory, carried out at once, which is one of the times at which they may be. */
#include "machine.h"

/* o: the shared address, the global one, the window's slot, bytes that are read (the rest becomes zero); imm: the two
offsets. */
#define COPY(width)                                                                                                    \
    WHOLE(cp_async_##width, "cp.async." #width, "b64 b64 plain b32") {                                                 \
        u64 to[WARP] __attribute__((aligned(64))), from[WARP] __attribute__((aligned(64)));                            \
        const u64 *target = REG(u64, 0), *source = REG(u64, 1);                                                        \
        const u32 *limit = REG(u32, 3);                                                                                \
        u32 mask = w->mask, some = 0;                                                                                  \
        i64 near = (i32)op->imm, far = op->imm >> 32;                                                                  \
        u8 *shared, *global = NULL;                                                                                    \
        EACH to[l] = target[l] + (u64)near;                                                                            \
        EACH from[l] = source[l] + (u64)far;                                                                           \
        for (int l = 0; l < WARP; l++) some |= (u32)(limit[l] != 0) << l;                                              \
        some &= mask;                                                                                                  \
        if (!places(w, op, to, &shared, SHARED, ALL, width, WRITE)) return NULL;                                       \
        if (some) {                                                                                                    \
            if (some != mask) enter(w, some);                                                                          \
            if (!places(w, op, from, &global, GLOBAL, op->o[2], width, READ)) return NULL;                             \
            if (some != mask) enter(w, mask);                                                                          \
        }                                                                                                              \
        for (u32 left = mask; left; left &= left - 1) {                                                                \
            u32 l = first(left), n = limit[l] < width ? limit[l] : width;                                              \
            u8 moved[width] = {0};                                                                                     \
            if (n == width) memcpy(moved, global + from[l], width);                                                    \
            else if (n) memcpy(moved, global + from[l], n);                                                            \
            memcpy(shared + to[l], moved, width);                                                                      \
        }                                                                                                              \
        w->worker->progress++;                                                                                         \
        return op + 1;                                                                                                 \
    }
COPY(4)
COPY(8)
COPY(16)
