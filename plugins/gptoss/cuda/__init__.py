"""The op's CUDA variant: kernels in a .cu file, launchers in a .py file."""

from . import sink_attention as sink_attention
