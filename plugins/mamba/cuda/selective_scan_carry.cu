// The selective scan between its chunks: kernels that need no macro. Formulas: ../selective_scan.py; selective_scan.cu has
// the others, and the place of each in the whole.

// state: of the decode session, or null for one that begins with 0 and is not kept
extern "C" __global__ void carry(float* before, const float* totals, float* state, const elem* A_log, int E, int N,
                                 int chunks) {
    u64 i = global_thread(), all = (u64)E * N;
    if (i >= all) return;
    float A = -expf(A_log[i]), h = state ? state[blockIdx.y * all + i] : 0;
    for (u64 chunk = (u64)blockIdx.y * chunks; chunk < (u64)(blockIdx.y + 1) * chunks; chunk++) {
        float end = before[chunk * all + i];
        before[chunk * all + i] = h;
        h = fast_exp(A * totals[chunk * E + i / N]) * h + end;
    }
    if (state) state[blockIdx.y * all + i] = h;
}

extern "C" __global__ void adjoint_carry(float* carried, const float* totals, const elem* A_log, int E, int N,
                                         int chunks) {
    u64 i = global_thread(), all = (u64)E * N;
    if (i >= all) return;
    float A = -expf(A_log[i]), g = 0;
    for (int back = 1; back <= chunks; back++) {
        u64 chunk = (u64)(blockIdx.y + 1) * chunks - back;
        float passed = carried[chunk * all + i];
        carried[chunk * all + i] = g;
        g = fast_exp(A * totals[chunk * E + i / N]) * g + passed;
    }
}

// out (columns) from parts (rows, columns)
extern "C" __global__ void sum_rows(float* out, const float* parts, int rows, u64 columns, int add) {
    u64 c = global_thread();
    if (c >= columns) return;
    float sum = add ? out[c] : 0;
    for (int row = 0; row < rows; row++) sum += parts[row * columns + c];
    out[c] = sum;
}

// dbc (n elements of rows of `width`) from parts (n / width, blocks, width)
extern "C" __global__ void sum_blocks(elem* dbc, const float* parts, u64 n, int blocks, int width, int add) {
    u64 i = global_thread();
    if (i >= n) return;
    float sum = add ? float(dbc[i]) : 0;
    for (int block = 0; block < blocks; block++) sum += parts[(i / width * blocks + block) * width + i % width];
    dbc[i] = sum;
}
