"""The CUDA variants: a .cu file with the kernels and a .py file with the launchers."""

from . import qk_norm

VARIANTS = [qk_norm.QkNormNaive, qk_norm.QkNormWarp]
