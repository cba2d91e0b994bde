// y = sum_j share_j x_j for x (rows, k, C), share (rows, k), y (rows, C). Formulas: ../combine.py.
//
// naive_forward, naive_dx     one thread an element: four or two bytes a load
// naive_dshare                one thread a share: neighbouring threads read addresses C apart
// vector_forward, vector_dx   16 bytes a thread where C allows it: limited by memory bandwidth
// vector_dshare               one warp a share, 16 bytes a lane

#include "core/width.cuh"

// --- naive ---------------------------------------------------------------------------------------------------------

extern "C" __global__ void naive_forward(elem* y, const elem* x, const elem* share, int rows, int k, int C) {
    u64 i = global_thread();
    if (i >= (u64)rows * C) return;
    u64 row = i / C, c = i % C;
    float sum = 0;
    for (int j = 0; j < k; j++) sum += share[row * k + j] * x[(row * k + j) * C + c];
    y[i] = sum;
}

extern "C" __global__ void naive_dx(elem* dx, const elem* dy, const elem* share, int add, int rows, int k, int C) {
    u64 i = global_thread();
    if (i >= (u64)rows * C) return;
    u64 row = i / C, c = i % C;
    for (int j = 0; j < k; j++) {
        u64 at = (row * k + j) * C + c;
        dx[at] = (add ? float(dx[at]) : 0) + share[row * k + j] * dy[i];
    }
}

extern "C" __global__ void naive_dshare(elem* dshare, const elem* dy, const elem* x, int add, int rows, int k, int C) {
    u64 i = global_thread();
    if (i >= (u64)rows * k) return;
    float sum = add ? float(dshare[i]) : 0;
    for (int c = 0; c < C; c++) sum += x[i * C + c] * dy[i / k * C + c];
    dshare[i] = sum;
}

// --- vector --------------------------------------------------------------------------------------------------------

extern "C" __global__ void vector_forward(elem* __restrict__ y, const elem* __restrict__ x,
                                          const elem* __restrict__ share, int rows, int k, int C) {
    u64 i = global_thread() * WIDTH;
    if (i >= (u64)rows * C) return;
    u64 row = i / C, c = i % C;
    float sums[WIDTH] = {};
    for (int j = 0; j < k; j++) {
        float part = share[row * k + j];
        auto in = load<WIDTH>(x + (row * k + j) * C + c);
        for (int w = 0; w < WIDTH; w++) sums[w] += part * in[w];
    }
    Pack<elem, WIDTH> out;
    for (int w = 0; w < WIDTH; w++) out[w] = sums[w];
    store(y + i, out);
}

extern "C" __global__ void vector_dx(elem* __restrict__ dx, const elem* __restrict__ dy, const elem* __restrict__ share,
                                     int add, int rows, int k, int C) {
    u64 i = global_thread() * WIDTH;
    if (i >= (u64)rows * C) return;
    u64 row = i / C, c = i % C;
    auto above = load<WIDTH>(dy + i);
    for (int j = 0; j < k; j++) {
        u64 at = (row * k + j) * C + c;
        float part = share[row * k + j];
        auto out = held(dx + at, add);
        for (int w = 0; w < WIDTH; w++) out[w] = out[w] + part * above[w];
        store(dx + at, out);
    }
}

// block (32, warps): one warp a share
extern "C" __global__ void vector_dshare(elem* __restrict__ dshare, const elem* __restrict__ dy,
                                         const elem* __restrict__ x, int add, int rows, int k, int C) {
    u64 i = global_row();
    if (i >= (u64)rows * k) return;
    x += i * C;
    dy += i / k * C;
    float sum = 0;
    for (int c = threadIdx.x * WIDTH; c < C; c += 32 * WIDTH) {
        auto in = load<WIDTH>(x + c), above = load<WIDTH>(dy + c);
        for (int w = 0; w < WIDTH; w++) sum += in[w] * above[w];
    }
    sum = warp_sum(sum);
    if (threadIdx.x == 0) dshare[i] = (add ? float(dshare[i]) : 0) + sum;
}
