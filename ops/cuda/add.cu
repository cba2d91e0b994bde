// Sum of two tensors of n elements: y = a + b. Backward: da = db = dy, which needs no launch where the plan takes the
// alias; where a gradient is added to, or wanted in memory of its own, it is a copy or a sum.
//
// naive_forward, naive_pass     one thread an element
// vector_forward, vector_pass   16 bytes a thread: limited by memory bandwidth, with no arithmetic to speak of

constexpr int WIDTH = 16 / sizeof(elem);

extern "C" __global__ void naive_forward(elem* y, const elem* a, const elem* b, u64 n) {
    u64 i = global_thread();
    if (i < n) y[i] = a[i] + b[i];
}

extern "C" __global__ void naive_pass(elem* dx, const elem* dy, u64 n, int add) {
    u64 i = global_thread();
    if (i < n) dx[i] = (add ? float(dx[i]) : 0) + dy[i];
}

extern "C" __global__ void vector_forward(elem* y, const elem* a, const elem* b, u64 n) {
    dependent_start();
    u64 i = global_thread() * WIDTH;
    if (i + WIDTH <= n) {
        auto x = load<WIDTH>(a + i), r = load<WIDTH>(b + i);
        for (int k = 0; k < WIDTH; k++) x[k] = x[k] + r[k];
        store(y + i, x);
    } else {
        for (; i < n; i++) y[i] = a[i] + b[i];
    }
}

extern "C" __global__ void vector_pass(elem* dx, const elem* dy, u64 n, int add) {
    dependent_start();
    u64 i = global_thread() * WIDTH;
    if (i + WIDTH <= n) {
        auto out = load<WIDTH>(dy + i);
        if (add) {
            auto held = load<WIDTH>(dx + i);
            for (int k = 0; k < WIDTH; k++) out[k] = held[k] + out[k];
        }
        store(dx + i, out);
    } else {
        for (; i < n; i++) dx[i] = (add ? float(dx[i]) : 0) + dy[i];
    }
}
