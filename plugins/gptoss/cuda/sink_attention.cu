// Causal attention with a sink for each head (formulas: ../sink_attention.py): for query i and key j <= i of one head
//     s = scale q.k;  p = exp(s - lse);  y = sum_j p v;  ds = p (dy.v - dy.y) scale
//     dq = sum_j ds k,  dk = sum_i ds q,  dv = sum_i p dy,  dsink = -sum_i exp(sink - lse) dy.y
// qkv: (B, T, heads + 2 kv_heads, D), the queries first, then keys, then values; y: (B, T, heads, D).
//
// append    new keys and values into the caches (B, S, kv_heads, D), row b from start[b]
// forward   one warp a query, one lane a key: softmax is corrected while keys pass, 32 at a time; no T x T matrix
// dq, dkv   one warp a query, then a key of one head of keys: probabilities are worked out again, each gradient has one
//           writer; limited by loads, which no warp shares with another
// dsink     one thread block a head, its rows in a fixed order

constexpr int LANES = 32;
extern __shared__ float sums[];  // of columns: D, or 2 D

// Keys or values of one head: element (row, t, d) is at[row * batch + t * step + d].
struct Rows {
    const elem* at;
    u64 batch, step;
};

__device__ inline float dot(const elem* a, const elem* b, int n) {
    float sum = 0;
    for (int i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

// qkv: (B, T, heads + 2 kv_heads, D); k, v: (B, S, kv_heads, D); grid (T, B)
extern "C" __global__ void append(elem* k, elem* v, const elem* qkv, const int* start, int T, int S, int heads,
                                  int kv_heads, int D) {
    int t = blockIdx.x, b = blockIdx.y, size = kv_heads * D;
    const elem* key = qkv + ((u64)b * T + t) * (heads + 2 * kv_heads) * D + heads * D;
    u64 at = ((u64)b * S + start[b] + t) * size;
    for (int n = threadIdx.x; n < size; n += blockDim.x) {
        k[at + n] = key[n];
        v[at + n] = key[size + n];
    }
}

// grid (T, heads, B), one warp. cache_k, cache_v, start: null where there is no cache; lse: null while decoding
extern "C" __global__ void forward(elem* y, float* lse, const elem* qkv, const elem* sink, const elem* cache_k,
                                   const elem* cache_v, const int* start, int T, int S, int heads, int kv_heads, int D,
                                   int window, float scale) {
    int t = blockIdx.x, h = blockIdx.y, b = blockIdx.z, lane = threadIdx.x, head = h / (heads / kv_heads);
    int width = (heads + 2 * kv_heads) * D;
    const elem* q = qkv + ((u64)b * T + t) * width + h * D;
    Rows k = {qkv + (heads + head) * D, (u64)T * width, (u64)width}, v = k;
    v.at += kv_heads * D;
    if (start) {
        k = {cache_k + head * D, (u64)S * kv_heads * D, (u64)kv_heads * D};
        v = {cache_v + head * D, k.batch, k.step};
    }
    int i = t + (start ? start[b] : 0), first = window ? max(0, i + 1 - window) : 0;
    float top = sink[h], total = 1;
    for (int d = lane; d < D; d += LANES) sums[d] = 0;
    for (int tile = first; tile <= i; tile += LANES) {
        int j = tile + lane;
        float s = j <= i ? scale * dot(q, k.at + b * k.batch + j * k.step, D) : -INFINITY;
        float now = fmaxf(top, warp_max(s)), old = expf(top - now), weight = expf(s - now);
        total = total * old + warp_sum(weight);
        int count = min(LANES, i + 1 - tile);
        for (int d0 = 0; d0 < D; d0 += LANES) {
            int d = d0 + lane;
            float sum = d < D ? sums[d] * old : 0;
            for (int n = 0; n < count; n++) {
                float share = __shfl_sync(ALL, weight, n);
                if (d < D) sum += share * v.at[b * v.batch + (tile + n) * v.step + d];
            }
            if (d < D) sums[d] = sum;
        }
        top = now;
    }
    for (int d = lane; d < D; d += LANES) y[(((u64)b * T + t) * heads + h) * D + d] = sums[d] / total;
    if (lse && lane == 0) lse[((u64)b * heads + h) * T + t] = top + logf(total);
}

// grid (T, heads, B), one warp; lse: (B, heads, T)
extern "C" __global__ void dq(elem* dqkv, const elem* dy, const elem* y, const elem* qkv, const float* lse, int T,
                              int heads, int kv_heads, int D, int window, float scale, int add) {
    int i = blockIdx.x, h = blockIdx.y, b = blockIdx.z, lane = threadIdx.x, head = h / (heads / kv_heads);
    int width = (heads + 2 * kv_heads) * D, first = window ? max(0, i + 1 - window) : 0;
    const elem *row = qkv + (u64)b * T * width, *q = row + (u64)i * width + h * D;
    const elem *k = row + (heads + head) * D, *v = k + kv_heads * D;
    u64 at = (((u64)b * T + i) * heads + h) * D;
    float along = dot(dy + at, y + at, D), top = lse[((u64)b * heads + h) * T + i];
    for (int d = lane; d < D; d += LANES) sums[d] = 0;
    for (int tile = first; tile <= i; tile += LANES) {
        int j = tile + lane, count = min(LANES, i + 1 - tile);
        float ds = 0;
        if (j <= i) {
            float p = expf(scale * dot(q, k + (u64)j * width, D) - top);
            ds = p * (dot(dy + at, v + (u64)j * width, D) - along) * scale;
        }
        for (int d0 = 0; d0 < D; d0 += LANES) {
            int d = d0 + lane;
            float sum = 0;
            for (int n = 0; n < count; n++) {
                float share = __shfl_sync(ALL, ds, n);
                if (d < D) sum += share * k[(u64)(tile + n) * width + d];
            }
            if (d < D) sums[d] += sum;
        }
    }
    elem* out = dqkv + ((u64)b * T + i) * width + h * D;
    for (int d = lane; d < D; d += LANES) out[d] = (add ? float(out[d]) : 0) + sums[d];
}

// grid (T, kv_heads, B), one warp: dk and dv of key j from all queries of its group that see it
extern "C" __global__ void dkv(elem* dqkv, const elem* dy, const elem* y, const elem* qkv, const float* lse, int T,
                               int heads, int kv_heads, int D, int window, float scale, int add) {
    int j = blockIdx.x, head = blockIdx.y, b = blockIdx.z, lane = threadIdx.x, group = heads / kv_heads;
    int width = (heads + 2 * kv_heads) * D, last = window ? min(T, j + window) : T;
    const elem* row = qkv + (u64)b * T * width;
    const elem *k = row + (u64)j * width + (heads + head) * D, *v = k + kv_heads * D;
    float *dk = sums, *dv = sums + D;
    for (int d = lane; d < D; d += LANES) dk[d] = dv[d] = 0;
    for (int h = head * group; h < (head + 1) * group; h++) {
        for (int tile = j; tile < last; tile += LANES) {
            int i = tile + lane, count = min(LANES, last - tile);
            float p = 0, ds = 0;
            if (i < last) {
                u64 at = (((u64)b * T + i) * heads + h) * D;
                p = expf(scale * dot(row + (u64)i * width + h * D, k, D) - lse[((u64)b * heads + h) * T + i]);
                ds = p * (dot(dy + at, v, D) - dot(dy + at, y + at, D)) * scale;
            }
            for (int d0 = 0; d0 < D; d0 += LANES) {
                int d = d0 + lane;
                float sum_k = 0, sum_v = 0;
                for (int n = 0; n < count; n++) {
                    float share_k = __shfl_sync(ALL, ds, n), share_v = __shfl_sync(ALL, p, n);
                    if (d < D) {
                        sum_k += share_k * row[(u64)(tile + n) * width + h * D + d];
                        sum_v += share_v * dy[(((u64)b * T + tile + n) * heads + h) * D + d];
                    }
                }
                if (d < D) dk[d] += sum_k, dv[d] += sum_v;
            }
        }
    }
    elem *out_k = dqkv + ((u64)b * T + j) * width + (heads + head) * D, *out_v = out_k + kv_heads * D;
    for (int d = lane; d < D; d += LANES) {
        out_k[d] = (add ? float(out_k[d]) : 0) + dk[d];
        out_v[d] = (add ? float(out_v[d]) : 0) + dv[d];
    }
}

// grid heads
extern "C" __global__ void dsink(float* dsink, const elem* dy, const elem* y, const elem* sink, const float* lse, int B,
                                 int T, int heads, int D, int add) {
    int h = blockIdx.x;
    float sum = 0;
    for (int row = threadIdx.x; row < B * T; row += blockDim.x) {
        int b = row / T, i = row % T;
        u64 at = ((u64)row * heads + h) * D;
        sum -= expf(sink[h] - lse[((u64)b * heads + h) * T + i]) * dot(dy + at, y + at, D);
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) dsink[h] = (add ? dsink[h] : 0) + sum;
}
