#pragma once
// The weights along the direction X, of floats or of 16 bits: both tiers' last launch, one thread an element.

template <class T>
__device__ inline void step_along(elem* param, float* master, const T* x, const Step* control, u64 n, float size,
                                  float weight_decay, float lr_factor) {
    u64 i = global_thread();
    if (i >= n || control->ok == 0) return;
    float w = master ? master[i] : float(param[i]);
    w -= (float)control->lr * lr_factor * (size * x[i] + weight_decay * w);
    if (master) master[i] = w;
    param[i] = w;
}
