// Dropout: y = x * scale where an element is kept, 0 where it is dropped, for x (rows, C). An element is kept if its
// word of Philox4x32-10 is at least `threshold`; backward computes the same words again, and nothing is saved.
// key: (seed, node, step, first row), or null outside training, where y = x. Formulas: ../dropout.py, ../philox.py.
//
// naive_apply    one thread an element: ten rounds for one word of the four that they give
// vector_apply   one thread for the four neighbours that share a counter: a quarter of the arithmetic; limited by
//                memory bandwidth
// Both do forward and backward, and dx may share dy's memory.

// The four words of a counter (column / 4, row, step, 0)
__device__ inline uint4 philox(uint4 counter, u32 seed, u32 node) {
    for (int round = 0; round < 10; round++) {
        u64 first = (u64)counter.x * 0xD2511F53, second = (u64)counter.z * 0xCD9E8D57;
        u32 x = (u32)(second >> 32) ^ counter.y ^ seed, z = (u32)(first >> 32) ^ counter.w ^ node;
        counter = {x, (u32)second, z, (u32)first};
        seed += 0x9E3779B9;
        node += 0xBB67AE85;
    }
    return counter;
}

__device__ inline uint4 words(const u32* key, u32 row, u32 quad) {
    return philox({quad, key[3] + row, key[2], 0}, key[0], key[1]);
}

__device__ inline float applied(float x, u32 word, const u32* key, u32 threshold, float scale) {
    return !key ? x : word >= threshold ? x * scale : 0;
}

extern "C" __global__ void naive_apply(elem* y, const elem* x, const u32* key, int rows, int C, u32 threshold,
                                       float scale, int add) {
    u64 i = global_thread();
    if (i >= (u64)rows * C) return;
    u32 row = i / C, c = i % C;
    uint4 all = key ? words(key, row, c / 4) : uint4{};
    u32 word = c % 4 == 0 ? all.x : c % 4 == 1 ? all.y : c % 4 == 2 ? all.z : all.w;
    y[i] = (add ? float(y[i]) : 0) + applied(x[i], word, key, threshold, scale);
}

extern "C" __global__ void vector_apply(elem* y, const elem* x, const u32* key, int rows, int C, u32 threshold,
                                        float scale, int add) {
    u32 quads = (C + 3) / 4;
    u64 i = global_thread();
    if (i >= (u64)rows * quads) return;
    u32 row = i / quads, c = i % quads * 4;
    uint4 all = key ? words(key, row, c / 4) : uint4{};
    const u32 word[4] = {all.x, all.y, all.z, all.w};
    u64 at = (u64)row * C + c;
    if (C % 4 == 0) {
        auto values = load<4>(x + at);
        Pack<elem, 4> out;
        if (add) out = load<4>(y + at);
        for (int k = 0; k < 4; k++)
            out[k] = (add ? float(out[k]) : 0) + applied(values[k], word[k], key, threshold, scale);
        store(y + at, out);
    } else {
        for (int k = 0; k < 4 && c + k < C; k++)
            y[at + k] = (add ? float(y[at + k]) : 0) + applied(x[at + k], word[k], key, threshold, scale);
    }
}
