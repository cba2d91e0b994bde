// AdamW over the flat arena of n elements, with g = scale grad and k the number of updates (formulas: ../adamw.py):
//     m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2
//     w -= lr (m / (1 - beta1^k) / (sqrt(v / (1 - beta2^k)) + eps) + weight_decay w)
// w is `master` where there is one, and param its rounding; else w is param. One byte of `group` for 64 elements.
//
// naive_update    one thread an element, which works out the bias corrections in double for itself
// vector_update   four elements a thread, the corrections once a thread block: limited by memory bandwidth, 28 bytes an
//                 element in float; one launch for all parameters

// 1 - beta^k, in double: in float it cancels where beta is near 1
__device__ inline double correction(double beta, int k) {
    double power = 1;
    for (; k > 0; k /= 2, beta *= beta)
        if (k % 2) power *= beta;
    return 1 - power;
}

// What all elements share
struct Shared {
    float lr, scale, of_m, of_v;  // of_m, of_v: 1 / (1 - beta^k)
    __device__ Shared() = default;
    __device__ Shared(const Step* control, double beta1, double beta2) {
        lr = control->lr;
        scale = control->scale;
        of_m = 1 / correction(beta1, control->step);
        of_v = 1 / correction(beta2, control->step);
    }
};

// One element: moments in place, and the new weight
__device__ inline float update(float w, float grad, float& m, float& v, Shared s, double beta1, double beta2, float eps,
                               float decay) {
    float g = s.scale * grad;
    m = (float)beta1 * m + (float)(1 - beta1) * g;
    v = (float)beta2 * v + (float)(1 - beta2) * g * g;
    return w - s.lr * (m * s.of_m / (sqrtf(v * s.of_v) + eps) + decay * w);
}

extern "C" __global__ void naive_update(elem* param, float* master, const float* grad, float* m, float* v,
                                        const u8* group, const Step* control, u64 n, double beta1, double beta2,
                                        float eps, float weight_decay) {
    u64 i = global_thread();
    if (i >= n || control->ok == 0 || !TRAINS(group, i)) return;
    Shared shared(control, beta1, beta2);
    float w = master ? master[i] : float(param[i]), decay = DECAYS(group, i) ? weight_decay : 0;
    w = update(w, grad[i], m[i], v[i], shared, beta1, beta2, eps, decay);
    if (master) master[i] = w;
    param[i] = w;
}

extern "C" __global__ void vector_update(elem* __restrict__ param, float* __restrict__ master,
                                         const float* __restrict__ grad, float* __restrict__ m, float* __restrict__ v,
                                         const u8* __restrict__ group, const Step* __restrict__ control, u64 n,
                                         double beta1, double beta2, float eps, float weight_decay) {
    if (control->ok == 0) return;
    __shared__ Shared shared;
    if (threadIdx.x == 0) shared = Shared(control, beta1, beta2);
    __syncthreads();
    u64 i = global_thread() * 4;
    if (i >= n || !TRAINS(group, i)) return;
    float decay = DECAYS(group, i) ? weight_decay : 0;
    if (i + 4 <= n) {
        auto g = load<4>(grad + i), first = load<4>(m + i), second = load<4>(v + i);
        auto rounded = load<4>(param + i);
        Pack<float, 4> w;
        if (master) w = load<4>(master + i);
        for (int k = 0; k < 4; k++) {
            float old = master ? w[k] : float(rounded[k]);
            w[k] = update(old, g[k], first[k], second[k], shared, beta1, beta2, eps, decay);
            rounded[k] = w[k];
        }
        if (master) store(master + i, w);
        store(param + i, rounded);
        store(m + i, first);
        store(v + i, second);
    } else {
        for (; i < n; i++) {
            float w = master ? master[i] : float(param[i]);
            w = update(w, grad[i], m[i], v[i], shared, beta1, beta2, eps, decay);
            if (master) master[i] = w;
            param[i] = w;
        }
    }
}
