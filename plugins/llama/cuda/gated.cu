// Gated linear units: y = activation(gate) * up for x = [gate | up], x (rows, 2 half), y (rows, half). Formulas:
// ../gated.py. The activation is g s, s = 1 / (1 + exp(-v)): with GELU, v is a cubic in g; without, it is g.
// dgate = dy up s (1 + g (1 - s) v'),  dup = dy g s.  dx may share x's memory.
//
// naive_forward, naive_dx     one thread an element of y: four or two bytes a load
// vector_forward, vector_dx   16 bytes of each half a thread where rows allow it: limited by memory bandwidth
// vector_again                vector_dx and, over dy, y once more where it was not saved: one write and no read

#include "core/width.cuh"

#ifndef GELU
#define GELU 0
#endif

constexpr float SLOPE = 1.5957691216057308f, CUBIC = 0.044715f;  // 2 sqrt(2 / pi)

// v, and its derivative
__device__ inline float inner(float g) { return GELU ? SLOPE * (g + CUBIC * g * g * g) : g; }
__device__ inline float inner_slope(float g) { return GELU ? SLOPE * (1 + 3 * CUBIC * g * g) : 1; }

// --- naive ---------------------------------------------------------------------------------------------------------

extern "C" __global__ void naive_forward(elem* y, const elem* x, int rows, int half) {
    u64 i = global_thread();
    if (i >= (u64)rows * half) return;
    u64 at = i + i / half * half;  // a row of x has two halves
    float gate = x[at], up = x[at + half];
    y[i] = gate / (1 + expf(-inner(gate))) * up;
}

extern "C" __global__ void naive_dx(elem* dx, const elem* dy, const elem* x, int add, int rows, int half) {
    u64 i = global_thread();
    if (i >= (u64)rows * half) return;
    u64 at = i + i / half * half;  // a row of x has two halves
    float gate = x[at], up = x[at + half], above = dy[i], s = 1 / (1 + expf(-inner(gate)));
    dx[at] = (add ? float(dx[at]) : 0) + above * up * s * (1 + gate * (1 - s) * inner_slope(gate));
    dx[at + half] = (add ? float(dx[at + half]) : 0) + above * gate * s;
}

// --- vector --------------------------------------------------------------------------------------------------------

__device__ inline float sigmoid(float x) { return __fdividef(1, 1 + fast_exp(-x)); }

extern "C" __global__ void vector_forward(elem* __restrict__ y, const elem* __restrict__ x, int rows, int half) {
    u64 i = global_thread() * WIDTH;
    if (i >= (u64)rows * half) return;
    u64 at = i + i / half * half;  // a row of x has two halves
    auto gate = load<WIDTH>(x + at), up = load<WIDTH>(x + at + half);
    for (int k = 0; k < WIDTH; k++) gate[k] = gate[k] * sigmoid(inner(gate[k])) * up[k];
    store(y + i, gate);
}

extern "C" __global__ void vector_dx(elem* dx, const elem* __restrict__ dy, const elem* x, int add, int rows, int half) {
    u64 i = global_thread() * WIDTH;
    if (i >= (u64)rows * half) return;
    u64 at = i + i / half * half;  // a row of x has two halves
    auto gate = load<WIDTH>(x + at), up = load<WIDTH>(x + at + half), above = load<WIDTH>(dy + i);
    auto dgate = held(dx + at, add), dup = held(dx + at + half, add);
    for (int k = 0; k < WIDTH; k++) {
        float g = gate[k], s = sigmoid(inner(g)), d = above[k];
        dgate[k] = dgate[k] + d * up[k] * s * (1 + g * (1 - s) * inner_slope(g));
        dup[k] = dup[k] + d * g * s;
    }
    store(dx + at, dgate);
    store(dx + at + half, dup);
}

// dx, x: (rows, 2 half); dy_y: (rows, half), dy that becomes y
extern "C" __global__ void vector_again(elem* __restrict__ dx, elem* __restrict__ dy_y, const elem* __restrict__ x,
                                        int rows, int half) {
    u64 i = global_thread() * WIDTH;
    if (i >= (u64)rows * half) return;
    u64 at = i + i / half * half;  // a row of x has two halves
    auto gate = load<WIDTH>(x + at), up = load<WIDTH>(x + at + half), both = load<WIDTH>(dy_y + i);
    Pack<elem, WIDTH> dgate, dup;
    for (int k = 0; k < WIDTH; k++) {
        float g = gate[k], s = sigmoid(inner(g)), d = both[k];
        dgate[k] = d * up[k] * s * (1 + g * (1 - s) * inner_slope(g));
        dup[k] = d * g * s;
        both[k] = g * s * up[k];
    }
    store(dx + at, dgate);
    store(dx + at + half, dup);
    store(dy_y + i, both);
}
