// Gradients of attention on tensor cores, bf16 in and float sums (arXiv:2307.08691). Formulas and layouts of qkv and y:
// attention.cu; the launches are those of its online kernels.
//
// flash_dq         the queries' gradients, and dy.y of each: a thread block has ROWS queries of one head
// flash_dkv        a thread block has ROWS keys and their values; the queries of all heads of their group are streamed
//
// Each gradient has one writer and bits repeat: the price is that dq and dkv both work the probabilities out, seven
// products where atomics would need five. Faster than `online`; limited by mma.sync
// itself with wide heads, and by exp with narrow ones.

#include "attention_flash.cuh"

// From scores and dp to p and ds / scale; lse and mean of the query of score (r, c, e) by a call
template <class Lse, class Mean>
__device__ inline void differentiate(Scores& s, Scores& dp, Scaling scaling, const Mask& mask, int row, int column,
                                     Lse lse, Mean mean) {
    each(dp, [&](float& d, int r, int c, int e) { d -= mean(r, c, e); });
    if (scaling.softcap > 0) {
        each(s, [&](float& x, int, int, int) { x = scaling.capped(x); });
        each(dp, [&](float& d, int r, int c, int e) { d *= scaling.slope(s[r][c][e]); });
    }
    float unit = scaling.unit();
    each(s, [&](float& x, int r, int c, int e) { x = exp2_fast(x * unit - lse(r, c, e) * LOG2E); });
    if (!mask.all(row, column)) hide(s, 0, mask, row, column);
    each(dp, [&](float& d, int r, int c, int e) { d *= s[r][c][e]; });
}

// Between two products: on Turing, which has more of smaller ones, the compiler loads operands of the second during the
// first and has no registers left for the loop's own numbers. It moves no such load across this.
__device__ inline void part_products() {
#if __CUDA_ARCH__ < 800
    __syncwarp();
#endif
}

// means: (B, heads, T), dy.y; shared memory: 2 ROWS and 2 STAGES TILE rows of PITCH
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    flash_dq(elem* dqkv, float* means, const elem* qkv, const elem* y, const elem* dy, const float* lse,
             const int* documents, int T, int heads, int kv_heads, int causal, int window, float scale, float softcap,
             int add) {
    dependent_start();
    int first, head;
    my_rows(first, head, T, causal);
    int b = head / heads, h = head % heads, g = h / (heads / kv_heads);
    u64 width = (heads + 2 * kv_heads) * D, y_width = heads * D;
    const elem* row = qkv + (u64)b * T * width;
    Mask mask = {T, causal, window, documents ? documents + (u64)b * T : nullptr, true};
    elem *q = tiles, *above = q + ROWS * PITCH;
    y += ((u64)b * T + first) * y_width + h * D;
    dy += ((u64)b * T + first) * y_width + h * D;
    copy_rows<ROWS>(q, row + first * width + h * D, width, T - first);
    copy_rows<ROWS>(above, dy, y_width, T - first);

    float own_lse[BLOCKS][2], mean[BLOCKS][2];
    for (int n = 0; n < BLOCKS * 2; n++) {
        int r = n / 2, half = n % 2, i = warp_i() + r * 16 + down(2 * half);
        float part = 0;
        for (int d = across(0) * 4; d < D && first + i < T; d += 4 * CHUNK) {
            auto left = load<CHUNK>(y + i * y_width + d), right = load<CHUNK>(dy + i * y_width + d);
            for (int e = 0; e < CHUNK; e++) part += left[e] * right[e];
        }
        mean[r][half] = row_sum(part);
        own_lse[r][half] = first + i < T ? lse[(u64)head * T + first + i] : 0;
        if (first + i < T && across(0) == 0 && warp_j() == 0) means[(u64)head * T + first + i] = mean[r][half];
    }
    Sums dq = {};
    int mine = first + warp_i();
    Range keys = mask.seen_by_some(first, ROWS);
    int from = keys.from / TILE * TILE, steps = (keys.to - from + TILE - 1) / TILE;
    const elem* all_k = row + from * width + (heads + g) * D;
    Rows<TILE> keys_of(all_k, width), values_of(all_k + kv_heads * D, width);
    auto fetch = [&](int step, elem* stage) {
        int limit = T - from - step * TILE;
        keys_of.copy(stage, limit);
        values_of.copy(stage + TILE * PITCH, limit);
    };
    pass_by(above + ROWS * PITCH, STAGE, steps, fetch, [&](int step, const elem* stage) {
        int j = from + step * TILE, at = anew(mine);
        if (!mask.some(at, j)) return;
        Scores s, dp;
        multiply(s, [&](u32(&out)[4], int r, int k) { take<true>(out, q, warp_i() + r * 16, k); }, stage);
        multiply(dp, [&](u32(&out)[4], int r, int k) { take<true>(out, above, warp_i() + r * 16, k); },
                 stage + TILE * PITCH);
        differentiate(s, dp, {scale, softcap}, mask, at, j, [&](int r, int, int e) { return own_lse[r][e / 2]; },
                      [&](int r, int, int e) { return mean[r][e / 2]; });
        weigh(dq, dp, stage);
    });
    deliver(dq, T - first, [&](int i, int d, const Pack<float, 8>& values) {
        put(dqkv + ((u64)b * T + first + i) * width + h * D + d, values, scale, add);
    });
}

