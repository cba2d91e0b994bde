// Learned positions: y[b, i] = x[b, i] + weight[i] for x (B, T, C), weight (length, C); while decoding, row b starts at
// position start[b]. Backward: dx = dy, dweight[i] = sum over b of dy[b, i], 0 from position T on.
// Formulas: ../position.py.
//
// naive_forward, naive_dx     one thread an element
// naive_dweight               one thread an element of dweight, rows of the batch in order, so that bits repeat
// vector_forward, vector_dx,  the same with 16 bytes a thread where C is a multiple of them: limited by memory
// vector_dweight              bandwidth

#include "core/width.cuh"

// --- naive ---------------------------------------------------------------------------------------------------------

extern "C" __global__ void naive_forward(elem* y, const elem* x, const elem* weight, const int* start, int B, int T,
                                         int C) {
    u64 i = global_thread();
    if (i >= (u64)B * T * C) return;
    u64 token = i / C, c = i % C;
    int position = token % T + (start ? start[token / T] : 0);
    y[i] = x[i] + weight[(u64)position * C + c];
}

extern "C" __global__ void naive_dx(elem* dx, const elem* dy, int B, int T, int C, int add) {
    u64 i = global_thread();
    if (i < (u64)B * T * C) dx[i] = (add ? float(dx[i]) : 0) + dy[i];
}

extern "C" __global__ void naive_dweight(float* dweight, const elem* dy, int B, int T, int C, int length, int add) {
    u64 i = global_thread();  // of (length, C); dy's rows start with the same T * C elements
    if (i >= (u64)length * C) return;
    float sum = add ? dweight[i] : 0;
    for (int b = 0; b < B && i < (u64)T * C; b++) sum += dy[(u64)b * T * C + i];
    dweight[i] = sum;
}

// --- vector --------------------------------------------------------------------------------------------------------

extern "C" __global__ void vector_forward(elem* y, const elem* x, const elem* weight, const int* start, int B, int T,
                                          int C) {
    dependent_start();
    u64 i = global_thread() * WIDTH;
    if (i >= (u64)B * T * C) return;
    u64 token = i / C, c = i % C;
    int position = token % T + (start ? start[token / T] : 0);
    auto out = load<WIDTH>(x + i), row = load<WIDTH>(weight + (u64)position * C + c);
    for (int k = 0; k < WIDTH; k++) out[k] = out[k] + row[k];
    store(y + i, out);
}

extern "C" __global__ void vector_dx(elem* dx, const elem* dy, int B, int T, int C, int add) {
    dependent_start();
    u64 i = global_thread() * WIDTH;
    if (i >= (u64)B * T * C) return;
    auto out = load<WIDTH>(dy + i);
    if (add) {
        auto held = load<WIDTH>(dx + i);
        for (int k = 0; k < WIDTH; k++) out[k] = held[k] + out[k];
    }
    store(dx + i, out);
}

extern "C" __global__ void vector_dweight(float* dweight, const elem* dy, int B, int T, int C, int length, int add) {
    dependent_start();
    u64 i = global_thread() * WIDTH;
    if (i >= (u64)length * C) return;
    auto sums = held(dweight + i, add);
    for (int b = 0; b < B && i < (u64)T * C; b++) {
        auto row = load<WIDTH>(dy + (u64)b * T * C + i);
        for (int k = 0; k < WIDTH; k++) sums[k] += row[k];
    }
    store(dweight + i, sums);
}
