/* Floating-point arithmetic in f32 and f64, rounded to nearest even. NaN results of f32 are PTX's canonical one. */
#include "floats.h"

#define F32_2(id, names, value) BINARY(id, names, "=b32 b32 b32", f32, f32, canonical(value))
#define F64_2(id, names, value) BINARY(id, names, "=b64 b64 b64", f64, f64, canonical_f64(value))

F32_2(add_f32, "add.f32 add.rn.f32", a[l] + b[l])
F32_2(sub_f32, "sub.f32 sub.rn.f32", a[l] - b[l])
F32_2(mul_f32, "mul.f32 mul.rn.f32", a[l] * b[l])
F32_2(div_f32, "div.rn.f32 div.approx.f32 div.full.f32", a[l] / b[l])
TERNARY(fma_f32, "fma.rn.f32 mad.rn.f32", "=b32 b32 b32 b32", f32, f32, canonical(__builtin_fmaf(a[l], b[l], c[l])))

F64_2(add_f64, "add.f64 add.rn.f64", a[l] + b[l])
F64_2(sub_f64, "sub.f64 sub.rn.f64", a[l] - b[l])
F64_2(mul_f64, "mul.f64 mul.rn.f64", a[l] * b[l])
F64_2(div_f64, "div.rn.f64", a[l] / b[l])
TERNARY(fma_f64, "fma.rn.f64 mad.rn.f64", "=b64 b64 b64 b64", f64, f64,
        canonical_f64(__builtin_fma(a[l], b[l], c[l])))

/* A NaN loses to a number, and -0 is less than +0. */
F32_2(min_f32, "min.f32", least(a[l], b[l]))
F32_2(max_f32, "max.f32", most(a[l], b[l]))
F32_2(min_nan_f32, "min.NaN.f32", a[l] == a[l] && b[l] == b[l] ? least(a[l], b[l]) : NAN)
F32_2(max_nan_f32, "max.NaN.f32", a[l] == a[l] && b[l] == b[l] ? most(a[l], b[l]) : NAN)

UNARY(neg_f32, "neg.f32", "=b32 b32", u32, u32, a[l] ^ 0x80000000u)
UNARY(neg_f64, "neg.f64", "=b64 b64", u64, u64, a[l] ^ (u64)1 << 63)
UNARY(abs_f32, "abs.f32", "=b32 b32", u32, u32, a[l] & 0x7FFFFFFFu)
UNARY(abs_f64, "abs.f64", "=b64 b64", u64, u64, a[l] & ~((u64)1 << 63))

/* Computed in f64 and rounded once. */
#define F32_1(id, names, value) UNARY(id, names, "=b32 b32", f32, f32, canonical((f32)(value)))
F32_1(rcp_f32, "rcp.rn.f32", 1.0 / (f64)a[l])
F32_1(sqrt_f32, "sqrt.rn.f32", __builtin_sqrt((f64)a[l]))
UNARY(rcp_f64, "rcp.rn.f64", "=b64 b64", f64, f64, canonical_f64(1.0 / a[l]))
UNARY(sqrt_f64, "sqrt.rn.f64", "=b64 b64", f64, f64, canonical_f64(__builtin_sqrt(a[l])))
