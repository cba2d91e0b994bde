/* The lanes of a line. */
#include "lines.h"

void spread_32(Line *x) {
    u32 *d = (u32 *)__builtin_assume_aligned((u8 *)x + HEAD, 64), base = (u32)x->base, step = (u32)x->step;
    EACH d[l] = base + (u32)l * step;
    x->kind = BOTH;
}
void spread_64(Line *x) {
    u64 *d = (u64 *)__builtin_assume_aligned((u8 *)x + HEAD, 64), base = x->base, step = (u64)x->step;
    EACH d[l] = base + (u64)l * step;
    x->kind = BOTH;
}

/* The next instruction reads lanes. Not PTX. */
WHOLE(spread_row32, "spread.b32", "b32") { spread32(LINE(0)); return op + 1; }
WHOLE(spread_row64, "spread.b64", "b64") { spread64(LINE(0)); return op + 1; }
