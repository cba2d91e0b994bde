// The two products beside GELU of an MLP, on tensor cores: f = x weight^T + bias, a = gelu(f), for x (M, K),
// weight (N, K), f and a (M, N); backward df = (dy weight) gelu'(f) for dy (M, N), weight (N, K), df (M, K). The
// others are those of matmul_mma.cu. Formulas: ../mlp_gelu.py.
//
// mma_gelu       f and a
// mma_dgelu      df
//
// The product of core/mma_product.cuh: GELU and its derivative have no pass of their own over the largest activations
// of an MLP. Limited by mma.sync itself, and by GELU's arithmetic after it.

#include "gelu.cuh"
#include "core/mma_results.cuh"

#ifndef EXACT
#define EXACT 0  // GELU by erf, or as GPT-2 approximates it
#endif

extern "C" __global__ void __launch_bounds__(THREADS)
    mma_gelu(elem* a, elem* f, const elem* x, const elem* weight, const elem* bias, int M, int N, int K) {
    dependent_start();
    Sums sums = {};
    int i, j;
    my_tile(i, j, M, N);
    Left<true> left(x, M, K, 0, warp_i(), i, 0, K);
    Right<true> right(weight, N, K, TILE_I * TILE_K, warp_j(), j, 0, K);
    multiply<false>(sums, left, right, 0, K);
    const elem* none = nullptr;
    deliver(sums, i, j, M, N, none, bias, [&](Place place, Values values, const Elems&, const Elems& by_column) {
        float slope;
        if (bias) add(values, by_column);
        place.put(f, values);
#pragma unroll
        for (int e = 0; e < WIDE; e++) values[e] = values[e] * phi(values[e], EXACT, slope);
        place.put(a, values);
    });
}

extern "C" __global__ void __launch_bounds__(THREADS)
    mma_dgelu(elem* df, const elem* dy, const elem* weight, const elem* f, int M, int N, int K) {
    dependent_start();
    Sums sums = {};
    int i, j;
    my_tile(i, j, M, K);
    Left<true> left(dy, M, N, 0, warp_i(), i, 0, N);
    Right<false> right(weight, K, N, TILE_I * TILE_K, warp_j(), j, 0, N);
    multiply<false>(sums, left, right, 0, N);
    deliver(sums, i, j, M, K, f, nullptr, [&](Place place, Values values, const Elems& before, const Elems&) {
#pragma unroll
        for (int e = 0; e < WIDE; e++) values[e] *= gelu_slope(before[e], EXACT);
        place.put(df, values);
    });
}
