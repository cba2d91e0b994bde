// The load-balancing loss: N sum_e load_e P_e, over rows of N logits and k chosen experts. Formulas: ../balance.py.
//
// naive_lse    one thread a row: log sum exp of its logits
// naive_load   one thread block an expert: how often it was chosen and its mean probability, in an order that repeats
// naive_loss   one warp: their products' sum
// naive_dx     one thread a row

// lse: (rows); logits: (rows, N)
extern "C" __global__ void naive_lse(float* lse, const elem* logits, int rows, int N) {
    u64 row = global_thread();
    if (row >= rows) return;
    logits += row * N;
    float top = -INFINITY, sum = 0;
    for (int n = 0; n < N; n++) top = fmaxf(top, logits[n]);
    for (int n = 0; n < N; n++) sum += expf(logits[n] - top);
    lse[row] = top + logf(sum);
}

// load, mean: (N); expert: (rows, k)
extern "C" __global__ void naive_load(float* load, float* mean, const elem* logits, const float* lse, const int* expert,
                                      int rows, int N, int k) {
    int e = blockIdx.x;
    float chosen = 0, sum = 0;
    for (u64 row = threadIdx.x; row < rows; row += blockDim.x) {
        for (int j = 0; j < k; j++) chosen += expert[row * k + j] == e;
        sum += expf(logits[row * N + e] - lse[row]);
    }
    chosen = block_sum(chosen);
    sum = block_sum(sum);
    if (threadIdx.x > 0) return;
    load[e] = chosen / rows;
    mean[e] = sum / rows;
}

extern "C" __global__ void naive_loss(float* loss, const float* load, const float* mean, int N) {
    float sum = 0;
    for (int e = threadIdx.x; e < N; e += 32) sum += load[e] * mean[e];
    sum = warp_sum(sum);
    if (threadIdx.x == 0) *loss = N * sum;
}

// dlogits: (rows, N)
extern "C" __global__ void naive_dx(elem* dlogits, const float* dloss, const elem* logits, const float* lse,
                                    const float* load, int add, int rows, int N) {
    u64 row = global_thread();
    if (row >= rows) return;
    logits += row * N;
    dlogits += row * N;
    float along = 0;  // sum of p * load
    for (int n = 0; n < N; n++) along += expf(logits[n] - lse[row]) * load[n];
    for (int n = 0; n < N; n++) {
        float d = *dloss * N / rows * expf(logits[n] - lse[row]) * (load[n] - along);
        dlogits[n] = (add ? float(dlogits[n]) : 0) + d;
    }
}
