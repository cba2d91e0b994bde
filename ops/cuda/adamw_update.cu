// AdamW over the flat arena of n elements, with g = scale grad and k the number of updates (formulas: ../adamw.py):
//     m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2
//     w -= lr (m / (1 - beta1^k) / (sqrt(v / (1 - beta2^k)) + eps) + weight_decay w)
// lr: the step's times lr_factor. w: `master`, of which param is the rounding; or param. A byte of `group`: 64 numbers.
//
// naive_update      one thread an element, which works out the bias corrections in double for itself
// vector_numbers    one thread: the numbers that all elements share, once a step, with all work in double
// vector_update     four elements a thread, in float alone: limited by memory bandwidth, 28 bytes an element in float;
//                   one launch for all parameters

// 1 - beta^k, in double: in float it cancels where beta is near 1
__device__ inline double correction(double beta, int k) {
    double power = 1;
    for (; k > 0; k /= 2, beta *= beta)
        if (k % 2) power *= beta;
    return 1 - power;
}

// The numbers of a step that all elements share. ok: 0 where no element changes
struct alignas(16) Numbers {
    float lr, scale, of_m, of_v;  // of_m, of_v: 1 / (1 - beta^k)
    u32 ok;
};

__device__ inline Numbers numbers_of(const Step* control, double beta1, double beta2, float lr_factor) {
    Numbers s;
    s.lr = (float)control->lr * lr_factor;
    s.scale = control->scale;
    s.of_m = 1 / correction(beta1, control->step);
    s.of_v = 1 / correction(beta2, control->step);
    s.ok = control->ok != 0;
    return s;
}

// A moment's factor, and that of the gradient: beta and 1 - beta, each the rounding of a double
struct Beta {
    float old, now;
    __device__ explicit Beta(double beta) : old(beta), now(1 - beta) {}
    __device__ Beta(float old, float now) : old(old), now(now) {}
};

// One element: moments in place, and the new weight
__device__ inline float update(float w, float grad, float& m, float& v, const Numbers& s, Beta first, Beta second,
                               float eps, float decay) {
    float g = s.scale * grad;
    m = fmaf(first.now, g, first.old * m);  // which product is rounded is not left to the compiler
    v = fmaf(second.now * g, g, second.old * v);
    return w - s.lr * (m * s.of_m / (sqrtf(v * s.of_v) + eps) + decay * w);
}

extern "C" __global__ void naive_update(elem* param, float* master, const float* grad, float* m, float* v,
                                        const u8* group, const Step* control, u64 n, double beta1, double beta2,
                                        float eps, float weight_decay, float lr_factor) {
    u64 i = global_thread();
    if (i >= n || control->ok == 0 || !TRAINS(group, i)) return;
    Numbers numbers = numbers_of(control, beta1, beta2, lr_factor);
    float w = master ? master[i] : float(param[i]), decay = DECAYS(group, i) ? weight_decay : 0;
    w = update(w, grad[i], m[i], v[i], numbers, Beta(beta1), Beta(beta2), eps, decay);
    if (master) master[i] = w;
    param[i] = w;
}

extern "C" __global__ void vector_numbers(Numbers* numbers, const Step* control, double beta1, double beta2,
                                          float lr_factor) {
    dependent_start();
    *numbers = numbers_of(control, beta1, beta2, lr_factor);
}

// beta1 and beta2 as `Beta` has them: old, now
extern "C" __global__ void vector_update(elem* param, float* master, const float* grad, float* m, float* v,
                                         const u8* group, const Numbers* numbers, u64 n, float old1, float now1,
                                         float old2, float now2, float eps, float weight_decay) {
    dependent_start();
    Numbers s = *numbers;
    u64 i = global_thread() * 4;
    if (i >= n || s.ok == 0 || !TRAINS(group, i)) return;
    float decay = DECAYS(group, i) ? weight_decay : 0;
    Beta beta1(old1, now1), beta2(old2, now2);
    if (i + 4 <= n) {
        auto g = load<4>(grad + i), first = load<4>(m + i), second = load<4>(v + i);
        auto rounded = load<4>(param + i);
        Pack<float, 4> w;
        if (master) w = load<4>(master + i);
        for (int k = 0; k < 4; k++) {
            float old = master ? w[k] : float(rounded[k]);
            w[k] = update(old, g[k], first[k], second[k], s, beta1, beta2, eps, decay);
            rounded[k] = w[k];
        }
        if (master) store(master + i, w);
        store(param + i, rounded);
        store(m + i, first);
        store(v + i, second);
    } else {
#pragma unroll 1
        for (; i < n; i++) {
            float w = master ? master[i] : float(param[i]);
            w = update(w, grad[i], m[i], v[i], s, beta1, beta2, eps, decay);
            if (master) master[i] = w;
            param[i] = w;
        }
    }
}
