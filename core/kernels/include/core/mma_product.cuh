#pragma once
// The product of a thread block on tensor cores: left (I, depth) times right (J, depth) transposed, float
// sums. A thread block has TILE_I x TILE_J results, a warp a part of them in registers, as 16 x 8 blocks of
// mma.sync. Both operands are streamed in stages, TILE_K deep, through shared memory: cp.async fills the stages ahead
// while tensor cores use this one. The launcher defines the macros: `over` of core.kernels.mma_product.

#include "core/mma.cuh"

#ifndef TILE_I  // the launcher's tiles: results of a thread block, how deep a stage is, stages, warps each way
#define TILE_I 128
#define TILE_J 128
#define TILE_K 32
#define STAGES 3
#define WARPS_I 2
#define WARPS_J 2
#endif
#ifndef ALIGNED
#define ALIGNED 0  // whether every line of an operand and of the results starts on 16 bytes
#endif

constexpr int THREADS = 32 * WARPS_I * WARPS_J;
constexpr int WARP_I = TILE_I / WARPS_I, WARP_J = TILE_J / WARPS_J;  // results of a warp
constexpr int BLOCKS_I = WARP_I / 16, BLOCKS_J = WARP_J / 8;         // its blocks of 16 x 8
constexpr int STAGE = (TILE_I + TILE_J) * TILE_K;                    // elements
constexpr int DEEPS = TILE_K / MMA_K;                                // products of a block in a stage
constexpr int GROUP = 8;                                             // tiles one below the other that share columns

alignas(128) extern __shared__ elem tiles[];  // the stages; at the end, a few rows of results for each warp

// --- operands ------------------------------------------------------------------------------------------------------

template <class A, class B>
constexpr bool SAME = false;
template <class A>
constexpr bool SAME<A, A> = true;

struct Straight {
    __device__ u64 operator()(u32 n) const { return n; }
};

// An operand of `side` x `depth` elements, whose depth is summed over; a tile of it is SIDE x TILE_K. DEEP: neighbours
// in memory follow the depth, a line is a row of the operand; else a line is a column, and the tile is turned when it
// is loaded from shared memory, so that no matrix is ever transposed in global memory. A warp has BLOCKS blocks of 16
// rows of the tile, from row `first` on. PAIR: of the right operand of mma. far(n): the number of the n-th line in
// memory, as of gathered rows.
template <bool DEEP, int SIDE, int BLOCKS, bool PAIR, class Far>
struct Operand {
    static constexpr int LINES = DEEP ? SIDE : TILE_K, CHUNKS = (DEEP ? TILE_K : SIDE) / CHUNK;  // of a tile
    static constexpr int EACH = LINES * CHUNKS / THREADS, APART = THREADS / CHUNKS;  // a thread's chunks; lines between
    static constexpr bool TURNED = !DEEP && sizeof(elem) == 4;  // fragments one element at a time
    static constexpr int STARTS = DEEP ? DEEPS : TURNED ? 1 : BLOCKS;
    static constexpr bool GATHERED = !DEEP && !SAME<Far, Straight>;  // the lines of each stage are looked up
    static_assert(LINES * CHUNKS % THREADS == 0 && THREADS % CHUNKS == 0);

    const elem* data;
    int side, depth;
    u32 end;               // of the depths that are summed here
    int tile, first, i;    // where the tile is in a stage; the warp's first row in it; its first row of the operand
    const elem* from[DEEP ? EACH : 1];  // the chunks' next places in memory; of columns the first: all are evenly apart
    u32 to[EACH], starts[STARTS];
    Far far;
    u32 lines[GATHERED ? EACH : 1];  // of the next stage, looked up while this one is copied

    // i: the tile's first row; k: the first depth
    __device__ Operand(const elem* data, int side, int depth, int tile, int first, int i, int k, int end, Far far = {})
        : data(data), side(side), depth(depth), end(end), tile(tile), first(first), i(i), far(far) {
        int chunk = threadIdx.x % CHUNKS, lane = threadIdx.x % 32;
#pragma unroll
        for (int n = 0; ALIGNED && n < EACH; n++) {
            int line = threadIdx.x / CHUNKS + n * APART;
            u32 row = i + (DEEP ? line : chunk * CHUNK), deep = k + (DEEP ? chunk * CHUNK : line);
            // in place of rows that do not exist, the last that do, for results that are not kept
            row = min(row, u32(side) - (DEEP ? 1 : CHUNK));
            if (DEEP) from[n] = data + far(row) * depth + deep;
            else if (n == 0) from[n] = data + (GATHERED ? 0 : (u64)deep * side) + row;
            bool same = n && APART % 8 == 0;  // the chunk is permuted as in the first line
            to[n] = same ? to[0] + n * APART * CHUNKS * 16 : in_shared(tiles + tile + place(line, chunk));
        }
        if (ALIGNED) look_up(k);
        if (TURNED) return;
        int outer = lane / 16, inner = lane / 8 % 2, down = PAIR ? outer : inner, deeper = PAIR ? inner : outer;
#pragma unroll
        for (int n = 0; n < STARTS; n++) {
            int line = DEEP ? first + down * 8 + lane % 8 : deeper * 8 + lane % 8;
            int at = DEEP ? n * MMA_K / CHUNK + deeper : first / CHUNK + n * 16 / CHUNK + down;
            starts[n] = in_shared(tiles + tile + place(line, at));
        }
    }

