// Linear map: y = x weight^T + bias, for x (M, K), weight (N, K), y (M, N). Backward: dx = dy weight, dweight = dy^T x,
// dbias = sum of dy over its rows. Formulas: ../matmul.py. Products are summed in float.
//
// naive_forward, naive_dx,     one thread an element of the result: each element of x is loaded N times, from cache at
// naive_dweight, naive_dbias   best; limited by the number of loads, two for each multiply-add
// tiled_forward, tiled_dx,     64 x 64 results a thread block, 4 x 4 a thread: tiles of both operands in shared memory
// tiled_dweight                are loaded once for 64 uses, and registers make 16 multiply-adds of two 16-byte loads;
//                              limited by the float units, since tensor cores are not used
// tiled_sums, tiled_dbias      slices of the rows a thread block into workspace, then added up in order

#include "core/columns.cuh"
#include "core/product.cuh"

// --- naive ---------------------------------------------------------------------------------------------------------

extern "C" __global__ void naive_forward(elem* y, const elem* x, const elem* weight, const elem* bias, int M, int N,
                                         int K) {
    u64 m = global_row();
    int n = blockIdx.y * blockDim.x + threadIdx.x;
    if (m >= M || n >= N) return;
    float sum = bias ? float(bias[n]) : 0;
    for (int k = 0; k < K; k++) sum += x[m * K + k] * weight[(u64)n * K + k];
    y[m * N + n] = sum;
}

extern "C" __global__ void naive_dx(elem* dx, const elem* dy, const elem* weight, int M, int N, int K, int add) {
    u64 m = global_row();
    int k = blockIdx.y * blockDim.x + threadIdx.x;
    if (m >= M || k >= K) return;
    u64 at = m * K + k;
    float sum = add ? float(dx[at]) : 0;
    for (int n = 0; n < N; n++) sum += dy[m * N + n] * weight[(u64)n * K + k];
    dx[at] = sum;
}

extern "C" __global__ void naive_dweight(float* dweight, const elem* dy, const elem* x, int M, int N, int K, int add) {
    u64 n = global_row();
    int k = blockIdx.y * blockDim.x + threadIdx.x;
    if (n >= N || k >= K) return;
    u64 at = n * K + k;
    float sum = add ? dweight[at] : 0;
    for (int m = 0; m < M; m++) sum += dy[(u64)m * N + n] * x[(u64)m * K + k];
    dweight[at] = sum;
}

extern "C" __global__ void naive_dbias(float* dbias, const elem* dy, int M, int N, int add) {
    u64 n = global_thread();
    if (n >= N) return;
    float sum = add ? dbias[n] : 0;
    for (int m = 0; m < M; m++) sum += dy[(u64)m * N + n];
    dbias[n] = sum;
}

// --- tiled ---------------------------------------------------------------------------------------------------------

// result (a.rows, b.rows) = a b^T + bias, added to the old values if `add`; one tile of it
template <class T, bool A, bool B>
__device__ inline void product(T* result, Operand<A> a, Operand<B> b, const elem* bias, int add) {
    tile_product(a, b, blockIdx.x * TILE, blockIdx.y * TILE, [&](u32 row, u32 column, float sum) {
        u64 at = (u64)row * b.rows + column;
        result[at] = sum + (bias ? float(bias[column]) : 0) + (add ? float(result[at]) : 0);
    });
}

extern "C" __global__ void __launch_bounds__(TILE_THREADS, 2)
    tiled_forward(elem* y, const elem* x, const elem* weight, const elem* bias, int M, int N, int K) {
    product(y, Operand<true>{x, M, K, K}, Operand<true>{weight, N, K, K}, bias, 0);
}

extern "C" __global__ void __launch_bounds__(TILE_THREADS, 2)
    tiled_dx(elem* dx, const elem* dy, const elem* weight, int M, int N, int K, int add) {
    product(dx, Operand<true>{dy, M, N, N}, Operand<false>{weight, K, N, K}, nullptr, add);
}

extern "C" __global__ void __launch_bounds__(TILE_THREADS, 2)
    tiled_dweight(float* dweight, const elem* dy, const elem* x, int M, int N, int K, int add) {
    product(dweight, Operand<false>{dy, N, M, N}, Operand<false>{x, K, M, K}, nullptr, add);
}

// sums: (slices, N)
extern "C" __global__ void tiled_sums(float* sums, const elem* dy, int M, int N, int slice) {
    dependent_start();
    slice_sums<1>(sums, M, N, slice, [&](float* sum, u64 m, int n) { *sum += dy[m * N + n]; });
}

extern "C" __global__ void tiled_dbias(float* dbias, const float* sums, int slices, int N, int add) {
    dependent_start();
    add_slices(dbias, sums, slices, N, N, add);
}
