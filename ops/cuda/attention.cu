// Attention over packed queries, keys and values: for query i and key j of one head (formulas: ../attention.py)
//     s = scale q.k, softcap tanh(s / softcap) if there is a cap;  p = exp(s - lse), 0 where i may not see j
//     y = sum_j p v;  dp = dy.v,  ds = p (dp - dy.y) (1 - (s / softcap)^2) scale
//     dq = sum_j ds k,  dk = sum_i ds q,  dv = sum_i p dy
// qkv: (B, T, heads + 2 kv_heads, D), the queries first, then keys, then values; y: (B, T, heads, D); a group of
// heads / kv_heads queries shares a key and a value. While decoding, keys and values are in caches (B, S, kv_heads, D),
// and row b of the batch continues at start[b].
//
// naive_scores, naive_softmax, naive_y   write all T x T probabilities: limited by memory, which also ends first
// naive_ds, naive_dq, naive_dkv          read them back and write as many gradients
// naive_append, naive_decode             new keys and values into the caches; one thread an element of y over all keys
// online_forward                         one warp for four queries, one lane a key: softmax is corrected while tiles of
//                                        keys stream through shared memory (arXiv:2205.14135), no T x T matrix exists;
//                                        limited by float units and shared loads, since tensor cores are not used
// online_dq, online_dkv                  work the probabilities out again, by query, then by key, so that each gradient
//                                        has one writer and bits repeat

#ifndef HEAD_DIM
#define HEAD_DIM 64  // D of the online kernels, whose sums are in registers
#endif

// Whether query i sees key j; documents: of this row of the batch, or null
__device__ inline bool visible(int i, int j, int causal, int window, const int* documents) {
    if (causal && j > i || window && i - j >= window) return false;
    return !documents || documents[i] == documents[j];
}

__device__ inline float capped(float s, float softcap) { return softcap > 0 ? softcap * tanhf(s / softcap) : s; }

// d capped(s) / ds, from the capped score
__device__ inline float cap_slope(float s, float softcap) {
    return softcap > 0 ? 1 - (s / softcap) * (s / softcap) : 1;
}

