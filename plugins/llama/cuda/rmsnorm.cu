// RMSNorm: y = n * (offset + weight), n = x * rstd, for x (rows, C). Formulas: ../rmsnorm.py.
// With dn = dy * (offset + weight):  dx = rstd * (dn - n * mean(dn * n)),  dweight = sum dy * n.
//
// naive_forward, naive_dx   one thread a row: neighbouring threads read addresses C apart, 32 transactions a load
// naive_dweight             one thread a column, rows in order: coalesced, but C threads do not fill a GPU
// warp_forward, warp_dx     one warp a row, 16 bytes a lane: coalesced; limited by memory bandwidth
// warp_partials             a slice of the rows a thread block: enough of them to fill the GPU; sums into workspace
// warp_dweight              adds the slices up in order, so that bits repeat
// onepass_backward          dx and the slices' sums in one pass: dy and x are read once, by a team of warps a row, whose
//                           lanes keep the sums of their columns in registers; limited by memory bandwidth
// onepass_dweight           adds the slices up, 32 threads a column, in a fixed order

#include "core/columns.cuh"
#include "core/teams.cuh"

// --- naive ---------------------------------------------------------------------------------------------------------

// y, x: (rows, C); rstd: (rows); weight: (C)
extern "C" __global__ void naive_forward(elem* y, float* rstd, const elem* x, const elem* weight, int rows, int C,
                                         float eps, float offset) {
    u64 row = global_thread();
    if (row >= rows) return;
    x += row * C;
    y += row * C;
    float squares = 0;
    for (int c = 0; c < C; c++) squares += x[c] * x[c];
    float r = 1 / sqrtf(squares / C + eps);
    for (int c = 0; c < C; c++) y[c] = x[c] * r * (offset + weight[c]);
    rstd[row] = r;
}

// dx, dy, x: (rows, C)
extern "C" __global__ void naive_dx(elem* dx, const elem* dy, const elem* x, const elem* weight, const float* rstd,
                                    int rows, int C, float offset, int add) {
    u64 row = global_thread();
    if (row >= rows) return;
    x += row * C;
    dy += row * C;
    dx += row * C;
    float r = rstd[row], along_n = 0;  // mean(dn * n)
    for (int c = 0; c < C; c++) along_n += dy[c] * (offset + weight[c]) * x[c] * r / C;
    for (int c = 0; c < C; c++) {
        float dn = dy[c] * (offset + weight[c]), n = x[c] * r;
        dx[c] = (add ? float(dx[c]) : 0) + r * (dn - n * along_n);
    }
}

// dweight: (C); dy, x: (rows, C)
extern "C" __global__ void naive_dweight(float* dweight, const elem* dy, const elem* x, const float* rstd, int rows,
                                         int C, int add) {
    u64 c = global_thread();
    if (c >= C) return;
    float sum = add ? dweight[c] : 0;
    for (int row = 0; row < rows; row++) sum += dy[(u64)row * C + c] * x[(u64)row * C + c] * rstd[row];
    dweight[c] = sum;
}

// --- warp ----------------------------------------------------------------------------------------------------------

// y, x: (rows, C); block (32, warps)
extern "C" __global__ void warp_forward(elem* __restrict__ y, float* __restrict__ rstd, const elem* __restrict__ x,
                                        const elem* __restrict__ weight, int rows, int C, float eps,
                                        float offset) {
    u64 row = global_row();
    if (row >= rows) return;  // a whole warp leaves, so that the others' sums are over 32 lanes
    x += row * C;
    y += row * C;
    float squares = 0;
    for (int c = threadIdx.x * WIDTH; c < C; c += 32 * WIDTH) {
        auto in = load<WIDTH>(x + c);
        for (int k = 0; k < WIDTH; k++) squares += in[k] * in[k];
    }
    float r = rsqrtf(warp_sum(squares) / C + eps);
    for (int c = threadIdx.x * WIDTH; c < C; c += 32 * WIDTH) {  // x is in the cache here
        auto in = load<WIDTH>(x + c), scale = load<WIDTH>(weight + c);
        for (int k = 0; k < WIDTH; k++) in[k] = in[k] * r * (offset + scale[k]);
        store(y + c, in);
    }
    if (threadIdx.x == 0) rstd[row] = r;
}

