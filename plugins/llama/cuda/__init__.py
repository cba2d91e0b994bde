"""The ops' CUDA variants: for each op a .cu file with its kernels and a .py file with its launchers."""

from . import gated, mlp_swiglu, rmsnorm, rope, rope_attention

MODULES = (rmsnorm, rope, gated, mlp_swiglu, rope_attention)
