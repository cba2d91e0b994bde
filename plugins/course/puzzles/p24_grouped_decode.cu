// One decoding step of grouped-query attention. Row b of the batch has start[b] tokens in its cache and gets one more; its
// keys and values are (B, S, K, 32), and the places after the row's own tokens have old rubbish. K key heads serve
// K * G query heads: query heads g * G to g * G + G - 1 share key head g. A thread block has one b and one g; warp w of it
// is the query head g * G + w, and a lane is a column. q and y are (B, K * G, 32), k and v are (B, K, 32).
#include <math.h>

extern "C" __global__ void decode(float* y, float* keys, float* values, const float* q, const float* k, const float* v,
                                  const int* start, int S, int K) {
    int g = blockIdx.x, b = blockIdx.y, d = threadIdx.x, n = start[b];
    int h = (b * K + g) * blockDim.y + threadIdx.y;  // the row of q and y
    float mine = q[h * 32 + d], top = -INFINITY, sum = 0, out = 0;
    //[ the new token joins the cache; then the online softmax over all tokens of this row
    if (threadIdx.y == 0) {
        keys[((b * S + n) * K + g) * 32 + d] = k[(b * K + g) * 32 + d];
        values[((b * S + n) * K + g) * 32 + d] = v[(b * K + g) * 32 + d];
    }
    __syncthreads();
    for (int j = 0; j <= n; j++) {
        int at = ((b * S + j) * K + g) * 32 + d;
        float s = mine * keys[at];
        for (int o = 16; o > 0; o /= 2) s += __shfl_xor_sync(0xffffffff, s, o);
        s *= 0.17677669f;  // 1 / sqrt(32)
        float higher = fmaxf(top, s), shrink = expf(top - higher), p = expf(s - higher);
        sum = sum * shrink + p;
        out = out * shrink + p * values[at];
        top = higher;
    }
    //]
    y[h * 32 + d] = out / sum;
}
