// Embedding with learned positions: y[b, i] = weight[ids[b, i]] + positions[i], for ids (B, T), y (B, T, C); while
// decoding, row b starts at position start[b]. Formulas: ../embed.py. Backward's kernels are owner_dweight of
// embedding.cu and vector_dweight of position.cu.
//
// vector_embed    16 bytes a thread where C is a multiple of them: y is written once and not read; limited by memory
//                 bandwidth

#include "core/width.cuh"

// blockIdx.x: tokens, blockIdx.y: slices of columns
extern "C" __global__ void vector_embed(elem* y, const int* ids, const elem* weight, const elem* positions,
                                        const int* start, int T, int C) {
    dependent_start();
    int c = (blockIdx.y * blockDim.x + threadIdx.x) * WIDTH, token = blockIdx.x;
    if (c >= C) return;
    int position = token % T + (start ? start[token / T] : 0);
    auto out = load<WIDTH>(weight + (u64)ids[token] * C + c), row = load<WIDTH>(positions + (u64)position * C + c);
    for (int k = 0; k < WIDTH; k++) out[k] = out[k] + row[k];
    store(y + (u64)token * C + c, out);
}
