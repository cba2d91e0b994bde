// log(sum of exp(x)) of a row in ONE pass, a warp a row. A lane has seen some of the elements; when a larger one turns up,
// the sum so far is too large by exp(old - new)... or too small?
#include <math.h>

extern "C" __global__ void lse(float* y, const float* x, int n) {
    float top = -INFINITY, sum = 0;
    const float* row = x + (size_t)blockIdx.x * n;
    for (int i = threadIdx.x; i < n; i += 32) {
        //[ one more element: new top, new sum
        float higher = fmaxf(top, row[i]);
        sum = sum * expf(top - higher) + expf(row[i] - higher);
        top = higher;
        //]
    }
    float all = top;
    for (int o = 16; o > 0; o /= 2) all = fmaxf(all, __shfl_xor_sync(0xffffffff, all, o));
    //[ the lanes' sums have different tops
    if (sum > 0) sum *= expf(top - all);
    //]
    for (int o = 16; o > 0; o /= 2) sum += __shfl_xor_sync(0xffffffff, sum, o);
    if (threadIdx.x == 0) y[blockIdx.x] = all + logf(sum);
}
