"""The op's CUDA variants: a .cu file with its kernels and a .py file with its launchers."""

from . import scale as scale
