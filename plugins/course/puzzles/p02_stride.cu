// Divide a row by its length: y = x / n. ONE thread block of 128 threads, however long the row is.
extern "C" __global__ void shrink(float* y, const float* x, int n) {
    //[ a thread takes every 128th element: where does it begin, how far does it step?
    for (int i = threadIdx.x; i < n; i += blockDim.x) y[i] = x[i] / n;
    //]
}
