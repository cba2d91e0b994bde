// FIND THE BUG (of a kind from before 2017, when the lanes of a warp ran in step). y[0] = the sum of 64 numbers; the last
// turns belong to one warp.
extern "C" __global__ void sum64(float* y, const float* x) {
    __shared__ float s[64];
    s[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    if (threadIdx.x < 32) {
        //[ lanes of a warp may drift apart
        float v = s[threadIdx.x] + s[threadIdx.x + 32];
        __syncwarp();
        s[threadIdx.x] = v;
        __syncwarp();
        for (int o = 16; o > 0; o /= 2) {
            v += s[threadIdx.x + o];
            __syncwarp();
            s[threadIdx.x] = v;
            __syncwarp();
        }
        //]
    }
    if (threadIdx.x == 0) y[0] = s[0];
}
