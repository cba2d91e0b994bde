"""cuBLASLt through ctypes: the library, and one matrix product with an epilogue, ready to launch on a stream.

The library's matrices are column-major, ours row-major: our matrix is the library's transposed. So for our
result = left right it computes result^T = right^T left^T, and its operand A is our right operand. The numbers are
those of cublasLt.h and library_types.h.
"""

import ctypes
import weakref
from functools import cache

from core import BuildError
from core.kernels.nvidia_library import open_nvidia_library

INSTALL = 'pip install "corelm[cublaslt]"'
TYPES = {"f32": 0, "fp16": 2, "bf16": 14}  # cudaDataType_t
COMPUTE_F32 = 68  # cublasComputeType_t: sums in f32 of all operands, and f32 operands as they are
TURN_A, TURN_B, EPILOGUE, VECTOR, AUX, AUX_STRIDE, VECTOR_TYPE = 3, 4, 7, 8, 11, 12, 26  # of a product
MOST_WORKSPACE = 1  # of a preference
NOT_SUPPORTED = 15  # cublasStatus_t
# epilogues: operations on a result before it is stored, or beside it (cublasLtEpilogue_t)
PLAIN, BIAS, GELU_AUX, GELU_AUX_BIAS, DGELU, SUM_LEFT = 1, 4, 160, 164, 192, 512


