#pragma once
// Tensor cores: copies into shared memory that run ahead, fragments from there, mma.sync, and results back in rows.
// No layout of shared memory: the including file places each 16 bytes, so that 8 lines' reach different banks.
//
// Where `elem` is float, the operands of a product are TF32: floats whose mantissa is rounded to 10 bits on their way
// from shared memory. Sums are float in all. bf16 and TF32 need Ampere. Turing has fp16 and no cp.async: there a copy
// has landed when its call ends, and groups are empty.

constexpr int CHUNK = 16 / sizeof(elem);  // elements in 16 bytes, the size of one copy
constexpr int MMA_K = 2 * CHUNK;          // how deep the operands of one mma are

__device__ inline u32 in_shared(const void* p) { return (u32)__cvta_generic_to_shared(p); }

#if __CUDA_ARCH__ >= 800

// 16 bytes from global to shared memory, under way until waited for; bytes: 16, or 0 for zeros in their place
__device__ inline void copy_async(u32 to, const elem* from, int bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}

// the same of 16 bytes that all exist
__device__ inline void copy_async(u32 to, const elem* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

// the same for one float, which need not be aligned to 16 bytes
__device__ inline void copy_float_async(float* to, const float* from, int bytes) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(in_shared(to)), "l"(from), "r"(bytes) : "memory");
}

__device__ inline void end_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// until at most N of this thread's groups are under way
template <int N>
__device__ inline void wait_groups() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

#else

// Predicates in place of branches: the compiler collects a loop's loads before the first store
__device__ inline void copy_async(u32 to, const elem* from, int bytes) {
    asm volatile(
        "{ .reg .pred some; .reg .b32 a, b, c, d; setp.ne.s32 some, %2, 0;"
        " mov.b32 a, 0; mov.b32 b, 0; mov.b32 c, 0; mov.b32 d, 0;"
        " @some ld.global.v4.b32 {a, b, c, d}, [%1];"
        " st.shared.v4.b32 [%0], {a, b, c, d}; }" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}

__device__ inline void copy_async(u32 to, const elem* from) { copy_async(to, from, 16); }

__device__ inline void copy_float_async(float* to, const float* from, int bytes) { *to = bytes ? *from : 0; }

__device__ inline void end_group() {}

template <int N>
__device__ inline void wait_groups() {}

#endif

__device__ inline void copy_async(elem* to, const elem* from, int bytes) { copy_async(in_shared(to), from, bytes); }

// Four 8 x 8 matrices: lane l has the address of row l % 8 of matrix l / 8, and gets elements 2 (l % 4) and the next of
// row l / 4 of each; with TURNED, of column l / 4.
template <bool TURNED>
__device__ inline void load_matrices(u32 (&out)[4], u32 row) {
    if (TURNED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3]) : "r"(row) : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3]) : "r"(row) : "memory");
}

template <bool TURNED>
__device__ inline void load_matrices(u32 (&out)[4], const elem* row) { load_matrices<TURNED>(out, in_shared(row)); }

// Tensor cores' operands of type T. pair: two floats, rounded, in one; multiply: see mma.
template <class T>
struct Operands;

#define MULTIPLY(form)                                                                                           \
    static __device__ void multiply(float (&sums)[4], const u32 (&left)[4], u32 right, u32 right_deeper) {       \
        asm("mma.sync.aligned." form " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"          \
            : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])                                         \
            : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right), "r"(right_deeper));            \
    }
#define PAIR_OF(instruction)                                                                                     \
    static __device__ u32 pair(float low, float high) {                                                          \
        u32 both;                                                                                                \
        asm(instruction " %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));                                      \
        return both;                                                                                             \
    }

template <>
struct Operands<float> {
    MULTIPLY("m16n8k8.row.col.f32.tf32.tf32.f32")
};

template <>
struct Operands<bf16> {
    PAIR_OF("cvt.rn.bf16x2.f32")
    MULTIPLY("m16n8k16.row.col.f32.bf16.bf16.f32")
};

template <>
struct Operands<fp16> {
#if __CUDA_ARCH__ >= 800
    PAIR_OF("cvt.rn.f16x2.f32")
    MULTIPLY("m16n8k16.row.col.f32.f16.f16.f32")
#else
    static __device__ u32 pair(float low, float high) {
        return fp16(low).bits | (u32)fp16(high).bits << 16;
    }

    // half as deep on Turing: the first and the second half of the operands are registers of their own
    static __device__ void half(float (&sums)[4], u32 left, u32 below, u32 right) {
        asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
            : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3]) : "r"(left), "r"(below), "r"(right));
    }
    static __device__ void multiply(float (&sums)[4], const u32 (&left)[4], u32 right, u32 right_deeper) {
        half(sums, left[0], left[1], right);
        half(sums, left[2], left[3], right_deeper);
    }
#endif
};

