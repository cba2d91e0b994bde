// An embedding's gradient: row v of dE gains dy[t] for every position t whose token is v. Tokens repeat. A thread block
// has one row v of the vocabulary, a thread one column. dE holds the gradient of earlier micro-steps: add to it.
extern "C" __global__ void gather(float* dE, const int* ids, const float* dy, int T, int C) {
    int v = blockIdx.x, c = threadIdx.x;
    //[ which positions belong to this row? the same bits in every run
    float sum = 0;
    for (int t = 0; t < T; t++)
        if (ids[t] == v) sum += dy[t * C + c];
    dE[v * C + c] += sum;
    //]
}
