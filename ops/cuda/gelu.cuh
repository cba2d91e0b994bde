// gelu(x) = x phi(x): phi and its derivative, exact or as GPT-2 approximates them. Formulas: ../gelu.py.

constexpr float SLOPE = 0.7978845608028654f, CUBIC = 0.044715f;  // sqrt(2 / pi)
constexpr float ROOT_HALF = 0.7071067811865476f, DENSITY = 0.3989422804014327f;  // sqrt(1 / 2), 1 / sqrt(2 pi)

// phi(x); slope becomes phi'(x)
__device__ inline float phi_erf(float x, float& slope) {
    slope = expf(-0.5f * x * x) * DENSITY;
    return 0.5f * (1 + erff(x * ROOT_HALF));
}

// h: tanh(inner(x))
__device__ inline float phi_tanh(float x, float h, float& slope) {
    slope = (1 - h * h) * (0.5f * SLOPE + 1.5f * SLOPE * CUBIC * (x * x));
    return 0.5f + 0.5f * h;
}

__device__ inline float inner(float x) { return x * (SLOPE + SLOPE * CUBIC * (x * x)); }

// as fast as elem's precision allows
__device__ inline float phi(float x, int exact, float& slope) {
    return exact ? phi_erf(x, slope) : phi_tanh(x, fast_tanh<elem>(inner(x)), slope);
}

// gelu'(x)
__device__ inline float gelu_slope(float x, int exact) {
    float slope, p = phi(x, exact, slope);
    return p + x * slope;
}
