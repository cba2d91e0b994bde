// Cross-entropy: loss = lse - logits[target], lse = log sum exp(logits), over the first `classes` of a row's P columns.
// dlogits = dloss * (exp(logits - lse) - [target]), 0 in the padding and where the target is negative. Formulas:
// ../cross_entropy.py. logits, dlogits: (rows, P), may share memory; targets, loss, lse, dloss: (rows)
//
// naive_forward      one thread a row: two passes, neighbouring threads P columns apart
// naive_dlogits      one thread an element
// twopass_forward    one thread block a row, 16 bytes a thread: maximum, then sum, and the row is read for each
// block_forward      the same with maximum and sum in one pass: one read
// block_dlogits      one thread block a row, the gradient in the logits' memory: one read, one write, no second tensor
// block_both         both in one launch: the row stays in the thread block's registers, KEPT packs a thread; only the
//                    part beyond them is read a second time, from L2. Limited by memory bandwidth

#include "core/width.cuh"

#ifndef KEPT
#define KEPT 1
#define THREADS 1024
#endif

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

// A thread's part of a row's lse: the largest logit that it has seen, and the sum relative to it; a larger one rescales
// the sum.
struct Online {
    float top = -INFINITY, sum = 0;

    template <int N>
    __device__ void take(const Pack<elem, N>& values) {
        float before = top;
        for (int k = 0; k < N; k++) top = fmaxf(top, values[k]);
        sum *= fast_exp(before - finite(top));
        for (int k = 0; k < N; k++) sum += fast_exp(values[k] - finite(top));
    }

    // lse of the row, for the whole thread block
    __device__ float lse() const {
        float highest = finite(block_max(top));
        return highest + logf(block_sum(sum * fast_exp(top - highest)));
    }

    // The largest of no logits, or of infinitely small ones, is -inf: relative to 0 they add nothing; NaN stays NaN.
    static __device__ float finite(float top) { return top == -INFINITY ? 0 : top; }
};

// A row of logits with a thread block of THREADS: whole packs of classes, of which a thread keeps the first KEPT in its
// registers, and single columns from `whole` on, the last classes and the padding.
struct Row {
    static constexpr int PASS = THREADS * WIDTH;
    const elem* logits;
    int P, classes, whole, first;
    Pack<elem, WIDTH> kept[KEPT];

    __device__ Row(const elem* logits, int P, int classes)
        : logits(logits), P(P), classes(classes), whole(classes / WIDTH * WIDTH), first(threadIdx.x * WIDTH) {
#pragma unroll
        for (int h = 0; h < KEPT; h++)
            if (int c = first + h * PASS; c < whole) kept[h] = packed(load<WIDTH>(logits + c));
    }

    // for the whole thread block
    __device__ float lse() const {
        Online online;
#pragma unroll
        for (int h = 0; h < KEPT; h++)
            if (first + h * PASS < whole) online.take(kept[h]);
#pragma unroll 1
        for (int c = first + KEPT * PASS; c < whole; c += PASS) online.take(load<WIDTH>(logits + c));
        if (int c = whole + threadIdx.x; c < classes) online.take(load<1>(logits + c));
        return online.lse();
    }

    // Loss, if it is wanted, and gradient, in place or not
    __device__ void settle(float* loss, elem* dlogits, int target, float lse, float seed) const {
        bool owner = threadIdx.x == (target < whole ? target / WIDTH % THREADS : target - whole);
        float hit = owner ? float(logits[target]) : 0;  // before this thread, the only one, overwrites it
        if (owner && loss) *loss = lse - hit;
#pragma unroll
        for (int h = 0; h < KEPT; h++)
            if (int c = first + h * PASS; c < whole) store(dlogits + c, gradient(packed(kept[h]), lse, seed));
#pragma unroll 1
        for (int c = first + KEPT * PASS; c < whole; c += PASS)
            store(dlogits + c, gradient(load<WIDTH>(logits + c), lse, seed));
#pragma unroll 1
        for (int c = whole + threadIdx.x; c < P; c += THREADS)
            dlogits[c] = c < classes ? seed * fast_exp(logits[c] - lse) : 0;
        if (owner) dlogits[target] = seed * (fast_exp(hit - lse) - 1);
    }

    // Of logits that are not the target's
    static __device__ Pack<elem, WIDTH> gradient(Pack<elem, WIDTH> values, float lse, float seed) {
        for (int k = 0; k < WIDTH; k++) values[k] = seed * fast_exp(values[k] - lse);
        return values;
    }

    // The gradient of a row whose target is negative
    static __device__ void clear(elem* dlogits, int P) {
        for (int c = threadIdx.x * WIDTH; c < P; c += PASS) store(dlogits + c, Pack<elem, WIDTH>{});
    }
};

extern "C" __global__ void __launch_bounds__(THREADS, 1024 / THREADS)
    block_forward(float* loss, float* lse, const elem* logits, const int* targets, int P, int classes) {
    dependent_start();
    int row = blockIdx.x;
    logits += (u64)row * P;
    write_loss(loss + row, lse + row, logits, targets[row], Row(logits, P, classes).lse());
}

extern "C" __global__ void __launch_bounds__(THREADS, 1024 / THREADS)
    block_dlogits(elem* dlogits, const elem* logits, const int* targets, const float* lse, const float* dloss, int P,
                  int classes) {
    dependent_start();
    int row = blockIdx.x, target = targets[row];
    u64 at = (u64)row * P;
    if (target < 0) return Row::clear(dlogits + at, P);
    Row(logits + at, P, classes).settle(nullptr, dlogits + at, target, lse[row], dloss[row]);
}

// lse may be null
extern "C" __global__ void __launch_bounds__(THREADS, 1024 / THREADS)
    block_both(float* loss, float* lse, elem* dlogits, const elem* logits, const int* targets, const float* dloss,
               int P, int classes) {
    dependent_start();
    int row = blockIdx.x, target = targets[row];
    u64 at = (u64)row * P;
    if (target < 0 && threadIdx.x == 0) loss[row] = 0;
    if (target < 0 && !lse) return Row::clear(dlogits + at, P);
    Row own(logits + at, P, classes);
    float value = own.lse();
    if (threadIdx.x == 0 && lse) lse[row] = value;
    if (target < 0) return Row::clear(dlogits + at, P);
    own.settle(loss + row, dlogits + at, target, value, dloss[row]);
}
