// The prelude of every kernel: types, bf16 and fp16, 16-byte loads and stores, sums over a warp and a thread block.
// It includes no header: a kernel compiles in milliseconds, and this text and its own are all of its source.
//
// After it the core defines `elem`, the type of activations and weights: float, or bf16 or fp16 under that precision.
// Statistics, losses and parameter gradients are float. A bf16 or an fp16 reads as a float and is assigned one, so that
// a kernel is written once for all.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

constexpr u32 ALL = 0xffffffff;  // every lane of a warp
#define INFINITY __int_as_float(0x7f800000)

// The upper half of a float, to nearest even: add half of the discarded range, less one bit where the kept part is even.
__device__ inline u16 rounded_bits(float value) {
    u32 all = __float_as_uint(value);
    return value != value ? 0x7fff : (all + 0x7fff + (all >> 16 & 1)) >> 16;
}

// bfloat16: the upper half of a float. No arithmetic of its own: all sums are in float.
struct bf16 {
    u16 bits;
    bf16() = default;
    __device__ explicit bf16(float value) { *this = value; }
    __device__ operator float() const { return __uint_as_float((u32)bits << 16); }
    __device__ bf16& operator=(float value) {
#if __CUDA_ARCH__ >= 800
        asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
#else
        bits = rounded_bits(value);  // Turing has no such instruction
#endif
        return *this;
    }
};

// IEEE half precision: 10 bits of mantissa, from 2^-24 to 65,504; larger floats become infinity. No arithmetic either.
struct fp16 {
    u16 bits;
    fp16() = default;
    __device__ explicit fp16(float value) { *this = value; }
    __device__ operator float() const {
        float value;
        asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
        return value;
    }
    __device__ fp16& operator=(float value) {
        asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
        return *this;
    }
};

// This thread's number in a grid along x, and the row of a thread of (x, rows) thread blocks. In 64 bits: the product
// of blockIdx.x and blockDim.x is a u32, and wraps in a large grid.
__device__ inline u64 global_thread() { return (u64)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ inline u64 global_row() { return (u64)blockIdx.x * blockDim.y + threadIdx.y; }

// The first statement of a kernel, by all threads, if it may start before the kernel in front of it has ended: the next
// kernel may start, and this one waits until all before it have ended and their writes are visible (docs/launch.md).
__device__ inline void dependent_start() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// The control record, `t.step`: the numbers of one training step (core/op.py, CONTROL)
struct Step {
    double lr, step, loss_scale, loss, norm, scale, ok, halted, loss_limit, norm_limit, good_steps, growth_steps,
        least_scale;
};

// Whether weight decay applies to element i of the flat arenas, and whether it trains; a byte of `group` is for 64
__device__ inline bool DECAYS(const u8* group, u64 i) { return group[i / 64] & 1; }
__device__ inline bool TRAINS(const u8* group, u64 i) { return group[i / 64] & 2; }

// N neighbours in one register group. load<N>(p) and store(p, pack) are one instruction where N elements are 16 bytes;
// p must then be a multiple of 16 bytes.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
    T values[N];
    __device__ T& operator[](int i) { return values[i]; }
    __device__ const T& operator[](int i) const { return values[i]; }
};

template <int N, class T>
__device__ inline Pack<T, N> load(const T* p) { return *reinterpret_cast<const Pack<T, N>*>(p); }

template <class T, int N>
__device__ inline void store(T* p, const Pack<T, N>& pack) { *reinterpret_cast<Pack<T, N>*>(p) = pack; }

// Sums and maxima of the 32 lanes of a warp; every lane gets the same bits.
__device__ inline float warp_sum(float value) {
    for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(ALL, value, lanes);
    return value;
}

__device__ inline double warp_sum(double value) {
    for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(ALL, value, lanes);
    return value;
}

__device__ inline float warp_max(float value) {
    for (int lanes = 16; lanes > 0; lanes /= 2) value = fmaxf(value, __shfl_xor_sync(ALL, value, lanes));
    return value;
}

// Sums and maxima over a thread block of whole warps, at most 32; every thread must call it and gets the same bits.
// The first barrier lets the last call's readers finish before the scratch is written again.
template <class T>
__device__ inline T block_sum(T value) {
    __shared__ T sums[32];
    value = warp_sum(value);
    __syncthreads();
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
    __syncthreads();
    return warp_sum(threadIdx.x % 32 < blockDim.x / 32 ? sums[threadIdx.x % 32] : T(0));
}

__device__ inline float block_max(float value) {
    __shared__ float tops[32];
    value = warp_max(value);
    __syncthreads();
    if (threadIdx.x % 32 == 0) tops[threadIdx.x / 32] = value;
    __syncthreads();
    return warp_max(threadIdx.x % 32 < blockDim.x / 32 ? tops[threadIdx.x % 32] : -INFINITY);
}

// exp by the exponential unit: one multiplication and one instruction, relative error 2e-7 for |x| < 2.
__device__ inline float fast_exp(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x * 1.4426950408889634f));
    return y;
}

// tanh as exact as T can show: for bf16 one instruction with an error of 5e-4, for float and fp16 the library's.
template <class T>
__device__ inline float fast_tanh(float x) { return tanhf(x); }

template <>
__device__ inline float fast_tanh<bf16>(float x) {
    float y;
    asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