// sums (16, 8) += left (16, MMA_K) times right (8, MMA_K) transposed. A lane has sums (l / 4, 2 (l % 4)) and the
// next, and the same 8 rows below.
__device__ inline void mma(float (&sums)[4], const u32 (&left)[4], u32 right, u32 right_deeper) {
    Operands<elem>::multiply(sums, left, right, right_deeper);
}

// The float of these bits, rounded to nearest: without it a tensor core cuts off, which is one-sided.
__device__ inline u32 to_tf32(u32 bits) {
    u32 rounded;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(__uint_as_float(bits)));
    return rounded;
}

// 16 rows from row i of an operand and MMA_K deep from k, in four registers. As the left operand of mma: (i, k),
// (i + 8, k), (i, k + CHUNK), (i + 8, k + CHUNK). With PAIR two right operands, whose registers are neighbours, as
// mma needs them: (i, k), (i, k + CHUNK), (i + 8, k), (i + 8, k + CHUNK).
// at(line, chunk) is a chunk's place; DEEP: neighbours in memory follow the depth, a line is a row of the operand;
// else a line is a column, and is turned on the way: by ldmatrix, which knows 16 bits only, else one by one.
template <bool DEEP, bool PAIR = false, class At>
__device__ inline void fragment(u32 (&out)[4], int i, int k, At at) {
    int lane = threadIdx.x % 32, outer = lane / 16, inner = lane / 8 % 2;  // of a lane's 8 x 8 matrix among the four
    int down = PAIR ? outer : inner, deeper = PAIR ? inner : outer;
    if constexpr (DEEP) {
        load_matrices<false>(out, at(i + down * 8 + lane % 8, k / CHUNK + deeper));
    } else if constexpr (sizeof(elem) == 2) {
        load_matrices<true>(out, at(k + deeper * 8 + lane % 8, i / CHUNK + down));
    } else {
        for (int n = 0; n < 4; n++) {
            int row = i + (PAIR ? n / 2 : n % 2) * 8 + lane / 4, deep = k + (PAIR ? n % 2 : n / 2) * CHUNK + lane % 4;
            out[n] = reinterpret_cast<const u32*>(at(deep, row / CHUNK))[row % CHUNK];
        }
    }
    if constexpr (sizeof(elem) == 4)
        for (int n = 0; n < 4; n++) out[n] = to_tf32(out[n]);
}

// 16 rows of a warp's sums into shared memory, 16 (COLUMNS + 8) floats for each warp from `scratch` on, since the lanes
// that hold a row have two neighbours each: so that global memory is read and written in long pieces. piece<N> is N
// neighbours from there, a multiple of four columns; __syncwarp() before the next rows.
template <int COLUMNS>
struct WarpRows {
    static constexpr int PITCH = COLUMNS + 8;  // floats from row to row: two neighbouring rows reach other banks
    static constexpr int SKEW = COLUMNS == 64 ? 4 : 0;  // the second half of a row is further: 8 lanes' 8 floats each
    float* mine;

    static __device__ int place(int column) { return column + column / 32 * SKEW; }

    __device__ WarpRows(float* scratch, const float (&sums)[COLUMNS / 8][4])
        : mine(scratch + threadIdx.x / 32 * 16 * PITCH) {
        int lane = threadIdx.x % 32;
        float* to = mine + lane / 4 * PITCH + lane % 4 * 2;
#pragma unroll
        for (int c = 0; c < COLUMNS / 8; c++) {
            store(to + place(c * 8), Pack<float, 2>{sums[c][0], sums[c][1]});
            store(to + place(c * 8) + 8 * PITCH, Pack<float, 2>{sums[c][2], sums[c][3]});
        }
        __syncwarp();
    }

    template <int N>
    __device__ Pack<float, N> piece(int row, int column) const {
        Pack<float, N> values;
#pragma unroll
        for (int n = 0; n < N; n += 4) {
            auto part = load<4>(mine + row * PITCH + place(column) + n);
#pragma unroll
            for (int e = 0; e < 4; e++) values[n + e] = part[e];
        }
        return values;
    }
};

// finish(row, column, values) for every N neighbours of 16 rows of a warp's sums, in long pieces: see WarpRows
template <int COLUMNS, int N = 4, class Finish>
__device__ inline void by_rows(float* scratch, const float (&sums)[COLUMNS / 8][4], Finish finish) {
    constexpr int PIECES = COLUMNS / N;  // of a row
    static_assert(COLUMNS % N == 0 && 16 * PIECES % 32 == 0);
    WarpRows<COLUMNS> rows(scratch, sums);
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int turn = 0; turn < 16 * PIECES / 32; turn++) {
        int row = (turn * 32 + lane) / PIECES, column = (turn * 32 + lane) % PIECES * N;
        if constexpr (32 % PIECES == 0)  // the same column in every turn, which the compiler does not derive
            row = turn * (32 / PIECES) + lane / PIECES, column = lane % PIECES * N;
        finish(row, column, rows.template piece<N>(row, column));
    }
    __syncwarp();  // before the rows are written over
}
