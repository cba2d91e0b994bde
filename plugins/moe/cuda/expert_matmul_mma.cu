// Grouped linear maps on tensor cores, bf16 in and float sums. Formulas: ../expert_matmul.py; the rows' order, and the
// sum over takers: group_rows and grouped_fold of expert_matmul.cu.
//
// mma_grouped, mma_grouped_dx,    results of one expert a thread block, its rows gathered on their way to shared memory
// mma_grouped_parts               and written where they belong; the gradient of x in float where a row has many takers
// mma_grouped_dweight             the gradient of one expert's weight: its rows are the depth
//
// The products are those of core/mma_product.cuh: 2,048 multiply-adds an instruction, where `grouped` has one a lane.
// Places of gathered rows are looked up before the loop, or, of a depth, one stage ahead. Limited by mma.sync itself.

#include "core/mma_results.cuh"
#include "experts.cuh"

// The rows of this thread block's expert: the tile's first is row i; none where the grid has too many tiles
struct Mine {
    const int* order;
    int rows, expert, i;

    __device__ Mine(const int* all, const int* starts, int E) {
        int tile = blockIdx.x;
        expert = expert_of(tile, starts, E, TILE_I);
        i = tile * TILE_I;
        if (expert < E) order = all + starts[expert], rows = starts[expert + 1] - starts[expert];
    }
};

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    mma_grouped(elem* y, const elem* x, const elem* weight, const int* order, const int* starts, int E, int N, int K,
                int takers) {
    Mine mine(order, starts, E);
    if (mine.expert == E) return;
    Sums sums = {};
    int j = blockIdx.y * TILE_J;
    Left<true, Index> left(x, mine.rows, K, 0, warp_i(), mine.i, 0, K, {mine.order, takers});
    Right<true> right(weight + (u64)mine.expert * N * K, N, K, TILE_I * TILE_K, warp_j(), j, 0, K);
    multiply<false>(sums, left, right, 0, K);
    const elem* none = nullptr;
    auto finish = [&](Place place, Values values, const Elems&, const Elems&) { place.put(y, values); };
    deliver(sums, mine.i, j, mine.rows, N, none, none, finish, Index{mine.order, 1});
}

// dx: (M, K), a row for each taker, of elem or of float
template <class T>
__device__ inline void gradient(T* dx, const elem* dy, const elem* weight, const int* order, const int* starts, int E,
                                int N, int K, int add) {
    Mine mine(order, starts, E);
    if (mine.expert == E) return;
    Sums sums = {};
    int j = blockIdx.y * TILE_J;
    Left<true, Index> left(dy, mine.rows, N, 0, warp_i(), mine.i, 0, N, {mine.order, 1});
    Right<false> right(weight + (u64)mine.expert * N * K, K, N, TILE_I * TILE_K, warp_j(), j, 0, N);
    multiply<false>(sums, left, right, 0, N);
    const T* old = add ? dx : nullptr;
    auto finish = [&](Place place, Values values, const Piece<T>& before, const Elems&) {
        if (old) ::add(values, before);
        place.put(dx, values);
    };
    deliver(sums, mine.i, j, mine.rows, K, old, (const elem*)nullptr, finish, Index{mine.order, 1});
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    mma_grouped_dx(elem* dx, const elem* dy, const elem* weight, const int* order, const int* starts, int E, int N,
                   int K, int add) {
    gradient(dx, dy, weight, order, starts, E, N, K, add);
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    mma_grouped_parts(float* parts, const elem* dy, const elem* weight, const int* order, const int* starts, int E,
                      int N, int K) {
    gradient(parts, dy, weight, order, starts, E, N, K, 0);
}

// grid: (tiles of a weight, experts)
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    mma_grouped_dweight(float* dweight, const elem* dy, const elem* x, const int* order, const int* starts, int N,
                        int K, int takers, int add) {
    int e = blockIdx.y, rows = starts[e + 1] - starts[e], i, j;
    const int* mine = order + starts[e];
    my_tile(i, j, N, K);
    Sums sums = {};
    if (rows > 0) {
        Left<false, Index> left(dy, N, rows, 0, warp_i(), i, 0, rows, {mine, 1});
        Right<false, Index> right(x, K, rows, TILE_I * TILE_K, warp_j(), j, 0, rows, {mine, takers});
        multiply<false>(sums, left, right, 0, rows);
    }
    float* to = dweight + (u64)e * N * K;
    const float* old = add ? to : nullptr;
    deliver(sums, i, j, N, K, old, (const elem*)nullptr,
            [&](Place place, Values values, const Floats& before, const Elems&) {
                if (old) ::add(values, before);
                place.put(to, values);
            });
}
