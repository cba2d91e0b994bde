// Attention on tensor cores, bf16 in and float sums (arXiv:2205.14135, arXiv:2307.08691). Formulas and layouts of qkv
// and y: attention.cu; the launches are those of its online kernels.
//
// flash_forward    y and lse: a thread block has ROWS queries of one head; keys and values come by in tiles
// flash_dq         the queries' gradients, and dy.y of each, in the same way
// flash_dkv        a thread block has ROWS keys and their values; the queries of all heads of their group come by
//
// Each is two kinds of product. `multiply`: a warp's own rows times the rows of a tile, over D. `weigh`: what became of
// that, rounded to bf16, times the rows of a tile, over the tile. The sums of the first are, lane by lane, the left
// operand of the second, so probabilities and their gradients never leave registers. What it gains on `online`: its
// products on tensor cores, 2,048 multiply-adds an instruction; tiles that are copied ahead by cp.async; no tile is
// visited, and no product done, above the diagonal or outside the window. Each gradient has one writer and bits repeat:
// the price is that dq and dkv both work the probabilities out, seven products where atomics would need five. Limited
// by mma.sync itself with wide heads, and by exp with narrow ones; Hopper's own tensor instructions are faster.

#include "core/mma.cuh"

#ifndef HEAD_DIM  // the launcher's settings
#define HEAD_DIM 64
#define BLOCKS 2   // of 16 rows: a warp's own
#define WARPS_I 4  // warps, each with rows of its own
#define WARPS_J 1  // warps that share rows: each has a part of the columns of y or of a gradient
#define TILE 64    // rows of a tile
#define BACKWARD 0 // which kernels are compiled: their tiles differ
#endif

constexpr int D = HEAD_DIM;
constexpr int THREADS = 32 * WARPS_I * WARPS_J, ROWS = 16 * BLOCKS * WARPS_I;
constexpr int DEPTH = (D + 16 * WARPS_J - 1) / (16 * WARPS_J) * (16 * WARPS_J);  // D, filled up with zeros
constexpr int PART = DEPTH / WARPS_J;                                            // columns of a warp's sums
constexpr int PITCH = DEPTH + CHUNK;  // of rows in shared memory, an odd number of chunks: 8 rows reach all 32 banks
constexpr int STAGES = 2;
constexpr int STAGE = 2 * TILE * PITCH;             // elements of two tiles
constexpr bool HELD = BLOCKS * DEPTH <= 128;        // whether registers have room for forward's own rows
constexpr float LOWEST = -1e30f;  // an exponent below all others, and still a number
constexpr float LOG2E = 1.4426950408889634f, LN2 = 0.6931471805599453f;

using Scores = float[BLOCKS][TILE / 8][4];
using Sums = float[BLOCKS][PART / 8][4];

alignas(128) extern __shared__ elem tiles[];  // own rows, one or two times; the stages; at the end, rows of sums

__device__ inline int warp_i() { return threadIdx.x / 32 / WARPS_J * (16 * BLOCKS); }  // this warp's first own row
__device__ inline int warp_j() { return threadIdx.x / 32 % WARPS_J * PART; }           // and column

// The same number, of which the compiler knows nothing: what follows from it is worked out where it is used, and not
// before a loop and held in registers
__device__ inline int anew(int n) {
    asm volatile("" : "+r"(n));
    return n;
}

// The places of a lane's sums in a block of 16 x 8
__device__ inline int down(int e) { return threadIdx.x % 32 / 4 + e / 2 * 8; }
__device__ inline int across(int e) { return threadIdx.x % 4 * 2 + e % 2; }

// --- tiles ---------------------------------------------------------------------------------------------------------

// COUNT rows of D elements, `stride` apart, on their way into shared memory; zeros from row `limit` on and behind D
template <int COUNT>
__device__ inline void copy_rows(elem* to, const elem* data, u64 stride, int limit) {
    constexpr int CHUNKS = DEPTH / CHUNK;
#pragma unroll
    for (int at = threadIdx.x; at < COUNT * CHUNKS; at += THREADS) {
        int row = at / CHUNKS, column = at % CHUNKS * CHUNK;
        bool there = row < limit && column < D;
        copy_async(to + row * PITCH + column, data + row * stride + column, there ? 16 : 0);
    }
}

