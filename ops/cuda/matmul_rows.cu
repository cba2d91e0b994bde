// Linear map of a few rows, as decoding has them: y = x weight^T + bias + r for x (M, K) with M at most 16,
// weight (N, K), y (M, N). Products are summed in float. Formulas: ../matmul.py.
//
// rows_forward    bias and r may be null; with GELU, gelu of the sum. A thread block has FEATURES rows of the weight, a
//                 warp a part of their depth; further slices of the depth are other thread blocks'
//
// Limited by memory: the weight is read once, 16 bytes a lane, from the whole chip, where 64 x 64 tiles of few rows are
// a dozen thread blocks. Lane l has row l / 4 of 8 of the weight, and a fourth of every 64 bytes of it. The depth may
// be summed in any order, so these 16 bytes are operands of mma.sync as they are: neither the weight nor x passes
// through shared memory. In f32, and before Ampere, the products are those of the float units.
// The parts of a sum are added in the order of their depths: bits repeat.

#include "gelu.cuh"
#include "core/mma.cuh"

#ifndef FEATURES  // the launcher's settings
#define FEATURES 8  // a multiple of 8
#define ROWS 16     // at least M: 1, 2, 4, 8 or 16
#define WARPS 4
#define GELU 0  // 1: as GPT-2 approximates it, 2: by erf
#endif

template <class T>
constexpr bool ON_TENSOR_CORES = false;
template <>
constexpr bool ON_TENSOR_CORES<fp16> = true;
#if __CUDA_ARCH__ >= 800
template <>
constexpr bool ON_TENSOR_CORES<bf16> = true;
#endif

constexpr int DEPTH = 4 * CHUNK;       // of a warp's load
constexpr int EIGHTS = FEATURES / 8;   // rows of the weight that a lane has
constexpr int RESULTS = FEATURES * ROWS;
constexpr int AHEAD = ON_TENSOR_CORES<elem> || EIGHTS * ROWS <= 16 ? 4 : 1;  // loads under way: as registers have room

// Sums of a warp's part of the depth, and how a lane adds 16 bytes of each operand: in float units
template <bool TENSOR>
struct Sums {
    float held[EIGHTS][ROWS];

    __device__ void add(const elem* x, const Pack<u32, 4> (&weights)[EIGHTS], int M, int K, int k) {
#pragma unroll
        for (int row = 0; row < ROWS; row++) {
            auto own = load<CHUNK>(x + min(row, M - 1) * K + k);
#pragma unroll
            for (int n = 0; n < EIGHTS; n++) {
                const auto& weight = reinterpret_cast<const Pack<elem, CHUNK>&>(weights[n]);
#pragma unroll
                for (int e = 0; e < CHUNK; e++) held[n][row] += own[e] * weight[e];
            }
        }
    }

    __device__ void put(float* to) const {
        int lane = threadIdx.x % 32;
        for (int n = 0; n < EIGHTS; n++)
            for (int row = 0; row < ROWS; row++) {
                float sum = held[n][row];  // of a fourth of the depth
                sum += __shfl_xor_sync(ALL, sum, 1);
                sum += __shfl_xor_sync(ALL, sum, 2);
                if (lane % 4 == 0) to[(n * 8 + lane / 4) * ROWS + row] = sum;
            }
    }
};

// and on tensor cores
template <>
struct Sums<true> {
    float held[EIGHTS][4];

    __device__ void add(const elem* x, const Pack<u32, 4> (&weights)[EIGHTS], int M, int K, int k) {
        int row = threadIdx.x % 32 / 4;
        auto low = load<4>((const u32*)(x + min(row, M - 1) * K + k));
        Pack<u32, 4> high = {};
        if (ROWS > 8) high = load<4>((const u32*)(x + min(row + 8, M - 1) * K + k));
#pragma unroll
        for (int n = 0; n < EIGHTS; n++)
#pragma unroll
            for (int half = 0; half < 4; half += 2) {  // of the 16 bytes: two pairs for each product
                u32 left[4] = {low[half], high[half], low[half + 1], high[half + 1]};
                mma(held[n], left, weights[n][half], weights[n][half + 1]);
            }
    }

