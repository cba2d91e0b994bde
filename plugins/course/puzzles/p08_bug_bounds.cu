// FIND THE BUG. y = a + b on rows of C numbers, a thread a row. It ran for a year, with multiples of 64 rows.
extern "C" __global__ void add_rows(float* y, const float* a, const float* b, int rows, int C) {
    int row = blockIdx.x * blockDim.x + threadIdx.x;
    //[ which threads may go on?
    if (row >= rows) return;
    //]
    for (int c = 0; c < C; c++) y[row * C + c] = a[row * C + c] + b[row * C + c];
}
