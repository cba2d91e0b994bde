// Linear map on tensor cores, bf16, fp16 or TF32 in and float sums: y = x weight^T + bias for x (M, K), weight (N, K),
// y (M, N). Backward: dx = dy weight. Formulas: ../matmul.py; dweight and dbias: matmul_mma_dweight.cu.
//
// mma_forward    y = x weight^T + bias + r; bias and r may be null
// mma_dx         dx = dy weight
// mma_dr         dr = dy, where r's gradient does not share dy's memory
//
// Both products are that of core/mma_product.cuh. Faster than `tiled`: 2,048 multiply-adds an instruction in place of
// one a lane; operands are copied to shared memory without registers, and loaded as fragments, 512 bytes an
// instruction. Limited by mma.sync itself on Ampere and Ada; Hopper has faster tensor cores than mma.sync reaches,
// about five eighths of them.

#include "core/mma_results.cuh"

extern "C" __global__ void __launch_bounds__(THREADS)
    mma_forward(elem* y, const elem* x, const elem* weight, const elem* bias, const elem* r, int M, int N, int K) {
    dependent_start();
    Sums sums = {};
    int i, j;
    my_tile(i, j, M, N);
    Left<true> left(x, M, K, 0, warp_i(), i, 0, K);
    Right<true> right(weight, N, K, TILE_I * TILE_K, warp_j(), j, 0, K);
    multiply<false>(sums, left, right, 0, K);
    deliver(sums, i, j, M, N, r, bias, [&](Place place, Values values, const Elems& before, const Elems& by_column) {
        if (bias) add(values, by_column);
        if (r) add(values, before);
        place.put(y, values);
    });
}

extern "C" __global__ void __launch_bounds__(THREADS)
    mma_dx(elem* dx, const elem* dy, const elem* weight, int M, int N, int K, int add_dx) {
    dependent_start();
    Sums sums = {};
    int i, j;
    my_tile(i, j, M, K);
    Left<true> left(dy, M, N, 0, warp_i(), i, 0, N);
    Right<false> right(weight, K, N, TILE_I * TILE_K, warp_j(), j, 0, N);
    multiply<false>(sums, left, right, 0, N);
    const elem* old = add_dx ? dx : nullptr;
    deliver(sums, i, j, M, K, old, nullptr, [&](Place place, Values values, const Elems& before, const Elems&) {
        if (old) add(values, before);
        place.put(dx, values);
    });
}

extern "C" __global__ void mma_dr(elem* dr, const elem* dy, int N, int add) {
    dependent_start();
    int n = blockIdx.y * blockDim.x + threadIdx.x;
    u64 at = (u64)blockIdx.x * N + n;
    if (n < N) dr[at] = dy[at] + (add ? float(dr[at]) : 0);
}
