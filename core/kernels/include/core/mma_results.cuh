#pragma once
// The results of core/mma_product.cuh: finished WIDE neighbours at a time, in pieces of 16 bytes, or left to the thread
// block that adds the sums of all slices of a depth.

#include "core/mma_product.cuh"

constexpr int WIDE = ALIGNED && WARP_J >= 64 ? 8 : 4;                // results of a row that a lane finishes at once
using Values = Pack<float, WIDE>;

// WIDE neighbours of a row as they are in memory. ALIGNED: they are on 16 bytes and all exist.
template <class T>
struct Piece {
    static constexpr int N = 16 / sizeof(T) < WIDE ? 16 / sizeof(T) : WIDE;  // elements of one load
    Pack<T, N> parts[WIDE / N];

    // the first `count` of them
    __device__ void get(const T* data, int count) {
#pragma unroll
        for (int n = 0; n < WIDE; n += N) {
            if constexpr (ALIGNED) {
                parts[n / N] = load<N>(data + n);
            } else {
#pragma unroll
                for (int e = 0; e < N; e++) parts[n / N][e] = n + e < count ? float(data[n + e]) : 0;
            }
        }
    }

    __device__ void put(T* data, int count) const {
#pragma unroll
        for (int n = 0; n < WIDE; n += N) {
            if constexpr (ALIGNED) {
                store(data + n, parts[n / N]);
            } else {
#pragma unroll
                for (int e = 0; e < N; e++)
                    if (n + e < count) data[n + e] = parts[n / N][e];
            }
        }
    }

    __device__ float operator[](int e) const { return parts[e / N][e % N]; }
    __device__ void set(int e, float value) { parts[e / N][e % N] = value; }
};

// A piece of a row of results: where it is, and its first `count` that exist
struct Place {
    u64 at;
    int count;

    template <class T>
    __device__ void put(T* data, const Values& values) const {
        Piece<T> piece;
#pragma unroll
        for (int e = 0; e < WIDE; e++) piece.set(e, values[e]);
        piece.put(data + at, count);
    }
};

template <class T>
__device__ inline void add(Values& values, const Piece<T>& more) {
#pragma unroll
    for (int e = 0; e < WIDE; e++) values[e] += more[e];
}

using Elems = Piece<elem>;
using Floats = Piece<float>;

// finish(place, values, before, by_column) for every WIDE neighbours of this thread block's results inside (rows,
// columns), whose first is (i, j). before: the elements of `more`, a matrix like the result, there, read ahead;
// by_column: the elements of `each`, a row, in these columns. A null pointer leaves its argument undefined. far(row):
// where a row of results is.
template <class T, class Finish, class Far = Straight>
__device__ inline void deliver(const Sums& sums, int i, int j, int rows, int columns, const T* more, const elem* each,
                               Finish finish, Far far = {}) {
    constexpr int PIECES = WARP_J / WIDE, DOWN = 32 / PIECES, TURNS = 16 / DOWN;  // of a row; rows of a turn; turns
    static_assert(32 % PIECES == 0 && 16 % DOWN == 0);
    int lane = threadIdx.x % 32, across = lane % PIECES * WIDE, down = lane / PIECES;
    u32 column = j + warp_j() + across, first = i + warp_i() + down;
    int count = column < columns ? min(WIDE, int(columns - column)) : 0;
    u64 start = (u64)first * columns + column;
    auto place_of = [&](int below) {
        return SAME<Far, Straight> ? start + (u64)below * columns : far(first + below) * columns + column;
    };
    Elems by_column;
    if (each && count) by_column.get(each + column, count);
    constexpr bool EARLY = ALIGNED;                   // read before they are needed
    constexpr int AHEAD = EARLY && sizeof(T) == 2;    // blocks; of floats, registers have no room for the next one
    Piece<T> before[1 + AHEAD][EARLY ? TURNS : 1];
    auto inside = [&](int below) { return count && first + below < rows; };
    auto fetch = [&](int r) {
#pragma unroll
        for (int turn = 0; turn < TURNS; turn++)
            if (int below = r * 16 + turn * DOWN; inside(below))
                before[r % (1 + AHEAD)][turn].get(more + place_of(below), count);
    };
    if (more && AHEAD) fetch(0);
#pragma unroll
    for (int r = 0; r < BLOCKS_I; r++) {
        if (EARLY && more && r + AHEAD < BLOCKS_I) fetch(r + AHEAD);
        WarpRows<WARP_J> held((float*)tiles, sums.results[r]);
#pragma unroll EARLY ? TURNS : 1
        for (int turn = 0; turn < TURNS; turn++) {
            int below = r * 16 + turn * DOWN;
            if (!inside(below)) continue;
            Place place = {place_of(below), count};
            Piece<T>& old = before[r % (1 + AHEAD)][EARLY ? turn : 0];
            if (!EARLY && more) old.get(more + place.at, count);
            finish(place, held.template piece<WIDE>(turn * DOWN + down, across), old, by_column);
        }
        __syncwarp();  // before the rows are written over
    }
}

// Adds up the sums of all slices (gridDim.y thread blocks), in the slices' order whichever is last: bits repeat.
// Each thread block leaves its own in `partial`; true for the one that was last, and has them all.
template <bool TOTALS>
__device__ inline bool collect(Sums& sums, float* partial, u32* counters) {
    constexpr int RESULTS = sizeof(sums.results) / 4, ALL_SUMS = sizeof(Sums) / 4;
    float* mine = &sums.results[0][0][0];
    float* first = partial + (u64)blockIdx.x * gridDim.y * ALL_SUMS * THREADS + threadIdx.x * 4;
    float* slice = first + (u64)blockIdx.y * ALL_SUMS * THREADS;  // this thread block's
#pragma unroll
    for (int n = 0; n < ALL_SUMS; n += 4)
        if (n < RESULTS || TOTALS)
            store(slice + n * THREADS, Pack<float, 4>{mine[n], mine[n + 1], mine[n + 2], mine[n + 3]});
    __syncthreads();
    bool last = false;
    if (threadIdx.x == 0) {
        __threadfence();  // this thread block's results are visible before its count, and the others' after it
        last = atomicAdd(counters + blockIdx.x, 1) == gridDim.y - 1;
        __threadfence();
        if (last) counters[blockIdx.x] = 0;
    }
    if (!__syncthreads_or(last)) return false;
#pragma unroll
    for (int n = 0; n < ALL_SUMS; n++)
        if (n < RESULTS || TOTALS) mine[n] = 0;
#pragma unroll 1
    for (int other = 0; other < gridDim.y; other++, first += ALL_SUMS * THREADS) {
#pragma unroll
        for (int n = 0; n < ALL_SUMS; n += 4) {
            if (n >= RESULTS && !TOTALS) continue;
            auto part = load<4>(first + n * THREADS);
#pragma unroll
            for (int e = 0; e < 4; e++) mine[n + e] += part[e];
            if (n % 32 == 28) asm volatile("" ::: "memory");  // 8 loads at once, for which there are registers
        }
    }
    return true;
}
