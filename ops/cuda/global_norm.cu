// Norm of the gradient (n), and the verdict on a step: sum of grad^2 in double, then norm, ok, scale and the next step
// into the control record. Formulas: ../global_norm.py. Sums have a fixed order, so that bits repeat.
//
// naive_norm     one thread block: far too few loads at once for the memory
// blocks_sums    a fixed number of thread blocks, 16 bytes a thread: limited by memory bandwidth; sums into workspace
// blocks_norm    one thread block adds them up

__device__ inline bool is_finite(double x) { return x - x == 0; }

__device__ inline void settle(Step* control, double squares, float clip) {
    double norm = sqrt(squares);
    bool finite = is_finite(control->loss) && is_finite(norm) && is_finite(control->lr);
    bool below = control->loss <= control->loss_limit && norm <= control->norm_limit;
    bool ok = finite && below && control->halted == 0;
    double scale = ok && clip > 0 ? clip / (norm + 1e-6) : 1;
    control->norm = norm;
    control->scale = scale < 1 ? scale : 1;
    control->ok = ok;
    if (ok) control->step += 1;
    if (!finite) control->halted = 1;
}

extern "C" __global__ void naive_norm(Step* control, const float* grad, u64 n, float clip) {
    double sum = 0;
    for (u64 i = threadIdx.x; i < n; i += blockDim.x) sum += (double)grad[i] * grad[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) settle(control, sum, clip);
}

// sums: (gridDim.x)
extern "C" __global__ void blocks_sums(double* __restrict__ sums, const float* __restrict__ grad, u64 n) {
    double sum = 0;
    u64 stride = (u64)gridDim.x * blockDim.x * 4;
    for (u64 i = global_thread() * 4; i < n; i += stride) {
        if (i + 4 <= n) {
            auto part = load<4>(grad + i);
            for (int k = 0; k < 4; k++) sum += (double)part[k] * part[k];
        } else {
            for (u64 j = i; j < n; j++) sum += (double)grad[j] * grad[j];
        }
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

extern "C" __global__ void blocks_norm(Step* control, const double* sums, int count, float clip) {
    double sum = 0;
    for (int i = threadIdx.x; i < count; i += blockDim.x) sum += sums[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) settle(control, sum, clip);
}