// 16 rows from row i and 16 columns from k as the operand of mma; DEEP: the columns are summed over, else the rows
template <bool DEEP>
__device__ inline void take(u32 (&out)[4], const elem* rows, int i, int k) {
    fragment<DEEP>(out, i, k, [&](int row, int chunk) { return rows + row * PITCH + chunk * CHUNK; });
}

// work(step, stage) for every step, while the tiles of the next one, fetch(step, stage), are under way
template <class Fetch, class Work>
__device__ inline void pass_by(elem* stages, int stage_size, int steps, Fetch fetch, Work work) {
    auto start = [&](int step) {
        if (step < steps) fetch(step, stages + step % STAGES * stage_size);
        end_group();
    };
    start(0);
    for (int step = 0; step < steps; step++) {
        wait_groups<0>();
        __syncthreads();  // all copies of this stage have landed, and all threads have read the one before
        start(step + 1);
        work(step, stages + step % STAGES * stage_size);
    }
    wait_groups<0>();
    __syncthreads();  // all shared memory is free
}

// --- products ------------------------------------------------------------------------------------------------------

// scores = own rows . rows of the tile; own(out, r, k): 16 deep from k of this warp's block r
template <class Own>
__device__ inline void multiply(Scores& scores, Own own, const elem* tile) {
#pragma unroll
    for (int n = 0; n < BLOCKS * TILE / 2; n++) (&scores[0][0][0])[n] = 0;
#pragma unroll
    for (int k = 0; k < DEPTH; k += 16) {
        u32 columns[TILE / 16][4];
#pragma unroll
        for (int c = 0; c < TILE / 16; c++) take<true>(columns[c], tile, c * 16, k);
#pragma unroll
        for (int r = 0; r < BLOCKS; r++) {
            u32 row[4];
            own(row, r, k);
#pragma unroll
            for (int c = 0; c < TILE / 8; c++) mma(scores[r][c], row, columns[c / 2][c % 2], columns[c / 2][c % 2 + 2]);
        }
    }
}

__device__ inline u32 pair(float low, float high) {
    u32 both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}

// sums += weights, of own rows and rows of the tile, times rows of the tile: this warp's columns
__device__ inline void weigh(Sums& sums, const Scores& weights, const elem* tile) {
#pragma unroll
    for (int k = 0; k < TILE / 16; k++) {
        u32 left[BLOCKS][4];
#pragma unroll
        for (int r = 0; r < BLOCKS; r++)
#pragma unroll
            for (int n = 0; n < 4; n++) {
                const float(&held)[4] = weights[r][2 * k + n / 2];
                left[r][n] = pair(held[n % 2 * 2], held[n % 2 * 2 + 1]);
            }
#pragma unroll
        for (int c = 0; c < PART / 8; c += 2) {
            u32 columns[4];
            take<false>(columns, tile, warp_j() + c * 8, k * 16);
#pragma unroll
            for (int r = 0; r < BLOCKS; r++) {
                mma(sums[r][c], left[r], columns[0], columns[2]);
                mma(sums[r][c + 1], left[r], columns[1], columns[3]);
            }
        }
    }
}

// finish(row, column, values) for every four neighbours of the thread block's sums inside (limit, D)
template <class Finish>
__device__ inline void deliver(const Sums& sums, int limit, Finish finish) {
#pragma unroll
    for (int r = 0; r < BLOCKS; r++)
        by_rows<PART>((float*)tiles, sums[r], [&](int row, int column, const Pack<float, 4>& values) {
            row += warp_i() + r * 16;
            column += warp_j();
            if (row < limit && column < D) finish(row, column, values);
        });
}

// to = factor * values, added to the old values if `add`
__device__ inline void put(elem* to, const Pack<float, 4>& values, float factor, int add) {
    Pack<elem, 4> out, old;
    if (add) old = load<4>(to);
    for (int e = 0; e < 4; e++) out[e] = factor * values[e] + (add ? float(old[e]) : 0);
    store(to, out);
}