    // into (FEATURES, ROWS)
    __device__ void put(float* to) const {
        int lane = threadIdx.x % 32;
        for (int n = 0; n < EIGHTS; n++)
            for (int e = 0; e < (ROWS > 8 ? 4 : 2); e++) {
                int row = lane / 4 + e / 2 * 8, feature = n * 8 + lane % 4 * 2 + e % 2;
                if (row < ROWS) to[feature * ROWS + row] = held[n][e];
            }
    }
};

// The sums of all slices of the depth (gridDim.y thread blocks), added in their order by the last one: true there
__device__ inline bool collect(float* sums, float* partial, u32* counters) {
    __shared__ bool last;
    float* first = partial + (u64)blockIdx.x * gridDim.y * RESULTS;
    for (int own = threadIdx.x; own < RESULTS; own += 32 * WARPS) first[blockIdx.y * RESULTS + own] = sums[own];
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();  // this thread block's sums are visible before its count, and the others' after it
        last = atomicAdd(counters + blockIdx.x, 1) == gridDim.y - 1;
        __threadfence();
        if (last) counters[blockIdx.x] = 0;
    }
    __syncthreads();
    if (!last) return false;
    for (int own = threadIdx.x; own < RESULTS; own += 32 * WARPS) {
        float sum = 0;
        for (int slice = 0; slice < gridDim.y; slice++) sum += first[slice * RESULTS + own];
        sums[own] = sum;
    }
    return true;
}

// partial: (N / FEATURES, slices, RESULTS), not touched if there is one slice; K is a multiple of 16 bytes
extern "C" __global__ void __launch_bounds__(32 * WARPS, 1)
    rows_forward(elem* y, const elem* x, const elem* weight, const elem* bias, const elem* r, float* partial,
                 u32* counters, int M, int N, int K) {
    dependent_start();
    __shared__ float parts[WARPS][RESULTS];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, own = blockIdx.y * WARPS + warp, all = gridDim.y * WARPS;
    int steps = (K + DEPTH - 1) / DEPTH, from = (u64)own * steps / all, to = (u64)(own + 1) * steps / all;
    const elem* lines[EIGHTS];
#pragma unroll
    for (int n = 0; n < EIGHTS; n++)  // in place of rows that do not exist the last, for results that are not kept
        lines[n] = weight + (u64)min(blockIdx.x * FEATURES + n * 8 + lane / 4, N - 1) * K;
    Sums<ON_TENSOR_CORES<elem>> sums = {};
#pragma unroll AHEAD
    for (int step = from; step < to; step++) {
        int k = step * DEPTH + lane % 4 * CHUNK;
        bool there = k < K;
        Pack<u32, 4> weights[EIGHTS];
#pragma unroll
        for (int n = 0; n < EIGHTS; n++) {
            weights[n] = {};
            if (there) weights[n] = load<4>((const u32*)(lines[n] + k));
        }
        sums.add(x, weights, M, K, there ? k : 0);
    }
    sums.put(parts[warp]);
    __syncthreads();
    for (int at = threadIdx.x; at < RESULTS; at += 32 * WARPS)
        for (int other = 1; other < WARPS; other++) parts[0][at] += parts[other][at];
    if (gridDim.y > 1 && !collect(parts[0], partial, counters)) return;
    __syncthreads();
    for (int at = threadIdx.x; at < RESULTS; at += 32 * WARPS) {
        u32 row = at / FEATURES, n = blockIdx.x * FEATURES + at % FEATURES;
        if (row >= M || n >= N) continue;
        u64 place = (u64)row * N + n;
        float sum = parts[0][at % FEATURES * ROWS + row], slope;
        if (bias) sum += bias[n];
        if (r) sum += r[place];
        y[place] = GELU ? sum * phi(sum, GELU == 2, slope) : sum;
    }
}
