// Linear map: y = x weight^T + bias, for x (M, K), weight (N, K), y (M, N). Backward: dx = dy weight, dweight = dy^T x,
// dbias = sum of dy over its rows. Formulas: ../matmul.py. Products are summed in float.
//
// naive_forward, naive_dx,     one thread an element of the result: each element of x is loaded N times, from cache at
// naive_dweight, naive_dbias   best; limited by the number of loads, two for each multiply-add
// tiled_forward, tiled_dx,     64 x 64 results a thread block, 4 x 4 a thread: tiles of both operands in shared memory
// tiled_dweight                are loaded once for 64 uses, and registers make 16 multiply-adds of two 16-byte loads;
//                              limited by the float units, since tensor cores are not used
// tiled_sums, tiled_dbias      slices of the rows a thread block into workspace, then added up in order

// --- naive ---------------------------------------------------------------------------------------------------------

extern "C" __global__ void naive_forward(elem* y, const elem* x, const elem* weight, const elem* bias, int M, int N,
                                         int K) {
    u64 m = global_row();
    int n = blockIdx.y * blockDim.x + threadIdx.x;
    if (m >= M || n >= N) return;
    float sum = bias ? float(bias[n]) : 0;
    for (int k = 0; k < K; k++) sum += x[m * K + k] * weight[(u64)n * K + k];
    y[m * N + n] = sum;
}

extern "C" __global__ void naive_dx(elem* dx, const elem* dy, const elem* weight, int M, int N, int K, int add) {
    u64 m = global_row();
    int k = blockIdx.y * blockDim.x + threadIdx.x;
    if (m >= M || k >= K) return;
    u64 at = m * K + k;
    float sum = add ? float(dx[at]) : 0;
    for (int n = 0; n < N; n++) sum += dy[m * N + n] * weight[(u64)n * K + k];
    dx[at] = sum;
}

extern "C" __global__ void naive_dweight(float* dweight, const elem* dy, const elem* x, int M, int N, int K, int add) {
    u64 n = global_row();
    int k = blockIdx.y * blockDim.x + threadIdx.x;
    if (n >= N || k >= K) return;
    u64 at = n * K + k;
    float sum = add ? dweight[at] : 0;
    for (int m = 0; m < M; m++) sum += dy[(u64)m * N + n] * x[(u64)m * K + k];
    dweight[at] = sum;
}

extern "C" __global__ void naive_dbias(float* dbias, const elem* dy, int M, int N, int add) {
    u64 n = global_thread();
    if (n >= N) return;
    float sum = add ? dbias[n] : 0;
    for (int m = 0; m < M; m++) sum += dy[(u64)m * N + n];
    dbias[n] = sum;
}

// --- tiled ---------------------------------------------------------------------------------------------------------

constexpr int TILE = 64, DEPTH = 16, THREADS = 256;  // 16 x 16 threads, 4 x 4 results each

// DEPTH x TILE elements of an operand, the summed index first, so that a thread's 4 lie side by side. The 4 floats
// behind each row keep 16-byte alignment, and let a warp that writes a column reach 8 banks where it would reach one.
using Tile = float[DEPTH][TILE + 4];

// An operand of `rows` x `depth` elements, whose depth is summed over. DEEP: neighbours in memory follow the depth, and
// `stride` is from row to row; else the other way round.
template <bool DEEP>
struct Operand {
    const elem* data;
    int rows, depth, stride;

    // TILE rows from row i and DEPTH deep from k, zeros outside; neighbouring threads read neighbouring addresses.
    __device__ void copy(Tile& tile, int i, int k) const {
        for (int at = threadIdx.x; at < TILE * DEPTH; at += THREADS) {
            int row = DEEP ? at / DEPTH : at % TILE, deep = DEEP ? at % DEPTH : at / TILE;
            bool inside = u32(i) + row < rows && u32(k) + deep < depth;  // the sums may pass 2^31
            u64 place = DEEP ? (u64)(i + row) * stride + k + deep : (u64)(k + deep) * stride + i + row;
            tile[deep][row] = inside ? float(data[place]) : 0;
        }
    }
};

// result (a.rows, b.rows) = a b^T + bias, added to what is there if `add`; one tile of it
template <class T, bool A, bool B>
__device__ inline void product(T* result, Operand<A> a, Operand<B> b, const elem* bias, int add) {
    __shared__ alignas(16) Tile left, right;
    int i = blockIdx.x * TILE, j = blockIdx.y * TILE;
    int mine_i = threadIdx.x / 16 * 4, mine_j = threadIdx.x % 16 * 4;  // of the tile
    float sums[4][4] = {};
    for (u32 k = 0; k < a.depth; k += DEPTH) {
        a.copy(left, i, k);
        b.copy(right, j, k);
        __syncthreads();  // the tiles are there
#pragma unroll
        for (int d = 0; d < DEPTH; d++) {
            auto u = load<4>(&left[d][mine_i]), v = load<4>(&right[d][mine_j]);
            for (int r = 0; r < 4; r++)
                for (int c = 0; c < 4; c++) sums[r][c] += u[r] * v[c];
        }
        __syncthreads();  // nobody reads them any more
    }
    for (int r = 0; r < 4; r++) {
        for (int c = 0; c < 4; c++) {
            u32 row = i + mine_i + r, column = j + mine_j + c;
            if (row >= a.rows || column >= b.rows) continue;
            u64 at = (u64)row * b.rows + column;
            result[at] = sums[r][c] + (bias ? float(bias[column]) : 0) + (add ? float(result[at]) : 0);
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    tiled_forward(elem* y, const elem* x, const elem* weight, const elem* bias, int M, int N, int K) {
    product(y, Operand<true>{x, M, K, K}, Operand<true>{weight, N, K, K}, bias, 0);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    tiled_dx(elem* dx, const elem* dy, const elem* weight, int M, int N, int K, int add) {
    product(dx, Operand<true>{dy, M, N, N}, Operand<false>{weight, K, N, K}, nullptr, add);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    tiled_dweight(float* dweight, const elem* dy, const elem* x, int M, int N, int K, int add) {
    product(dweight, Operand<false>{dy, N, M, N}, Operand<false>{x, K, M, K}, nullptr, add);
}

// sums: (slices, N); block (32, 8): 32 columns, every 8th row of a slice
extern "C" __global__ void tiled_sums(float* sums, const elem* dy, int M, int N, int slice) {
    __shared__ float parts[8][32];
    int n = blockIdx.x * 32 + threadIdx.x, last = min((blockIdx.y + 1) * slice, M);
    float sum = 0;
    for (int m = blockIdx.y * slice + threadIdx.y; m < last && n < N; m += 8) sum += dy[(u64)m * N + n];
    parts[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y > 0 || n >= N) return;
    for (int i = 1; i < 8; i++) sum += parts[i][threadIdx.x];
    sums[(u64)blockIdx.y * N + n] = sum;
}

extern "C" __global__ void tiled_dbias(float* dbias, const float* sums, int slices, int N, int add) {
    u64 n = global_thread();
    if (n >= N) return;
    float sum = add ? dbias[n] : 0;
    for (int i = 0; i < slices; i++) sum += sums[(u64)i * N + n];
    dbias[n] = sum;
}