template <class A, class B>
__device__ inline float dot(const A* a, const B* b, int n) {
    float sum = 0;
    for (int i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

// --- naive ---------------------------------------------------------------------------------------------------------

// scores: (B, heads, T, T), -infinity where a key is masked
extern "C" __global__ void naive_scores(float* scores, const elem* qkv, const int* documents, int B, int T, int heads,
                                        int kv_heads, int D, int causal, int window, float scale, float softcap) {
    int j = blockIdx.y * blockDim.x + threadIdx.x, i = blockIdx.x % T, h = blockIdx.x / T % heads;
    int b = blockIdx.x / T / heads, width = (heads + 2 * kv_heads) * D;
    if (j >= T) return;
    const elem* q = qkv + ((u64)b * T + i) * width + h * D;
    const elem* k = qkv + ((u64)b * T + j) * width + (heads + h / (heads / kv_heads)) * D;
    bool seen = visible(i, j, causal, window, documents ? documents + (u64)b * T : nullptr);
    scores[(u64)blockIdx.x * T + j] = seen ? capped(scale * dot(q, k, D), softcap) : -INFINITY;
}

// p: (B * heads * T, T), scores before, probabilities after; a query without a visible key has none
extern "C" __global__ void naive_softmax(float* p, int rows, int T) {
    u64 row = global_thread();
    if (row >= rows) return;
    p += row * T;
    float top = -INFINITY, sum = 0;
    for (int j = 0; j < T; j++) top = fmaxf(top, p[j]);
    for (int j = 0; j < T; j++) sum += top == -INFINITY ? 0 : expf(p[j] - top);
    for (int j = 0; j < T; j++) p[j] = sum > 0 ? expf(p[j] - top) / sum : 0;
}

extern "C" __global__ void naive_y(elem* y, const float* p, const elem* qkv, int B, int T, int heads, int kv_heads,
                                   int D) {
    int d = blockIdx.y * blockDim.x + threadIdx.x, i = blockIdx.x % T, h = blockIdx.x / T % heads;
    int b = blockIdx.x / T / heads, width = (heads + 2 * kv_heads) * D;
    if (d >= D) return;
    const elem* v = qkv + (u64)b * T * width + (heads + kv_heads + h / (heads / kv_heads)) * D + d;
    float sum = 0;
    for (int j = 0; j < T; j++) sum += p[(u64)blockIdx.x * T + j] * v[(u64)j * width];
    y[(((u64)b * T + i) * heads + h) * D + d] = sum;
}

// ds: (B, heads, T, T); y, dy: (B, T, heads, D)
extern "C" __global__ void naive_ds(float* ds, const float* p, const elem* qkv, const elem* y, const elem* dy, int B,
                                    int T, int heads, int kv_heads, int D, float scale, float softcap) {
    int j = blockIdx.y * blockDim.x + threadIdx.x, i = blockIdx.x % T, h = blockIdx.x / T % heads;
    int b = blockIdx.x / T / heads, width = (heads + 2 * kv_heads) * D, g = h / (heads / kv_heads);
    if (j >= T) return;
    const elem* q = qkv + ((u64)b * T + i) * width + h * D;
    const elem* k = qkv + ((u64)b * T + j) * width + (heads + g) * D;
    const elem* v = k + kv_heads * D;
    u64 at = (((u64)b * T + i) * heads + h) * D;
    float s = capped(scale * dot(q, k, D), softcap);
    float dp = dot(dy + at, v, D), mean = dot(dy + at, y + at, D);  // sum_j p dp = dy.y
    ds[(u64)blockIdx.x * T + j] = p[(u64)blockIdx.x * T + j] * (dp - mean) * cap_slope(s, softcap) * scale;
}

extern "C" __global__ void naive_dq(elem* dqkv, const float* ds, const elem* qkv, int B, int T, int heads, int kv_heads,
                                    int D, int add) {
    int d = blockIdx.y * blockDim.x + threadIdx.x, i = blockIdx.x % T, h = blockIdx.x / T % heads;
    int b = blockIdx.x / T / heads, width = (heads + 2 * kv_heads) * D;
    if (d >= D) return;
    const elem* k = qkv + (u64)b * T * width + (heads + h / (heads / kv_heads)) * D + d;
    u64 at = ((u64)b * T + i) * width + h * D + d;
    float sum = add ? float(dqkv[at]) : 0;
    for (int j = 0; j < T; j++) sum += ds[(u64)blockIdx.x * T + j] * k[(u64)j * width];
    dqkv[at] = sum;
}

extern "C" __global__ void naive_dkv(elem* dqkv, const float* p, const float* ds, const elem* qkv, const elem* dy,
                                     int B, int T, int heads, int kv_heads, int D, int add) {
    int d = blockIdx.y * blockDim.x + threadIdx.x, j = blockIdx.x % T, g = blockIdx.x / T % kv_heads;
    int b = blockIdx.x / T / kv_heads, width = (heads + 2 * kv_heads) * D, group = heads / kv_heads;
    if (d >= D) return;
    u64 at_k = ((u64)b * T + j) * width + (heads + g) * D + d, at_v = at_k + kv_heads * D;
    float dk = add ? float(dqkv[at_k]) : 0, dv = add ? float(dqkv[at_v]) : 0;
    for (int h = g * group; h < (g + 1) * group; h++) {
        for (int i = 0; i < T; i++) {
            u64 pair = (((u64)b * heads + h) * T + i) * T + j;
            dk += ds[pair] * qkv[((u64)b * T + i) * width + h * D + d];
            dv += p[pair] * dy[(((u64)b * T + i) * heads + h) * D + d];
        }
    }
    dqkv[at_k] = dk;
    dqkv[at_v] = dv;
}

// k, v: caches (B, S, kv_heads, D), rows start[b] .. start[b] + T - 1 are written
extern "C" __global__ void naive_append(elem* k, elem* v, const elem* qkv, const int* start, int T, int S, int heads,
                                        int kv_heads, int D) {
    int c = blockIdx.y * blockDim.x + threadIdx.x, b = blockIdx.x / T, i = blockIdx.x % T;
    if (c >= kv_heads * D) return;
    const elem* row = qkv + (u64)blockIdx.x * (heads + 2 * kv_heads) * D;
    u64 at = ((u64)b * S + start[b] + i) * kv_heads * D + c;
    k[at] = row[heads * D + c];
    v[at] = row[(heads + kv_heads) * D + c];
}

extern "C" __global__ void naive_decode(elem* y, const elem* qkv, const elem* k, const elem* v, const int* start, int T,
                                        int S, int heads, int kv_heads, int D, int causal, int window, float scale,
                                        float softcap) {
    int d = blockIdx.y * blockDim.x + threadIdx.x, h = blockIdx.x % heads, i = blockIdx.x / heads % T;
    int b = blockIdx.x / heads / T, g = h / (heads / kv_heads);
    if (d >= D) return;
    const elem* q = qkv + ((u64)b * T + i) * (heads + 2 * kv_heads) * D + h * D;
    float top = -INFINITY, sum = 0, out = 0;  // the largest score so far; sums of exp(s - top) and exp(s - top) v
    for (int j = 0; j < start[b] + T; j++) {
        if (!visible(start[b] + i, j, causal, window, nullptr)) continue;
        u64 at = (((u64)b * S + j) * kv_heads + g) * D;
        float s = capped(scale * dot(q, k + at, D), softcap), higher = fmaxf(top, s);
        sum = sum * expf(top - higher) + expf(s - higher);
        out = out * expf(top - higher) + expf(s - higher) * v[at + d];
        top = higher;
    }
    y[(u64)blockIdx.x * D + d] = sum > 0 ? out / sum : 0;
}

// --- online --------------------------------------------------------------------------------------------------------

constexpr int D = HEAD_DIM;
constexpr int PITCH = D | 1;                    // odd, so that lanes at rows of PITCH floats reach different banks
constexpr int LANES = 32, WARPS = 4, EACH = 4;  // a warp has EACH queries (or keys) of its own, its lanes take a tile
constexpr int OWN = WARPS * EACH;               // rows of a thread block
constexpr int COLUMNS = (D + 31) / 32;          // of the D that a lane sums
constexpr float LOWEST = -1e30f;                // a score below all others, and still a number

extern __shared__ __align__(16) float memory[];
constexpr int SCRATCH = WARPS * LANES * EACH;  // floats at its start, for weigh()

// The place of element d of a thread block's own row: a warp's EACH rows interleaved, so that one load brings all
__device__ inline int own_place(int row, int d) { return (row / EACH * D + d) * EACH + row % EACH; }

// Rows of D elements, `stride` apart, from `data` into shared memory, zeros from row `limit` on: OWN interleaved rows,
// or a tile of LANES rows of PITCH floats
template <bool INTERLEAVED>
__device__ inline void copy_rows(float* rows, const elem* data, u64 stride, int limit) {
    constexpr int COUNT = (INTERLEAVED ? OWN : LANES) * D;
    for (int at = threadIdx.y * LANES + threadIdx.x; at < COUNT; at += WARPS * LANES) {
        int row = at / D, d = at % D;
        rows[INTERLEAVED ? own_place(row, d) : row * PITCH + d] = row < limit ? float(data[row * stride + d]) : 0;
    }
}

// products[r] = own row r of this warp . this lane's row of the tile
__device__ inline void multiply(float (&products)[EACH], const float* own, const float* tile) {
    for (int r = 0; r < EACH; r++) products[r] = 0;
#pragma unroll 4
    for (int d = 0; d < D; d++) {
        auto mine = load<EACH>(own + own_place(threadIdx.y * EACH, d));
        float value = tile[threadIdx.x * PITCH + d];
        for (int r = 0; r < EACH; r++) products[r] += mine[r] * value;
    }
}

// sums[r][c] += sum over the warp's lanes of the lane's weights[r] * rows[lane][32 c + this lane]
__device__ inline void weigh(float (&sums)[EACH][COLUMNS], const float (&weights)[EACH], const float* rows) {
    float* mine = memory + threadIdx.y * LANES * EACH;
    Pack<float, EACH> weight;
    for (int r = 0; r < EACH; r++) weight[r] = weights[r];
    __syncwarp();  // the last call's readers are done
    store(mine + threadIdx.x * EACH, weight);
    __syncwarp();
#pragma unroll 4
    for (int lane = 0; lane < LANES; lane++) {
        auto weight = load<EACH>(mine + lane * EACH);
        for (int c = 0; c < COLUMNS; c++) {
            int d = c * 32 + threadIdx.x;
            float value = d < D ? rows[lane * PITCH + d] : 0;
            for (int r = 0; r < EACH; r++) sums[r][c] += weight[r] * value;
        }
    }
}

// A thread block takes OWN queries of one head. y: (B, T, heads, D); lse: (B, heads, T);
// shared memory: SCRATCH + OWN D + 2 LANES PITCH floats
extern "C" __global__ void __launch_bounds__(WARPS* LANES, 4)
    online_forward(elem* y, float* lse, const elem* qkv, const elem* k_cache, const elem* v_cache, const int* start,
                   const int* documents, int T, int S, int heads, int kv_heads, int causal, int window, float scale,
                   float softcap) {
    dependent_start();
    float *q = memory + SCRATCH, *k = q + OWN * D, *v = k + LANES * PITCH;
    int b = blockIdx.x / heads, h = blockIdx.x % heads, g = h / (heads / kv_heads), first = blockIdx.y * OWN;
    int offset = start ? start[b] : 0, keys = offset + T;  // a query's position is `offset` beyond its row
    u64 width = (heads + 2 * kv_heads) * D, key_width = start ? (u64)kv_heads * D : width;
    const elem* row = qkv + (u64)b * T * width;
    const elem* all_k = start ? k_cache + (u64)b * S * key_width + g * D : row + (heads + g) * D;
    const elem* all_v = start ? v_cache + (u64)b * S * key_width + g * D : row + (heads + kv_heads + g) * D;
    if (documents) documents += (u64)b * T;
    copy_rows<true>(q, row + first * width + h * D, width, T - first);

    float top[EACH], sum[EACH] = {}, out[EACH][COLUMNS] = {};
    for (int r = 0; r < EACH; r++) top[r] = LOWEST;
    int from = window ? max(0, offset + first - window + 1) / LANES * LANES : 0;
    int to = causal ? min(keys, offset + first + OWN) : keys;
    for (int tile = from; tile < to; tile += LANES) {
        copy_rows<false>(k, all_k + tile * key_width, key_width, keys - tile);
        copy_rows<false>(v, all_v + tile * key_width, key_width, keys - tile);
        __syncthreads();
        float p[EACH];
        multiply(p, q, k);
        int j = tile + threadIdx.x;
        for (int r = 0; r < EACH; r++) {
            int i = first + threadIdx.y * EACH + r;
            bool seen = i < T && j < keys && visible(offset + i, j, causal, window, documents);
            float s = seen ? capped(scale * p[r], softcap) : LOWEST;
            float higher = fmaxf(top[r], warp_max(s)), shrink = fast_exp(top[r] - higher);
            p[r] = seen ? fast_exp(s - higher) : 0;
            sum[r] = sum[r] * shrink + p[r];
            for (int c = 0; c < COLUMNS; c++) out[r][c] *= shrink;
            top[r] = higher;
        }
        weigh(out, p, v);
        __syncthreads();  // the tile may be overwritten
    }
    for (int r = 0; r < EACH; r++) {
        int i = first + threadIdx.y * EACH + r;
        float total = warp_sum(sum[r]), share = total > 0 ? 1 / total : 0;
        if (i >= T) continue;
        for (int c = 0; c < COLUMNS; c++) {
            int d = c * 32 + threadIdx.x;
            if (d < D) y[(((u64)b * T + i) * heads + h) * D + d] = out[r][c] * share;
        }
        if (threadIdx.x == 0) lse[((u64)b * heads + h) * T + i] = total > 0 ? top[r] + logf(total) : 0;
    }
}

// A thread block takes OWN queries of one head. means: (B, heads, T), dy.y;
// shared memory: SCRATCH + 2 OWN D + 2 LANES PITCH floats
extern "C" __global__ void __launch_bounds__(WARPS* LANES, 4)
    online_dq(elem* dqkv, float* means, const elem* qkv, const elem* y, const elem* dy, const float* lse,
              const int* documents, int T, int heads, int kv_heads, int causal, int window, float scale, float softcap,
              int add) {
    dependent_start();
    float *q = memory + SCRATCH, *above = q + OWN * D, *k = above + OWN * D, *v = k + LANES * PITCH;
    int b = blockIdx.x / heads, h = blockIdx.x % heads, g = h / (heads / kv_heads), first = blockIdx.y * OWN;
    u64 width = (heads + 2 * kv_heads) * D, y_width = heads * D;
    const elem* row = qkv + (u64)b * T * width;
    if (documents) documents += (u64)b * T;
    y += (u64)b * T * y_width + h * D;
    dy += (u64)b * T * y_width + h * D;
    copy_rows<true>(q, row + first * width + h * D, width, T - first);
    copy_rows<true>(above, dy + first * y_width, y_width, T - first);
    __syncthreads();

    float own_lse[EACH], mean[EACH], dq[EACH][COLUMNS] = {};
    for (int r = 0; r < EACH; r++) {
        int mine = threadIdx.y * EACH + r, i = first + mine;
        float part = 0;
        for (int d = threadIdx.x; d < D && i < T; d += 32) part += above[own_place(mine, d)] * y[i * y_width + d];
        mean[r] = warp_sum(part);
        own_lse[r] = i < T ? lse[(u64)blockIdx.x * T + i] : 0;
        if (threadIdx.x == 0 && i < T) means[(u64)blockIdx.x * T + i] = mean[r];
    }
    int from = window ? max(0, first - window + 1) / LANES * LANES : 0, to = causal ? min(T, first + OWN) : T;
    for (int tile = from; tile < to; tile += LANES) {
        copy_rows<false>(k, row + tile * width + (heads + g) * D, width, T - tile);
        copy_rows<false>(v, row + tile * width + (heads + kv_heads + g) * D, width, T - tile);
        __syncthreads();
        float ds[EACH], dp[EACH];
        multiply(ds, q, k);
        multiply(dp, above, v);
        int j = tile + threadIdx.x;
        for (int r = 0; r < EACH; r++) {
            int i = first + threadIdx.y * EACH + r;
            bool seen = i < T && j < T && visible(i, j, causal, window, documents);
            float s = capped(scale * ds[r], softcap), p = seen ? fast_exp(s - own_lse[r]) : 0;
            ds[r] = p * (dp[r] - mean[r]) * cap_slope(s, softcap) * scale;
        }
        weigh(dq, ds, k);
        __syncthreads();
    }
    for (int r = 0; r < EACH; r++) {
        int i = first + threadIdx.y * EACH + r;
        for (int c = 0; c < COLUMNS && i < T; c++) {
            int d = c * 32 + threadIdx.x;
            u64 at = ((u64)b * T + i) * width + h * D + d;
            if (d < D) dqkv[at] = (add ? float(dqkv[at]) : 0) + dq[r][c];
        }
    }
}

// A thread block takes OWN keys of one key head, and all queries of its group.
// shared memory: SCRATCH + 2 OWN D + 2 LANES PITCH floats
extern "C" __global__ void __launch_bounds__(WARPS* LANES, 4)
    online_dkv(elem* dqkv, const float* means, const elem* qkv, const elem* dy, const float* lse, const int* documents,
               int T, int heads, int kv_heads, int causal, int window, float scale, float softcap, int add) {
    dependent_start();
    float *k = memory + SCRATCH, *v = k + OWN * D, *q = v + OWN * D, *above = q + LANES * PITCH;
    int b = blockIdx.x / kv_heads, g = blockIdx.x % kv_heads, group = heads / kv_heads, first = blockIdx.y * OWN;
    u64 width = (heads + 2 * kv_heads) * D, y_width = heads * D;
    const elem* row = qkv + (u64)b * T * width;
    if (documents) documents += (u64)b * T;
    copy_rows<true>(k, row + first * width + (heads + g) * D, width, T - first);
    copy_rows<true>(v, row + first * width + (heads + kv_heads + g) * D, width, T - first);

    float dk[EACH][COLUMNS] = {}, dv[EACH][COLUMNS] = {};
    int from = causal ? first / LANES * LANES : 0, to = window ? min(T, first + OWN - 1 + window) : T;
    for (int h = g * group; h < (g + 1) * group; h++) {
        for (int tile = from; tile < to; tile += LANES) {
            copy_rows<false>(q, row + tile * width + h * D, width, T - tile);
            copy_rows<false>(above, dy + ((u64)b * T + tile) * y_width + h * D, y_width, T - tile);
            __syncthreads();
            float ds[EACH], p[EACH];
            multiply(ds, k, q);
            multiply(p, v, above);
            int i = tile + threadIdx.x;
            u64 at = ((u64)b * heads + h) * T + i;
            float own_lse = i < T ? lse[at] : 0, mean = i < T ? means[at] : 0;
            for (int r = 0; r < EACH; r++) {
                int j = first + threadIdx.y * EACH + r;
                bool seen = i < T && j < T && visible(i, j, causal, window, documents);
                float s = capped(scale * ds[r], softcap), dp = p[r];
                p[r] = seen ? fast_exp(s - own_lse) : 0;
                ds[r] = p[r] * (dp - mean) * cap_slope(s, softcap) * scale;
            }
            weigh(dk, ds, q);
            weigh(dv, p, above);
            __syncthreads();
        }
    }
    for (int r = 0; r < EACH; r++) {
        int j = first + threadIdx.y * EACH + r;
        for (int c = 0; c < COLUMNS && j < T; c++) {
            int d = c * 32 + threadIdx.x;
            u64 at_k = ((u64)b * T + j) * width + (heads + g) * D + d, at_v = at_k + kv_heads * D;
            if (d >= D) continue;
            dqkv[at_k] = (add ? float(dqkv[at_k]) : 0) + dk[r][c];
            dqkv[at_v] = (add ? float(dqkv[at_v]) : 0) + dv[r][c];
        }
    }
}
