"""The ops' CUDA variants: for each op a .cu file with its kernels and a .py file with its launchers."""

from . import balance, combine, expert_matmul, route

MODULES = (route, expert_matmul, combine, balance)
