// y = [a | b] for a (rows, A), b (rows, B), y (rows, A + B), and dy cut in two. Formulas: ../concat.py.
//
// join   one thread an element of y: limited by memory bandwidth, four or two bytes a load
// part   one thread an element of da, or of db

extern "C" __global__ void join(elem* y, const elem* a, const elem* b, u64 rows, int A, int B) {
    u64 n = global_thread(), row = n / (A + B);
    int c = n % (A + B);
    if (row >= rows) return;
    y[n] = c < A ? a[row * A + c] : b[row * B + c - A];
}

// out: (rows, size), the columns of dy (rows, width) from `first`
extern "C" __global__ void part(elem* out, const elem* dy, u64 rows, int width, int first, int size, int add) {
    u64 n = global_thread(), row = n / size;
    if (row >= rows) return;
    out[n] = (add ? float(out[n]) : 0) + dy[row * width + first + n % size];
}
