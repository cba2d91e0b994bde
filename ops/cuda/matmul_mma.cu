// Linear map on tensor cores, bf16 or TF32 in and float sums: y = x weight^T + bias for x (M, K), weight (N, K),
// y (M, N). Backward: dx = dy weight, dweight = dy^T x, dbias = sum of dy over its rows. Formulas: ../matmul.py.
//
// mma_forward    y = x weight^T + bias + r; bias and r may be null
// mma_gelu       f = x weight^T + bias, a = gelu(f): no pass of its own over the largest activations of an MLP
// mma_dx         dx = dy weight
// mma_dgelu      df = (dy weight) * gelu'(f): no pass of its own either
// mma_dr         dr = dy, where r's gradient does not share dy's memory
// mma_dweight    dweight = dy^T x, and dbias on the way; the rows in slices, whose sums are added in a fixed order
//
// All are one product, left (I, depth) times right (J, depth) transposed. A thread block has TILE_I x TILE_J results,
// a warp a part of them in registers, as 16 x 8 blocks of mma.sync. Both operands come by in stages, TILE_K deep, in
// shared memory: cp.async fills the stages ahead while tensor cores work on this one. What it gains on `tiled`: 2,048
// multiply-adds an instruction where there was one a lane; operands that go to shared memory without passing through
// registers, and come as fragments, 512 bytes an instruction. Limited by mma.sync itself on Ampere and Ada; Hopper
// has faster tensor cores than mma.sync reaches, about five eighths of them.

#include "gelu.cuh"
#include "core/mma.cuh"

#ifndef TILE_I  // the launcher's tiles: results of a thread block, how deep a stage is, stages, warps each way
#define TILE_I 128
#define TILE_J 128
#define TILE_K 32
#define STAGES 4
#define WARPS_I 2
#define WARPS_J 2
#endif

constexpr int THREADS = 32 * WARPS_I * WARPS_J;
constexpr int WARP_I = TILE_I / WARPS_I, WARP_J = TILE_J / WARPS_J;  // results of a warp
constexpr int BLOCKS_I = WARP_I / 16, BLOCKS_J = WARP_J / 8;         // its blocks of 16 x 8
constexpr int GROUP = 8;                                             // tiles one below the other that share columns
constexpr u32 ONES = sizeof(elem) == 2 ? 0x3f803f80 : 0x3f800000;    // two bf16 of 1, or one float

alignas(128) extern __shared__ elem tiles[];  // the stages; at the end, a few rows of results for each warp

// --- operands ------------------------------------------------------------------------------------------------------

// An operand of `side` x `depth` elements, whose depth is summed over; a tile of it is SIDE x TILE_K. DEEP: neighbours
// in memory follow the depth, a line is a row of the operand; else a line is a column, and the tile is turned when it
// is loaded from shared memory, so that no matrix is ever transposed in global memory.
template <bool DEEP, int SIDE>
struct Operand {
    static constexpr int LINES = DEEP ? SIDE : TILE_K, CHUNKS = (DEEP ? TILE_K : SIDE) / CHUNK;  // of a tile
    const elem* data;
    int side, depth;
    bool aligned;  // every line starts on 16 bytes

    // A chunk's place in the tile. load_matrices reads a chunk of each of 8 lines at once, which would all meet in
    // the same four banks: so a line's chunks are permuted, by xor with its number, and the 8 cover all 32 banks.
    // Floats that are turned are read two chunks of each of 4 lines at once: there it is xor with twice the number.
    static __device__ int place(int line, int chunk) {
        int turn = CHUNKS < 8 ? line / (8 / CHUNKS) % CHUNKS : line % 8;
        if (!DEEP && sizeof(elem) == 4) turn = line % 4 * 2;
        return (line * CHUNKS + (chunk ^ turn)) * CHUNK;
    }

