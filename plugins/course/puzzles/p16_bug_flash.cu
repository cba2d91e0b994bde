// FIND THE BUG, then read the rest: causal attention without storing a score. y = softmax(q k^T / sqrt(8)) v, (T, 8)
// each, one head. A thread has one query; a thread block of 64 walks over the keys in tiles of 16 in shared memory.
#include <math.h>

extern "C" __global__ void flash(float* y, const float* q, const float* k, const float* v, int T) {
    __shared__ float keys[16][9], values[16][9];
    int i = blockIdx.x * 64 + threadIdx.x, column = threadIdx.x % 8;
    float mine[8], out[8] = {}, top = -INFINITY, sum = 0;
    for (int d = 0; d < 8; d++) mine[d] = i < T ? q[i * 8 + d] : 0;
    for (int first = 0; first < blockIdx.x * 64 + 64; first += 16) {
        //[ fetch a tile of keys and values, wait, weigh it, wait
        for (int r = threadIdx.x / 8; r < 16; r += 8) {
            keys[r][column] = first + r < T ? k[(first + r) * 8 + column] : 0;
            values[r][column] = first + r < T ? v[(first + r) * 8 + column] : 0;
        }
        __syncthreads();
        for (int r = 0; r < 16 && first + r <= i; r++) {
            float s = 0;
            for (int d = 0; d < 8; d++) s += mine[d] * keys[r][d];
            s *= 0.35355339f;
            float higher = fmaxf(top, s), shrink = expf(top - higher), p = expf(s - higher);
            sum = sum * shrink + p;
            for (int d = 0; d < 8; d++) out[d] = out[d] * shrink + p * values[r][d];
            top = higher;
        }
        __syncthreads();
        //]
    }
    if (i < T) for (int d = 0; d < 8; d++) y[i * 8 + d] = out[d] / sum;
}
