// FIND THE BUG. y[0] = the sum of x. A thread block adds 128 elements; the block that ends last adds up the blocks'
// sums. On one GPU it is right for months; on the next one it is wrong on Mondays.
__device__ unsigned done;
extern "C" __global__ void sum_all(float* y, float* parts, const float* x, int n) {
    __shared__ bool last;
    __shared__ float s[128];
    int i = blockIdx.x * 128 + threadIdx.x;
    s[threadIdx.x] = i < n ? x[i] : 0;
    __syncthreads();
    for (int h = 64; h > 0; h /= 2) {
        if (threadIdx.x < h) s[threadIdx.x] += s[threadIdx.x + h];
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        parts[blockIdx.x] = s[0];
        //[ publish the sum, count the block; is it the last one?
        __threadfence();
        last = atomicAdd(&done, 1) == gridDim.x - 1;
        __threadfence();
        //]
    }
    __syncthreads();
    if (last && threadIdx.x == 0) {
        float all = 0;
        for (int b = 0; b < gridDim.x; b++) all += parts[b];
        y[0] = all;
        done = 0;
    }
}
