// DPO's loss of chosen and rejected answers (formulas: ../preference.py); all losses (B, T), margin (B)
//
// margins   one warp a row: margin = beta sum of ((r - r0) - (c - c0))
// mean      one warp: the mean of log(1 + exp(-margin)), each lane its rows in order, so that bits repeat
// slope     one thread block a row: the same gradient for each of its tokens

extern "C" __global__ void margins(float* margin, const float* c, const float* r, const float* c0, const float* r0, int B,
                                   int T, float beta) {
    u64 row = global_row();
    if (row >= B) return;
    float sum = 0;
    for (u64 i = row * T + threadIdx.x; i < (row + 1) * T; i += 32) sum += (r[i] - r0[i]) - (c[i] - c0[i]);
    sum = warp_sum(sum);
    if (threadIdx.x == 0) margin[row] = beta * sum;
}

extern "C" __global__ void mean(float* loss, const float* margin, int B) {
    float sum = 0;
    for (int k = threadIdx.x; k < B; k += 32) sum += fmaxf(-margin[k], 0) + log1pf(expf(-fabsf(margin[k])));
    sum = warp_sum(sum);
    if (threadIdx.x == 0) *loss = sum / B;
}

extern "C" __global__ void slope(float* gradient, const float* dloss, const float* margin, int T, float scale) {
    u64 row = blockIdx.x;
    float each = *dloss * scale / (1 + expf(margin[row]));
    for (int t = threadIdx.x; t < T; t += blockDim.x) gradient[row * T + t] = each;
}
