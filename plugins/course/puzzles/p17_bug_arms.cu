// FIND THE BUG. The lower half of the block doubles, the upper half squares, then each thread reads its mirror image.
extern "C" __global__ void mirror(float* y, const float* x) {
    __shared__ float s[64];
    //[ both halves wait: for each other?
    s[threadIdx.x] = threadIdx.x < 32 ? 2 * x[threadIdx.x] : x[threadIdx.x] * x[threadIdx.x];
    __syncthreads();
    //]
    y[threadIdx.x] = s[63 - threadIdx.x];
}
