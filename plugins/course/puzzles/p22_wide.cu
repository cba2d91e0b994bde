// y = 3 x with as few loads and stores as possible: 16 bytes each, and the rest one by one. A float4 is four floats
// (.x .y .z .w) at an address that is a multiple of 16 bytes. A thread has four elements.
extern "C" __global__ void triple(float* y, const float* x, int n) {
    int i = (blockIdx.x * blockDim.x + threadIdx.x) * 4;
    //[ four at once, or the rest one by one
    if (i + 4 <= n) {
        float4 v = *(const float4*)(x + i);
        *(float4*)(y + i) = make_float4(3 * v.x, 3 * v.y, 3 * v.z, 3 * v.w);
    } else
        for (int k = i; k < n; k++) y[k] = 3 * x[k];
    //]
}
