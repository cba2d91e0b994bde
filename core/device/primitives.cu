// A device's own operations: fill, copy, add, and the objective's sum, between the launches of variants.
//
// TARGET and SOURCE are the element types of the tensors (float, bf16, fp16, int, u32, u8): copy and add convert.
// fill, copy, add   four elements a thread, one load and one store where types allow; limited by memory bandwidth
// scale_by          multiplies by the step's loss scale, likewise
// dot               one thread block, each thread its elements in order, so that bits repeat; n is one loss term's size

#ifndef TARGET
#define TARGET float
#endif
#ifndef SOURCE
#define SOURCE float
#endif

constexpr int EACH = 4;  // elements of a thread; tensors start on 256 bytes, so that every load of four is aligned

// step.at<N>(i) does elements i to i + N - 1 of (n): this thread's EACH at once, or one by one where n ends
template <class Step>
__device__ inline void elements(u64 n, Step step) {
    u64 first = ((u64)blockIdx.x * blockDim.x + threadIdx.x) * EACH;
    if (first + EACH <= n) return step.template at<EACH>(first);
#pragma unroll 1
    for (u64 i = first; i < n; i++) step.template at<1>(i);
}

struct Fill {
    TARGET* target;
    TARGET value;
    template <int N>
    __device__ void at(u64 i) {
        Pack<TARGET, N> to;
        for (int k = 0; k < N; k++) to[k] = value;
        store(target + i, to);
    }
};

struct Copy {
    TARGET* target;
    const SOURCE* source;
    template <int N>
    __device__ void at(u64 i) {
        Pack<SOURCE, N> from = load<N>(source + i);
        Pack<TARGET, N> to;
        for (int k = 0; k < N; k++) to[k] = TARGET(from[k]);
        store(target + i, to);
    }
};

struct Add {
    TARGET* target;
    const SOURCE* source;
    template <int N>
    __device__ void at(u64 i) {
        Pack<SOURCE, N> from = load<N>(source + i);
        Pack<TARGET, N> to = load<N>((const TARGET*)target + i);
        for (int k = 0; k < N; k++) to[k] = TARGET(float(to[k]) + float(from[k]));
        store(target + i, to);
    }
};

struct Scale {
    TARGET* target;
    float factor;
    template <int N>
    __device__ void at(u64 i) {
        Pack<TARGET, N> to = load<N>((const TARGET*)target + i);
        for (int k = 0; k < N; k++) to[k] = TARGET(float(to[k]) * factor);
        store(target + i, to);
    }
};

// target, source: (n)
extern "C" __global__ void fill(TARGET* target, float value, u64 n) {
    dependent_start();
    elements(n, Fill{target, TARGET(value)});
}
extern "C" __global__ void copy(TARGET* target, const SOURCE* source, u64 n) {
    dependent_start();
    elements(n, Copy{target, source});
}
extern "C" __global__ void add(TARGET* target, const SOURCE* source, u64 n) {
    dependent_start();
    elements(n, Add{target, source});
}

extern "C" __global__ void scale_by(TARGET* target, const double* control, u64 n) {
    dependent_start();
    elements(n, Scale{target, float(((const Step*)control)->loss_scale)});
}

// control[slot] += sum over n of a * b / loss_scale, in double: one thread block of whole warps
extern "C" __global__ void dot(double* control, int slot, const TARGET* a, const SOURCE* b, u64 n) {
    dependent_start();
    double sum = 0;
    for (u64 i = threadIdx.x; i < n; i += blockDim.x) sum += (double)float(a[i]) * (double)float(b[i]);
    sum = block_sum(sum);
    if (threadIdx.x == 0) control[slot] += sum / ((const Step*)control)->loss_scale;
}
