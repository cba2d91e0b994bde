// Cross-entropy: loss = lse - logits[target], lse = log sum exp(logits), over the first `classes` of a row's P columns.
// dlogits = dloss * (exp(logits - lse) - [target]), 0 in the padding and where the target is negative. Formulas:
// ../cross_entropy.py. logits, dlogits: (rows, P), may share memory; targets, loss, lse, dloss: (rows)
//
// naive_forward      one thread a row: two passes, neighbouring threads P columns apart
// naive_dlogits      one thread an element
// twopass_forward    one thread block a row, 16 bytes a thread: maximum, then sum, and the row is read for each
// block_forward      the same with maximum and sum in one pass: one read
// block_dlogits      one thread block a row, the gradient in the logits' memory: one read, one write, no second tensor
// block_both         both in one launch: the row comes from cache the second time. Limited by memory bandwidth

#include "core/width.cuh"

// --- naive ---------------------------------------------------------------------------------------------------------

extern "C" __global__ void naive_forward(float* loss, float* lse, const elem* logits, const int* targets, int rows,
                                         int P, int classes) {
    u64 row = global_thread();
    if (row >= rows) return;
    logits += row * P;
    float top = -INFINITY, sum = 0;
    for (int c = 0; c < classes; c++) top = fmaxf(top, logits[c]);
    for (int c = 0; c < classes; c++) sum += expf(logits[c] - top);
    lse[row] = top + logf(sum);
    int target = targets[row];
    loss[row] = target < 0 ? 0 : lse[row] - logits[target];
}

extern "C" __global__ void naive_dlogits(elem* dlogits, const elem* logits, const int* targets, const float* lse,
                                         const float* dloss, int P, int classes) {
    int row = blockIdx.x, c = blockIdx.y * blockDim.x + threadIdx.x;
    if (c >= P) return;
    u64 at = (u64)row * P + c;
    float gradient = 0;
    if (targets[row] >= 0 && c < classes) gradient = dloss[row] * (expf(logits[at] - lse[row]) - (c == targets[row]));
    dlogits[at] = gradient;
}

// --- a thread block a row ------------------------------------------------------------------------------------------

// For the whole thread block, the first thread of which writes.
__device__ inline void write_loss(float* loss, float* lse, const elem* logits, int target, float value) {
    if (threadIdx.x > 0) return;
    *lse = value;
    *loss = target < 0 ? 0 : value - logits[target];
}

extern "C" __global__ void twopass_forward(float* loss, float* lse, const elem* logits, const int* targets, int P,
                                           int classes) {
    int row = blockIdx.x;
    float top = -INFINITY, sum = 0;
    logits += (u64)row * P;
    for (int c = threadIdx.x * WIDTH; c < classes; c += blockDim.x * WIDTH) {
        auto values = load<WIDTH>(logits + c);
        for (int k = 0; k < WIDTH; k++)
            if (c + k < classes) top = fmaxf(top, values[k]);
    }
    top = block_max(top);
    for (int c = threadIdx.x * WIDTH; c < classes; c += blockDim.x * WIDTH) {
        auto values = load<WIDTH>(logits + c);
        for (int k = 0; k < WIDTH; k++)
            if (c + k < classes) sum += fast_exp(values[k] - top);
    }
    write_loss(loss + row, lse + row, logits, targets[row], top + logf(block_sum(sum)));
}

// lse of one row in one pass, for the whole thread block. A thread keeps the largest logit that it has seen and the sum
// relative to it; the sum shrinks when a larger one comes.
__device__ inline float row_lse(const elem* logits, int P, int classes) {
    float top = -INFINITY, sum = 0;
    for (int c = threadIdx.x * WIDTH; c < classes; c += blockDim.x * WIDTH) {
        auto values = load<WIDTH>(logits + c);
        float highest = top;
        for (int k = 0; k < WIDTH; k++)
            if (c + k < classes) highest = fmaxf(highest, values[k]);
        sum *= fast_exp(top - highest);
        for (int k = 0; k < WIDTH; k++)
            if (c + k < classes) sum += fast_exp(values[k] - highest);
        top = highest;
    }
    float highest = block_max(top);
    return highest + logf(block_sum(sum > 0 ? sum * fast_exp(top - highest) : 0));
}

// One row of dlogits, for the whole thread block. An element is read before it is written, by the same thread.
__device__ inline void row_gradient(elem* dlogits, const elem* logits, int target, float lse, float seed, int P,
                                    int classes) {
    for (int c = threadIdx.x * WIDTH; c < P; c += blockDim.x * WIDTH) {
        auto values = load<WIDTH>(logits + c);
        for (int k = 0; k < WIDTH; k++) {
            bool counts = target >= 0 && c + k < classes;
            values[k] = counts ? seed * (fast_exp(values[k] - lse) - (c + k == target)) : 0;
        }
        store(dlogits + c, values);
    }
}

extern "C" __global__ void block_forward(float* loss, float* lse, const elem* logits, const int* targets, int P,
                                         int classes) {
    int row = blockIdx.x;
    logits += (u64)row * P;
    write_loss(loss + row, lse + row, logits, targets[row], row_lse(logits, P, classes));
}

extern "C" __global__ void block_dlogits(elem* dlogits, const elem* logits, const int* targets, const float* lse,
                                         const float* dloss, int P, int classes) {
    int row = blockIdx.x;
    u64 at = (u64)row * P;
    row_gradient(dlogits + at, logits + at, targets[row], lse[row], dloss[row], P, classes);
}

// lse may be null
extern "C" __global__ void block_both(float* loss, float* lse, elem* dlogits, const elem* logits, const int* targets,
                                      const float* dloss, int P, int classes) {
    int row = blockIdx.x, target = targets[row];
    u64 at = (u64)row * P;
    float value = row_lse(logits + at, P, classes);
    if (threadIdx.x == 0) loss[row] = target < 0 ? 0 : value - logits[at + target];
    if (threadIdx.x == 0 && lse) lse[row] = value;
    __syncthreads();  // the target's logit was read: from here on it may be overwritten
    row_gradient(dlogits + at, logits + at, target, value, dloss[row], P, classes);
}
