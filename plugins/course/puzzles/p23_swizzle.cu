// The transpose of x, 32 x 32, without bank conflicts and WITHOUT padding: the tile has exactly 1,024 words. Word (r, c)
// need not be at place c of row r: choose another place, by a rule that you also read by.
extern "C" __global__ void turn(float* y, const float* x) {
    extern __shared__ float tile[];  // 32 * 32
    int c = threadIdx.x;
    //[ write the rows, wait, read the columns: where is word (r, c)?
    for (int r = threadIdx.y; r < 32; r += 8) tile[r * 32 + (c ^ r)] = x[r * 32 + c];
    __syncthreads();
    for (int k = threadIdx.y; k < 32; k += 8) y[k * 32 + c] = tile[c * 32 + (k ^ c)];
    //]
}
