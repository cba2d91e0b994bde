// Attention of a few queries over a long cache, as decoding has it: keys are cut into slices, and these spread over the
// chip (T. Dao et al., "Flash-Decoding for long-context inference", 2023). Formulas and layouts: attention.cu.
//
// split_decode    y: a thread block has a slice of one key head's cache, and up to ROWS queries that share it; the one
//                 that ends last joins the slices in their order, so that bits repeat
//
// Limited by memory: every key and value is read once, 16 bytes a lane, for all queries of its group, where `online`
// and `flash` have one thread block for all keys of a head. The products are the float units': few queries have few.

#ifndef HEAD_DIM  // the launcher's settings
#define HEAD_DIM 64
#define ROWS 1  // queries of a thread block: a power of two, at most 8
#define WARPS 4
#endif

constexpr int D = HEAD_DIM, CHUNK = 16 / sizeof(elem), CHUNKS = D / CHUNK;  // elements in 16 bytes; of a key
constexpr int lanes_of(int n) { return n > 16 ? 32 : n > 8 ? 16 : n > 4 ? 8 : n > 2 ? 4 : n; }
constexpr int LANES = lanes_of(CHUNKS), PARTS = (CHUNKS + LANES - 1) / LANES;  // of a key; 16 bytes of it for each
constexpr int KEYS = 32 / LANES, AHEAD = PARTS * ROWS > 8 ? 1 : 2;  // of a warp at a time; such loads under way
constexpr int COLUMNS = PARTS * CHUNK;                              // of a key, that a lane has
constexpr int HELD = D + 2;  // floats of a query's part: sums of p v, the largest score, the sum of p
constexpr float LOWEST = -1e30f;  // below all scores, and still a number

// Softmax of one query over some keys: a lane's columns of the sum of exp(s - top) v, and the sum of exp(s - top)
struct Part {
    float top, sum, out[COLUMNS];

    // Joins another one. An empty one has LOWEST and zeros.
    __device__ void join(float other_top, float other_sum, const float (&other)[COLUMNS]) {
        float higher = fmaxf(top, other_top), mine = fast_exp(top - higher), its = fast_exp(other_top - higher);
        top = higher;
        sum = sum * mine + other_sum * its;
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) out[c] = out[c] * mine + other[c] * its;
    }
};

// A lane's elements of a key, a value or a query: the same CHUNK of each PARTS-th of it; zeros beyond D
__device__ inline int column(int part) { return (part * LANES + threadIdx.x % LANES) * CHUNK; }

__device__ inline Pack<elem, CHUNK> chunk_of(const elem* row, int part) {
    Pack<elem, CHUNK> zeros = {};
    return column(part) < D ? load<CHUNK>(row + column(part)) : zeros;
}

