// Layer normalization: y = n * weight + bias, n = (x - mean) * rstd, for x (rows, C). Formulas: ../layernorm.py.
// With dn = dy * weight:  dx = rstd * (dn - mean(dn) - n * mean(dn * n)),  dweight = sum dy * n,  dbias = sum dy.
//
// naive_forward, naive_dx   one thread a row: neighbouring threads read addresses C apart, 32 transactions a load
// naive_dparams             one thread a column, rows in order: coalesced, but C threads do not fill a GPU
// warp_forward, warp_dx     one warp a row, 16 bytes a lane: coalesced; limited by memory bandwidth
// warp_partials             a slice of the rows a thread block: enough of them to fill the GPU; sums into workspace
// warp_dparams              adds the slices up in order, so that bits repeat
// shared_backward           dx and the slices' sums in one pass: dy and x come from memory once; each warp sums in
//                           shared memory of its own
// shared_dparams            adds the slices up, 8 threads a column, in a fixed order

#include "core/columns.cuh"
#include "core/width.cuh"

// --- naive ---------------------------------------------------------------------------------------------------------

// y, x: (rows, C); mean, rstd: (rows); weight, bias: (C)
extern "C" __global__ void naive_forward(elem* y, float* mean, float* rstd, const elem* x, const elem* weight,
                                         const elem* bias, int rows, int C, float eps) {
    u64 row = global_thread();
    if (row >= rows) return;
    x += row * C;
    y += row * C;
    float sum = 0, rest = 0, squares = 0;
    for (int c = 0; c < C; c++) sum += x[c];
    float m = sum / C;
    for (int c = 0; c < C; c++) rest += x[c] - m;  // the rounding error of a long sum far from zero
    m += rest / C;
    for (int c = 0; c < C; c++) squares += (x[c] - m) * (x[c] - m);
    float r = 1 / sqrtf(squares / C + eps);
    for (int c = 0; c < C; c++) y[c] = (x[c] - m) * r * weight[c] + (bias ? float(bias[c]) : 0);
    mean[row] = m;
    rstd[row] = r;
}

// dx, dy, x: (rows, C)
extern "C" __global__ void naive_dx(elem* dx, const elem* dy, const elem* x, const elem* weight, const float* mean,
                                    const float* rstd, int rows, int C, int add) {
    u64 row = global_thread();
    if (row >= rows) return;
    x += row * C;
    dy += row * C;
    dx += row * C;
    float m = mean[row], r = rstd[row];
    float along_one = 0, along_n = 0;  // mean(dn), mean(dn * n)
    for (int c = 0; c < C; c++) {
        float dn = dy[c] * weight[c];
        along_one += dn / C;
        along_n += dn * (x[c] - m) * r / C;
    }
    for (int c = 0; c < C; c++) {
        float dn = dy[c] * weight[c], n = (x[c] - m) * r;
        dx[c] = (add ? float(dx[c]) : 0) + r * (dn - along_one - n * along_n);
    }
}

// dweight, dbias: (C), either may be null; dy, x: (rows, C)
extern "C" __global__ void naive_dparams(float* dweight, float* dbias, const elem* dy, const elem* x, const float* mean,
                                         const float* rstd, int rows, int C, int add_weight, int add_bias) {
    u64 c = global_thread();
    if (c >= C) return;
    float weights = 0, biases = 0;
    for (int row = 0; row < rows; row++) {
        u64 at = (u64)row * C + c;
        weights += dy[at] * (x[at] - mean[row]) * rstd[row];
        biases += dy[at];
    }
    if (dweight) dweight[c] = (add_weight ? dweight[c] : 0) + weights;
    if (dbias) dbias[c] = (add_bias ? dbias[c] : 0) + biases;
}

// --- warp ----------------------------------------------------------------------------------------------------------