    // SIDE rows from row i and TILE_K deep from k into the tile, zeros outside of `side` and from depth `end` on
    __device__ void copy(elem* tile, int i, int k, int end) const {
#pragma unroll
        for (int at = threadIdx.x; at < LINES * CHUNKS; at += THREADS) {
            int line = at / CHUNKS, chunk = at % CHUNKS;
            u32 row = i + (DEEP ? line : chunk * CHUNK), deep = k + (DEEP ? chunk * CHUNK : line);
            const elem* from = data + (DEEP ? (u64)row * depth + deep : (u64)deep * side + row);
            bool inside = row < side && deep < end;
            if (aligned) {
                copy_async(tile + place(line, chunk), from, inside ? 16 : 0);
            } else {
                int there = DEEP ? end - deep : side - row;  // elements of the chunk that exist
                Pack<elem, CHUNK> values;
#pragma unroll
                for (int e = 0; e < CHUNK; e++) values[e] = inside && e < there ? float(from[e]) : 0;
                store(tile + place(line, chunk), values);
            }
        }
    }

    // 16 rows from row i of the tile and MMA_K deep from k: see core/mma.cuh
    static __device__ void fragment(u32 (&out)[4], const elem* tile, int i, int k) {
        ::fragment<DEEP>(out, i, k, [&](int line, int chunk) { return tile + place(line, chunk); });
    }
};

// --- the product ---------------------------------------------------------------------------------------------------

// What a thread sums up: its results, and the sum of every row of the left operand (the same in all its columns).
struct Sums {
    float results[BLOCKS_I][BLOCKS_J][4], rows[BLOCKS_I][4];
};

// The tile of thread block x: GROUP rows of tiles are gone down before a column is left, so that thread blocks that run
// together read the same tiles, from L2.
__device__ inline void my_tile(int& i, int& j, u32 rows, u32 columns) {
    u32 height = (rows + TILE_I - 1) / TILE_I, width = (columns + TILE_J - 1) / TILE_J;
    u32 group = blockIdx.x / (GROUP * width), at = blockIdx.x % (GROUP * width);
    u32 tall = min(u32(GROUP), height - group * GROUP);
    i = (group * GROUP + at % tall) * TILE_I;
    j = at / tall * TILE_J;
}

__device__ inline int warp_i() { return threadIdx.x / 32 / WARPS_J * WARP_I; }  // this warp's part of the tile
__device__ inline int warp_j() { return threadIdx.x / 32 % WARPS_J * WARP_J; }

// sums = left (rows from i) times right (rows from j) transposed, over depths [k, end). With `totals` also sums.rows:
// one more product, with ones.
template <class Left, class Right>
__device__ inline void multiply(Sums& sums, const Left& left, const Right& right, int i, int j, int k, int end,
                                bool totals) {
    constexpr int STAGE = (TILE_I + TILE_J) * TILE_K;
    int steps = (end - k + TILE_K - 1) / TILE_K;
    auto fetch = [&](int step) {
        elem* stage = tiles + step % STAGES * STAGE;
        if (step < steps) {
            left.copy(stage, i, k + step * TILE_K, end);
            right.copy(stage + TILE_I * TILE_K, j, k + step * TILE_K, end);
        }
        end_group();  // an empty one, too: the count of groups identifies the stages
    };
    for (int step = 0; step < STAGES - 1; step++) fetch(step);
    for (int step = 0; step < steps; step++) {
        wait_groups<STAGES - 2>();
        __syncthreads();  // all copies of this stage have landed, and all threads have read the one before
        fetch(step + STAGES - 1);
        const elem* stage = tiles + step % STAGES * STAGE;
#pragma unroll
        for (int deep = 0; deep < TILE_K; deep += MMA_K) {
            u32 columns[BLOCKS_J / 2][4];
#pragma unroll
            for (int c = 0; c < BLOCKS_J / 2; c++)
                Right::fragment(columns[c], stage + TILE_I * TILE_K, warp_j() + c * 16, deep);
#pragma unroll
            for (int r = 0; r < BLOCKS_I; r++) {
                u32 row[4];
                Left::fragment(row, stage, warp_i() + r * 16, deep);
#pragma unroll
                for (int c = 0; c < BLOCKS_J; c++)
                    mma(sums.results[r][c], row, columns[c / 2][c % 2], columns[c / 2][c % 2 + 2]);
                if (totals) mma(sums.rows[r], row, ONES, ONES);
            }
        }
    }
    wait_groups<0>();
    __syncthreads();  // the stages are free
}

// --- results -------------------------------------------------------------------------------------------------------

