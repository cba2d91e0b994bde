// Norm of the gradient (n), and the verdict on a step: sum of grad^2 in double, then norm, ok, scale and the next step
// into the control record. Formulas: ../global_norm.py. Sums have a fixed order, so that bits repeat.
//
// Each chunk of CHUNK elements has one sum, on any rank; in an update over slices, the ranks gather these sums.
//
// naive_sums     one thread block for all chunks: far too few loads at once for the memory
// blocks_sums    one thread block a chunk, 16 bytes a thread: limited by memory bandwidth
// verdict        one thread block adds up all chunks

__device__ inline bool is_finite(double x) { return x - x == 0; }

// The loss scale of the next step
__device__ inline void rescale(Step* control, bool finite, bool overflow) {
    if (overflow) control->loss_scale = fmax(control->loss_scale / 2, control->least_scale);
    control->good_steps = finite ? control->good_steps + 1 : 0;
    if (control->good_steps >= control->growth_steps) {
        control->loss_scale *= 2;
        control->good_steps = 0;
    }
}

__device__ inline void settle(Step* control, double squares, float clip) {
    double norm = sqrt(squares) / control->loss_scale;
    bool sound = is_finite(control->loss) && is_finite(control->lr), finite = sound && is_finite(norm);
    bool below = control->loss <= control->loss_limit && norm <= control->norm_limit;
    bool ok = finite && below && control->halted == 0;
    double scale = ok && clip > 0 ? clip / (norm + 1e-6) : 1;
    control->norm = norm;
    control->scale = (scale < 1 ? scale : 1) / control->loss_scale;
    control->ok = ok;
    if (ok) control->step += 1;
    bool overflow = sound && !finite && control->growth_steps > 0 && control->loss_scale > control->least_scale;
    if (!finite && !overflow) control->halted = 1;
    if (control->growth_steps > 0) rescale(control, finite, overflow);
}

// sums: (ceil(n / CHUNK))
extern "C" __global__ void naive_sums(double* sums, const float* grad, u64 n) {
    for (u64 first = 0; first < n; first += CHUNK) {
        u64 last = first + CHUNK < n ? first + CHUNK : n;
        double sum = 0;
        for (u64 i = first + threadIdx.x; i < last; i += blockDim.x) sum += (double)grad[i] * grad[i];
        sum = block_sum(sum);
        if (threadIdx.x == 0) sums[first / CHUNK] = sum;
    }
}

// sums: (gridDim.x), of which each thread block writes its own
extern "C" __global__ void blocks_sums(double* sums, const float* grad, u64 n) {
    dependent_start();
    u64 first = (u64)blockIdx.x * CHUNK, last = first + CHUNK < n ? first + CHUNK : n;
    double sum = 0;
    for (u64 i = first + threadIdx.x * 4; i < last; i += blockDim.x * 4) {
        if (i + 4 <= last) {
            auto part = load<4>(grad + i);
            for (int k = 0; k < 4; k++) sum += (double)part[k] * part[k];
        } else {
            for (u64 j = i; j < last; j++) sum += (double)grad[j] * grad[j];
        }
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

extern "C" __global__ void verdict(Step* control, const double* sums, int count, float clip) {
    dependent_start();
    double sum = 0;
    for (int i = threadIdx.x; i < count; i += blockDim.x) sum += sums[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) settle(control, sum, clip);
}
