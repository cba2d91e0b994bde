// y = the transpose of x, n x n, in tiles of 32 x 32 and thread blocks of 32 x 8. Reads and writes both coalesced, and no
// bank conflicts: PAD is yours to choose.
extern "C" __global__ void transpose(float* y, const float* x, int n) {
    //[ fill the tile by rows, wait, empty it by columns
    const int PAD = 1;
    __shared__ float tile[32][32 + PAD];
    int c = blockIdx.x * 32 + threadIdx.x, r = blockIdx.y * 32;
    for (int k = threadIdx.y; k < 32; k += 8)
        if (c < n && r + k < n) tile[k][threadIdx.x] = x[(r + k) * n + c];
    __syncthreads();
    c = blockIdx.y * 32 + threadIdx.x, r = blockIdx.x * 32;
    for (int k = threadIdx.y; k < 32; k += 8)
        if (c < n && r + k < n) y[(r + k) * n + c] = tile[threadIdx.x][k];
    //]
}