// shared memory: 2 ROWS and 2 STAGES TILE rows of PITCH, and 2 STAGES TILE floats
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    flash_dkv(elem* dqkv, const float* means, const elem* qkv, const elem* dy, const float* lse, const int* documents,
              int T, int heads, int kv_heads, int causal, int window, float scale, float softcap, int add) {
    dependent_start();
    int first, head;
    my_rows(first, head, T, false);
    int b = head / kv_heads, g = head % kv_heads, group = heads / kv_heads;
    u64 width = (heads + 2 * kv_heads) * D, y_width = heads * D;
    const elem* row = qkv + (u64)b * T * width;
    Mask mask = {T, causal, window, documents ? documents + (u64)b * T : nullptr, false};
    elem *k = tiles, *v = k + ROWS * PITCH;
    copy_rows<ROWS>(k, row + first * width + (heads + g) * D, width, T - first);
    copy_rows<ROWS>(v, row + first * width + (heads + kv_heads + g) * D, width, T - first);

    Sums dk = {}, dv = {};
    int mine = first + warp_i();
    Range queries = mask.seen_by_some(first, ROWS);
    int from = queries.from / TILE * TILE, visits = (queries.to - from + TILE - 1) / TILE;  // of each head's tiles
    // of the tile that is fetched next: its first query and head, and where its tensors are
    int i_next = from, h_next = g * group;
    Rows<TILE> queries_of(row, width), above_of(dy, y_width);
    auto restart = [&] {
        queries_of.start(row + from * width + h_next * D);
        above_of.start(dy + ((u64)b * T + from) * y_width + h_next * D);
    };
    restart();
    auto fetch = [&](int, elem* stage) {
        queries_of.copy(stage, T - i_next);
        above_of.copy(stage + TILE * PITCH, T - i_next);
        if (threadIdx.x < 2 * TILE) {
            const float* numbers = (threadIdx.x < TILE ? lse : means) + ((u64)b * heads + h_next) * T + i_next;
            int at = threadIdx.x % TILE;
            copy_float_async((float*)(stage + STAGE) + threadIdx.x, numbers + at, at < T - i_next ? 4 : 0);
        }
        i_next += TILE;
        if (i_next >= queries.to) {
            i_next = from, h_next++;
            restart();
        }
    };
    int i_now = from;
    pass_by(v + ROWS * PITCH, STAGE + 4 * TILE, visits * group, fetch, [&](int, const elem* stage) {
        int i = i_now, at = anew(mine);
        i_now = i + TILE < queries.to ? i + TILE : from;
        if (!mask.some(at, i)) return;
        const float *lses = (const float*)(stage + STAGE), *mean = lses + TILE;
        Scores s, dp;
        multiply(s, [&](u32(&out)[4], int r, int d) { take<true>(out, k, warp_i() + r * 16, d); }, stage);
        part_products();
        multiply(dp, [&](u32(&out)[4], int r, int d) { take<true>(out, v, warp_i() + r * 16, d); },
                 stage + TILE * PITCH);
        differentiate(s, dp, {scale, softcap}, mask, at, i, [&](int, int c, int e) { return lses[c * 8 + across(e)]; },
                      [&](int, int c, int e) { return mean[c * 8 + across(e)]; });
        weigh(dv, s, stage + TILE * PITCH);
        weigh(dk, dp, stage);
    });
    elem* to_k = dqkv + ((u64)b * T + first) * width + (heads + g) * D;
    deliver(dk, T - first, [&](int j, int d, const Pack<float, 8>& values) {
        put(to_k + j * width + d, values, scale, add);
    });
    deliver(dv, T - first, [&](int j, int d, const Pack<float, 8>& values) {
        put(to_k + kv_heads * D + j * width + d, values, 1, add);
    });
}
