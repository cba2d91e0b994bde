// How often does each of 32 values occur? A thread block counts in shared memory, then adds to the global counts, which
// are zero at the start. Three thread blocks.
extern "C" __global__ void histogram(int* counts, const int* x, int n) {
    __shared__ int mine[32];
    //[ zero, count, add
    if (threadIdx.x < 32) mine[threadIdx.x] = 0;
    __syncthreads();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) atomicAdd(&mine[x[i]], 1);
    __syncthreads();
    if (threadIdx.x < 32) atomicAdd(&counts[threadIdx.x], mine[threadIdx.x]);
    //]
}
