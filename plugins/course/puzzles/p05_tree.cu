// y[block] = the sum of the block's 256 elements of x, as a tree in shared memory. n may be no multiple of 256.
extern "C" __global__ void tree_sum(float* y, const float* x, int n) {
    __shared__ float part[256];
    //[ halve the number of summands until one is left
    int i = blockIdx.x * 256 + threadIdx.x;
    part[threadIdx.x] = i < n ? x[i] : 0;
    __syncthreads();
    for (int half = 128; half > 0; half /= 2) {
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) y[blockIdx.x] = part[0];
    //]
}
