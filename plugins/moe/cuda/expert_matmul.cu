// Grouped linear maps: y_m = x_(m / takers) weight_(expert m)^T, for x (M / takers, K), expert (M), weight (E, N, K),
// y (M, N); `takers` rows of y take one row of x. Formulas: ../expert_matmul.py. Products are summed in float.
//
// naive_forward, naive_dx,   one thread an element of the result, each with two loads for a multiply-add; for the
// naive_dweight              gradient of an expert's weight, with a test of every row
// group_rows                 one thread block an expert: its rows in their order, contiguous in `order`
// grouped_forward,           64 x 64 results of one expert a thread block, its rows gathered into tiles in shared
// grouped_dx,                memory: a row is loaded once for 64 uses; limited by the float units: tensor cores are
// grouped_dweight            used in expert_matmul_mma.cu
// grouped_fold               adds the gradients of all takers of a row of x

#include "core/product.cuh"
#include "experts.cuh"

// --- naive ---------------------------------------------------------------------------------------------------------

extern "C" __global__ void naive_forward(elem* y, const elem* x, const int* expert, const elem* weight, int M, int N,
                                         int K, int takers) {
    u64 m = global_row();
    int n = blockIdx.y * blockDim.x + threadIdx.x;
    if (m >= M || n >= N) return;
    x += m / takers * K;
    weight += ((u64)expert[m] * N + n) * K;
    float sum = 0;
    for (int k = 0; k < K; k++) sum += x[k] * weight[k];
    y[m * N + n] = sum;
}

extern "C" __global__ void naive_dx(elem* dx, const elem* dy, const int* expert, const elem* weight, int M, int N,
                                    int K, int takers, int add) {
    u64 row = global_row();
    int k = blockIdx.y * blockDim.x + threadIdx.x;
    if (row >= M / takers || k >= K) return;
    u64 at = row * K + k;
    float sum = add ? float(dx[at]) : 0;
    for (u64 m = row * takers; m < (row + 1) * takers; m++) {
        const elem* of = weight + (u64)expert[m] * N * K + k;
        for (int n = 0; n < N; n++) sum += dy[m * N + n] * of[(u64)n * K];
    }
    dx[at] = sum;
}

// grid.z: an expert each
extern "C" __global__ void naive_dweight(float* dweight, const elem* dy, const elem* x, const int* expert, int M, int N,
                                         int K, int takers, int add) {
    u64 n = global_row();
    int k = blockIdx.y * blockDim.x + threadIdx.x, e = blockIdx.z;
    if (n >= N || k >= K) return;
    u64 at = (e * (u64)N + n) * K + k;
    float sum = add ? dweight[at] : 0;
    for (int m = 0; m < M; m++)
        if (expert[m] == e) sum += dy[(u64)m * N + n] * x[(u64)(m / takers) * K + k];
    dweight[at] = sum;
}

// --- grouped -------------------------------------------------------------------------------------------------------

// order: (M), rows sorted by expert; starts: (E + 1), the first place of each expert's rows, and M
extern "C" __global__ void group_rows(int* order, int* starts, const int* expert, int M) {
    __shared__ int held[TILE_THREADS / 32];  // rows of each warp
    int e = blockIdx.x, warp = threadIdx.x / 32;
    double before = 0;  // block_sum knows no integers; this counts exactly
    for (u32 m = threadIdx.x; m < M; m += TILE_THREADS) before += expert[m] < e;
    int next = block_sum(before);
    if (threadIdx.x == 0) starts[e] = next;
    for (u32 first = 0; first < M; first += TILE_THREADS) {
        u32 m = first + threadIdx.x;
        bool mine = m < M && expert[m] == e;
        u32 lanes = __ballot_sync(ALL, mine);
        __syncthreads();  // the last round's counts are read
        if (threadIdx.x % 32 == 0) held[warp] = __popc(lanes);
        __syncthreads();
        int place = next + __popc(lanes & ((1u << threadIdx.x % 32) - 1));
        for (int w = 0; w < TILE_THREADS / 32; w++) {
            if (w < warp) place += held[w];
            next += held[w];
        }
        if (mine) order[place] = m;
    }
    if (threadIdx.x == 0 && e == gridDim.x - 1) starts[e + 1] = next;
}

// result (a.rows, b.rows) = a b^T, rows `stride` apart and where `index` leads; the tile at (i, j) of it
template <class T, class A, class B>
__device__ inline void product(T* result, Index index, int stride, const A& a, const B& b, u32 i, u32 j, int add) {
    tile_product(a, b, i, j, [&](u32 row, u32 column, float sum) {
        u64 at = index(row) * stride + column;
        result[at] = sum + (add ? float(result[at]) : 0);
    });
}

extern "C" __global__ void __launch_bounds__(TILE_THREADS, 2)
    grouped_forward(elem* y, const elem* x, const elem* weight, const int* order, const int* starts, int E, int N,
                    int K, int takers) {
    int tile = blockIdx.x, e = expert_of(tile, starts, E, TILE);
    if (e == E) return;
    const int *mine = order + starts[e], rows = starts[e + 1] - starts[e];
    Operand<true, Index> a = {x, rows, K, K, {mine, takers}};
    Operand<true> b = {weight + (u64)e * N * K, N, K, K};
    product(y, Index{mine, 1}, N, a, b, tile * TILE, blockIdx.y * TILE, 0);
}

// dx: (M, K), a row for each taker, of elem or of float
template <class T>
__device__ inline void gradient(T* dx, const elem* dy, const elem* weight, const int* order, const int* starts, int E,
                                int N, int K, int add) {
    int tile = blockIdx.x, e = expert_of(tile, starts, E, TILE);
    if (e == E) return;
    const int *mine = order + starts[e], rows = starts[e + 1] - starts[e];
    Operand<true, Index> a = {dy, rows, N, N, {mine, 1}};
    Operand<false> b = {weight + (u64)e * N * K, K, N, K};
    product(dx, Index{mine, 1}, K, a, b, tile * TILE, blockIdx.y * TILE, add);
}

extern "C" __global__ void __launch_bounds__(TILE_THREADS, 2)
    grouped_dx(elem* dx, const elem* dy, const elem* weight, const int* order, const int* starts, int E, int N, int K,
               int add) {
    gradient(dx, dy, weight, order, starts, E, N, K, add);
}

extern "C" __global__ void __launch_bounds__(TILE_THREADS, 2)
    grouped_parts(float* parts, const elem* dy, const elem* weight, const int* order, const int* starts, int E, int N,
                  int K) {
    gradient(parts, dy, weight, order, starts, E, N, K, 0);
}

// dx: (rows, K); parts: (rows, takers, K)
extern "C" __global__ void grouped_fold(elem* dx, const float* parts, int rows, int K, int takers, int add) {
    u64 i = global_thread();
    if (i >= (u64)rows * K) return;
    float sum = add ? float(dx[i]) : 0;
    for (int j = 0; j < takers; j++) sum += parts[(i / K * takers + j) * K + i % K];
    dx[i] = sum;
}

// grid.z: an expert each
extern "C" __global__ void __launch_bounds__(TILE_THREADS, 2)
    grouped_dweight(float* dweight, const elem* dy, const elem* x, const int* order, const int* starts, int N, int K,
                    int takers, int add) {
    int e = blockIdx.z;
    const int *mine = order + starts[e], rows = starts[e + 1] - starts[e];
    Operand<false, Index> a = {dy, N, rows, N, {mine, 1}}, b = {x, K, rows, K, {mine, takers}};
    product(dweight + (u64)e * N * K, Index{}, K, a, b, blockIdx.x * TILE, blockIdx.y * TILE, add);
}
