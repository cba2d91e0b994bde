// Rotary positions and attention of a few tokens after those in a cache. Formulas: ../rope.py, ../../../ops/attention.py.
//
// decode   one thread block a sequence and head of keys: turns and appends its keys, appends its values, and has each
//          of its queries, turned, look at all entries up to its own: one launch where rope, append and attention are
//          three, and no tensor of qkv's size is written. A warp takes 32 keys at a time, one a lane, under a softmax of
//          its own; the warps' are put together at the end. Limited by how fast one thread block reads its cache.

#include "angle.cuh"
#include "core/width.cuh"

#ifndef WARPS
#define WARPS 4
#endif

constexpr int LANES = 32;

__shared__ float q[D];             // a query, turned
__shared__ float p[WARPS][LANES];  // a tile's weights
__shared__ float sums[WARPS][D];   // of values, by these weights
__shared__ float tops[WARPS], totals[WARPS];

// out, of any type, = a head turned to a position
template <class T>
__device__ inline void turn(T* out, const elem* in, int position) {
    for (int i = threadIdx.x; i < PAIRS; i += blockDim.x) {
        float cos, sin, x1 = in[column1(i)], x2 = in[column2(i)];
        angle(position, i, cos, sin);
        out[column1(i)] = x1 * cos - x2 * sin;
        out[column2(i)] = x2 * cos + x1 * sin;
    }
}

// a warp's share of keys first + 32 warp, ... up to `last`: top, total and sums
__device__ inline void look(const elem* k, const elem* v, int stride, int first, int last, float scale, float softcap) {
    int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES;
    float top = -INFINITY, total = 0;
    for (int d = lane; d < D; d += LANES) sums[warp][d] = 0;
    for (int tile = first + warp * LANES; tile <= last; tile += WARPS * LANES) {
        float s = -INFINITY;
        if (tile + lane <= last) {
            s = 0;
            for (int d = 0; d < D; d += WIDTH) {
                auto key = load<WIDTH>(k + (u64)(tile + lane) * stride + d);
                for (int w = 0; w < WIDTH; w++) s += q[d + w] * key[w];
            }
            s *= scale;
            if (softcap > 0) s = softcap * tanhf(s / softcap);
        }
        float now = fmaxf(top, warp_max(s)), old = expf(top - now);
        float weight = expf(s - now);
        total = total * old + warp_sum(weight);
        p[warp][lane] = weight;
        __syncwarp();
        int count = min(LANES, last + 1 - tile);
        for (int d = lane; d < D; d += LANES) {
            float sum = sums[warp][d] * old;
            for (int n = 0; n < count; n++) sum += p[warp][n] * v[(u64)(tile + n) * stride + d];
            sums[warp][d] = sum;
        }
        top = now;
        __syncwarp();  // before the weights are written over
    }
    if (lane == 0) tops[warp] = top, totals[warp] = total;
}

// y: (B, T, heads, D); k, v: (B, S, kv_heads, D); qkv: (B, T, heads + 2 kv_heads, D); start: (B), null for 0
extern "C" __global__ void __launch_bounds__(WARPS* LANES, 1)
    decode(elem* y, elem* k, elem* v, const elem* qkv, const int* start, int T, int S, int heads, int kv_heads,
           int window, float scale, float softcap) {
    int head = blockIdx.x, row = blockIdx.y, group = heads / kv_heads, width = (heads + 2 * kv_heads) * D;
    int begin = start ? start[row] : 0, stride = kv_heads * D;
    qkv += (u64)row * T * width;
    y += (u64)row * T * heads * D;
    k += (u64)row * S * stride + head * D;
    v += (u64)row * S * stride + head * D;
    for (int t = 0; t < T; t++) {
        const elem* key = qkv + (u64)t * width + (heads + head) * D;
        u64 at = (u64)(begin + t) * stride;
        turn(k + at, key, begin + t);
        for (int d = threadIdx.x; d < D; d += blockDim.x) v[at + d] = key[stride + d];
    }
    for (int t = 0; t < T; t++) {
        for (int h = head * group; h < (head + 1) * group; h++) {
            __syncthreads();  // the cache is written; the last query's sums are read
            turn(q, qkv + (u64)t * width + h * D, begin + t);
            __syncthreads();
            int last = begin + t, first = window ? max(0, last + 1 - window) : 0;
            look(k, v, stride, first, last, scale, softcap);
            __syncthreads();
            float top = tops[0];
            for (int w = 1; w < WARPS; w++) top = fmaxf(top, tops[w]);
            for (int d = threadIdx.x; d < D; d += blockDim.x) {
                float sum = 0, total = 0;
                for (int w = 0; w < WARPS; w++) {
                    float share = expf(tops[w] - top);  // 0 for a warp that had no key
                    sum += share * sums[w][d];
                    total += share * totals[w];
                }
                y[((u64)t * heads + h) * D + d] = sum / total;
            }
        }
    }
}
