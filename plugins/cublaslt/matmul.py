"""Matmul and the ops that are fused with it, by cuBLASLt, with as much as possible in the epilogues of its products.

The kernels of sums.cu compute the rest: a bias gradient that is added to (the library's epilogue overwrites), or whose
weight does not train; a residual gradient that is no alias.
"""

from functools import partial

from core import Variant, cdiv, i32

from .library import BIAS, DGELU, GELU_AUX, GELU_AUX_BIAS, PLAIN, SUM_LEFT, Product, missing

ROOM = 32 << 20  # bytes of workspace for the library
ROW = 16  # bytes that rows have to be multiples of: else it has slow kernels, or none


class MatmulCublasLt(Variant):
    """NVIDIA's own products: the unit of measurement. Bias in the epilogue, bias gradients beside the weights'."""

    op, name, priority = "matmul", "cublaslt", -1
    source = "sums.cu"
    library = "cuBLASLt"
    dtypes = ("f32", "bf16", "fp16")
    reads = ("x", "weight")
    can_add = ("x",)
    examples = [{"x": (2, 5, 24), "features": 40}, {"x": (33, 16), "features": 8, "bias": False}]

    def why_not(self, t):
        return missing() or narrow(t.x, t.K, t.features)

    def workspace(self, t):
        return ROOM + vector_bytes(t.features)

    def forward(self, t, launch):
        multiply_forward(launch, t.y, t.x, t.weight, t.bias)

    def backward(self, t, launch):
        if t.dx is not None:
            multiply(launch, t.dx, t.dy, t.weight, add=t.dx if t.add_dx else None)
        multiply_dweight(launch, t.dweight, t.dbias, t.dy, t.x, t.add_dweight, t.add_dbias)


class MatmulAddCublasLt(MatmulCublasLt):
    """The product is added to the residual."""

    op = "matmul_add"
    can_add = ("x", "r")
    alias = {"dr": "dy"}
    examples = [{"x": (2, 5, 24), "r": (2, 5, 40)}, {"x": (33, 16), "r": (33, 8), "bias": False}]

    def forward(self, t, launch):
        multiply_forward(launch, t.y, t.x, t.weight, t.bias, t.r)

    def backward(self, t, launch):
        launch_dr(launch, t)
        super().backward(t, launch)


class MlpGeluCublasLt(Variant):
    """GELU and its derivative in the epilogues, which have the tanh form alone, and 16 bits."""

    op, name, priority = "mlp_gelu", "cublaslt", -1
    source = "sums.cu"
    library = "cuBLASLt"
    dtypes = ("bf16", "fp16")
    saved = {"f": "... hidden", "a": "... hidden"}
    reads = ("x", "weight1", "weight2")
    can_add = ("x", "r")
    alias = {"dr": "dy"}
    examples = [
        {"x": (2, 5, 24), "r": (2, 5, 40), "weight1": (64, 24)},
        {"x": (9, 16), "r": (9, 8), "weight1": (32, 16), "bias1": False, "bias2": False},
    ]

    def why_not(self, t):
        erf = 'the library has GELU in its tanh form alone; this node has approx = "erf"' if t.approx == "erf" else None
        return missing() or erf or narrow(t.x, t.K, t.hidden, t.features)

    def workspace(self, t):
        return ROOM + vector_bytes(max(t.hidden, t.features)) + 2 * t.rows * t.hidden

    def forward(self, t, launch):
        epilogue = GELU_AUX if t.bias1 is None else GELU_AUX_BIAS
        multiply(launch, t.a, t.x, t.weight1, turned=(False, True), epilogue=epilogue, vector=t.bias1, aux=t.f)
        multiply_forward(launch, t.y, t.a, t.weight2, t.bias2, t.r)

    def backward(self, t, launch):
        launch_dr(launch, t)
        multiply_dweight(launch, t.dweight2, t.dbias2, t.dy, t.a, t.add_dweight2, t.add_dbias2)
        if t.dx is None and t.dweight1 is None and t.dbias1 is None:
            return
        df = launch.workspace.part(ROOM + vector_bytes(max(t.hidden, t.features)), t.f.shape, t.f.dtype)
        multiply(launch, df, t.dy, t.weight2, epilogue=DGELU, aux=t.f)
        multiply_dweight(launch, t.dweight1, t.dbias1, df, t.x, t.add_dweight1, t.add_dbias1)
        if t.dx is not None:
            multiply(launch, t.dx, df, t.weight1, add=t.dx if t.add_dx else None)


def multiply(launch, result, left, right, *, add=None, vector=None, aux=None, **how):
    """result = left right + add: see library.Product."""
    product = Product(result, left, right, add=add, vector=vector, aux=aux, **how)
    launch.call(partial(product.prepare, room=ROOM), result, left, right, add, vector, aux, launch.workspace)


def multiply_forward(launch, y, x, weight, bias=None, r=None):
    """y = x weight^T + bias + r."""
    epilogue = PLAIN if bias is None else BIAS
    multiply(launch, y, x, weight, turned=(False, True), add=r, epilogue=epilogue, vector=bias)


def multiply_dweight(launch, dweight, dbias, dy, x, add, add_bias):
    """dweight = dy^T x and dbias = sum of dy over its rows; either may be None."""
    if dweight is None:
        if dbias is not None:
            rows, N = i32(dy.size // dy.shape[-1]), dy.shape[-1]
            launch("column_sums", dbias, dy, rows, i32(N), i32(add_bias), grid=cdiv(N, 64), block=64)
        return
    sums = dbias
    if dbias is not None and add_bias:
        sums = launch.workspace.part(ROOM, dbias.shape, dbias.dtype)
    how = {"epilogue": PLAIN if dbias is None else SUM_LEFT, "vector": sums}
    multiply(launch, dweight, dy, x, turned=(True, False), add=dweight if add else None, **how)
    if sums is not dbias:
        launch("add_sums", dbias, sums, i32(dbias.size), grid=cdiv(dbias.size, 128), block=128)


def launch_dr(launch, t):
    """dr = dy, unless the one is the other."""
    if t.dr is not None:
        N = t.dy.shape[-1]
        grid = (t.rows, cdiv(N, 128))
        launch("residual", t.dr, t.dy, i32(N), i32(t.add_dr), grid=grid, block=128)


def vector_bytes(n):
    """Bytes of n floats, rounded up to the alignment of the next tensor."""
    return cdiv(4 * n, 256) * 256


def narrow(x, *widths):
    """The reason why rows of these widths, in elements of x, do not fit the library; None where they do."""
    odd = [n * x.nbytes // x.size for n in widths if n * x.nbytes // x.size % ROW]
    return f"rows of {odd[0]} bytes: its kernels need multiples of {ROW}" if odd else None
