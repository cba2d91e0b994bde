// y = x + 10, one element a thread. Thread blocks have 128 threads; n is rarely a multiple of 128.
extern "C" __global__ void add_ten(float* y, const float* x, int n) {
    //[ which element is mine, and is there one?
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = x[i] + 10;
    //]
}
