// The angles of rotary positions: a table of frequencies, with which a kernel is compiled. Formulas: ../rope.py.

#ifndef STEPS
#define STEPS {1ull << 62}
#endif

__device__ const u64 STEP[] = STEPS;  // 2^-64 turns a position, for each pair of a head
constexpr int HALF = sizeof(STEP) / sizeof(u64);

// cos and sin of pair i at a position; the product wraps round where a turn does
__device__ inline void angle(int position, int i, float& cos, float& sin) {
    float turns = (long long)(position * STEP[i]) * 5.421010862427522e-20f;  // 2^-64: from -1/2 to 1/2
    sincospif(2 * turns, &sin, &cos);
}
