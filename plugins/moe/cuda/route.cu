// The k largest of a row of N logits, the largest first, and the softmax over them. Formulas: ../route.py.
//
// naive_forward, naive_dx   one thread a row: N and k are so small that a row is a few loads, and all of it is as
//                           little beside the experts' matrices

// share, expert: (rows, k); logits: (rows, N)
extern "C" __global__ void naive_forward(elem* share, int* expert, const elem* logits, int rows, int N, int k) {
    u64 row = global_thread();
    if (row >= rows) return;
    logits += row * N;
    share += row * k;
    expert += row * k;
    for (int j = 0; j < k; j++) {
        int best = -1;
        for (int n = 0; n < N; n++) {
            bool taken = false;
            for (int i = 0; i < j; i++) taken |= expert[i] == n;
            if (!taken && (best < 0 || logits[n] > logits[best])) best = n;  // of equal ones the first
        }
        expert[j] = best;
    }
    float top = logits[expert[0]], sum = 0;
    for (int j = 0; j < k; j++) sum += expf(logits[expert[j]] - top);
    for (int j = 0; j < k; j++) share[j] = expf(logits[expert[j]] - top) / sum;
}

// dlogits: (rows, N); dshare: (rows, k)
extern "C" __global__ void naive_dx(elem* dlogits, const elem* dshare, const elem* share, const int* expert, int add,
                                    int rows, int N, int k) {
    u64 row = global_thread();
    if (row >= rows) return;
    dlogits += row * N;
    dshare += row * k;
    share += row * k;
    expert += row * k;
    float along = 0;  // sum of share * dshare
    for (int j = 0; j < k; j++) along += share[j] * dshare[j];
    if (!add)
        for (int n = 0; n < N; n++) dlogits[n] = 0;
    for (int j = 0; j < k; j++) {
        elem& dz = dlogits[expert[j]];
        dz = dz + share[j] * (dshare[j] - along);
    }
}
