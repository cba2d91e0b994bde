// FIND THE BUG. y = 2 x, four elements a turn and the rest one by one, in one thread block. Every result is right.
extern "C" __global__ void twice(float* y, const float* x, int n) {
    int whole = n / 4 * 4;
    for (int i = threadIdx.x * 4; i < whole; i += blockDim.x * 4)
        for (int k = 0; k < 4; k++) y[i + k] = 2 * x[i + k];
    //[ the rest: the elements from whole to n - 1
    for (int i = whole + threadIdx.x; i < n; i += blockDim.x) y[i] = 2 * x[i];
    //]
}
