// y_t = bias + sum_k weight_k x_(t - width + 1 + k) for x (B, T, E), weight (E, width). Formulas: ../causal_conv.py.
//
// forward     one thread an element; neighbours are channels, so that every load is one of a row: limited by the reads of x
//             `width` times, mostly from the L2 cache
// keep        one thread a channel of a sequence: the last width - 1 tokens become the state
// dx          one thread an element
// parts       one thread a channel and k (k = width: the bias) of a slice of tokens; sum_parts: the slices in order

// kept: (B, width - 1, E), the tokens before the first one; null for zeros
extern "C" __global__ void forward(elem* y, const elem* x, const elem* kept, const elem* weight, const elem* bias, u64 n,
                                   int T, int E, int width) {
    u64 i = global_thread();
    if (i >= n) return;
    int e = i % E, token = i / E % T, before = width - 1;
    u64 sequence = i / E / T;
    float sum = bias ? float(bias[e]) : 0;
    for (int k = 0; k < width; k++) {
        int at = token - before + k;
        float value = 0;
        if (at >= 0) value = x[(sequence * T + at) * E + e];
        else if (kept) value = kept[(sequence * before + before + at) * E + e];
        sum += float(weight[(u64)e * width + k]) * value;
    }
    y[i] = sum;
}

// Ascending: place j takes the token at j + count, which no earlier place has overwritten
extern "C" __global__ void keep(elem* kept, const elem* x, const int* counts, u64 n, int T, int E, int width) {
    u64 i = global_thread();
    if (i >= n) return;
    int e = i % E, before = width - 1;
    u64 sequence = i / E;
    int count = counts[sequence];
    for (int j = 0; j < before && count > 0; j++) {
        int at = j + count - before;
        elem value = at < 0 ? kept[(sequence * before + j + count) * E + e] : x[(sequence * T + at) * E + e];
        kept[(sequence * before + j) * E + e] = value;
    }
}

extern "C" __global__ void dx(elem* dx, const elem* dy, const elem* weight, u64 n, int T, int E, int width, int add) {
    u64 i = global_thread();
    if (i >= n) return;
    int e = i % E, token = i / E % T;
    float sum = add ? float(dx[i]) : 0;
    for (int k = width - 1; k >= 0; k--) {
        int later = width - 1 - k;
        if (token + later < T) sum += float(weight[(u64)e * width + k]) * float(dy[i + (u64)later * E]);
    }
    dx[i] = sum;
}

// parts: (slices, width + 1, E)
extern "C" __global__ void parts(float* parts, const elem* dy, const elem* x, u64 rows, int T, int E, int width,
                                 int slice) {
    u64 c = global_thread();
    if (c >= (u64)(width + 1) * E) return;
    int k = c / E, e = c % E, back = width - 1 - k;
    u64 first = (u64)blockIdx.y * slice, last = first + slice < rows ? first + slice : rows;
    float sum = 0;
    for (u64 row = first; row < last; row++) {
        float value = k == width ? 1 : int(row % T) < back ? 0 : float(x[(row - back) * E + e]);
        sum += float(dy[row * E + e]) * value;
    }
    parts[blockIdx.y * (u64)(width + 1) * E + c] = sum;
}

extern "C" __global__ void sum_parts(float* dweight, float* dbias, const float* parts, int slices, int E, int width,
                                     int add_dweight, int add_dbias) {
    u64 c = global_thread(), columns = (u64)(width + 1) * E;
    if (c >= columns) return;
    int k = c / E, e = c % E;
    float* out = k < width ? dweight + (dweight ? (u64)e * width + k : 0) : dbias + (dbias ? e : 0);
    if (k < width ? !dweight : !dbias) return;
    float sum = (k < width ? add_dweight : add_dbias) ? *out : 0;
    for (int slice = 0; slice < slices; slice++) sum += parts[slice * columns + c];
    *out = sum;
}
