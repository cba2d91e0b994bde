// RoPE: turn each pair (x[t][2i], x[t][2i + 1]) of row t by the angle t * 10000^(-2i / D). x is (T, D), D is even. A thread
// turns one pair; thread blocks have 64.
extern "C" __global__ void rope(float* y, const float* x, int T, int D) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    //[ which row and which pair are this thread's? turn it
    if (i >= T * D / 2) return;
    int t = i / (D / 2), pair = i % (D / 2);
    float angle = t * powf(10000, -2.0f * pair / D), c = cosf(angle), s = sinf(angle);
    float a = x[2 * i], b = x[2 * i + 1];
    y[2 * i] = a * c - b * s;
    y[2 * i + 1] = a * s + b * c;
    //]
}
