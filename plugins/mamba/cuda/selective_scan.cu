// The selective scan in chunks of 32 tokens. Formulas: ../selective_scan.py. One thread a channel and state: LANES lanes
// of a warp, STATES of them in use, have the states of one channel, a thread block has CHANNELS channels of one chunk.
//
// ends             h at the end of each chunk whose start is 0, and the sum of its steps s: over a chunk, a state keeps
//                  exp(A sum s)
// carry            one thread a channel and state, chunk by chunk: h before each chunk, and the state after all
// forward          y of each chunk from the h before it. The exponentials of a chunk are computed twice, here and in ends:
//                  the price of chunks in parallel
// adjoint_ends     the gradient that each chunk passes to the one before it, if it receives none
// adjoint_carry    the gradient of h that each chunk receives from the next
// backward         h of a chunk again, in registers, then its tokens from the last: dx, ddt, and parts of the other sums
// sum_rows         dA_log, dD: parts of chunks, in order. sum_blocks: dbc: parts of thread blocks, in order
//
// carry, adjoint_carry, sum_rows and sum_blocks are in selective_scan_carry.cu.
//
// Limited by the exponential unit and by the sums over lanes, two shuffled sums a token in backward.

constexpr int CHUNK = 32, THREADS = 128, CHANNELS = THREADS / LANES, WARPS = THREADS / 32;

// A chunk's inputs. Tokens after the real ones have the step 0, which changes no state; those after the last have zeros.
struct Tile {
    float x[CHUNK][CHANNELS], step[CHUNK][CHANNELS], b[CHUNK][LANES], c[CHUNK][LANES];
};

__device__ inline float softplus(float v) { return fmaxf(v, 0) + log1pf(expf(-fabsf(v))); }

// A lane's place. at: of its channel and state in (B, E, STATES); chunk_at: in (B, chunks, E, STATES)
struct Lane {
    int n, channel, e, tokens, E;
    u64 row, at, chunk_at, channel_at;
    bool there;
    __device__ Lane(int T, int E, int chunks) : E(E) {
        n = threadIdx.x % LANES, channel = threadIdx.x / LANES, e = blockIdx.x * CHANNELS + channel;
        tokens = min(CHUNK, T - (int)blockIdx.y * CHUNK);
        row = (u64)blockIdx.z * T + blockIdx.y * CHUNK;
        at = ((u64)blockIdx.z * E + e) * STATES + n;
        channel_at = ((u64)blockIdx.z * chunks + blockIdx.y) * E + e;
        chunk_at = channel_at * STATES + n;
        there = e < E && n < STATES;
    }
};

// x, or dy in its place, and steps, b and c of the chunk; real: tokens that are no padding
__device__ inline void fill(Tile& tile, const Lane& lane, const elem* x, const elem* dt, const elem* bc, int real) {
    int first = blockIdx.x * CHANNELS;
    for (int i = threadIdx.x; i < CHUNK * CHANNELS; i += THREADS) {
        int token = i / CHANNELS, channel = i % CHANNELS;
        bool there = token < lane.tokens && first + channel < lane.E;
        u64 at = (lane.row + token) * lane.E + first + channel;
        tile.x[token][channel] = there ? float(x[at]) : 0;
        tile.step[token][channel] = there && token < real ? softplus(dt[at]) : 0;
    }
    for (int i = threadIdx.x; i < CHUNK * LANES; i += THREADS) {
        int token = i / LANES, n = i % LANES;
        bool there = token < lane.tokens && n < STATES;
        u64 at = (lane.row + token) * 2 * STATES + n;
        tile.b[token][n] = there ? float(bc[at]) : 0;
        tile.c[token][n] = there ? float(bc[at + STATES]) : 0;
    }
    __syncthreads();
}

__device__ inline int real_tokens(const int* counts, const Lane& lane) {
    return counts ? counts[blockIdx.z] - (int)blockIdx.y * CHUNK : lane.tokens;
}

__device__ inline float rate(const elem* A_log, const Lane& lane) {
    return lane.there ? -expf(A_log[(u64)lane.e * STATES + lane.n]) : 0;
}

// The sum over a channel's lanes, the same bits in each
__device__ inline float over_states(float value) {
    for (int far = LANES / 2; far > 0; far /= 2) value += __shfl_xor_sync(ALL, value, far);
    return value;
}

extern "C" __global__ void ends(float* states, float* totals, const elem* x, const elem* dt, const elem* bc,
                                const elem* A_log, const int* counts, int T, int E, int chunks) {
    __shared__ Tile tile;
    Lane lane(T, E, chunks);
    fill(tile, lane, x, dt, bc, real_tokens(counts, lane));
    float A = rate(A_log, lane), h = 0, total = 0;
    for (int i = 0; i < lane.tokens; i++) {
        float s = tile.step[i][lane.channel];
        h = fast_exp(s * A) * h + s * tile.x[i][lane.channel] * tile.b[i][lane.n];
        total += s;
    }
    if (!lane.there) return;
    states[lane.chunk_at] = h;
    if (lane.n == 0) totals[lane.channel_at] = total;
}