class Algorithm(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t: a kernel, and the workspace that it takes."""

    _fields_ = [
        ("algorithm", ctypes.c_uint64 * 8),
        ("workspace", ctypes.c_size_t),
        ("status", ctypes.c_int),
        ("waves", ctypes.c_float),
        ("reserved", ctypes.c_int * 4),
    ]


POINTER, SIZE, INT, OUT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.POINTER(ctypes.c_void_p)
FUNCTIONS = {
    "cublasLtCreate": [OUT],
    "cublasLtMatmulDescCreate": [OUT, INT, INT],
    "cublasLtMatmulDescDestroy": [POINTER],
    "cublasLtMatmulDescSetAttribute": [POINTER, INT, POINTER, SIZE],
    "cublasLtMatrixLayoutCreate": [OUT, INT, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_int64],
    "cublasLtMatrixLayoutDestroy": [POINTER],
    "cublasLtMatmulPreferenceCreate": [OUT],
    "cublasLtMatmulPreferenceDestroy": [POINTER],
    "cublasLtMatmulPreferenceSetAttribute": [POINTER, INT, POINTER, SIZE],
    "cublasLtMatmulAlgoGetHeuristic": [POINTER] * 7 + [INT, ctypes.POINTER(Algorithm), ctypes.POINTER(INT)],
    "cublasLtMatmul": [POINTER] * 14 + [SIZE, POINTER],
    "cublasLtGetStatusName": [INT],
}


@cache
def load():
    """(the library, "") or (None, the reason for its absence, with the command that installs it)."""
    library, why = open_nvidia_library("cublasLt", "cuBLASLt", FUNCTIONS, INSTALL)
    if library is not None:
        library.cublasLtGetStatusName.restype = ctypes.c_char_p
    return library, why


def missing():
    """The missing part, as text; None when the library is here."""
    return load()[1] or None


def call(name, *arguments, let_pass=()):
    """Call a function of the library. Raises BuildError with the name of its status, unless `let_pass` has it."""
    library, _ = load()
    status = getattr(library, name)(*arguments)
    if status and status not in let_pass:
        said = library.cublasLtGetStatusName(status)
        raise BuildError(f"cuBLASLt: {name}: {(said or b'status %d' % status).decode()}")


def made(name, *arguments):
    """The handle that a `...Create` makes."""
    created = ctypes.c_void_p()
    call(name, ctypes.byref(created), *arguments)
    return created


@cache
def handle():
    """The library's context of this process, which uses it from one thread on one GPU."""
    return made("cublasLtCreate")


class Product:
    """result (I, J) = left (I, depth) right (depth, J) + add, all row-major; turned: an operand is stored as
    (depth, I) or (J, depth). epilogue: see above; its vector is a bias for each column, or takes the sum of each of
    left's rows."""

    def __init__(self, result, left, right, *, turned=(False, False), add=None, epilogue=PLAIN, vector=None, aux=None):
        self.result, self.left, self.right = result, left, right
        self.turned, self.adds, self.epilogue = turned, add is not None, epilogue
        self.vector_type = None if vector is None else TYPES[vector.dtype]
        self.aux_stride = None if aux is None else aux.shape[-1]

    def prepare(self, result, left, right, add, vector, aux, workspace, room):
        """`start(stream)`, a launch on these addresses. The library's descriptors are freed with it."""
        product = made("cublasLtMatmulDescCreate", COMPUTE_F32, TYPES["f32"])
        freed = [("cublasLtMatmulDescDestroy", product)]
        self.describe(product, vector, aux)
        layouts = [layout(tensor) for tensor in (self.right, self.left, self.result)]
        freed += [("cublasLtMatrixLayoutDestroy", each) for each in layouts]
        a, b, d = layouts
        algorithm = choose(product, (a, b, d, d), room, str(self))
        scale = [ctypes.c_float(1), ctypes.c_float(self.adds)]
        alpha, beta = (ctypes.cast(ctypes.byref(each), ctypes.c_void_p) for each in scale)
        source = add if self.adds else result
        chosen = ctypes.cast(ctypes.byref(algorithm), ctypes.c_void_p)

        def start(stream):
            call(
                "cublasLtMatmul", handle(), product, alpha, right, a, left, b, beta, source, d, result, d, chosen,
                workspace, room, stream,
            )  # fmt: skip

        start.kept = scale, algorithm
        weakref.finalize(start, free, freed).atexit = False
        return start

    def describe(self, product, vector, aux):
        turned_left, turned_right = self.turned
        attributes = [(TURN_A, INT(turned_right)), (TURN_B, INT(turned_left)), (EPILOGUE, INT(self.epilogue))]
        if vector:
            attributes += [(VECTOR, POINTER(vector)), (VECTOR_TYPE, INT(self.vector_type))]
        if aux:
            attributes += [(AUX, POINTER(aux)), (AUX_STRIDE, ctypes.c_int64(self.aux_stride))]
        for which, value in attributes:
            call("cublasLtMatmulDescSetAttribute", product, which, ctypes.byref(value), ctypes.sizeof(value))

    def __str__(self):
        marks = ["^T" if turned else "" for turned in self.turned]
        return f"{self.result} = {self.left}{marks[0]} {self.right}{marks[1]}, epilogue {self.epilogue}"


def layout(tensor):
    """A row-major matrix, leading dims as rows, as the library sees it: its columns are our rows."""
    columns = tensor.shape[-1]
    return made("cublasLtMatrixLayoutCreate", TYPES[tensor.dtype], columns, tensor.size // columns, columns)


def choose(product, layouts, room, label):
    """The algorithm that the library's heuristic ranks first within `room` bytes of workspace. Raises BuildError, with
    `label` for the product, where it has none."""
    preference = made("cublasLtMatmulPreferenceCreate")
    try:
        most = SIZE(room)
        call("cublasLtMatmulPreferenceSetAttribute", preference, MOST_WORKSPACE, ctypes.byref(most), 8)
        algorithm, count = Algorithm(), INT(0)
        places = (preference, 1, ctypes.byref(algorithm), ctypes.byref(count))
        call("cublasLtMatmulAlgoGetHeuristic", handle(), product, *layouts, *places, let_pass=(NOT_SUPPORTED,))
    finally:
        free([("cublasLtMatmulPreferenceDestroy", preference)])
    if not count.value or algorithm.status:
        raise BuildError(f"cuBLASLt has no kernel for {label}", hint="[ops] or [nodes] can name another variant")
    return algorithm


def free(things):
    for destroy, thing in things:
        getattr(load()[0], destroy)(thing)
