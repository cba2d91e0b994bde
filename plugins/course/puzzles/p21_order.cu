// A weight gradient: dw[c] = the sum over all rows of dy[r][c]; 4 thread blocks share the rows. Two runs must give the
// SAME BITS, so the order of additions may not depend on which block is first. parts is (4, C), for the blocks' sums.
__device__ unsigned arrived;
extern "C" __global__ void dweight(float* dw, float* parts, const float* dy, int rows, int C) {
    __shared__ bool last;
    int c = threadIdx.x;
    float sum = 0;
    for (int r = blockIdx.x; r < rows; r += gridDim.x) sum += dy[r * C + c];
    //[ bring the 4 sums of a column together, always in the same order
    parts[blockIdx.x * C + c] = sum;
    __syncthreads();
    if (c == 0) {
        __threadfence();  // after the barrier: so it covers the writes of the whole block
        last = atomicAdd(&arrived, 1) == gridDim.x - 1;
        __threadfence();
    }
    __syncthreads();
    if (!last) return;
    float all = 0;
    for (int b = 0; b < gridDim.x; b++) all += parts[b * C + c];
    dw[c] = all;
    if (c == 0) arrived = 0;
    //]
}
