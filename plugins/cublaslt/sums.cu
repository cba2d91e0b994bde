// The parts of a bias gradient and a residual that cuBLASLt's epilogues lack: y = r + x weight^T + bias, dbias = sum of dy
// over its rows, dr = dy. Formulas: ops/matmul.py, ops/matmul_add.py.
//
// column_sums    one thread a column of dy (M, N), where the weight does not train and no product passes dy
// add_sums       dbias (N) += an epilogue's result, since that overwrites
// residual       dr = dy, where r's gradient does not share dy's memory; one thread an element

extern "C" __global__ void column_sums(float* dbias, const elem* dy, int M, int N, int add) {
    u64 n = global_thread();
    if (n >= N) return;
    float sum = 0;
    for (int m = 0; m < M; m++) sum += dy[(u64)m * N + n];
    dbias[n] = sum + (add ? dbias[n] : 0);
}

extern "C" __global__ void add_sums(float* dbias, const float* sums, int N) {
    u64 n = global_thread();
    if (n < N) dbias[n] += sums[n];
}

extern "C" __global__ void residual(elem* dr, const elem* dy, int N, int add) {
    int n = blockIdx.y * blockDim.x + threadIdx.x;
    u64 at = (u64)blockIdx.x * N + n;
    if (n < N) dr[at] = dy[at] + (add ? float(dr[at]) : 0);
}
