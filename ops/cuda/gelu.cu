// GELU: y = x phi(x), phi the normal distribution function or GPT-2's approximation by tanh. Formulas: ../gelu.py.
// dx = dy * (phi(x) + x phi'(x)). All tensors have n elements; dx may share dy's memory.
//
// naive_forward, naive_dx     one thread an element: four or two bytes a load, many instructions for the bytes moved
// vector_forward, vector_dx   16 bytes a thread, tanh in one instruction in bf16: limited by memory bandwidth

#include "gelu.cuh"

constexpr int WIDTH = 16 / sizeof(elem);

// --- naive ---------------------------------------------------------------------------------------------------------

extern "C" __global__ void naive_forward(elem* y, const elem* x, u64 n, int exact) {
    u64 i = global_thread();
    if (i >= n) return;
    float value = x[i], slope;
    y[i] = value * (exact ? phi_erf(value, slope) : phi_tanh(value, tanhf(inner(value)), slope));
}

extern "C" __global__ void naive_dx(elem* dx, const elem* dy, const elem* x, u64 n, int exact, int add) {
    u64 i = global_thread();
    if (i >= n) return;
    float value = x[i], slope;
    float phi = exact ? phi_erf(value, slope) : phi_tanh(value, tanhf(inner(value)), slope);
    dx[i] = (add ? float(dx[i]) : 0) + dy[i] * (phi + value * slope);
}

// --- vector --------------------------------------------------------------------------------------------------------

extern "C" __global__ void vector_forward(elem* y, const elem* x, u64 n, int exact) {
    dependent_start();
    u64 i = global_thread() * WIDTH;
    float slope;
    if (i + WIDTH <= n) {
        auto values = load<WIDTH>(x + i);
        for (int k = 0; k < WIDTH; k++) values[k] = values[k] * phi(values[k], exact, slope);
        store(y + i, values);
    } else {
        for (; i < n; i++) y[i] = x[i] * phi(x[i], exact, slope);
    }
}

extern "C" __global__ void vector_dx(elem* dx, const elem* dy, const elem* x, u64 n, int exact, int add) {
    dependent_start();
    u64 i = global_thread() * WIDTH;
    float slope;
    if (i + WIDTH <= n) {
        auto values = load<WIDTH>(x + i), above = load<WIDTH>(dy + i);
        Pack<elem, WIDTH> out;
        if (add) out = load<WIDTH>(dx + i);
        for (int k = 0; k < WIDTH; k++) {
            float value = values[k], p = phi(value, exact, slope);
            out[k] = (add ? float(out[k]) : 0) + above[k] * (p + value * slope);
        }
        store(dx + i, out);
    } else {
        for (; i < n; i++) {
            float value = x[i], p = phi(value, exact, slope);
            dx[i] = (add ? float(dx[i]) : 0) + dy[i] * (p + value * slope);
        }
    }
}
