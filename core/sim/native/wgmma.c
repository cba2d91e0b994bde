/* wgmma: a warp's 16 rows of a warpgroup's 64, with B and mostly A from shared memory. Sums as in tensor_cores.c. */
#include "floats.h"

enum { ROWS = 16, WIDEST = 256, DEEPEST = 16, GROUP = 128 };
enum { BF16, F16, TF32 };
INLINE f64 value_of(u32 bits, int kind) {
    return kind == BF16 ? of_bf16(bits) : kind == F16 ? of_f16(bits) : of_tf32(bits);
}

/* The shared address of element (r, k) of the matrix of a descriptor: PTX ISA 9.7.15.5, and its base offset. */
INLINE u64 element(u64 descriptor, u32 r, u32 k, u32 item, int transposed) {
    static const u32 spans[4] = {0, 128, 64, 32};
    u64 start = (descriptor & 0x3FFF) << 4, leading = (descriptor >> 16 & 0x3FFF) << 4;
    u64 stride = (descriptor >> 32 & 0x3FFF) << 4, offset;
    u32 span = spans[descriptor >> 62 & 3];
    if (span == 0) {
        u32 inner = 16 / item, along = transposed ? r : k, across = transposed ? k : r;
        offset = across / 8 * (transposed ? leading : stride) + across % 8 * 16
               + along / inner * (transposed ? stride : leading) + along % inner * item;
    } else if (!transposed) {
        offset = r / 8 * stride + r % 8 * span + k * item;
    } else {
        u32 inner = span / item;
        offset = r / inner * leading + r % inner * item + k / 8 * stride + k % 8 * span;
    }
    u64 x = start + offset, base = descriptor >> 49 & 7, mask = span ? span / 16 - 1 : 0;
    return x ^ ((x >> 7) - base & mask) << 4;
}

/* to[k][r] of `rows` rows from row `above` on. 0 after a fault. */
static int fetch(Warp *w, const Op *op, u64 descriptor, u32 above, u32 rows, u32 depth, int kind, int transposed,
                 f64 *to, u32 pitch) {
    u32 item = kind == TF32 ? 4 : 2;
    const Block *b = w->block;
    for (u32 k = 0; k < depth; k++)
        for (u32 r = 0; r < rows; r++) {
            u64 x = element(descriptor, above + r, k, item, transposed);
            const u8 *at = b->shared + x;
            if (UNLIKELY(x < SHARED_START || x + item > (u64)w->launch->shared_end || x & (item - 1)))
                if (!(at = place_of(w, op, 0, x, SHARED, item, READ))) return 0;
            to[k * pitch + r] = value_of(item == 4 ? *(const u32 *)at : *(const u16 *)at, kind);
        }
    return 1;
}

/* imm: n (10 bits), kind (2), A in registers (1), A and B transposed (1, 1), the product is subtracted (1). The list:
n / 2 registers of the sum, then those of A or its descriptor, B's descriptor, and the predicate that keeps the sum. */
WHOLE(wgmma, "wgmma.mma_async", "registers") {
    u32 n = op->imm & 1023, kind = op->imm >> 10 & 3, held = op->imm >> 12 & 1, depth = kind == TF32 ? 8 : 16;
    int a_turned = op->imm >> 13 & 1, b_turned = op->imm >> 14 & 1, minus = op->imm >> 15 & 1;
    const u32 *list = w->launch->lists + op->o[3];
    u32 sums = n / 2, given = held ? 4 : 1, each = kind == TF32 ? 1 : 2, half = 4 * each;
    f64 a[DEEPEST][ROWS], b[DEEPEST][WIDEST], row[WIDEST];
    if (w->mask != ALL) return parted(w, op, GROUP);
    u64 of_b = LIST(u64, sums + given)[0];
    const i32 *keep = LIST(i32, sums + given + 1);
    if (!fetch(w, op, of_b, 0, n, depth, (int)kind, b_turned, b[0], WIDEST)) return NULL;
    if (held) {
        for (u32 i = 0; i < 4; i++) {
            const u32 *from = LIST(u32, sums + i);
            for (u32 l = 0; l < WARP; l++)
                for (u32 e = 0; e < each; e++)
                    a[i / 2 * half + l % 4 * each + e][i % 2 * 8 + l / 4] =
                        value_of(each == 2 ? from[l] >> 16 * e & 0xFFFF : from[l], (int)kind);
        }
    } else if (!fetch(w, op, LIST(u64, sums)[0], w->number % 4 * ROWS, ROWS, depth, (int)kind, a_turned, a[0], ROWS)) {
        return NULL;
    }
    for (u32 r = 0; r < ROWS; r++) {
        f64 sign = minus ? -1.0 : 1.0, left = a[0][r] * sign;
        for (u32 c = 0; c < n; c++) row[c] = left * b[0][c];
        for (u32 k = 1; k < depth; k++) {
            left = a[k][r] * sign;
            for (u32 c = 0; c < n; c++) row[c] = ADD_PRODUCT(left, b[k][c], row[c]);
        }
        for (u32 c = 0; c < n; c++) {
            u32 l = r % 8 * 4 + c % 8 / 2;
            f32 *d = LIST(f32, c / 8 * 4 + r / 8 * 2 + c % 2);
            d[l] = canonical((f32)(keep[l] ? row[c] + (f64)d[l] : row[c]));
        }
    }
    w->worker->progress++;
    return op + 1;
}
