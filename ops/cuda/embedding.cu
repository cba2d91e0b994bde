// Embedding: y[i] = weight[ids[i]], for ids (n), weight (rows, C), y (n, C). Backward: dweight[r] += sum of dy[i] over
// the places i where ids[i] == r; other rows are left alone. Formulas: ../embedding.py.
// Atomics would be simplest, but then the order of the sums, and so the bits, would differ from run to run.
//
// naive_forward     one thread an element
// naive_dweight     one thread a column, all places in order: C threads, each as long as the batch
// owner_forward     16 bytes a thread: limited by memory bandwidth
// owner_dweight     a warp for each place; the one where an id occurs first owns its row of dweight and sums the row's
//                   places in order. Most warps leave soon; limited by the id that occurs most

#ifndef WIDTH
#define WIDTH 1  // columns that a thread takes: 16 bytes where C is a multiple of them, else one
#endif

// --- naive ---------------------------------------------------------------------------------------------------------

extern "C" __global__ void naive_forward(elem* y, const int* ids, const elem* weight, int n, int C) {
    int c = blockIdx.y * blockDim.x + threadIdx.x, i = blockIdx.x;
    if (c < C) y[(u64)i * C + c] = weight[(u64)ids[i] * C + c];
}

extern "C" __global__ void naive_dweight(float* dweight, const int* ids, const elem* dy, int n, int C) {
    int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= C) return;
    for (int i = 0; i < n; i++) dweight[(u64)ids[i] * C + c] += dy[(u64)i * C + c];
}

// --- owner ---------------------------------------------------------------------------------------------------------

extern "C" __global__ void owner_forward(elem* __restrict__ y, const int* __restrict__ ids,
                                         const elem* __restrict__ weight, int n, int C) {
    int c = (blockIdx.y * blockDim.x + threadIdx.x) * WIDTH, i = blockIdx.x;
    if (c < C) store(y + (u64)i * C + c, load<WIDTH>(weight + (u64)ids[i] * C + c));
}

// block (32, warps); blockIdx.x: places, blockIdx.y: slices of 32 * WIDTH columns
extern "C" __global__ void owner_dweight(float* __restrict__ dweight, const int* __restrict__ ids,
                                         const elem* __restrict__ dy, int n, int C) {
    int place = blockIdx.x * blockDim.y + threadIdx.y, lane = threadIdx.x;
    if (place >= n) return;
    int id = ids[place];
    for (int first = 0; first < place; first += 32) {  // 32 earlier places at a time
        bool same = first + lane < place && ids[first + lane] == id;
        if (__any_sync(ALL, same)) return;  // an earlier place owns the row
    }
    int c = (blockIdx.y * 32 + lane) * WIDTH;
    Pack<float, WIDTH> sums = {};
    for (int first = place; first < n; first += 32) {
        bool same = first + lane < n && ids[first + lane] == id;
        for (u32 left = __ballot_sync(ALL, same); left; left &= left - 1) {  // the places of the row, in order
            int i = first + __ffs(left) - 1;
            if (c >= C) continue;
            auto above = load<WIDTH>(dy + (u64)i * C + c);
            for (int k = 0; k < WIDTH; k++) sums[k] += above[k];
        }
    }
    if (c >= C) return;
    dweight += (u64)id * C + c;
    for (int k = 0; k < WIDTH; k++) dweight[k] += sums[k];
}
