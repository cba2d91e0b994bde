// Embedding: y[i] = weight[ids[i]], for ids (n), weight (rows, C), y (n, C). Backward: dweight[r] += sum of dy[i] over
// the places i where ids[i] == r; other rows are left alone. Formulas: ../embedding.py.
// Atomics would be simplest, but then the order of the sums, and so the bits, would differ from run to run.
//
// naive_forward     one thread an element
// naive_dweight     one thread a column, all places in order: C threads, each as long as the batch
// owner_forward     16 bytes a thread: limited by memory bandwidth
// owner_dweight     a warp for each place; the one where an id occurs first owns its row of dweight and sums the row's
//                   places in order. Most warps leave soon; limited by the search, which grows with n * n, and by the
//                   id that occurs most
// sorted_places     one thread block sorts the places by id, 8 bits of it at a time: no search any more
// sorted_sums       a warp for each 32 sorted places: an id of a thousand places is work for many. Whole rows go to
//                   dweight, parts of rows to `edges`
// sorted_edges      adds up the parts of each row, in order. All three limited by memory bandwidth but the sort, which
//                   has one SM to itself

#include "core/width.cuh"

// --- naive ---------------------------------------------------------------------------------------------------------

extern "C" __global__ void naive_forward(elem* y, const int* ids, const elem* weight, int n, int C) {
    int c = blockIdx.y * blockDim.x + threadIdx.x, i = blockIdx.x;
    if (c < C) y[(u64)i * C + c] = weight[(u64)ids[i] * C + c];
}

extern "C" __global__ void naive_dweight(float* dweight, const int* ids, const elem* dy, int n, int C) {
    u64 c = global_thread();
    if (c >= C) return;
    for (int i = 0; i < n; i++) dweight[(u64)ids[i] * C + c] += dy[(u64)i * C + c];
}

// --- owner ---------------------------------------------------------------------------------------------------------

extern "C" __global__ void owner_forward(elem* y, const int* ids, const elem* weight, int n, int C) {
    dependent_start();
    int c = (blockIdx.y * blockDim.x + threadIdx.x) * WIDTH, i = blockIdx.x;
    if (c < C) store(y + (u64)i * C + c, load<WIDTH>(weight + (u64)ids[i] * C + c));
}

// block (32, warps); blockIdx.x: places, blockIdx.y: slices of 32 * WIDTH columns
extern "C" __global__ void owner_dweight(float* dweight, const int* ids, const elem* dy, int n, int C) {
    dependent_start();
    u32 place = global_row(), lane = threadIdx.x;
    if (place >= n) return;
    int id = ids[place];
    for (u32 first = 0; first < place; first += 32) {  // 32 earlier places at a time
        bool same = first + lane < place && ids[first + lane] == id;
        if (__any_sync(ALL, same)) return;  // an earlier place owns the row
    }
    int c = (blockIdx.y * 32 + lane) * WIDTH;
    Pack<float, WIDTH> sums = {};
    for (u32 first = place; first < n; first += 32) {
        bool same = first + lane < n && ids[first + lane] == id;
        for (u32 left = __ballot_sync(ALL, same); left; left &= left - 1) {  // the places of the row, in order
            u32 i = first + __ffs(left) - 1;
            if (c >= C) continue;
            auto above = load<WIDTH>(dy + (u64)i * C + c);
            for (int k = 0; k < WIDTH; k++) sums[k] += above[k];
        }
    }
    if (c >= C) return;
    dweight += (u64)id * C + c;
    for (int k = 0; k < WIDTH; k++) dweight[k] += sums[k];
}

// --- sorted --------------------------------------------------------------------------------------------------------

constexpr int DIGITS = 256;  // 8 bits of an id

// counts (DIGITS) become the sums of those before, by the first warp
__device__ inline void sums_before(u32* counts) {
    u32 lane = threadIdx.x, total = 0;
    for (int k = 0; k < 8; k++) total += counts[lane * 8 + k];
    u32 before = total;
    for (int lanes = 1; lanes < 32; lanes *= 2) {
        u32 others = __shfl_up_sync(ALL, before, lanes);
        if (lane >= lanes) before += others;
    }
    before -= total;
    for (int k = 0; k < 8; k++) {
        u32 own = counts[lane * 8 + k];
        counts[lane * 8 + k] = before;
        before += own;
    }
}