// Four neighbours of a row of a matrix in global memory. `whole`: all exist, on 16 bytes of floats or 8 of bf16; else
// the first `count` do.
struct Four {
    u64 at;
    int column, count;
    bool whole;

    template <class T>
    __device__ Pack<float, 4> get(const T* data) const {
        Pack<float, 4> out;
        if (whole) {
            auto held = load<4>(data);
            for (int e = 0; e < 4; e++) out[e] = held[e];
        } else {
            for (int e = 0; e < 4; e++) out[e] = e < count ? float(data[e]) : 0;
        }
        return out;
    }

    template <class T>
    __device__ void put(T* data, const Pack<float, 4>& values) const {
        Pack<T, 4> out;
        for (int e = 0; e < 4; e++) out[e] = values[e];
        if (whole) {
            store(data, out);
        } else {
            for (int e = 0; e < count; e++) data[e] = out[e];
        }
    }

    // values += data
    template <class T>
    __device__ void add(Pack<float, 4>& values, const T* data) const {
        auto more = get(data);
        for (int e = 0; e < 4; e++) values[e] += more[e];
    }
};

// finish(place, values) for every four neighbours of this thread block's results inside (rows, columns).
template <class Finish>
__device__ inline void deliver(const Sums& sums, int i, int j, int rows, int columns, bool aligned, Finish finish) {
#pragma unroll
    for (int r = 0; r < BLOCKS_I; r++)
        by_rows<WARP_J>((float*)tiles, sums.results[r], [&](int down, int across, Pack<float, 4> values) {
            u32 row = i + warp_i() + r * 16 + down, column = j + warp_j() + across;
            if (row >= rows || column >= columns) return;
            Four place = {(u64)row * columns + column, int(column), min(4, int(columns - column)), aligned};
            finish(place, values);
        });
}

// Adds up the sums of all slices (gridDim.y thread blocks), in the slices' order whichever comes last: bits repeat.
// Each thread block leaves its own in `partial`; true for the one that was last, and has them all.
__device__ inline bool collect(Sums& sums, float* partial, u32* counters, bool totals) {
    constexpr int RESULTS = sizeof(sums.results) / 4, ALL_SUMS = sizeof(Sums) / 4;
    __shared__ bool last;
    float* mine = &sums.results[0][0][0];
    float* first = partial + (u64)blockIdx.x * gridDim.y * ALL_SUMS * THREADS + threadIdx.x;
    float* slice = first + (u64)blockIdx.y * ALL_SUMS * THREADS;
#pragma unroll
    for (int n = 0; n < ALL_SUMS; n++)
        if (n < RESULTS || totals) slice[n * THREADS] = mine[n];
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();  // this thread block's results are visible before its count, and the others' after it
        last = atomicAdd(counters + blockIdx.x, 1) == gridDim.y - 1;
        __threadfence();
        if (last) counters[blockIdx.x] = 0;
    }
    __syncthreads();
    if (!last) return false;
#pragma unroll
    for (int n = 0; n < ALL_SUMS; n++)
        if (n < RESULTS || totals) mine[n] = first[n * THREADS];
    for (int other = 1; other < gridDim.y; other++) {
        slice = first + (u64)other * ALL_SUMS * THREADS;
#pragma unroll
        for (int n = 0; n < ALL_SUMS; n++)
            if (n < RESULTS || totals) mine[n] += slice[n * THREADS];
    }
    return true;
}

// --- kernels -------------------------------------------------------------------------------------------------------

extern "C" __global__ void __launch_bounds__(THREADS)
    mma_forward(elem* y, const elem* x, const elem* weight, const elem* bias, const elem* r, int M, int N, int K,
                int aligned) {
    Sums sums = {};
    int i, j;
    my_tile(i, j, M, N);
    Operand<true, TILE_I> left = {x, M, K, bool(aligned)};
    Operand<true, TILE_J> right = {weight, N, K, bool(aligned)};
    multiply(sums, left, right, i, j, 0, K, false);
    deliver(sums, i, j, M, N, aligned, [&](Four place, Pack<float, 4> values) {
        if (bias) place.add(values, bias + place.column);
        if (r) place.add(values, r + place.at);
        place.put(y + place.at, values);
    });
}

