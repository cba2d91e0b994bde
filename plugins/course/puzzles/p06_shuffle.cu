// y[row] = the sum of x's row of 32, a warp a row, without shared memory. EVERY lane then writes z = x / sum, so every
// lane needs the sum.
extern "C" __global__ void normalise(float* y, float* z, const float* x, int rows) {
    //[ five exchanges, and all 32 lanes have the sum
    int row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return;
    float mine = x[row * 32 + threadIdx.x], sum = mine;
    for (int o = 16; o > 0; o /= 2) sum += __shfl_xor_sync(0xffffffff, sum, o);
    if (threadIdx.x == 0) y[row] = sum;
    z[row * 32 + threadIdx.x] = mine / sum;
    //]
}