// A single chunk begins with the session's state itself, and leaves it; of several, `carry` has done both
extern "C" __global__ void forward(elem* y, float* states, float* state, const elem* x, const elem* dt, const elem* bc,
                                   const elem* A_log, const elem* D, const int* counts, int T, int E, int chunks) {
    __shared__ Tile tile;
    Lane lane(T, E, chunks);
    fill(tile, lane, x, dt, bc, real_tokens(counts, lane));
    float A = rate(A_log, lane), skip = lane.e < E ? float(D[lane.e]) : 0, h = 0;
    if (lane.there) {
        if (chunks > 1) h = states[lane.chunk_at];
        else states[lane.chunk_at] = h = state ? state[lane.at] : 0;
    }
    for (int i = 0; i < lane.tokens; i++) {
        float s = tile.step[i][lane.channel], value = tile.x[i][lane.channel];
        h = fast_exp(s * A) * h + s * value * tile.b[i][lane.n];
        float sum = over_states(h * tile.c[i][lane.n]) + skip * value;
        if (lane.n == 0 && lane.e < E) y[(lane.row + i) * E + lane.e] = sum;
    }
    if (lane.there && state && chunks == 1) state[lane.at] = h;
}

extern "C" __global__ void adjoint_ends(float* carried, float* totals, const elem* dy, const elem* dt, const elem* bc,
                                        const elem* A_log, int T, int E, int chunks) {
    __shared__ Tile tile;
    Lane lane(T, E, chunks);
    fill(tile, lane, dy, dt, bc, lane.tokens);
    float A = rate(A_log, lane), g = 0, total = 0;
    for (int i = lane.tokens - 1; i >= 0; i--) {
        float s = tile.step[i][lane.channel];
        g = fast_exp(s * A) * (g + tile.c[i][lane.n] * tile.x[i][lane.channel]);
        total += s;
    }
    if (!lane.there) return;
    carried[lane.chunk_at] = g;
    if (lane.n == 0) totals[lane.channel_at] = total;
}

// parts: (B T, thread blocks, 2 STATES). carried: in, the gradient from the next chunk; out, this chunk's part of dA_log. skipped:
// its part of dD
extern "C" __global__ void backward(elem* dx, elem* ddt, float* parts, float* carried, float* skipped, const elem* dy,
                                    const float* states, const elem* x, const elem* dt, const elem* bc,
                                    const elem* A_log, const elem* D, int T, int E, int chunks, int add_dx, int add_ddt) {
    __shared__ Tile tile;
    __shared__ float slope[CHUNK][CHANNELS];      // dy
    __shared__ float sums[WARPS][CHUNK][2 * STATES];   // db and dc over a warp's channels
    Lane lane(T, E, chunks);
    for (int i = threadIdx.x; i < CHUNK * CHANNELS; i += THREADS) {
        int token = i / CHANNELS, channel = i % CHANNELS, e = blockIdx.x * CHANNELS + channel;
        bool there = token < lane.tokens && e < E;
        slope[token][channel] = there ? float(dy[(lane.row + token) * E + e]) : 0;
    }
    fill(tile, lane, x, dt, bc, lane.tokens);
    float A = rate(A_log, lane), skip = lane.e < E ? float(D[lane.e]) : 0;
    float before[CHUNK], h = lane.there ? states[lane.chunk_at] : 0;
#pragma unroll
    for (int i = 0; i < CHUNK; i++) {
        float s = tile.step[i][lane.channel];
        before[i] = h;
        h = fast_exp(s * A) * h + s * tile.x[i][lane.channel] * tile.b[i][lane.n];
    }
    float g = lane.there ? carried[lane.chunk_at] : 0, dA_log = 0, dD = 0;
#pragma unroll
    for (int i = CHUNK - 1; i >= 0; i--) {
        float s = tile.step[i][lane.channel], value = tile.x[i][lane.channel], up = slope[i][lane.channel];
        float b = tile.b[i][lane.n], a = fast_exp(s * A);
        g += tile.c[i][lane.n] * up;
        float along = g * A * a * before[i], db = g * s * value, dc = up * h;
        for (int far = LANES; far < 32; far *= 2) {
            db += __shfl_xor_sync(ALL, db, far);
            dc += __shfl_xor_sync(ALL, dc, far);
        }
        if (threadIdx.x % 32 < STATES) {
            sums[threadIdx.x / 32][i][lane.n] = db;
            sums[threadIdx.x / 32][i][STATES + lane.n] = dc;
        }
        float into = over_states(g * b), decay = over_states(along);
        u64 at = (lane.row + i) * E + lane.e;
        if (lane.n == 0 && lane.e < E && i < lane.tokens) {
            if (dx) dx[at] = (add_dx ? float(dx[at]) : 0) + skip * up + s * into;
            // sigmoid(dt) = 1 - exp(-s)
            if (ddt) ddt[at] = (add_ddt ? float(ddt[at]) : 0) - expm1f(-s) * (into * value + decay);
        }
        dA_log += along * s;
        dD += up * value;
        g *= a;
        h = before[i];
    }
    if (lane.there) carried[lane.chunk_at] = dA_log;
    if (lane.n == 0 && lane.e < E) skipped[lane.channel_at] = dD;
    __syncthreads();
    for (int i = threadIdx.x; i < lane.tokens * 2 * STATES; i += THREADS) {
        int token = i / (2 * STATES), w = i % (2 * STATES);
        float sum = 0;
        for (int warp = 0; warp < WARPS; warp++) sum += sums[warp][token][w];
        parts[((lane.row + token) * gridDim.x + blockIdx.x) * 2 * STATES + w] = sum;
    }
}