// partial: (B kv_heads groups, slices, ROWS, HELD), counters: one for each of the first; neither is touched if there is
// one slice. grid: (B kv_heads, slices, groups of ROWS of a key head's T heads / kv_heads queries)
extern "C" __global__ void __launch_bounds__(32 * WARPS, 1)
    split_decode(elem* y, const elem* qkv, const elem* k_cache, const elem* v_cache, const int* start, float* partial,
                 u32* counters, int T, int S, int heads, int kv_heads, int window, float scale, float softcap) {
    dependent_start();
    __shared__ float parts[WARPS][ROWS][HELD];
    __shared__ bool last;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int b = blockIdx.x / kv_heads, g = blockIdx.x % kv_heads, group = heads / kv_heads, rows = T * group;
    int first = blockIdx.z * ROWS, offset = start[b], end = offset + T;
    int from = window ? max(0, offset - window + 1) : 0;  // of the first query's keys
    int each = (end - from + gridDim.y - 1) / gridDim.y, key_from = from + blockIdx.y * each;
    int key_to = min(key_from + each, end);
    u64 width = (u64)kv_heads * D;
    const elem *all_k = k_cache + (u64)b * S * width + g * D, *all_v = v_cache + (u64)b * S * width + g * D;

    Pack<float, COLUMNS> q[ROWS];
    Part own[ROWS];
    int position[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        int row = min(first + r, rows - 1), i = row / group, h = g * group + row % group;
        const elem* query = qkv + ((u64)b * T + i) * (heads + 2 * kv_heads) * D + h * D;
        position[r] = offset + i;
        own[r] = {LOWEST};
#pragma unroll
        for (int part = 0; part < PARTS; part++) {
            auto chunk = chunk_of(query, part);
#pragma unroll
            for (int e = 0; e < CHUNK; e++) q[r][part * CHUNK + e] = scale * chunk[e];
        }
    }
#pragma unroll 1
    for (int j = key_from + warp * KEYS; j < key_to; j += AHEAD * WARPS * KEYS) {
        Pack<elem, CHUNK> keys[AHEAD][PARTS], values[AHEAD][PARTS];
#pragma unroll
        for (int a = 0; a < AHEAD; a++) {
            u64 at = min(j + a * WARPS * KEYS + lane / LANES, key_to - 1) * width;  // beyond the end: the last, hidden
#pragma unroll
            for (int part = 0; part < PARTS; part++) {
                keys[a][part] = chunk_of(all_k + at, part);
                values[a][part] = chunk_of(all_v + at, part);
            }
        }
#pragma unroll
        for (int a = 0; a < AHEAD; a++) {
            int key = j + a * WARPS * KEYS + lane / LANES;
            float value[COLUMNS];
#pragma unroll
            for (int c = 0; c < COLUMNS; c++) value[c] = values[a][c / CHUNK][c % CHUNK];
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                float s = 0;
#pragma unroll
                for (int c = 0; c < COLUMNS; c++) s += q[r][c] * float(keys[a][c / CHUNK][c % CHUNK]);
#pragma unroll
                for (int n = LANES / 2; n > 0; n /= 2) s += __shfl_xor_sync(ALL, s, n);
                if (softcap > 0) s = softcap * tanhf(s / softcap);
                bool seen = key < key_to && key <= position[r] && (!window || position[r] - key < window);
                own[r].join(seen ? s : -INFINITY, seen, value);
            }
        }
    }
    // the parts of a warp's keys, then of the warps, then of the slices, each in its order
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
#pragma unroll
        for (int n = LANES; n < 32; n *= 2) {
            float top = __shfl_xor_sync(ALL, own[r].top, n), sum = __shfl_xor_sync(ALL, own[r].sum, n), out[COLUMNS];
#pragma unroll
            for (int c = 0; c < COLUMNS; c++) out[c] = __shfl_xor_sync(ALL, own[r].out[c], n);
            own[r].join(top, sum, out);
        }
        if (lane >= LANES) continue;
#pragma unroll
        for (int c = 0; c < COLUMNS; c++) {
            int d = column(c / CHUNK) + c % CHUNK;
            if (d < D) parts[warp][r][d] = own[r].out[c];
        }
        if (lane == 0) parts[warp][r][D] = own[r].top, parts[warp][r][D + 1] = own[r].sum;
    }
    __syncthreads();
    // result (row, d) of `count` parts, `stride` floats apart: the sum of p v, with the largest score and the sum of p
    auto joined = [&](const float* part, int count, int stride, int r, int d, float& top, float& sum) {
        float out = 0;
        top = LOWEST, sum = 0;
        for (int n = 0; n < count; n++, part += stride) {
            const float* row = part + r * HELD;
            float higher = fmaxf(top, row[D]), mine = fast_exp(top - higher), its = fast_exp(row[D] - higher);
            out = out * mine + row[d] * its;
            sum = sum * mine + row[D + 1] * its;
            top = higher;
        }
        return out;
    };
    u64 place = (u64)blockIdx.z * gridDim.x + blockIdx.x;
    float* slices = partial + place * gridDim.y * ROWS * HELD;
    float top, sum;
    if (gridDim.y > 1) {
        float* mine = slices + blockIdx.y * ROWS * HELD;
        for (int at = threadIdx.x; at < ROWS * D; at += 32 * WARPS) {
            int r = at / D, d = at % D;
            mine[r * HELD + d] = joined(parts[0][0], WARPS, ROWS * HELD, r, d, top, sum);
            if (d == 0) mine[r * HELD + D] = top, mine[r * HELD + D + 1] = sum;
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            __threadfence();  // this thread block's parts are visible before its count, and the others' after it
            last = atomicAdd(counters + place, 1) == gridDim.y - 1;
            __threadfence();
            if (last) counters[place] = 0;
        }
        __syncthreads();
        if (!last) return;
    }
    const float* all = gridDim.y > 1 ? slices : parts[0][0];
    int count = gridDim.y > 1 ? gridDim.y : WARPS;
    for (int at = threadIdx.x; at < ROWS * D; at += 32 * WARPS) {
        int r = at / D, d = at % D, row = first + r;
        if (row >= rows) break;
        float out = joined(all, count, ROWS * HELD, r, d, top, sum);
        y[(((u64)b * T + row / group) * heads + g * group + row % group) * D + d] = out / sum;
    }
}