    // A chunk's place in the tile. load_matrices reads a chunk of each of 8 lines at once, which would all meet in
    // the same four banks: so a line's chunks are permuted, by xor with its number, and the 8 cover all 32 banks.
    // Floats that are turned are read two chunks of each of 4 lines at once: there it is xor with twice the number.
    static __device__ int place(int line, int chunk) {
        int turn = CHUNKS < 8 ? line / (8 / CHUNKS) % CHUNKS : line % 8;
        if (TURNED) turn = line % 4 * 2;
        return (line * CHUNKS + (chunk ^ turn)) * CHUNK;
    }

    __device__ void look_up(u32 k) {
#pragma unroll
        for (int n = 0; GATHERED && n < EACH; n++) lines[n] = far(min(k + threadIdx.x / CHUNKS + n * APART, end - 1));
    }

    // The next TILE_K depths, from k on, into the stage that is `stage` bytes from the first one; zeros from `end` on
    __device__ void copy(u32 stage, u32 k) {
        if constexpr (!ALIGNED) {
            copy_elements(tiles + tile + stage / sizeof(elem), k);
            return;
        }
#pragma unroll
        for (int n = 0; n < EACH; n++) {
            const elem*& here = from[DEEP ? n : 0];
            u32 deep = k + (DEEP ? threadIdx.x % CHUNKS * CHUNK : threadIdx.x / CHUNKS + n * APART);
            copy_async(to[n] + stage, here + (GATHERED ? (u64)lines[n] * side : 0), deep < end ? 16 : 0);
            if (!GATHERED) here += DEEP ? TILE_K : (u64)APART * side;  // EACH of them are TILE_K lines
        }
        look_up(k + TILE_K);
    }

    // The same through registers, where lines start anywhere
    __device__ void copy_elements(elem* to_tile, u32 k) const {
#pragma unroll 1
        for (int at = threadIdx.x; at < LINES * CHUNKS; at += THREADS) {
            int line = at / CHUNKS, chunk = at % CHUNKS;
            u32 row = i + (DEEP ? line : chunk * CHUNK), deep = k + (DEEP ? chunk * CHUNK : line);
            int there = row >= side || deep >= end ? 0 : DEEP ? end - deep : side - row;  // elements that exist
            const elem* here = data;
            if (there) here += DEEP ? far(row) * depth + deep : far(deep) * side + row;
            Pack<elem, CHUNK> values;
#pragma unroll
            for (int e = 0; e < CHUNK; e++) values[e] = e < there ? float(here[e]) : 0;
            store(to_tile + place(line, chunk), values);
        }
    }

    // Block n of the warp's 16 rows, MMA_K deep from d * MMA_K, of the stage at `stage` bytes: see core/mma.cuh
    __device__ void fragment(u32 (&out)[4], u32 stage, int n, int d) const {
        if constexpr (TURNED) {
            const elem* here = tiles + tile + stage / sizeof(elem);
            ::fragment<DEEP, PAIR>(out, first + n * 16, d * MMA_K, [&](int line, int chunk) {
                return here + place(line, chunk);
            });
        } else {
            constexpr int LINE = CHUNKS * 16;  // bytes
            load_matrices<!DEEP>(out, starts[DEEP ? d : n] + stage + (DEEP ? n * 16 : d * MMA_K) * LINE);
            if constexpr (sizeof(elem) == 4)
                for (int e = 0; e < 4; e++) out[e] = to_tf32(out[e]);
        }
    }
};

template <bool DEEP, class Far = Straight>
using Left = Operand<DEEP, TILE_I, BLOCKS_I, false, Far>;
template <bool DEEP, class Far = Straight>
using Right = Operand<DEEP, TILE_J, BLOCKS_J / 2, true, Far>;

// --- the product ---------------------------------------------------------------------------------------------------

