// FIND THE BUG. Softmax of a row, a thread block of 256 a row. Once in a thousand runs a row is wrong. Which thread may
// still read `scratch` when another one writes it?
#include <math.h>

__device__ float across(float v, float* scratch, bool sum) {
    for (int o = 16; o > 0; o /= 2) {
        float other = __shfl_xor_sync(0xffffffff, v, o);
        v = sum ? v + other : fmaxf(v, other);
    }
    //[ something is missing somewhere in here
    __syncthreads();
    //]
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = v;
    __syncthreads();
    float all = scratch[0];
    for (int w = 1; w < 8; w++) all = sum ? all + scratch[w] : fmaxf(all, scratch[w]);
    return all;
}

extern "C" __global__ void softmax(float* y, const float* x, int n) {
    __shared__ float scratch[8];
    const float* row = x + (size_t)blockIdx.x * n;
    float top = -INFINITY, sum = 0;
    for (int i = threadIdx.x; i < n; i += 256) top = fmaxf(top, row[i]);
    top = across(top, scratch, false);
    for (int i = threadIdx.x; i < n; i += 256) sum += expf(row[i] - top);
    sum = across(sum, scratch, true);
    for (int i = threadIdx.x; i < n; i += 256) y[(size_t)blockIdx.x * n + i] = expf(row[i] - top) / sum;
}
