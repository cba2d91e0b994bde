// y = by * x, n elements, and the gradient likewise: y may share x's memory. Formulas: ../scale.py.
//
// naive_scale    one thread an element: four or two bytes a load
// vector_scale   16 bytes a thread where n allows it: limited by memory bandwidth

#include "core/width.cuh"

extern "C" __global__ void naive_scale(elem* y, const elem* x, float by, int add, u64 n) {
    u64 i = global_thread();
    if (i >= n) return;
    y[i] = (add ? float(y[i]) : 0) + by * x[i];
}

extern "C" __global__ void vector_scale(elem* y, const elem* x, float by, int add, u64 n) {
    u64 i = global_thread() * WIDTH;
    if (i >= n) return;
    auto in = load<WIDTH>(x + i);
    auto out = held(y + i, add);
    for (int k = 0; k < WIDTH; k++) out[k] = out[k] + by * in[k];
    store(y + i, out);
}