// y, x: (rows, C); block (32, warps)
extern "C" __global__ void warp_forward(elem* __restrict__ y, float* __restrict__ mean, float* __restrict__ rstd,
                                        const elem* __restrict__ x, const elem* __restrict__ weight,
                                        const elem* __restrict__ bias, int rows, int C, float eps) {
    u64 row = global_row();
    if (row >= rows) return;  // a whole warp leaves, so that the others' sums are over 32 lanes
    x += row * C;
    y += row * C;
    float sum = 0, squares = 0;
    for (int c = threadIdx.x * WIDTH; c < C; c += 32 * WIDTH) {
        auto in = load<WIDTH>(x + c);
        for (int k = 0; k < WIDTH; k++) sum += in[k];
    }
    float m = warp_sum(sum) / C;
    for (int c = threadIdx.x * WIDTH; c < C; c += 32 * WIDTH) {  // x comes from cache from here on
        auto in = load<WIDTH>(x + c);
        for (int k = 0; k < WIDTH; k++) squares += (in[k] - m) * (in[k] - m);
    }
    float r = rsqrtf(warp_sum(squares) / C + eps);
    for (int c = threadIdx.x * WIDTH; c < C; c += 32 * WIDTH) {
        auto in = load<WIDTH>(x + c), scale = load<WIDTH>(weight + c);
        Pack<elem, WIDTH> shift, out;
        if (bias) shift = load<WIDTH>(bias + c);
        for (int k = 0; k < WIDTH; k++) out[k] = (in[k] - m) * r * scale[k] + (bias ? float(shift[k]) : 0);
        store(y + c, out);
    }
    if (threadIdx.x == 0) {
        mean[row] = m;
        rstd[row] = r;
    }
}

// dx, dy, x: (rows, C); block (32, warps)
extern "C" __global__ void warp_dx(elem* __restrict__ dx, const elem* __restrict__ dy, const elem* __restrict__ x,
                                   const elem* __restrict__ weight, const float* __restrict__ mean,
                                   const float* __restrict__ rstd, int rows, int C, int add) {
    u64 row = global_row();
    if (row >= rows) return;
    x += row * C;
    dy += row * C;
    dx += row * C;
    float m = mean[row], r = rstd[row], along_one = 0, along_n = 0;
    for (int c = threadIdx.x * WIDTH; c < C; c += 32 * WIDTH) {
        auto in = load<WIDTH>(x + c), above = load<WIDTH>(dy + c), scale = load<WIDTH>(weight + c);
        for (int k = 0; k < WIDTH; k++) {
            float dn = above[k] * scale[k];
            along_one += dn;
            along_n += dn * (in[k] - m) * r;
        }
    }
    along_one = warp_sum(along_one) / C;
    along_n = warp_sum(along_n) / C;
    for (int c = threadIdx.x * WIDTH; c < C; c += 32 * WIDTH) {
        auto in = load<WIDTH>(x + c), above = load<WIDTH>(dy + c), scale = load<WIDTH>(weight + c);
        auto out = held(dx + c, add);
        for (int k = 0; k < WIDTH; k++) {
            float n = (in[k] - m) * r;
            out[k] = out[k] + r * (above[k] * scale[k] - along_one - n * along_n);
        }
        store(dx + c, out);
    }
}

// partials: (slices, 2, C), for dweight and dbias; dy, x: (rows, C)
extern "C" __global__ void warp_partials(float* __restrict__ partials, const elem* __restrict__ dy,
                                         const elem* __restrict__ x, const float* __restrict__ mean,
                                         const float* __restrict__ rstd, int rows, int C, int slice) {
    slice_sums<2>(partials, rows, C, slice, [&](float* sums, u64 row, int c) {
        float above = dy[row * C + c];
        sums[0] += above * (x[row * C + c] - mean[row]) * rstd[row];
        sums[1] += above;
    });
}

// dweight, dbias: (C), either may be null; partials: (slices, 2, C)
extern "C" __global__ void warp_dparams(float* dweight, float* dbias, const float* partials, int slices, int C,
                                        int add_weight, int add_bias) {
    if (dweight) add_slices(dweight, partials, slices, 2 * C, C, add_weight);
    if (dbias) add_slices(dbias, partials + C, slices, 2 * C, C, add_bias);
}