// --- scores --------------------------------------------------------------------------------------------------------

struct Range {
    int from, to;
};

// Which columns of scores a row sees, by their positions. by_query: rows are queries and columns keys, else the other
// way round. Both end before `end`; documents: of this row of the batch, or null
struct Mask {
    int end, causal, window;
    const int* documents;
    bool by_query;

    // All that it sees are in [from, to), and all there but other documents'. Neither end ever falls from row to row.
    __device__ Range seen(int row) const {
        if (by_query) return {window ? max(0, row - window + 1) : 0, causal ? min(end, row + 1) : end};
        return {causal ? row : 0, window ? min(end, row + window) : end};
    }
    __device__ Range seen_by_some(int row, int rows) const { return {seen(row).from, seen(row + rows - 1).to}; }

    // Whether any of a warp's rows from `row` on sees one of a tile's columns from `column` on; whether all see all
    __device__ bool some(int row, int column) const {
        Range range = seen_by_some(row, 16 * BLOCKS);
        return column < range.to && column + TILE > range.from;
    }
    __device__ bool all(int row, int column) const {
        return !documents && column >= seen(row + 16 * BLOCKS - 1).from && column + TILE <= seen(row).to;
    }
};

// visit(score, r, c, e) for each of a lane's
template <class Visit>
__device__ inline void each(Scores& scores, Visit visit) {
#pragma unroll
    for (int r = 0; r < BLOCKS; r++)
#pragma unroll
        for (int c = 0; c < TILE / 8; c++)
#pragma unroll
            for (int e = 0; e < 4; e++) visit(scores[r][c][e], r, c, e);
}

// `value` in place of masked scores
__device__ inline void hide(Scores& scores, float value, const Mask& mask, int row, int column) {
    Range seen[BLOCKS][2];
    for (int n = 0; n < BLOCKS * 2; n++) seen[n / 2][n % 2] = mask.seen(row + n / 2 * 16 + down(n % 2 * 2));
    each(scores, [&](float& score, int r, int c, int e) {
        int at = column + c * 8 + across(e);
        if (at < seen[r][e / 2].from || at >= seen[r][e / 2].to) score = value;
    });
    if (!mask.documents) return;
    each(scores, [&](float& score, int r, int c, int e) {
        int i = min(row + r * 16 + down(e), mask.end - 1), j = min(column + c * 8 + across(e), mask.end - 1);
        if (mask.documents[i] != mask.documents[j]) score = value;
    });
}

__device__ inline float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// The four lanes that hold a row
__device__ inline float row_sum(float value) {
    value += __shfl_xor_sync(ALL, value, 1);
    return value + __shfl_xor_sync(ALL, value, 2);
}

__device__ inline float row_max(float value) {
    value = fmaxf(value, __shfl_xor_sync(ALL, value, 1));
    return fmaxf(value, __shfl_xor_sync(ALL, value, 2));
}

// Scores as they come from `multiply`, times `unit`, are exponents of 2; with a cap they are capped first
struct Scaling {
    float scale, softcap;

    __device__ float unit() const { return softcap > 0 ? LOG2E : scale * LOG2E; }
    // softcap tanh(s scale / softcap), with an error of 1e-7 softcap at a tenth of tanhf's instructions
    __device__ float capped(float s) const {
        return softcap - __fdividef(2 * softcap, 1 + exp2_fast(s * (2 * LOG2E * scale / softcap)));
    }
    __device__ float slope(float s) const { return 1 - (s / softcap) * (s / softcap); }  // from the capped score
};

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

// --- kernels -------------------------------------------------------------------------------------------------------

// A thread block's ROWS rows of one head: those with most work come first, neighbours share tiles in L2
__device__ inline void my_rows(int& first, int& head, int T, bool last_first) {
    int count = (T + ROWS - 1) / ROWS, at = blockIdx.x % count;
    first = (last_first ? count - 1 - at : at) * ROWS;
    head = blockIdx.x / count;
}

#if !BACKWARD

