// [y | rest] = x for x (rows, E), y (rows, first), rest (rows, E - first). Formulas: ../split.py.
//
// cut      one thread an element of x: limited by memory bandwidth, four or two bytes a load
// rejoin   one thread an element of dx; a gradient that does not exist is null

extern "C" __global__ void cut(elem* y, elem* rest, const elem* x, u64 rows, int E, int first) {
    u64 n = global_thread(), row = n / E;
    int c = n % E;
    if (row >= rows) return;
    if (c < first) y[row * first + c] = x[n];
    else rest[row * (E - first) + c - first] = x[n];
}

extern "C" __global__ void rejoin(elem* dx, const elem* dy, const elem* drest, u64 rows, int E, int first, int add) {
    u64 n = global_thread(), row = n / E;
    int c = n % E;
    if (row >= rows) return;
    float sum = add ? float(dx[n]) : 0;
    if (c < first) sum += dy ? float(dy[row * first + c]) : 0;
    else sum += drest ? float(drest[row * (E - first) + c - first]) : 0;
    dx[n] = sum;
}
