// The angles of rotary positions, a table of frequencies with which a kernel is compiled, and the pairs that are turned.
// Formulas: ../rope.py.

#ifndef STEPS
#define STEPS {1ull << 62}
#endif

__device__ const u64 STEP[] = STEPS;  // 2^-64 turns a position, for each pair of a head
constexpr int HALF = sizeof(STEP) / sizeof(u64);  // pairs of a head that are turned

#ifdef COLUMNS
constexpr int D = COLUMNS;  // columns of a head, those that pass through included
#else
constexpr int D = 2 * HALF;
#endif
constexpr int PAIRS = D / 2;

#ifndef GAIN
#define GAIN 1.0f
#endif

// The columns of pair i: of two halves, or neighbours; from HALF on of the columns that pass through.
__device__ inline int column1(int i) {
#ifdef NEIGHBOURS
    if (i < HALF) return 2 * i;
#endif
    return i < HALF ? i : i + HALF;
}

__device__ inline int column2(int i) {
#ifdef NEIGHBOURS
    if (i < HALF) return 2 * i + 1;
#endif
    return i < HALF ? i + HALF : i + PAIRS;
}

// gain * cos and gain * sin of pair i at a position, 1 and 0 of one that passes through; the product wraps round where a
// turn does
__device__ inline void angle(int position, int i, float& cos, float& sin) {
    if (i >= HALF) {
        cos = 1, sin = 0;
        return;
    }
    float turns = (long long)(position * STEP[i]) * 5.421010862427522e-20f;  // 2^-64: from -1/2 to 1/2
    sincospif(2 * turns, &sin, &cos);
    cos *= GAIN, sin *= GAIN;
}
