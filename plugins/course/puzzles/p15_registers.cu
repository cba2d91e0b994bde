// The tiled matmul again; M, N multiples of 64, K of 16. 256 threads make 64 x 64 results, so a thread has 4 x 4 of them in
// registers: each value from shared memory serves four times. left is stored by columns, left[d][m].
extern "C" __global__ void matmul(float* c, const float* a, const float* b, int M, int N, int K) {
    __shared__ float left[16][64 + 2], right[16][64];
    int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    float sum[4][4] = {};
    for (int k = 0; k < K; k += 16) {
        for (int e = threadIdx.x; e < 64 * 16; e += 256) {
            left[e % 16][e / 16] = a[(blockIdx.y * 64 + e / 16) * K + k + e % 16];
            right[e / 64][e % 64] = b[(k + e / 64) * N + blockIdx.x * 64 + e % 64];
        }
        __syncthreads();
        for (int d = 0; d < 16; d++) {
            //[ 4 of left, 4 of right into registers, then 16 multiply-adds: rows ty + 16 i, columns tx + 16 j
            float u[4], v[4];
            for (int i = 0; i < 4; i++) u[i] = left[d][ty + 16 * i], v[i] = right[d][tx + 16 * i];
            for (int i = 0; i < 4; i++)
                for (int j = 0; j < 4; j++) sum[i][j] += u[i] * v[j];
            //]
        }
        __syncthreads();
    }
    //[ write the 4 x 4
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) c[(blockIdx.y * 64 + ty + 16 * i) * N + blockIdx.x * 64 + tx + 16 * j] = sum[i][j];
    //]
}
