#pragma once
// Sums of columns in two launches and a fixed order, so that bits repeat: slice_sums has a slice of the rows a thread
// block, enough of them to fill a GPU, and add_slices or fold_slices adds the slices up. Grids: core.kernels.columns.

// partials: (slices, N, columns), N sums of each column; block (32, 8): 32 columns, every 8th row of a slice.
// term(sums, row, c) adds a row's terms for column c to float sums[N].
template <int N, class Term>
__device__ inline void slice_sums(float* partials, int rows, int columns, int slice, Term term) {
    __shared__ float parts[N][8][32];
    int c = blockIdx.x * 32 + threadIdx.x, last = min((blockIdx.y + 1) * slice, rows);
    float sums[N] = {};
    for (int row = blockIdx.y * slice + threadIdx.y; row < last && c < columns; row += 8) term(sums, row, c);
    for (int n = 0; n < N; n++) parts[n][threadIdx.y][threadIdx.x] = sums[n];
    __syncthreads();
    if (threadIdx.y >= N || c >= columns) return;
    float sum = 0;
    for (int i = 0; i < 8; i++) sum += parts[threadIdx.y][i][threadIdx.x];
    partials[((u64)blockIdx.y * N + threadIdx.y) * columns + c] = sum;
}

// out: (columns), added to if `add`; of each slice, the floats from `partials` on, `stride` further with each slice.
// One thread a column.
__device__ inline void add_slices(float* out, const float* partials, int slices, u64 stride, int columns, int add) {
    u64 c = global_thread();
    if (c >= columns) return;
    float sum = add ? out[c] : 0;
    for (int i = 0; i < slices; i++) sum += partials[i * stride + c];
    out[c] = sum;
}

// The same with 32 threads a column, for many slices: block (32, 32), 32 columns.
__device__ inline void fold_slices(float* out, const float* partials, int slices, u64 stride, int columns, int add) {
    __shared__ float parts[32][33];
    int c = blockIdx.x * 32 + threadIdx.x;
    float sum = 0;
    for (int i = threadIdx.y; i < slices && c < columns; i += 32) sum += partials[i * stride + c];
    parts[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    sum = warp_sum(parts[threadIdx.x][threadIdx.y]);  // a warp has a column now
    c = blockIdx.x * 32 + threadIdx.y;
    if (threadIdx.x == 0 && c < columns) out[c] = sum + (add ? out[c] : 0);
}
