"""The ops' CUDA variants: for each op a .cu file with its kernels and a .py file with its launchers."""

from . import mlp_swiglu, rmsnorm, rope, rope_attention, swiglu

MODULES = (rmsnorm, rope, swiglu, mlp_swiglu, rope_attention)
