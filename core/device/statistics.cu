// Statistics of a list of tensors, one pass over each, for [train] health_every.
//
// statistics   a row of thread blocks for each tensor, sixteen bytes a load; limited by memory bandwidth. The last
//              thread block of a tensor adds its thread blocks' sums, by their numbers: bits repeat, and do not
//              follow from the chip
//
// Sums are in double, so that a row's own mean and rms are those of the numbers to 1e-12.

constexpr int THREADS = 256;                // as in statistics.py; and the largest number of a tensor's thread blocks
constexpr int VALUES = 8;                   // of a row: the fields of Row, in their order
constexpr u32 NOT_FINITE = 0x7f800000;      // a float's bits without the sign, from infinity on
constexpr u32 ROUNDS_UP = 0x7f7f8000;       // 2^128 - 2^119: from here on bf16 rounds to infinity
constexpr u32 ROUNDS_DOWN = 0x00008000;     // 2^-134: up to here bf16 rounds to zero

// A tensor of sizes[0] x sizes[1] x sizes[2] elements, strides[i] elements from one of sizes[i] to the next; before: one
// of the same form that is subtracted, or null; type: its number in TYPES of statistics.py. Its thread blocks leave
// their sums from `first` on.
struct Entry {
    const void* data;
    const void* before;
    u64 sizes[3], strides[2];
    u32 type, first, blocks, unused;
};

struct Row {
    double sum = 0, squares = 0, least = INFINITY, largest = -INFINITY;
    double zeros = 0, nonfinite = 0, underflows = 0, overflows = 0;

    // Over the thread block; every thread has the same afterwards.
    __device__ void combine() {
        sum = block_sum(sum);
        squares = block_sum(squares);
        least = -block_max(-float(least));
        largest = block_max(float(largest));
        zeros = block_sum(zeros);
        nonfinite = block_sum(nonfinite);
        underflows = block_sum(underflows);
        overflows = block_sum(overflows);
    }
};

struct Counts {
    double sum = 0, squares = 0;
    float least = INFINITY, largest = -INFINITY;
    u32 zeros = 0, nonfinite = 0, underflows = 0, overflows = 0;

    __device__ void take(float x) {
        u32 magnitude = __float_as_uint(x) & 0x7fffffff;
        if (magnitude >= NOT_FINITE) {
            nonfinite++;
            return;
        }
        sum += x;
        squares += (double)x * (double)x;
        least = fminf(least, x);
        largest = fmaxf(largest, x);
        zeros += magnitude == 0;
        underflows += magnitude - 1 < ROUNDS_DOWN;  // zero wraps
        overflows += magnitude >= ROUNDS_UP;
    }
};

template <class T>
__device__ inline void read(const Entry& entry, Counts& counts) {
    constexpr int EACH = 16 / sizeof(T);
    const T* data = (const T*)entry.data;
    const T* before = (const T*)entry.before;
    u64 width = entry.sizes[2], rows = entry.sizes[1], n = entry.sizes[0] * rows * width;
    bool whole = (rows == 1 || entry.strides[1] == width) && (entry.sizes[0] == 1 || entry.strides[0] == rows * width);
    u64 step = (u64)entry.blocks * THREADS * EACH;
    for (u64 i = global_thread() * EACH; i < n; i += step) {
        if (whole && i + EACH <= n) {
            Pack<T, EACH> now = load<EACH>(data + i), then{};
            if (before) then = load<EACH>(before + i);
            for (int k = 0; k < EACH; k++) counts.take(before ? float(now[k]) - float(then[k]) : float(now[k]));
        } else {
            for (u64 k = i; k < n && k < i + EACH; k++) {
                u64 at = k / width / rows * entry.strides[0] + k / width % rows * entry.strides[1] + k % width;
                counts.take(before ? float(data[at]) - float(before[at]) : float(data[at]));
            }
        }
    }
}

// entries, counters: one for each tensor, gridDim.y in all; partials: (sum of their blocks, VALUES); out: (tensors,
// VALUES)
extern "C" __global__ void __launch_bounds__(THREADS)
statistics(const Entry* entries, Row* partials, u32* counters, Row* out) {
    __shared__ bool last;
    Entry entry = entries[blockIdx.y];
    if (blockIdx.x >= entry.blocks) return;
    Counts counts;
    if (entry.type == 0) read<float>(entry, counts);
    else if (entry.type == 1) read<bf16>(entry, counts);
    else read<fp16>(entry, counts);
    Row row{counts.sum, counts.squares, counts.least, counts.largest, (double)counts.zeros, (double)counts.nonfinite,
            (double)counts.underflows, (double)counts.overflows};
    row.combine();
    if (threadIdx.x == 0) {
        partials[entry.first + blockIdx.x] = row;
        __threadfence();  // this thread block's sums are visible before its count, and the others' after it
        last = atomicAdd(counters + blockIdx.y, 1) == entry.blocks - 1;
        __threadfence();
    }
    __syncthreads();
    if (!last) return;
    Row rest;
    if (threadIdx.x < entry.blocks) rest = partials[entry.first + threadIdx.x];
    rest.combine();
    if (threadIdx.x == 0) {
        out[blockIdx.y] = rest;
        counters[blockIdx.y] = 0;
    }
}
