/* What the instructions of floating point share. */
#ifndef FLOATS_H
#define FLOATS_H

#include "machine.h"

INLINE f32 f32_of(u32 bits) { f32 v; memcpy(&v, &bits, 4); return v; }
INLINE u32 bits_of(f32 value) { u32 v; memcpy(&v, &value, 4); return v; }

/* Every NaN becomes 0x7FFFFFFF. */
INLINE f32 canonical(f32 v) { return v == v ? v : f32_of(0x7FFFFFFF); }

/* Every NaN becomes 0x7FF8000000000000: which operand's payload a processor keeps is its own affair. */
INLINE f64 canonical_f64(f64 v) {
    u64 bits = 0x7FF8000000000000ull;
    f64 nan;
    memcpy(&nan, &bits, 8);
    return v == v ? v : nan;
}

/* A NaN loses to a number, and -0 is less than +0. */
INLINE f32 least(f32 a, f32 b) {
    f32 zero = f32_of(bits_of(a) | bits_of(b));
    f32 r = a < b ? a : b;              /* b where one is NaN */
    r = b != b ? a : r;
    return a == 0 && b == 0 ? zero : r;
}
INLINE f32 most(f32 a, f32 b) {
    f32 zero = f32_of(bits_of(a) & bits_of(b));
    f32 r = a > b ? a : b;
    r = b != b ? a : r;
    return a == 0 && b == 0 ? zero : r;
}

INLINE f32 of_bf16(u32 bits) { return f32_of(bits << 16); }
/* To nearest even; NaN becomes 0x7FFF. */
INLINE u32 to_bf16(f32 v) {
    u32 bits = bits_of(v), rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
    return v == v ? rounded : 0x7FFF;
}

#endif
