// CAPSTONE: your attention in a run of GPT-2. c12_launcher.py launches this kernel for every layer and step: a thread block
// has 64 queries of one head (blockIdx.y = row of the batch * heads + head), a thread one of them. HEAD_DIM is a macro.
// qkv: (B, T, 3, heads, HEAD_DIM), of a token its queries, then its keys, then its values. Results: y, (B, T, heads,
// HEAD_DIM), and for the backward lse, (B, heads, T): the log of the sum of exp(score). A score is scale * (q . k).

extern "C" __global__ void attention(float* y, float* lse, const float* qkv, int T, int heads, float scale) {
    __shared__ float keys[16][HEAD_DIM + 1], values[16][HEAD_DIM + 1];
    int i = blockIdx.x * 64 + threadIdx.x;  // this thread's query
    float mine[HEAD_DIM], out[HEAD_DIM] = {}, top = -INFINITY, sum = 0;
    //[ where do q, k and v of token 0 begin for this head, and how far is it to the next token? fetch this query
    int b = blockIdx.y / heads, h = blockIdx.y % heads, next = 3 * heads * HEAD_DIM;
    const float* q = qkv + b * T * next + h * HEAD_DIM;
    const float *k = q + heads * HEAD_DIM, *v = k + heads * HEAD_DIM;
    for (int d = 0; d < HEAD_DIM; d++) mine[d] = i < T ? scale * q[i * next + d] : 0;
    //]
    //[ over the keys in tiles of 16: fetch, wait, online softmax, wait
    for (int first = 0; first < T && first < (blockIdx.x + 1) * 64; first += 16) {
        for (int e = threadIdx.x; e < 16 * HEAD_DIM; e += 64) {
            int r = e / HEAD_DIM, d = e % HEAD_DIM;
            keys[r][d] = first + r < T ? k[(first + r) * next + d] : 0;
            values[r][d] = first + r < T ? v[(first + r) * next + d] : 0;
        }
        __syncthreads();
        for (int r = 0; r < 16 && first + r <= i; r++) {
            float s = 0;
            for (int d = 0; d < HEAD_DIM; d++) s += mine[d] * keys[r][d];
            float higher = fmaxf(top, s), shrink = expf(top - higher), p = expf(s - higher);
            sum = sum * shrink + p;
            for (int d = 0; d < HEAD_DIM; d++) out[d] = out[d] * shrink + p * values[r][d];
            top = higher;
        }
        __syncthreads();
    }
    //]
    //[ y and lse of this query, if there is one
    if (i >= T) return;
    for (int d = 0; d < HEAD_DIM; d++) y[((b * T + i) * heads + h) * HEAD_DIM + d] = out[d] / sum;
    lse[blockIdx.y * T + i] = top + logf(sum);
    //]
}
