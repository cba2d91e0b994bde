// gelu(x) = x phi(x): phi and its derivative, exact or as GPT-2 approximates them. Formulas: ../gelu.py.

constexpr float SLOPE = 0.7978845608028654f, CUBIC = 0.044715f;  // sqrt(2 / pi)
constexpr float ROOT_HALF = 0.7071067811865476f, DENSITY = 0.3989422804014327f;  // sqrt(1 / 2), 1 / sqrt(2 pi)

// phi(x); slope becomes phi'(x)
__device__ inline float phi_erf(float x, float& slope) {
    slope = expf(-0.5f * x * x) * DENSITY;
    return 0.5f * (1 + erff(x * ROOT_HALF));
}

__device__ inline float phi_tanh(float x, float h, float& slope) {
    slope = 0.5f * (1 - h * h) * SLOPE * (1 + 3 * CUBIC * x * x);
    return 0.5f * (1 + h);
}

__device__ inline float inner(float x) { return SLOPE * (x + CUBIC * x * x * x); }

// as fast as elem's precision allows
__device__ inline float phi(float x, int exact, float& slope) {
    return exact ? phi_erf(x, slope) : phi_tanh(x, fast_tanh<elem>(inner(x)), slope);
}
