// RMSNorm of the groups of queries and of keys in x (rows, E); the values are copied. Formulas: ../qk_norm.py.
// With n = g * rstd and dn = dy * (offset + weight), over a group g:  dg = rstd * (dn - n * mean(dn * n)),  dweight = sum dy * n.
// dx may share dy's memory; dweight, which reads dy too, then runs before it.
//
// naive_forward, naive_dx   one thread a group: neighbouring threads read addresses a group apart
// naive_dweight             one thread a column of the weights, all groups in order: a few hundred threads in all
// warp_forward, warp_dx     one warp a group, 16 bytes a lane: coalesced; limited by memory bandwidth
// warp_partials             a slice of the rows a thread block: enough of them to fill the GPU; sums into workspace
// warp_dweight              adds the slices up in order, so that bits repeat

#include "core/columns.cuh"
#include "core/width.cuh"

// How a row is divided: `queries` groups of Q, `keys` groups of K, and the values as as many groups of K.
struct Groups {
    int queries, keys, Q, K;
    __device__ int count() const { return queries + 2 * keys; }
    __device__ int size(int group) const { return group < queries ? Q : K; }
    __device__ int start(int group) const { return group < queries ? group * Q : queries * Q + (group - queries) * K; }
    __device__ int row() const { return queries * Q + 2 * keys * K; }
    __device__ bool copied(int group) const { return group >= queries + keys; }
};

// The places of group i of all rows and of its rstd.
struct Place {
    int group, size;
    u64 at, stat;
    __device__ Place(Groups g, u64 i) : group(i % g.count()), size(g.size(group)) {
        u64 row = i / g.count();
        at = row * g.row() + g.start(group);
        stat = row * (g.queries + g.keys) + group;
    }
};

// The factor of a normed element: 1 without a weight.
__device__ inline float factor(const elem* weight, int c, float offset) { return weight ? offset + float(weight[c]) : 1; }

// --- naive ---------------------------------------------------------------------------------------------------------

// y, x: (rows, E); rstd: (rows, queries + keys); q: (Q), k: (K), the weights
extern "C" __global__ void naive_forward(elem* y, float* rstd, const elem* x, const elem* q, const elem* k, int rows,
                                         int queries, int keys, int Q, int K, float eps, float offset) {
    Groups g = {queries, keys, Q, K};
    u64 i = global_thread();
    if (i >= (u64)rows * g.count()) return;
    Place p(g, i);
    x += p.at;
    y += p.at;
    if (g.copied(p.group)) {
        for (int c = 0; c < p.size; c++) y[c] = x[c];
        return;
    }
    const elem* weight = p.group < queries ? q : k;
    float squares = 0;
    for (int c = 0; c < p.size; c++) squares += x[c] * x[c];
    float r = 1 / sqrtf(squares / p.size + eps);
    for (int c = 0; c < p.size; c++) y[c] = x[c] * r * factor(weight, c, offset);
    rstd[p.stat] = r;
}

extern "C" __global__ void naive_dx(elem* dx, const elem* dy, const elem* x, const elem* q, const elem* k,
                                    const float* rstd, int rows, int queries, int keys, int Q, int K, float offset) {
    Groups g = {queries, keys, Q, K};
    u64 i = global_thread();
    if (i >= (u64)rows * g.count()) return;
    Place p(g, i);
    x += p.at;
    dy += p.at;
    dx += p.at;
    if (g.copied(p.group)) {
        for (int c = 0; c < p.size; c++) dx[c] = dy[c];
        return;
    }
    const elem* weight = p.group < queries ? q : k;
    float r = rstd[p.stat], along_n = 0;  // mean(dn * n)
    for (int c = 0; c < p.size; c++) along_n += dy[c] * factor(weight, c, offset) * x[c] * r / p.size;
    for (int c = 0; c < p.size; c++) dx[c] = r * (dy[c] * factor(weight, c, offset) - x[c] * r * along_n);
}

// dweight: of the groups from `first`, `count` in number, `size` wide, which start at element `from` of a row
extern "C" __global__ void naive_dweight(float* dweight, const elem* dy, const elem* x, const float* rstd, int rows,
                                         int E, int groups, int first, int count, int from, int size, int add) {
    u64 c = global_thread();
    if (c >= size) return;
    float sum = add ? dweight[c] : 0;
    for (int row = 0; row < rows; row++) {
        for (int i = 0; i < count; i++) {
            u64 at = (u64)row * E + from + i * size + c;
            sum += dy[at] * x[at] * rstd[(u64)row * groups + first + i];
        }
    }
    dweight[c] = sum;
}