extern "C" __global__ void __launch_bounds__(THREADS)
    mma_gelu(elem* a, elem* f, const elem* x, const elem* weight, const elem* bias, int M, int N, int K, int exact,
             int aligned) {
    Sums sums = {};
    int i, j;
    my_tile(i, j, M, N);
    Operand<true, TILE_I> left = {x, M, K, bool(aligned)};
    Operand<true, TILE_J> right = {weight, N, K, bool(aligned)};
    multiply(sums, left, right, i, j, 0, K, false);
    deliver(sums, i, j, M, N, aligned, [&](Four place, Pack<float, 4> values) {
        float slope;
        if (bias) place.add(values, bias + place.column);
        place.put(f + place.at, values);
        for (int e = 0; e < 4; e++) values[e] = values[e] * phi(values[e], exact, slope);
        place.put(a + place.at, values);
    });
}

extern "C" __global__ void __launch_bounds__(THREADS)
    mma_dx(elem* dx, const elem* dy, const elem* weight, int M, int N, int K, int add, int aligned) {
    Sums sums = {};
    int i, j;
    my_tile(i, j, M, K);
    Operand<true, TILE_I> left = {dy, M, N, bool(aligned)};
    Operand<false, TILE_J> right = {weight, K, N, bool(aligned)};
    multiply(sums, left, right, i, j, 0, N, false);
    deliver(sums, i, j, M, K, aligned, [&](Four place, Pack<float, 4> values) {
        if (add) place.add(values, dx + place.at);
        place.put(dx + place.at, values);
    });
}

extern "C" __global__ void __launch_bounds__(THREADS)
    mma_dgelu(elem* df, const elem* dy, const elem* weight, const elem* f, int M, int N, int K, int exact,
              int aligned) {
    Sums sums = {};
    int i, j;
    my_tile(i, j, M, K);
    Operand<true, TILE_I> left = {dy, M, N, bool(aligned)};
    Operand<false, TILE_J> right = {weight, K, N, bool(aligned)};
    multiply(sums, left, right, i, j, 0, N, false);
    deliver(sums, i, j, M, K, aligned, [&](Four place, Pack<float, 4> values) {
        auto before = place.get(f + place.at);
        for (int e = 0; e < 4; e++) {
            float slope, p = phi(before[e], exact, slope);
            values[e] = values[e] * (p + before[e] * slope);
        }
        place.put(df + place.at, values);
    });
}

extern "C" __global__ void mma_dr(elem* dr, const elem* dy, int N, int add) {
    int n = blockIdx.y * blockDim.x + threadIdx.x;
    u64 at = (u64)blockIdx.x * N + n;
    if (n < N) dr[at] = dy[at] + (add ? float(dr[at]) : 0);
}

// dweight and dbias may be null. Thread blocks (tiles of dweight, slices of the rows of dy and x); partial: all Sums of
// all of them, counters: one for each tile; neither is touched if there is one slice
extern "C" __global__ void __launch_bounds__(THREADS)
    mma_dweight(float* dweight, float* dbias, const elem* dy, const elem* x, float* partial, u32* counters, int M,
                int N, int K, int slice, int add, int add_bias, int aligned) {
    Sums sums = {};
    int i, j, lane = threadIdx.x % 32, k = blockIdx.y * slice;
    my_tile(i, j, N, K);
    Operand<false, TILE_I> left = {dy, N, M, bool(aligned)};
    Operand<false, TILE_J> right = {x, K, M, bool(aligned)};
    bool totals = dbias && j == 0 && warp_j() == 0;
    multiply(sums, left, right, i, j, k, min(u32(k) + slice, u32(M)), totals);
    if (gridDim.y > 1 && !collect(sums, partial, counters, totals)) return;
    if (totals && lane % 4 == 0) {
        for (int r = 0; r < BLOCKS_I * 2; r++) {
            u32 n = i + warp_i() + r * 8 + lane / 4;
            if (n < N) dbias[n] = sums.rows[r / 2][r % 2 * 2] + (add_bias ? dbias[n] : 0);
        }
    }
    if (!dweight) return;
    deliver(sums, i, j, N, K, aligned, [&](Four place, Pack<float, 4> values) {
        if (add) place.add(values, dweight + place.at);
        place.put(dweight + place.at, values);
    });
}
