#pragma once
// A matrix product from tiles in shared memory, in float: TILE x TILE results a thread block of TILE_THREADS, 4 x 4 a
// thread. An element is loaded from memory once for TILE uses, and two 16-byte loads from shared memory feed 16
// multiply-adds; limited by the float units, since tensor cores are not used.

constexpr int TILE = 64, TILE_DEPTH = 16, TILE_THREADS = 256;

// TILE_DEPTH x TILE elements of an operand, the summed index first, so that a thread's 4 are contiguous. The 4 floats
// after each row keep 16-byte alignment, and let a warp that writes a column reach 8 banks where it would reach one.
using Tile = float[TILE_DEPTH][TILE + 4];

struct Straight {
    __device__ u64 operator()(u32 i) const { return i; }
};

// An operand of `rows` x `depth` elements, whose depth is summed over. DEEP: neighbours in memory follow the depth, and
// rows are `stride` apart; else the reverse. far(i): the number of the i-th line, of those that are `stride` apart.
template <bool DEEP, class Far = Straight>
struct Operand {
    const elem* data;
    int rows, depth, stride;
    Far far;

    // TILE rows from row i and TILE_DEPTH deep from k, zeros outside; neighbouring threads read neighbouring addresses.
    __device__ void copy(Tile& tile, u32 i, u32 k) const {
        for (int at = threadIdx.x; at < TILE * TILE_DEPTH; at += TILE_THREADS) {
            int row = DEEP ? at / TILE_DEPTH : at % TILE, deep = DEEP ? at % TILE_DEPTH : at / TILE;
            bool inside = i + row < rows && k + deep < depth;  // the sums may pass 2^31
            u32 near = DEEP ? k + deep : i + row;
            tile[deep][row] = inside ? float(data[far(DEEP ? i + row : k + deep) * stride + near]) : 0;
        }
    }
};

// finish(row, column, sum) for each of this thread's elements of a b^T, (a.rows, b.rows), in the tile from (i, j) on.
template <class A, class B, class Finish>
__device__ inline void tile_product(const A& a, const B& b, u32 i, u32 j, Finish finish) {
    __shared__ alignas(16) Tile left, right;
    int mine_i = threadIdx.x / 16 * 4, mine_j = threadIdx.x % 16 * 4;  // of the tile
    float sums[4][4] = {};
    for (u32 k = 0; k < a.depth; k += TILE_DEPTH) {
        a.copy(left, i, k);
        b.copy(right, j, k);
        __syncthreads();  // the tiles are there
#pragma unroll
        for (int d = 0; d < TILE_DEPTH; d++) {
            auto u = load<4>(&left[d][mine_i]), v = load<4>(&right[d][mine_j]);
            for (int r = 0; r < 4; r++)
                for (int c = 0; c < 4; c++) sums[r][c] += u[r] * v[c];
        }
        __syncthreads();  // all threads have read them
    }
    for (int r = 0; r < 4; r++) {
        for (int c = 0; c < 4; c++) {
            u32 row = i + mine_i + r, column = j + mine_j + c;
            if (row < a.rows && column < b.rows) finish(row, column, sums[r][c]);
        }
    }
}