// dx, dy, x: (rows, C); block (32, warps)
extern "C" __global__ void warp_dx(elem* __restrict__ dx, const elem* __restrict__ dy, const elem* __restrict__ x,
                                   const elem* __restrict__ weight, const float* __restrict__ rstd, int rows, int C,
                                   float offset, int add) {
    u64 row = global_row();
    if (row >= rows) return;
    x += row * C;
    dy += row * C;
    dx += row * C;
    float r = rstd[row], along_n = 0;
    for (int c = threadIdx.x * WIDTH; c < C; c += 32 * WIDTH) {
        auto in = load<WIDTH>(x + c), above = load<WIDTH>(dy + c), scale = load<WIDTH>(weight + c);
        for (int k = 0; k < WIDTH; k++) along_n += above[k] * (offset + scale[k]) * in[k];
    }
    along_n = warp_sum(along_n) * r / C;
    for (int c = threadIdx.x * WIDTH; c < C; c += 32 * WIDTH) {
        auto in = load<WIDTH>(x + c), above = load<WIDTH>(dy + c), scale = load<WIDTH>(weight + c);
        auto out = held(dx + c, add);
        for (int k = 0; k < WIDTH; k++) out[k] = out[k] + r * (above[k] * (offset + scale[k]) - in[k] * r * along_n);
        store(dx + c, out);
    }
}

// partials: (slices, C); dy, x: (rows, C)
extern "C" __global__ void warp_partials(float* __restrict__ partials, const elem* __restrict__ dy,
                                         const elem* __restrict__ x, const float* __restrict__ rstd, int rows, int C,
                                         int slice) {
    slice_sums<1>(partials, rows, C, slice, [&](float* sum, u64 row, int c) {
        *sum += dy[row * C + c] * x[row * C + c] * rstd[row];
    });
}

// dweight: (C); partials: (slices, C)
extern "C" __global__ void warp_dweight(float* dweight, const float* partials, int slices, int C, int add) {
    add_slices(dweight, partials, slices, C, C, add);
}

// --- onepass -------------------------------------------------------------------------------------------------------

// dx or partials may be null. partials: (slices, C); a thread block has `slice` rows, a team one at a time
extern "C" __global__ void __launch_bounds__(TEAM_THREADS, TEAM_BLOCKS)
    onepass_backward(elem* dx, float* partials, const elem* __restrict__ dy, const elem* __restrict__ x,
                     const elem* __restrict__ weight, const float* __restrict__ rstd, int rows, int C, int slice,
                     float offset, int add) {
    alignas(16) extern __shared__ float shared[];
    ColumnSums<1> columns;  // for dweight
    u32 first = blockIdx.x * slice, last = min(first + slice, rows);
    int turn = 0;
    for (u32 row = first + threadIdx.y; row < last; row += TEAMS, turn ^= 1) {
        u64 start = (u64)row * C;
        TeamRow in(x + start, C), above(dy + start, C);
        float r = rstd[row], along[1] = {};  // the sum of dn * n
#pragma unroll
        for (int p = 0; p < PACKS; p++) {
            if (int c = team_column(p); c < C) {
                auto xs = in.pack(p), dys = above.pack(p), scale = load<WIDTH>(weight + c);
                for (int k = 0; k < WIDTH; k++) {
                    float along_n = dys[k] * (xs[k] * r);
                    along[0] += (offset + scale[k]) * along_n;
                    columns.sums[0][p][k] += along_n;
                }
            }
        }
        if (!dx) continue;
        team_sums(along, turn);
        float along_n = along[0] / C;
#pragma unroll
        for (int p = 0; p < PACKS; p++) {
            if (int c = team_column(p); c < C) {
                auto xs = in.pack(p), dys = above.pack(p), scale = load<WIDTH>(weight + c);
                auto out = held(dx + start + c, add);
                for (int k = 0; k < WIDTH; k++)
                    out[k] = out[k] + r * (dys[k] * (offset + scale[k]) - xs[k] * r * along_n);
                store(dx + start + c, out);
            }
        }
    }
    if (partials) columns.write(partials + (u64)blockIdx.x * C, shared, C);
}

// dweight: (C); partials: (slices, C)
extern "C" __global__ void onepass_dweight(float* dweight, const float* partials, int slices, int C, int add) {
    fold_slices(dweight, partials, slices, C, C, add);
}
