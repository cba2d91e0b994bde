// y = a + scale b over n elements; da = dy, db = scale dy. One thread an element: limited by memory bandwidth

extern "C" __global__ void lora_forward(elem* y, const elem* a, const elem* b, u64 n, float scale) {
    u64 i = global_thread();
    if (i < n) y[i] = float(a[i]) + scale * float(b[i]);
}

extern "C" __global__ void lora_backward(elem* gradient, const elem* dy, u64 n, float scale, int add) {
    u64 i = global_thread();
    if (i < n) gradient[i] = (add ? float(gradient[i]) : 0) + scale * float(dy[i]);
}
