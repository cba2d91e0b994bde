"""The ops' CUDA variants: for each op a .cu file with its kernels and a .py file with its launchers."""

from . import balance, combine, expert_matmul, route

VARIANTS = [
    route.RouteNaive,
    expert_matmul.ExpertMatmulNaive,
    expert_matmul.ExpertMatmulGrouped,
    combine.CombineNaive,
    combine.CombineVector,
    balance.BalanceNaive,
]