// --- warp ----------------------------------------------------------------------------------------------------------

// block (32, warps): one warp a group
extern "C" __global__ void warp_forward(elem* __restrict__ y, float* __restrict__ rstd, const elem* __restrict__ x,
                                        const elem* __restrict__ q, const elem* __restrict__ k, int rows, int queries,
                                        int keys, int Q, int K, float eps, float offset) {
    Groups g = {queries, keys, Q, K};
    u64 i = global_row();
    if (i >= (u64)rows * g.count()) return;  // a whole warp leaves, so that the others' sums are over 32 lanes
    Place p(g, i);
    x += p.at;
    y += p.at;
    if (g.copied(p.group)) {
        for (int c = threadIdx.x * WIDTH; c < p.size; c += 32 * WIDTH) store(y + c, load<WIDTH>(x + c));
        return;
    }
    const elem* weight = p.group < queries ? q : k;
    float squares = 0;
    for (int c = threadIdx.x * WIDTH; c < p.size; c += 32 * WIDTH) {
        auto in = load<WIDTH>(x + c);
        for (int j = 0; j < WIDTH; j++) squares += in[j] * in[j];
    }
    float r = rsqrtf(warp_sum(squares) / p.size + eps);
    for (int c = threadIdx.x * WIDTH; c < p.size; c += 32 * WIDTH) {  // x is in the cache here
        auto in = load<WIDTH>(x + c), scale = held(weight + c, weight != nullptr);
        for (int j = 0; j < WIDTH; j++) in[j] = in[j] * r * (weight ? offset + scale[j] : 1);
        store(y + c, in);
    }
    if (threadIdx.x == 0) rstd[p.stat] = r;
}

extern "C" __global__ void warp_dx(elem* dx, const elem* dy, const elem* __restrict__ x, const elem* __restrict__ q,
                                   const elem* __restrict__ k, const float* __restrict__ rstd, int rows, int queries,
                                   int keys, int Q, int K, float offset) {
    Groups g = {queries, keys, Q, K};
    u64 i = global_row();
    if (i >= (u64)rows * g.count()) return;
    Place p(g, i);
    x += p.at;
    dy += p.at;
    dx += p.at;
    if (g.copied(p.group)) {
        for (int c = threadIdx.x * WIDTH; c < p.size; c += 32 * WIDTH) store(dx + c, load<WIDTH>(dy + c));
        return;
    }
    const elem* weight = p.group < queries ? q : k;
    float r = rstd[p.stat], along_n = 0;
    for (int c = threadIdx.x * WIDTH; c < p.size; c += 32 * WIDTH) {
        auto in = load<WIDTH>(x + c), above = load<WIDTH>(dy + c), scale = held(weight + c, weight != nullptr);
        for (int j = 0; j < WIDTH; j++) along_n += above[j] * (weight ? offset + scale[j] : 1) * in[j];
    }
    along_n = warp_sum(along_n) * r / p.size;
    for (int c = threadIdx.x * WIDTH; c < p.size; c += 32 * WIDTH) {
        auto in = load<WIDTH>(x + c), above = load<WIDTH>(dy + c), scale = held(weight + c, weight != nullptr);
            for (int j = 0; j < WIDTH; j++) {
            float dn = above[j] * (weight ? offset + scale[j] : 1);
            in[j] = r * (dn - in[j] * r * along_n);
        }
        store(dx + c, in);
    }
}

// partials: (slices, size). The rest as in naive_dweight.
extern "C" __global__ void warp_partials(float* __restrict__ partials, const elem* __restrict__ dy,
                                         const elem* __restrict__ x, const float* __restrict__ rstd, int rows, int E,
                                         int groups, int first, int count, int from, int size, int slice) {
    slice_sums<1>(partials, rows, size, slice, [&](float* sum, u64 row, int c) {
        for (int i = 0; i < count; i++) {
            u64 at = row * E + from + i * size + c;
            *sum += dy[at] * x[at] * rstd[row * groups + first + i];
        }
    });
}

// dweight: (size); partials: (slices, size)
extern "C" __global__ void warp_dweight(float* dweight, const float* partials, int slices, int size, int add) {
    add_slices(dweight, partials, slices, size, size, add);
}