// y: (B, T, heads, D); lse: (B, heads, T); shared memory: ROWS and 2 STAGES TILE rows of PITCH
extern "C" __global__ void __launch_bounds__(THREADS)
    flash_forward(elem* y, float* lse, const elem* qkv, const elem* k_cache, const elem* v_cache, const int* start,
                  const int* documents, int T, int S, int heads, int kv_heads, int causal, int window, float scale,
                  float softcap) {
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
    auto fetch = [&](int step, elem* stage) {
        int j = from + step * TILE;
        copy_rows<TILE>(stage, all_k + j * key_width, key_width, mask.end - j);
        copy_rows<TILE>(stage + TILE * PITCH, all_v + j * key_width, key_width, mask.end - j);
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
    deliver(out, T - first, [&](int i, int d, const Pack<float, 4>& values) {
        put(y + (((u64)b * T + first + i) * heads + h) * D + d, values, 1, false);
    });
}

#else

// means: (B, heads, T), dy.y; shared memory: 2 ROWS and 2 STAGES TILE rows of PITCH
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    flash_dq(elem* dqkv, float* means, const elem* qkv, const elem* y, const elem* dy, const float* lse,
             const int* documents, int T, int heads, int kv_heads, int causal, int window, float scale, float softcap,
             int add) {
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
    auto fetch = [&](int step, elem* stage) {
        int j = from + step * TILE;
        copy_rows<TILE>(stage, row + j * width + (heads + g) * D, width, T - j);
        copy_rows<TILE>(stage + TILE * PITCH, row + j * width + (heads + kv_heads + g) * D, width, T - j);
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
    deliver(dq, T - first, [&](int i, int d, const Pack<float, 4>& values) {
        put(dqkv + ((u64)b * T + first + i) * width + h * D + d, values, scale, add);
    });
}

// shared memory: 2 ROWS and 2 STAGES TILE rows of PITCH, and 2 STAGES TILE floats
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    flash_dkv(elem* dqkv, const float* means, const elem* qkv, const elem* dy, const float* lse, const int* documents,
              int T, int heads, int kv_heads, int causal, int window, float scale, float softcap, int add) {
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
    auto fetch = [&](int step, elem* stage) {
        int i = from + step % visits * TILE, h = g * group + step / visits, at = threadIdx.x % TILE;
        copy_rows<TILE>(stage, row + i * width + h * D, width, T - i);
        copy_rows<TILE>(stage + TILE * PITCH, dy + ((u64)b * T + i) * y_width + h * D, y_width, T - i);
        if (threadIdx.x < 2 * TILE) {
            const float* numbers = (threadIdx.x < TILE ? lse : means) + ((u64)b * heads + h) * T + i;
            copy_float_async((float*)(stage + STAGE) + threadIdx.x, numbers + at, at < T - i ? 4 : 0);
        }
    };
    pass_by(v + ROWS * PITCH, STAGE + 4 * TILE, visits * group, fetch, [&](int step, const elem* stage) {
        int i = from + step % visits * TILE, at = anew(mine);
        if (!mask.some(at, i)) return;
        const float *lses = (const float*)(stage + STAGE), *mean = lses + TILE;
        Scores s, dp;
        multiply(s, [&](u32(&out)[4], int r, int d) { take<true>(out, k, warp_i() + r * 16, d); }, stage);
        multiply(dp, [&](u32(&out)[4], int r, int d) { take<true>(out, v, warp_i() + r * 16, d); },
                 stage + TILE * PITCH);
        differentiate(s, dp, {scale, softcap}, mask, at, i, [&](int, int c, int e) { return lses[c * 8 + across(e)]; },
                      [&](int, int c, int e) { return mean[c * 8 + across(e)]; });
        weigh(dv, s, stage + TILE * PITCH);
        weigh(dk, dp, stage);
    });
    elem* to_k = dqkv + ((u64)b * T + first) * width + (heads + g) * D;
    deliver(dk, T - first, [&](int j, int d, const Pack<float, 4>& values) {
        put(to_k + j * width + d, values, scale, add);
    });
    deliver(dv, T - first, [&](int j, int d, const Pack<float, 4>& values) {
        put(to_k + kv_heads * D + j * width + d, values, 1, add);
    });
}

#endif