// --- shared --------------------------------------------------------------------------------------------------------

// dx or partials may be null. partials: (slices, 2, C); block (32, warps), a slice of the rows each
extern "C" __global__ void shared_backward(elem* dx, float* __restrict__ partials, const elem* __restrict__ dy,
                                           const elem* __restrict__ x, const elem* __restrict__ weight,
                                           const float* __restrict__ mean, const float* __restrict__ rstd, int rows,
                                           int C, int slice, int add) {
    alignas(128) extern __shared__ float sums[];  // (warps, 2, C); a lane touches its own columns only
    float *weights = sums + threadIdx.y * 2 * C, *biases = weights + C;
    for (int c = threadIdx.x * WIDTH; c < C && partials; c += 32 * WIDTH) {
        store(weights + c, Pack<float, WIDTH>{});
        store(biases + c, Pack<float, WIDTH>{});
    }
    u32 first = blockIdx.x * slice, last = min(first + slice, rows);
    for (u32 row = first + threadIdx.y; row < last; row += blockDim.y) {
        u64 start = (u64)row * C;
        float m = mean[row], r = rstd[row], along_one = 0, along_n = 0;
        for (int c = threadIdx.x * WIDTH; c < C; c += 32 * WIDTH) {
            auto in = load<WIDTH>(x + start + c), above = load<WIDTH>(dy + start + c), scale = load<WIDTH>(weight + c);
            Pack<float, WIDTH> to_weights, to_biases;
            if (partials) to_weights = load<WIDTH>(weights + c), to_biases = load<WIDTH>(biases + c);
            for (int k = 0; k < WIDTH; k++) {
                float n = (in[k] - m) * r, dn = above[k] * scale[k];
                along_one += dn;
                along_n += dn * n;
                to_weights[k] += above[k] * n;
                to_biases[k] += above[k];
            }
            if (partials) {
                store(weights + c, to_weights);
                store(biases + c, to_biases);
            }
        }
        if (!dx) continue;
        along_one = warp_sum(along_one) / C;
        along_n = warp_sum(along_n) / C;
        for (int c = threadIdx.x * WIDTH; c < C; c += 32 * WIDTH) {  // x and dy again, from cache
            auto in = load<WIDTH>(x + start + c), above = load<WIDTH>(dy + start + c), scale = load<WIDTH>(weight + c);
            auto out = held(dx + start + c, add);
            for (int k = 0; k < WIDTH; k++) {
                float n = (in[k] - m) * r;
                out[k] = out[k] + r * (above[k] * scale[k] - along_one - n * along_n);
            }
            store(dx + start + c, out);
        }
    }
    if (!partials) return;
    __syncthreads();
    for (int at = threadIdx.y * 32 + threadIdx.x; at < 2 * C; at += 32 * blockDim.y) {
        float sum = 0;
        for (int warp = 0; warp < blockDim.y; warp++) sum += sums[warp * 2 * C + at];
        partials[(u64)blockIdx.x * 2 * C + at] = sum;
    }
}

// dweight, dbias: (C), either may be null; partials: (slices, 2, C). block (32, 8): 32 columns, every 8th slice; grid
// (columns, 2): dweight, dbias
extern "C" __global__ void shared_dparams(float* dweight, float* dbias, const float* __restrict__ partials, int slices,
                                          int C, int add_weight, int add_bias) {
    __shared__ float parts[8][32];
    float* out = blockIdx.y ? dbias : dweight;
    int c = blockIdx.x * 32 + threadIdx.x, add = blockIdx.y ? add_bias : add_weight;
    float sum = 0;
    for (int i = threadIdx.y; i < slices && c < C; i += 8) sum += partials[((u64)i * 2 + blockIdx.y) * C + c];
    parts[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y > 0 || c >= C || !out) return;
    for (int i = 1; i < 8; i++) sum += parts[i][threadIdx.x];
    out[c] = sum + (add ? out[c] : 0);
}