// order (n): the places 0..n-1 by id, those of one id in order. One thread block of at least DIGITS threads. Each pass
// sorts by 8 more bits and keeps equal ids in order; the last one writes `order`, those before take turns.
extern "C" __global__ void sorted_places(u32* order, u32* spare, const int* ids, int n, int passes) {
    dependent_start();
    __shared__ u32 starts[DIGITS];      // the next free position of each digit
    __shared__ u32 counts[32][DIGITS];  // of each warp's 32 places
    int warp = threadIdx.x / 32, warps = blockDim.x / 32, lane = threadIdx.x % 32;
    for (int pass = 0; pass < passes; pass++) {
        u32* to = (passes - pass) % 2 ? order : spare;
        const u32* from = (passes - pass) % 2 ? spare : order;
        if (threadIdx.x < DIGITS) starts[threadIdx.x] = 0;
        __syncthreads();  // and the places that the last pass wrote are there
        for (u32 i = threadIdx.x; i < n; i += blockDim.x) atomicAdd(&starts[ids[i] >> 8 * pass & 255], 1);
        __syncthreads();
        if (warp == 0) sums_before(starts);
        for (u32 first = 0; first < n; first += blockDim.x) {
            u32 i = first + threadIdx.x;
            u32 place = i >= n ? 0 : pass ? from[i] : i;
            int digit = i < n ? ids[place] >> 8 * pass & 255 : DIGITS;  // DIGITS: none
            for (int d = lane; d < DIGITS; d += 32) counts[warp][d] = 0;
            __syncwarp();
            u32 peers = __match_any_sync(ALL, digit), before = __popc(peers & ((1u << lane) - 1));
            if (before == 0 && digit < DIGITS) counts[warp][digit] = __popc(peers);
            __syncthreads();
            if (threadIdx.x < DIGITS) {
                u32 next = starts[threadIdx.x];
                for (int w = 0; w < warps; w++) {
                    u32 own = counts[w][threadIdx.x];
                    counts[w][threadIdx.x] = next;
                    next += own;
                }
                starts[threadIdx.x] = next;
            }
            __syncthreads();
            if (digit < DIGITS) to[counts[warp][digit] + before] = place;
            __syncwarp();  // read before the next places are counted
        }
        __syncthreads();
    }
}

// edges: (pieces, 2, C): of each 32 sorted places, the sum of the row that began before, and of the one that continues.
// block (32, warps); blockIdx.x: pieces, blockIdx.y: slices of 32 * WIDTH columns
extern "C" __global__ void sorted_sums(float* dweight, float* edges, const u32* order, const int* ids, const elem* dy,
                                       int n, int C) {
    dependent_start();
    u32 piece = global_row(), first = piece * 32, lane = threadIdx.x;
    if (first >= n) return;
    int count = min(32u, n - first);
    u32 place = lane < count ? order[first + lane] : 0;
    int id = lane < count ? ids[place] : -1, c = (blockIdx.y * 32 + lane) * WIDTH;
    int above = first > 0 ? ids[order[first - 1]] : -1, below = first + 32 < n ? ids[order[first + 32]] : -1;
    Pack<float, WIDTH> sums = {};
    for (int k = 0; k < count; k++) {
        int now = __shfl_sync(ALL, id, k), next = k + 1 < count ? __shfl_sync(ALL, id, k + 1) : below;
        u32 from = __shfl_sync(ALL, place, k);
        if (c < C) {
            auto row = load<WIDTH>(dy + (u64)from * C + c);
            for (int j = 0; j < WIDTH; j++) sums[j] += row[j];
        }
        if (k + 1 < count && now == next) continue;  // the row continues
        bool whole = now != above && now != next;
        float* to = whole ? dweight + (u64)now * C + c : edges + ((u64)piece * 2 + (now != above)) * C + c;
        if (c < C) {
            auto added = whole ? load<WIDTH>(to) : Pack<float, WIDTH>{};
            for (int j = 0; j < WIDTH; j++) added[j] += sums[j];
            store(to, added);
        }
        sums = {};
    }
}

// A warp for each piece; the one in which a row begins that continues adds up the row's parts
extern "C" __global__ void sorted_edges(float* dweight, const float* edges, const u32* order, const int* ids, int n,
                                        int C) {
    dependent_start();
    u32 piece = global_row(), next = (piece + 1) * 32;  // the first place of the next piece
    int c = (blockIdx.y * 32 + threadIdx.x) * WIDTH;
    if (next >= n || c >= C) return;
    int id = ids[order[next]];
    if (ids[order[next - 1]] != id) return;                      // no row continues
    if (piece > 0 && ids[order[next - 33]] == id) return;        // it began before
    Pack<float, WIDTH> sums = load<WIDTH>(edges + ((u64)piece * 2 + 1) * C + c);
    for (; next < n && ids[order[next]] == id; next += 32) {
        auto part = load<WIDTH>(edges + (u64)(next / 32) * 2 * C + c);
        for (int k = 0; k < WIDTH; k++) sums[k] += part[k];
    }
    dweight += (u64)id * C + c;
    for (int k = 0; k < WIDTH; k++) dweight[k] += sums[k];
}
