// The sum of each COLUMN of x (rows, C), one thread a column, blocks of 32. A warp's 32 lanes have threadIdx.x 0 to 31,
// and memory moves in sectors of 32 bytes: neighbouring lanes should read neighbouring elements.
extern "C" __global__ void column_sums(float* y, const float* x, int rows, int C) {
    //[ one thread a column: which thread takes which column?
    int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= C) return;
    float sum = 0;
    for (int r = 0; r < rows; r++) sum += x[r * C + c];
    y[c] = sum;
    //]
}
