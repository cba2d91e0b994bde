// Layer normalization: y = n * weight + bias, n = (x - mean) * rstd, for x (rows, C). Formulas: ../layernorm.py.
// With dn = dy * weight:  dx = rstd * (dn - mean(dn) - n * mean(dn * n)),  dweight = sum dy * n,  dbias = sum dy.
//
// naive_forward, naive_dx   one thread a row: neighbouring threads read addresses C apart, 32 transactions a load
// naive_dparams             one thread a column, rows in order: coalesced, but C threads do not fill a GPU
// warp_forward, warp_dx     one warp a row, 16 bytes a lane: coalesced; limited by memory bandwidth
// warp_partials             a slice of the rows a thread block: enough of them to fill the GPU; sums into workspace
// warp_dparams              adds the slices up in order, so that bits repeat
// onepass_backward          dx and the slices' sums in one pass: dy and x are read once, by a team of warps a row,
//                           whose lanes keep the sums of their columns in registers; limited by memory bandwidth
// onepass_dparams           adds the slices up, 32 threads a column, in a fixed order

#include "core/columns.cuh"
#include "core/teams.cuh"

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
extern "C" __global__ void warp_forward(elem* y, float* mean, float* rstd, const elem* x, const elem* weight,
                                        const elem* bias, int rows, int C, float eps) {
    dependent_start();
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
    for (int c = threadIdx.x * WIDTH; c < C; c += 32 * WIDTH) {  // from here on reads of x hit the cache
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

// --- onepass -------------------------------------------------------------------------------------------------------

// dx or partials may be null. partials: (slices, 2, C); a thread block has `slice` rows, a team one at a time
extern "C" __global__ void __launch_bounds__(TEAM_THREADS, TEAM_BLOCKS)
    onepass_backward(elem* dx, float* partials, const elem* dy, const elem* x, const elem* weight, const float* mean,
                     const float* rstd, int rows, int C, int slice, int add) {
    dependent_start();
    alignas(16) extern __shared__ float shared[];
    ColumnSums<2> columns;  // for dweight and dbias
    u32 first = blockIdx.x * slice, last = min(first + slice, rows);
    int turn = 0;
    for (u32 row = first + threadIdx.y; row < last; row += TEAMS, turn ^= 1) {
        u64 start = (u64)row * C;
        TeamRow in(x + start, C), above(dy + start, C);
        float m = mean[row], r = rstd[row], along[2] = {};  // sums of dn, of dn * n
#pragma unroll
        for (int p = 0; p < PACKS; p++) {
            if (int c = team_column(p); c < C) {
                auto xs = in.pack(p), dys = above.pack(p), scale = load<WIDTH>(weight + c);
                for (int k = 0; k < WIDTH; k++) {
                    float n = (xs[k] - m) * r, dn = dys[k] * scale[k];
                    along[0] += dn;
                    along[1] += dn * n;
                    columns.sums[0][p][k] += dys[k] * n;
                    columns.sums[1][p][k] += dys[k];
                }
            }
        }
        if (!dx) continue;
        team_sums(along, turn);
        float along_one = along[0] / C, along_n = along[1] / C;
#pragma unroll
        for (int p = 0; p < PACKS; p++) {
            if (int c = team_column(p); c < C) {
                auto xs = in.pack(p), dys = above.pack(p), scale = load<WIDTH>(weight + c);
                auto out = held(dx + start + c, add);
                for (int k = 0; k < WIDTH; k++) {
                    float n = (xs[k] - m) * r;
                    out[k] = out[k] + r * (dys[k] * scale[k] - along_one - n * along_n);
                }
                store(dx + start + c, out);
            }
        }
    }
    if (partials) columns.write(partials + (u64)blockIdx.x * 2 * C, shared, C);
}

// dweight, dbias: (C), either may be null; partials: (slices, 2, C); grid (columns, 2): dweight, dbias
extern "C" __global__ void onepass_dparams(float* dweight, float* dbias, const float* partials, int slices, int C,
                                           int add_weight, int add_bias) {
    dependent_start();
    float* out = blockIdx.y ? dbias : dweight;
    if (out) fold_slices(out, partials + blockIdx.y * C, slices, 2 * C, C, blockIdx.y ? add_bias : add_weight);
}
