// Muon's matrix products on tensor cores, 16 bits in and float sums (formulas: ../muon.py; momentum and length:
// muon_update.cu).
// X is the direction, `small` rows of `large`; with ACROSS the matrix has more rows than columns, and a row of X is a
// column of it. Operands are turned on the way from shared memory: no transpose is written.
//
// mma_unit      X = the matrix to orthogonalize times 1 / its length, in bf16
// mma_square    S = X X'
// mma_poly      poly = b S + c S S; S is symmetric
// mma_blend     the next X = a X + poly X
// mma_step      the weights along X
//
// The products are those of core/mma_product.cuh: 2,048 multiply-adds an instruction where `tiled` has one a lane, from
// two loads of shared memory. The iteration needs no more than bf16: it lifts all singular values to about 1, from any.

#include "core/mma_results.cuh"
#include "muon.cuh"

#ifndef ACROSS
#define ACROSS 0
#endif

extern "C" __global__ void mma_unit(elem* out, const float* x, const float* inverse, u64 n) {
    u64 i = global_thread();
    if (i < n) out[i] = x[i] * *inverse;
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) mma_square(elem* s, const elem* x, int small, int large) {
    Sums sums = {};
    int i, j;
    my_tile(i, j, small, small);
    Left<!ACROSS> left(x, small, large, 0, warp_i(), i, 0, large);
    Right<!ACROSS> right(x, small, large, TILE_I * TILE_K, warp_j(), j, 0, large);
    multiply<false>(sums, left, right, 0, large);
    const elem* none = nullptr;
    deliver(sums, i, j, small, small, none, none, [&](Place place, Values values, const Elems&, const Elems&) {
        place.put(s, values);
    });
}

// out = keep before + factor sums
__device__ inline void blend(const Sums& sums, int i, int j, int rows, int columns, elem* out, const elem* before,
                             float keep, float factor) {
    deliver(sums, i, j, rows, columns, before, (const elem*)nullptr,
            [&](Place place, Values values, const Elems& old, const Elems&) {
#pragma unroll
                for (int e = 0; e < WIDE; e++) values[e] = keep * old[e] + factor * values[e];
                place.put(out, values);
            });
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    mma_poly(elem* poly, const elem* s, float b, float c, int small) {
    Sums sums = {};
    int i, j;
    my_tile(i, j, small, small);
    Left<true> left(s, small, small, 0, warp_i(), i, 0, small);
    Right<true> right(s, small, small, TILE_I * TILE_K, warp_j(), j, 0, small);
    multiply<false>(sums, left, right, 0, small);
    blend(sums, i, j, small, small, poly, s, b, c);
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    mma_blend(elem* next, const elem* x, const elem* poly, float a, int small, int large) {
    Sums sums = {};
    int i, j;
#if ACROSS
    my_tile(i, j, large, small);
    Left<true> left(x, large, small, 0, warp_i(), i, 0, small);
    Right<true> right(poly, small, small, TILE_I * TILE_K, warp_j(), j, 0, small);
#else
    my_tile(i, j, small, large);
    Left<true> left(poly, small, small, 0, warp_i(), i, 0, small);
    Right<false> right(x, large, small, TILE_I * TILE_K, warp_j(), j, 0, small);
#endif
    multiply<false>(sums, left, right, 0, small);
    blend(sums, i, j, ACROSS ? large : small, ACROSS ? small : large, next, x, a, 1);
}

extern "C" __global__ void mma_step(elem* param, float* master, const elem* x, const Step* control, u64 n, float size,
                                    float weight_decay, float lr_factor) {
    step_along(param, master, x, control, n, size, weight_decay, lr_factor);
}
