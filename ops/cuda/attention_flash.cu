// Attention on tensor cores, 16 bits in, float sums (arXiv:2205.14135, arXiv:2307.08691). Formulas and layouts of qkv
// and y: attention.cu; the launch is that of its online kernel. Backward: attention_flash_backward.cu.
//
// flash_forward    y and lse: a thread block has ROWS queries of one head; keys and values are streamed in tiles
//
// Faster than `online` by products on tensor cores, 2,048 multiply-adds an instruction; tiles that are copied ahead by
// cp.async; no tile is visited, and no product done, above the diagonal or outside the window. Limited by mma.sync
// itself with wide heads, and by exp with narrow ones; Hopper's own tensor instructions are faster.

#include "attention_flash.cuh"

// y: (B, T, heads, D); lse: (B, heads, T); shared memory: ROWS and 2 STAGES TILE rows of PITCH
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    flash_forward(elem* y, float* lse, const elem* qkv, const elem* k_cache, const elem* v_cache, const int* start,
                  const int* documents, int T, int S, int heads, int kv_heads, int causal, int window, float scale,
                  float softcap) {
    dependent_start();
    int first, head;
    my_rows(first, head, T, causal);
    int b = head / heads, h = head % heads, g = h / (heads / kv_heads);
    int offset = start ? start[b] : 0;  // a query's position is `offset` beyond its row
    u64 width = (heads + 2 * kv_heads) * D, key_width = start ? (u64)kv_heads * D : width;
    const elem* row = qkv + (u64)b * T * width;
    const elem* all_k = start ? k_cache + (u64)b * S * key_width + g * D : row + (heads + g) * D;
    const elem* all_v = start ? v_cache + (u64)b * S * key_width + g * D : row + (heads + kv_heads + g) * D;
    Mask mask = {offset + T, causal, window, documents ? documents + (u64)b * T : nullptr, true};
    Scaling scaling = {scale, softcap};
    elem* own = tiles;
    copy_rows<ROWS>(own, row + first * width + h * D, width, T - first);

    u32 held[HELD ? BLOCKS : 1][HELD ? DEPTH / 16 : 1][4];
    float top[BLOCKS][2], sum[BLOCKS][2] = {};  // of each row: the largest exponent, and the sum of 2^(it - top)
    for (int r = 0; r < BLOCKS; r++) top[r][0] = top[r][1] = LOWEST;
    Sums out = {};
    int mine = offset + first + warp_i();
    Range keys = mask.seen_by_some(offset + first, ROWS);
    int from = keys.from / TILE * TILE, steps = (keys.to - from + TILE - 1) / TILE;
    Rows<TILE> keys_of(all_k + from * key_width, key_width), values_of(all_v + from * key_width, key_width);
    auto fetch = [&](int step, elem* stage) {
        u64 j = from + step * TILE;
        int limit = mask.end - int(j);
        if constexpr (HELD) {
            keys_of.copy(stage, limit);
            values_of.copy(stage + TILE * PITCH, limit);
        } else {  // no registers are left for places in memory, nor for multiples of the width
            u64 apart = anew(int(key_width));
            copy_rows<TILE>(stage, all_k + j * apart, apart, limit);
            copy_rows<TILE>(stage + TILE * PITCH, all_v + j * apart, apart, limit);
        }
    };
    pass_by(tiles + ROWS * PITCH, STAGE, steps, fetch, [&](int step, const elem* stage) {
        int j = from + step * TILE, at = anew(mine);
        if (HELD && step == 0) {
#pragma unroll
            for (int r = 0; r < (HELD ? BLOCKS : 0); r++)
#pragma unroll
                for (int k = 0; k < DEPTH / 16; k++) take<true>(held[r][k], own, warp_i() + r * 16, k * 16);
        }
        if (!mask.some(at, j)) return;
        Scores s;
        multiply(s, [&](u32(&out)[4], int r, int k) {
            if (HELD) for (int n = 0; n < 4; n++) out[n] = held[r][k / 16][n];
            else take<true>(out, own, warp_i() + r * 16, k);
        }, stage);
        if (softcap > 0) each(s, [&](float& x, int, int, int) { x = scaling.capped(x); });
        if (!mask.all(at, j)) hide(s, -INFINITY, mask, at, j);
        float unit = scaling.unit();
#pragma unroll
        for (int n = 0; n < BLOCKS * 2; n++) {
            int r = n / 2, half = n % 2;
            float highest = -INFINITY;
#pragma unroll
            for (int n = 0; n < TILE / 4; n++) highest = fmaxf(highest, s[r][n / 2][2 * half + n % 2]);
            float higher = fmaxf(top[r][half], row_max(highest) * unit), shrink = exp2_fast(top[r][half] - higher);
            top[r][half] = higher;
            sum[r][half] *= shrink;
#pragma unroll
            for (int c = 0; c < PART / 8; c++) {
                out[r][c][2 * half] *= shrink;
                out[r][c][2 * half + 1] *= shrink;
            }
        }
        each(s, [&](float& x, int r, int, int e) {
            x = exp2_fast(x * unit - top[r][e / 2]);
            sum[r][e / 2] += x;
        });
        weigh(out, s, stage + TILE * PITCH);
    });
    if constexpr (!HELD) {  // nor for these during the loop
        my_rows(first, head, anew(T), causal);
        b = head / heads, h = head % heads;
    }
#pragma unroll
    for (int n = 0; n < BLOCKS * 2; n++) {
        int r = n / 2, half = n % 2, i = first + warp_i() + r * 16 + down(2 * half);
        float total = row_sum(sum[r][half]), share = total > 0 ? 1 / total : 0;
#pragma unroll
        for (int c = 0; c < PART / 8; c++) {
            out[r][c][2 * half] *= share;
            out[r][c][2 * half + 1] *= share;
        }
        if (lse && i < T && across(0) == 0 && warp_j() == 0) lse[(u64)head * T + i] = top[r][half] * LN2 + logf(total);
    }
    deliver(out, T - first, [&](int i, int d, const Pack<float, 8>& values) {
        put(y + (((u64)b * T + first + i) * heads + h) * D + d, values, 1, false);
    });
}
