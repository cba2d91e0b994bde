#pragma once
// Tensor cores: copies into shared memory that run ahead, fragments from there, mma.sync, and results back in rows.
// No layout of shared memory: the including file places each 16 bytes, so that 8 lines' reach different banks.
//
// Where `elem` is float, the operands of a product are TF32: floats whose mantissa is rounded to 10 bits on their way
// from shared memory. Sums are float in both.

constexpr int CHUNK = 16 / sizeof(elem);  // elements in 16 bytes, the size of one copy
constexpr int MMA_K = 2 * CHUNK;          // how deep the operands of one mma are

__device__ inline u32 in_shared(const void* p) { return (u32)__cvta_generic_to_shared(p); }

// 16 bytes from global to shared memory, under way until waited for; only the first `bytes` are read, the rest is 0
__device__ inline void copy_async(elem* to, const elem* from, int bytes) {
    u32 place = in_shared(to);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(place), "l"(from), "r"(bytes) : "memory");
}

// the same for one float, which need not be aligned to 16 bytes
__device__ inline void copy_float_async(float* to, const float* from, int bytes) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(in_shared(to)), "l"(from), "r"(bytes) : "memory");
}

__device__ inline void end_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// until at most N of this thread's groups are under way
template <int N>
__device__ inline void wait_groups() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

// Four 8 x 8 matrices: lane l has the address of row l % 8 of matrix l / 8, and gets elements 2 (l % 4) and the next of
// row l / 4 of each; with TURNED, of column l / 4.
template <bool TURNED>
__device__ inline void load_matrices(u32 (&out)[4], const elem* row) {
    if (TURNED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3]) : "r"(in_shared(row)) : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3]) : "r"(in_shared(row)) : "memory");
}

#if ELEM_BF16
#define MMA "m16n8k16.row.col.f32.bf16.bf16.f32"
#else
#define MMA "m16n8k8.row.col.f32.tf32.tf32.f32"
#endif

// sums (16, 8) += left (16, MMA_K) times right (8, MMA_K) transposed. A lane has sums (l / 4, 2 (l % 4)) and the
// next, and the same 8 rows below.
__device__ inline void mma(float (&sums)[4], const u32 (&left)[4], u32 right, u32 right_deeper) {
    asm("mma.sync.aligned." MMA " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right), "r"(right_deeper));
}

// The float of these bits, rounded to nearest: without it a tensor core cuts off, which is one-sided.
__device__ inline u32 to_tf32(u32 bits) {
    u32 rounded;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(__uint_as_float(bits)));
    return rounded;
}

// 16 rows from row i of an operand and MMA_K deep from k, as (i, k), (i + 8, k), (i, k + CHUNK), (i + 8, k + CHUNK).
// at(line, chunk) is a chunk's place; DEEP: neighbours in memory follow the depth, a line is a row of the operand;
// else a line is a column, and is turned on the way: by ldmatrix in bf16, which knows 16 bits only, else one by one.
template <bool DEEP, class At>
__device__ inline void fragment(u32 (&out)[4], int i, int k, At at) {
    int lane = threadIdx.x % 32;
    if constexpr (DEEP) {
        load_matrices<false>(out, at(i + lane % 16, k / CHUNK + lane / 16));
    } else if constexpr (sizeof(elem) == 2) {
        load_matrices<true>(out, at(k + lane / 16 * 8 + lane % 8, i / CHUNK + lane / 8 % 2));
    } else {
        for (int n = 0; n < 4; n++) {
            int row = i + n % 2 * 8 + lane / 4;
            out[n] = reinterpret_cast<const u32*>(at(k + n / 2 * CHUNK + lane % 4, row / CHUNK))[row % CHUNK];
        }
    }
    if constexpr (sizeof(elem) == 4)
        for (int n = 0; n < 4; n++) out[n] = to_tf32(out[n]);
}

// finish(row, column, values) for every four neighbours of 16 rows of a warp's sums. They pass through shared memory,
// 16 (COLUMNS + 8) floats for each warp, since the lanes that hold a row have two neighbours each: so that global
// memory is read and written 128 bytes in a row.
template <int COLUMNS, class Finish>
__device__ inline void by_rows(float* scratch, const float (&sums)[COLUMNS / 8][4], Finish finish) {
    constexpr int PITCH = COLUMNS + 8;  // floats from row to row: lanes of two neighbouring rows reach different banks
    float* mine = scratch + threadIdx.x / 32 * 16 * PITCH;
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int c = 0; c < COLUMNS / 8; c++) {
        float* to = mine + lane / 4 * PITCH + c * 8 + lane % 4 * 2;
        store(to, Pack<float, 2>{sums[c][0], sums[c][1]});
        store(to + 8 * PITCH, Pack<float, 2>{sums[c][2], sums[c][3]});
    }
    __syncwarp();
    for (int at = lane * 4; at < 16 * COLUMNS; at += 32 * 4)
        finish(at / COLUMNS, at % COLUMNS, load<4>(mine + at / COLUMNS * PITCH + at % COLUMNS));
    __syncwarp();  // before the rows are written over
}
