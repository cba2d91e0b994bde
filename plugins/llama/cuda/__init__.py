"""The ops' CUDA variants: for each op a .cu file with its kernels and a .py file with its launchers."""

from . import mlp_swiglu, rmsnorm, rope, rope_attention, swiglu

VARIANTS = [
    rmsnorm.RmsNormNaive,
    rmsnorm.RmsNormWarp,
    rope.RopeNaive,
    rope.RopeToken,
    swiglu.SwigluNaive,
    swiglu.SwigluVector,
    mlp_swiglu.MlpSwigluComposed,
    rope_attention.RopeAttentionDecode,
]
