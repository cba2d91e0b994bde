// Muon's update of one matrix of A x B, n elements in all (formulas: ../muon.py). X is the direction, `small` rows of
// `large`: the matrix, or its transpose where it has more rows than columns, by strides and without a copy.
//
// direction       momentum in place, X = the matrix to orthogonalize, and sums of X X by thread block
// length          1 / (|X| + tiny), by one thread block: a fixed order, so that bits repeat
// unit            X times that
// naive_product   out = keep base + factor P Q, one thread an element: limited by loads, 8 bytes for 2 FLOPs
// tiled_product   the same from 32 x 32 tiles in shared memory: a 32nd of the loads; limited by shared memory
// step            the weights along X
//
// A Newton-Schulz round is three products: S = X X', poly = b S + c S S, X = a X + poly X.

#include "muon.cuh"

constexpr int TILE = 32;

extern "C" __global__ void direction(float* x, float* m, float* sums, const float* grad, const Step* control, u64 n,
                                     float momentum, int nesterov) {
    u64 i = global_thread();
    float u = 0;
    if (i < n) {
        float g = (float)control->scale * grad[i], mean = momentum * m[i] + (1 - momentum) * g;
        u = nesterov ? momentum * mean + (1 - momentum) * g : mean;
        x[i] = u;
        if (control->ok != 0) m[i] = mean;
    }
    float sum = block_sum(u * u);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

extern "C" __global__ void length(float* inverse, const float* sums, int blocks, float tiny) {
    float sum = 0;
    for (u64 i = threadIdx.x; i < blocks; i += blockDim.x) sum += sums[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *inverse = 1 / (sqrtf(sum) + tiny);
}

extern "C" __global__ void unit(float* x, const float* inverse, u64 n) {
    u64 i = global_thread();
    if (i < n) x[i] *= *inverse;
}

// P (rows, inner) and Q (inner, columns) by their strides; out and base have one layout
extern "C" __global__ void __launch_bounds__(TILE * TILE)
    naive_product(float* out, const float* base, const float* p, const float* q, float keep, float factor, int out_row,
                  int out_column, int p_row, int p_column, int q_row, int q_column, int rows, int columns, int inner) {
    u64 row = blockIdx.y * TILE + threadIdx.y, column = blockIdx.x * TILE + threadIdx.x;
    if (row >= rows || column >= columns) return;
    float sum = 0;
    for (u64 k = 0; k < inner; k++) sum += p[row * p_row + k * p_column] * q[k * q_row + column * q_column];
    u64 at = row * out_row + column * out_column;
    out[at] = keep == 0 ? factor * sum : keep * base[at] + factor * sum;
}

extern "C" __global__ void __launch_bounds__(TILE * TILE)
    tiled_product(float* out, const float* base, const float* p, const float* q, float keep, float factor, int out_row,
                  int out_column, int p_row, int p_column, int q_row, int q_column, int rows, int columns, int inner) {
    __shared__ float left[TILE][TILE + 1], right[TILE][TILE + 1];  // one column more: no bank conflicts
    u32 y = threadIdx.y, x = threadIdx.x;
    u64 row = blockIdx.y * TILE + y, column = blockIdx.x * TILE + x;
    bool by_rows = p_column != 1, by_columns = q_column != 1;  // which index neighbouring threads read along
    float sum = 0;
    for (u64 k = 0; k < inner; k += TILE) {
        u64 r = blockIdx.y * TILE + (by_rows ? x : y), d = k + (by_rows ? y : x);
        left[by_rows ? x : y][by_rows ? y : x] = r < rows && d < inner ? p[r * p_row + d * p_column] : 0;
        u64 c = blockIdx.x * TILE + (by_columns ? y : x), e = k + (by_columns ? x : y);
        right[by_columns ? x : y][by_columns ? y : x] = c < columns && e < inner ? q[e * q_row + c * q_column] : 0;
        __syncthreads();  // the tiles are there
        for (int i = 0; i < TILE; i++) sum += left[y][i] * right[i][x];
        __syncthreads();  // all threads have read them
    }
    if (row >= rows || column >= columns) return;
    u64 at = row * out_row + column * out_column;
    out[at] = keep == 0 ? factor * sum : keep * base[at] + factor * sum;
}

extern "C" __global__ void step(elem* param, float* master, const float* x, const Step* control, u64 n, float size,
                                float weight_decay, float lr_factor) {
    step_along(param, master, x, control, n, size, weight_decay, lr_factor);
}
