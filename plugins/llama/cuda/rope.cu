// Rotary positions for x (B, T, heads, D), of which the first `turned` heads are turned and the others copied:
//     y1 = x1 cos(a) - x2 sin(a),  y2 = x2 cos(a) + x1 sin(a),  x1, x2 the columns of a pair. Formulas: ../rope.py.
// The gradient is dy turned back (sign = -1). While decoding, row b continues at start[b]. y may share x's memory.
//
// naive_turn   one thread a pair, one sine and cosine for each of a token's heads: limited by them, and by small loads
// token_turn   one thread block a token: sines and cosines once for all its heads, 16 bytes a thread where the
//              halves allow it; limited by memory bandwidth

#include "angle.cuh"

#include "core/width.cuh"

__device__ inline int position_of(u64 token, const int* start, int T) {
    return token % T + (start ? start[token / T] : 0);
}

// --- naive ---------------------------------------------------------------------------------------------------------

extern "C" __global__ void naive_turn(elem* y, const elem* x, const int* start, int sign, int add, u64 pairs, int T,
                                      int turned, int heads) {
    u64 pair = global_thread();
    if (pair >= pairs) return;
    int i = pair % PAIRS, head = pair / PAIRS % heads;
    u64 token = pair / PAIRS / heads, at = (token * heads + head) * D;
    u64 at1 = at + column1(i), at2 = at + column2(i);
    float cos = 1, sin = 0, x1 = x[at1], x2 = x[at2];
    if (head < turned) angle(position_of(token, start, T), i, cos, sin);
    y[at1] = (add ? float(y[at1]) : 0) + x1 * cos - sign * x2 * sin;
    y[at2] = (add ? float(y[at2]) : 0) + x2 * cos + sign * x1 * sin;
}

// --- token ---------------------------------------------------------------------------------------------------------

extern "C" __global__ void token_turn(elem* y, const elem* x, const int* __restrict__ start, int sign, int add, int T,
                                      int turned, int heads) {
    __shared__ float cosines[PAIRS], sines[PAIRS];
    int position = position_of(blockIdx.x, start, T);
    x += (u64)blockIdx.x * heads * D;
    y += (u64)blockIdx.x * heads * D;
    for (int i = threadIdx.x; i < PAIRS; i += blockDim.x) {
        angle(position, i, cosines[i], sines[i]);
        sines[i] *= sign;
    }
    __syncthreads();
    for (int n = threadIdx.x * WIDTH; n < heads * PAIRS; n += blockDim.x * WIDTH) {
        int i = n % PAIRS, head = n / PAIRS, at1 = head * D + column1(i), at2 = head * D + column2(i);
        auto x1 = load<WIDTH>(x + at1), x2 = load<WIDTH>(x + at2);
        Pack<elem, WIDTH> y1 = {}, y2 = {};
        if (add) y1 = load<WIDTH>(y + at1), y2 = load<WIDTH>(y + at2);
        for (int k = 0; k < WIDTH; k++) {
            float cos = head < turned ? cosines[i + k] : 1, sin = head < turned ? sines[i + k] : 0;
            y1[k] = y1[k] + x1[k] * cos - x2[k] * sin;
            y2[k] = y2[k] + x2[k] * cos + x1[k] * sin;
        }
        store(y + at1, y1);
        store(y + at2, y2);
    }
}