// A thread's sums: its results, and a fourth of the sum of every row of the left operand.
struct Sums {
    float results[BLOCKS_I][BLOCKS_J][4], rows[BLOCKS_I][2];

    // The elements of a fragment of the left operand, by float units while tensor cores are busy
    __device__ void add_rows(int r, const u32 (&left)[4]) {
#pragma unroll
        for (int n = 0; n < 4; n++) {
            const auto& held = reinterpret_cast<const Pack<elem, 4 / sizeof(elem)>&>(left[n]);
#pragma unroll
            for (int e = 0; e < 4 / sizeof(elem); e++) rows[r][n % 2] += held[e];
        }
    }

    // The sum of row n * 8 + lane / 4 of the warp's, from the four lanes that have parts of it
    __device__ float row(int n) const {
        float sum = rows[n / 2][n % 2];
        sum += __shfl_xor_sync(ALL, sum, 1);
        return sum + __shfl_xor_sync(ALL, sum, 2);
    }
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

// A stage's fragments for one product of each of the warp's blocks
struct Fragments {
    u32 left[BLOCKS_I][4], right[BLOCKS_J / 2][4];

    template <class R>
    __device__ void load_right(const R& right_of, u32 stage, int d) {
#pragma unroll
        for (int c = 0; c < BLOCKS_J / 2; c++) right_of.fragment(right[c], stage, c, d);
    }

    template <class L, class R>
    __device__ void load(const L& left_of, const R& right_of, u32 stage, int d) {
        load_right(right_of, stage, d);
#pragma unroll
        for (int r = 0; r < BLOCKS_I; r++) left_of.fragment(left[r], stage, r, d);
    }
};

// sums = left times right transposed, over `depth` depths from k. With TOTALS also sums.rows. The fragments of a
// product are loaded while tensor cores work on the one before, across the ends of stages, too; with TOTALS, whose sums
// take their registers, and of floats just before they are used.
template <bool TOTALS, class L, class R>
__device__ inline void multiply(Sums& sums, L& left, R& right, int k, int depth) {
    constexpr u32 BYTES = STAGE * sizeof(elem);
    int steps = (depth + TILE_K - 1) / TILE_K;
#pragma unroll
    for (int step = 0; step < STAGES - 1; step++) {
        if (step < steps) {
            left.copy(step * BYTES, k + step * TILE_K);
            right.copy(step * BYTES, k + step * TILE_K);
        }
        end_group();  // an empty one, too: the count of groups identifies the stages
    }
    wait_groups<STAGES - 2>();
    __syncthreads();
    constexpr int HELD = TOTALS || sizeof(elem) == 4 ? 1 : 2;
    Fragments fragments[HELD];
    u32 stage = 0, ahead = (STAGES - 1) * BYTES;  // the stage in use, and the one to fill
    if (HELD > 1) fragments[0].load(left, right, stage, 0);
#pragma unroll 1
    for (int step = 0; step < steps; step++) {
        u32 next = stage + BYTES == STAGES * BYTES ? 0 : stage + BYTES;
#pragma unroll L::TURNED ? 1 : DEEPS
        for (int d = 0; d < DEEPS; d++) {
            if (d == 0 && step + STAGES - 1 < steps) {  // all threads have read this stage, before the last barrier
                left.copy(ahead, k + (step + STAGES - 1) * TILE_K);
                right.copy(ahead, k + (step + STAGES - 1) * TILE_K);
            }
            if (d == 0) end_group();
            auto turn = [&] {
                wait_groups<STAGES - 2>();
                __syncthreads();  // all copies of the next stage have landed, and all threads have read this one
            };
            if (HELD == 1) {
                fragments[0].load_right(right, stage, d);
            } else if (d + 1 < DEEPS) {
                fragments[(d + 1) % HELD].load(left, right, stage, d + 1);
            } else {
                turn();
                if (step + 1 < steps) fragments[(d + 1) % HELD].load(left, right, next, 0);
            }
            Fragments& now = fragments[d % HELD];
#pragma unroll
            for (int r = 0; r < BLOCKS_I; r++) {
                if (HELD == 1) left.fragment(now.left[r], stage, r, d);
#pragma unroll
                for (int c = 0; c < BLOCKS_J; c++)
                    mma(sums.results[r][c], now.left[r], now.right[c / 2][c % 2 * 2], now.right[c / 2][c % 2 * 2 + 1]);
                if (TOTALS) sums.add_rows(r, now.left[r]);
            }
            if (HELD == 1 && d + 1 == DEEPS) turn();
        }
        ahead = stage;
        stage = next;
    }
    wait_groups<0>();
    __syncthreads();  // the stages are free
}
