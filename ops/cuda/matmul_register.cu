// Linear map: y = x weight^T + bias, for x (M, K), weight (N, K), y (M, N). Backward: dx = dy weight,
// dweight = dy^T x. Formulas: ../matmul.py. Products are summed in float; the bias gradient is tiled_sums of matmul.cu.
//
// register_forward, register_dx,  128 x 128 results a thread block, 8 x 8 a thread: four 16-byte loads from shared
// register_dweight                memory feed 64 multiply-adds, where `tiled` has two for 16; the next tiles are on
//                                 their way into registers meanwhile. Limited by the float units

constexpr int TILE = 128, DEPTH = 8, THREADS = 256, HALF = TILE / 2;  // 16 x 16 threads, 4 x 4 results in each quarter
constexpr int PITCH = TILE + 4;                                      // 16-byte alignment, and other banks for columns

// An operand of `rows` x `depth` elements, whose depth is summed over. DEEP: neighbours in memory follow the depth, and
// `stride` is from row to row; else the other way round. `aligned`: `stride` is a multiple of 4.
template <bool DEEP>
struct Operand {
    const elem* data;
    int rows, depth, stride, aligned;

    // This thread's four neighbours of the tile with TILE rows from row i and DEPTH deep from k, zeros outside
    __device__ Pack<float, 4> fetch(u32 i, u64 k) const {
        u32 row = i + (DEEP ? threadIdx.x / 2 : threadIdx.x % 32 * 4);
        u64 deep = k + (DEEP ? threadIdx.x % 2 * 4 : threadIdx.x / 32);
        const elem* from = data + (DEEP ? (u64)row * stride + deep : deep * stride + row);
        int there = row >= rows || deep >= depth ? 0 : DEEP ? depth - deep : rows - row;
        Pack<float, 4> out;
        if (aligned && there >= 4) {
            auto held = load<4>(from);
            for (int e = 0; e < 4; e++) out[e] = held[e];
        } else {
            for (int e = 0; e < 4; e++) out[e] = e < there ? float(from[e]) : 0;
        }
        return out;
    }

    // ... and their places in shared memory, the summed index first
    static __device__ void place(float (&tile)[DEPTH][PITCH], const Pack<float, 4>& values) {
        if (DEEP)
            for (int e = 0; e < 4; e++) tile[threadIdx.x % 2 * 4 + e][threadIdx.x / 2] = values[e];
        else
            store(&tile[threadIdx.x / 32][threadIdx.x % 32 * 4], values);
    }
};

// result (a.rows, b.rows) = a b^T + bias, added to the old values if `add`; one tile of it
template <class T, bool A, bool B>
__device__ inline void product(T* result, Operand<A> a, Operand<B> b, const elem* bias, int add) {
    __shared__ alignas(16) float left[2][DEPTH][PITCH], right[2][DEPTH][PITCH];  // one in use, one being filled
    u32 i = blockIdx.x * TILE, j = blockIdx.y * TILE;
    int mine_i = threadIdx.x / 16 * 4, mine_j = threadIdx.x % 16 * 4;  // and HALF further on
    float sums[8][8] = {};
    Operand<A>::place(left[0], a.fetch(i, 0));
    Operand<B>::place(right[0], b.fetch(j, 0));
    __syncthreads();
    u32 now = 0;
    for (u64 k = 0; k < a.depth; k += DEPTH, now = 1 - now) {
        auto next_left = a.fetch(i, k + DEPTH);
        auto next_right = b.fetch(j, k + DEPTH);
#pragma unroll
        for (int d = 0; d < DEPTH; d++) {
            Pack<float, 4> u[2] = {load<4>(&left[now][d][mine_i]), load<4>(&left[now][d][mine_i + HALF])};
            Pack<float, 4> v[2] = {load<4>(&right[now][d][mine_j]), load<4>(&right[now][d][mine_j + HALF])};
            for (int r = 0; r < 8; r++)
                for (int c = 0; c < 8; c++) sums[r][c] += u[r / 4][r % 4] * v[c / 4][c % 4];
        }
        Operand<A>::place(left[1 - now], next_left);
        Operand<B>::place(right[1 - now], next_right);
        __syncthreads();  // the next tiles are there, and all threads have read these
    }
#pragma unroll
    for (int r = 0; r < 8; r++) {
#pragma unroll
        for (int c = 0; c < 8; c++) {
            u32 row = i + mine_i + r / 4 * HALF + r % 4, column = j + mine_j + c / 4 * HALF + c % 4;
            if (row >= a.rows || column >= b.rows) continue;
            u64 at = (u64)row * b.rows + column;
            result[at] = sums[r][c] + (bias ? float(bias[column]) : 0) + (add ? float(result[at]) : 0);
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
    register_forward(elem* y, const elem* x, const elem* weight, const elem* bias, int M, int N, int K) {
    dependent_start();
    product(y, Operand<true>{x, M, K, K, K % 4 == 0}, Operand<true>{weight, N, K, K, K % 4 == 0}, bias, 0);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    register_dx(elem* dx, const elem* dy, const elem* weight, int M, int N, int K, int add) {
    dependent_start();
    product(dx, Operand<true>{dy, M, N, N, N % 4 == 0}, Operand<false>{weight, K, N, K, K % 4 == 0}, nullptr, add);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    register_dweight(float* dweight, const elem* dy, const elem* x, int M, int N, int K, int add) {
    dependent_start();
    product(dweight, Operand<false>{dy, N, M, N, N % 4 == 0}, Operand<false>{x, K, M, K, K % 4 == 0}, nullptr, add);
}
