// Gradients of the weight and of the bias of a linear map on tensor cores, for x (M, K), dy (M, N), dweight (N, K), in
// float: dweight = dy^T x, dbias = sum of dy over its rows. Formulas: ../matmul.py.
//
// mma_dweight    both: float units sum the rows of dy from the fragments, while tensor cores are busy with them
//
// The product of core/mma_product.cuh with two operands that are turned on the way, so that nothing is transposed in
// memory. There are few tiles of dweight, and a long sum: it is cut into slices of rows, which fill the chip, and the
// thread block that ends last adds the slices in their order. Limited by mma.sync itself.

#include "core/mma_results.cuh"

// One slice of a tile of dweight; TOTALS: the tile's rows of dbias, too
template <bool TOTALS>
__device__ inline void dweight_tile(float* dweight, float* dbias, const elem* dy, const elem* x, float* partial,
                                    u32* counters, int i, int j, int M, int N, int K, int slice, int add_dweight,
                                    int add_bias) {
    Sums sums = {};
    int lane = threadIdx.x % 32, k = blockIdx.y * slice, end = min(u32(k) + slice, u32(M));
    Left<false> left(dy, N, M, 0, warp_i(), i, k, end);
    Right<false> right(x, K, M, TILE_I * TILE_K, warp_j(), j, k, end);
    multiply<TOTALS>(sums, left, right, k, end - k);
    asm volatile("" : "+r"(N), "+r"(K));  // all of i and j again, instead of in registers meanwhile, which are full
    my_tile(i, j, N, K);
    if (gridDim.y > 1 && !collect<TOTALS>(sums, partial, counters)) return;
    if (TOTALS && warp_j() == 0) {
        for (int r = 0; r < BLOCKS_I * 2; r++) {
            u32 n = i + warp_i() + r * 8 + lane / 4;
            float sum = sums.row(r);
            if (lane % 4 == 0 && n < N) dbias[n] = sum + (add_bias ? dbias[n] : 0);
        }
    }
    if (!dweight) return;
    const float* old = add_dweight ? dweight : nullptr;
    deliver(sums, i, j, N, K, old, nullptr, [&](Place place, Values values, const Floats& before, const Elems&) {
        if (old) add(values, before);
        place.put(dweight, values);
    });
}

// dweight and dbias may be null. Thread blocks (tiles of dweight, slices of the rows of dy and x); partial: all Sums of
// all of them, counters: one for each tile; neither is touched if there is one slice
extern "C" __global__ void __launch_bounds__(THREADS, 1)  // 1: without it, spills on Blackwell
    mma_dweight(float* dweight, float* dbias, const elem* dy, const elem* x, float* partial, u32* counters, int M,
                int N, int K, int slice, int add_dweight, int add_bias) {
    dependent_start();
    int i, j;
    my_tile(i, j, N, K);
    if (dbias && j == 0)
        dweight_tile<true>(dweight, dbias, dy, x, partial, counters, i, j, M, N, K, slice, add_dweight, add_bias);
    else
        dweight_tile<false>(dweight, nullptr, dy, x, partial, counters, i, j, M, N, K, slice, add_dweight, add_bias);
}
