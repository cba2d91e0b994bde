"""Matrix products by NVIDIA's cuBLASLt, to measure one's own by. Never automatic: `[ops] matmul = "cublaslt"`."""

from . import matmul


def core_variants():
    return [matmul.MatmulCublasLt, matmul.MatmulAddCublasLt, matmul.MlpGeluCublasLt]
