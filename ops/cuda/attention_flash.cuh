#pragma once
// The common part of the kernels of attention_flash.cu and attention_flash_backward.cu: tiles of rows, streamed through
// shared memory, the two kinds of product, and masks.
//
// `multiply`: a warp's own rows times the rows of a tile, over D. `weigh`: the results after softmax, times the rows of
// a tile, over the tile. The sums of the first are, lane by lane, the left operand of the second, so
// probabilities and their gradients never leave registers.

#include "core/mma.cuh"

#ifndef HEAD_DIM  // the launcher's settings
#define HEAD_DIM 64
#define BLOCKS 2   // of 16 rows: a warp's own
#define WARPS_I 4  // warps, each with rows of its own
#define WARPS_J 1  // warps that share rows: each has a part of the columns of y or of a gradient
#define TILE 64    // rows of a tile
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

// The same number, opaque to the compiler: expressions of it are computed at their uses, not before a loop and held in
// registers
__device__ inline int anew(int n) {
    asm volatile("" : "+r"(n));
    return n;
}

// The places of a lane's sums in a block of 16 x 8
__device__ inline int down(int e) { return threadIdx.x % 32 / 4 + e / 2 * 8; }
__device__ inline int across(int e) { return threadIdx.x % 4 * 2 + e % 2; }

// --- tiles ---------------------------------------------------------------------------------------------------------

// Tiles of COUNT rows of D elements, `stride` apart, which are copied into shared memory one after the other. A thread
// has the same chunk of every row that it copies, where EVEN is true; else rows are gone through chunk by chunk.
template <int COUNT>
struct Rows {
    static constexpr int CHUNKS = DEPTH / CHUNK, APART = THREADS / CHUNKS;  // of a row; rows between those of a thread
    static constexpr bool EVEN = THREADS % CHUNKS == 0 && COUNT % (APART ? APART : 1) == 0 && D == DEPTH;
    const elem* next;  // this thread's first chunk of the next tile; or that tile
    u64 stride;

    __device__ Rows(const elem* data, u64 stride) : stride(stride) { start(data); }

    __device__ void start(const elem* data) {
        next = data;
        if (EVEN) next += threadIdx.x / CHUNKS * stride + threadIdx.x % CHUNKS * CHUNK;
    }

    // The next tile into `to`; zeros from row `limit` of it on, and beyond D
    __device__ void copy(elem* to, int limit) {
        if constexpr (EVEN) {
            u32 place = in_shared(to) + (threadIdx.x / CHUNKS * PITCH + threadIdx.x % CHUNKS * CHUNK) * sizeof(elem);
#pragma unroll
            for (int n = 0; n < COUNT / APART; n++) {
                bool there = int(threadIdx.x / CHUNKS) + n * APART < limit;
                copy_async(place + n * APART * PITCH * sizeof(elem), next, there ? 16 : 0);
                next += APART * stride;
            }
        } else {
#pragma unroll 1
            for (int at = threadIdx.x; at < COUNT * CHUNKS; at += THREADS) {
                int row = at / CHUNKS, column = at % CHUNKS * CHUNK;
                bool there = row < limit && column < D;
                copy_async(to + row * PITCH + column, next + row * stride + column, there ? 16 : 0);
            }
            next += COUNT * stride;
        }
    }
};

template <int COUNT>
__device__ inline void copy_rows(elem* to, const elem* data, u64 stride, int limit) {
    Rows<COUNT>(data, stride).copy(to, limit);
}

// 16 rows from row i and 16 columns from k as the operand of mma; DEEP: the columns are summed over, else the rows;
// PAIR: two right operands
template <bool DEEP, bool PAIR = false>
__device__ inline void take(u32 (&out)[4], const elem* rows, int i, int k) {
    fragment<DEEP, PAIR>(out, i, k, [&](int row, int chunk) { return rows + row * PITCH + chunk * CHUNK; });
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
        for (int c = 0; c < TILE / 16; c++) take<true, true>(columns[c], tile, c * 16, k);
#pragma unroll
        for (int r = 0; r < BLOCKS; r++) {
            u32 row[4];
            own(row, r, k);
#pragma unroll
            for (int c = 0; c < TILE / 8; c++)
                mma(scores[r][c], row, columns[c / 2][c % 2 * 2], columns[c / 2][c % 2 * 2 + 1]);
        }
    }
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
                left[r][n] = Operands<elem>::pair(held[n % 2 * 2], held[n % 2 * 2 + 1]);
            }
#pragma unroll
        for (int c = 0; c < PART / 8; c += 2) {
            u32 columns[4];
            take<false, true>(columns, tile, warp_j() + c * 8, k * 16);
#pragma unroll
            for (int r = 0; r < BLOCKS; r++) {
                mma(sums[r][c], left[r], columns[0], columns[1]);
                mma(sums[r][c + 1], left[r], columns[2], columns[3]);
            }
        }
    }
}

// finish(row, column, values) for every eight neighbours of the thread block's sums inside (limit, D)
template <class Finish>
__device__ inline void deliver(const Sums& sums, int limit, Finish finish) {
#pragma unroll
    for (int r = 0; r < BLOCKS; r++)
        by_rows<PART, 8>((float*)tiles, sums[r], [&](int row, int column, const Pack<float, 8>& values) {
            row += warp_i() + r * 16;
            column += warp_j();
            if (row < limit && column < D) finish(row, column, values);
        });
}

// to = factor * values, added to the old values if `add`
__device__ inline void put(elem* to, const Pack<float, 8>& values, float factor, int add) {
    Pack<elem, 8> out, old;
    if (add) old = load<8>(to);
    for (int e = 0; e < 8; e++) out[e] = factor * values[e] + (add ? float(old[e]) : 0);
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

// The scores of `multiply`, times `unit`, are exponents of 2; a cap is applied first
struct Scaling {
    float scale, softcap;

    __device__ float unit() const { return softcap > 0 ? LOG2E : scale * LOG2E; }
    // softcap tanh(s scale / softcap), with an error of 1e-7 softcap at a tenth of tanhf's instructions
    __device__ float capped(float s) const {
        return softcap - __fdividef(2 * softcap, 1 + exp2_fast(s * (2 * LOG2E * scale / softcap)));
    }
    // from the capped score; a division is a dozen instructions
    __device__ float slope(float s) const {
        float share = __fdividef(s, softcap);
        return 1 - share * share;
    }
};

// A thread block's ROWS rows of one head: those with the most work are first, neighbours share tiles in L2
__device__ inline void my_rows(int& first, int& head, int T, bool last_first) {
    int count = (T + ROWS - 1) / ROWS, at = blockIdx.x % count;
    first = (last_first ? count - 1 - at : at) * ROWS;
    head = blockIdx.x / count;
}
