// c = a b with a (M, K), b (K, N): a thread block of 16 x 16 makes a tile of 16 x 16 of c, a slice of 16 of K at a time in
// shared memory. M, N, K are multiples of nothing.
extern "C" __global__ void matmul(float* c, const float* a, const float* b, int M, int N, int K) {
    __shared__ float left[16][16], right[16][16];
    int m = blockIdx.y * 16 + threadIdx.y, n = blockIdx.x * 16 + threadIdx.x;
    float sum = 0;
    //[ for each slice: fetch, wait, multiply, wait
    for (int k = 0; k < K; k += 16) {
        int ka = k + threadIdx.x, kb = k + threadIdx.y;
        left[threadIdx.y][threadIdx.x] = m < M && ka < K ? a[m * K + ka] : 0;
        right[threadIdx.y][threadIdx.x] = n < N && kb < K ? b[kb * N + n] : 0;
        __syncthreads();
        for (int d = 0; d < 16; d++) sum += left[threadIdx.y][d] * right[d][threadIdx.x];
        __syncthreads();
    }
    //]
    if (m < M && n < N) c[m * N + n] = sum;
}
