"""What a launcher may ask for: `launch` records it, or says at once, with file and line, what could not run."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from core import f32, f64, i32, i64, sim, u32, u64
from core.device.launch import CallRecord, Host, LaunchRecord, Scratch, element_type, record
from core.device.nested import Nested
from core.errors import BuildError
from core.kernels.arguments import bytes_of
from core.kernels.tensors import DeviceTensor, decode, encode, from_bf16, tensor_map, to_bf16
from core.loader import load_registry
from core.op import Tensors, Variant

SOURCE = """// scale(y) in a comment is not a kernel
extern "C" __global__ void __launch_bounds__(256) scale(elem* y, const elem* __restrict__ x, const int* rows,
                                                        float by, int n) {
    if (threadIdx.x < n) y[threadIdx.x] = elem(by * float(x[threadIdx.x]));
}
extern "C" __global__ void none() {}
"""


def tensor(shape, dtype="f32", pointer=4096):
    return DeviceTensor(pointer, shape, dtype)


@pytest.fixture
def launched(tmp_path):
    """launched(launcher, **tensors): the records of a variant whose forward is `launcher`."""
    (tmp_path / "scale.cu").write_text(SOURCE)

    def run(launcher, host=None, workspace=None, counters=None, calls="", **values):
        class Scaled(Variant):
            op, name = "scale", "mine"
            library = calls
            sources = {"forward": (tmp_path / "scale.cu",)}

            def forward(self, t, launch):
                launcher(t, launch)

        t = Tensors(node="h.0.scale", **values)
        return record(Scaled(), "forward", t, None, workspace, counters, host=host or Host(sms=7))

    return run


def good(t, launch, **how):
    how = {"grid": 1, "block": 32, **how}
    launch("scale", t.y, t.x, None, f32(2), i32(8), **how)


Y, X = tensor((8,)), tensor((8,), pointer=8192)


def test_a_launch_is_recorded_with_who_asked_and_where(launched):
    (found,) = launched(lambda t, launch: good(t, launch, grid=(3, 2), smem=1024), y=Y, x=X)
    assert (found.grid, found.block, found.smem) == ((3, 2, 1), (32, 1, 1), 1024)
    assert found.args[:3] == (Y, X, None) and found.args[3].dtype == np.float32
    assert (
        found.node == "h.0.scale"
        and found.method == "forward"
        and Path(found.line.split(":")[0]).name == "test_launch.py"
    )
    assert "scale.mine" in found.where and "test_launch.py" in found.where
    assert found.kernel.defines == (("ELEM", "float"),)


def prepare(*addresses):
    raise AssertionError("nothing is prepared while recording")


def test_a_librarys_call_is_recorded_among_the_launches_with_who_asked_and_where(launched):
    def both(t, launch):
        launch.call(prepare, t.y, None, t.x)
        good(t, launch)

    found, after = launched(both, calls="aLibrary", y=Y, x=X)
    assert isinstance(found, CallRecord) and isinstance(after, LaunchRecord)
    assert (found.args, found.nbytes, found.node) == ((Y, None, X), 64, "h.0.scale")
    assert "scale.mine forward, a library's call (" in found.where and "test_launch.py:" in found.where


@pytest.mark.parametrize(
    ("calls", "argument", "words"),
    [
        ("", Y, r"launch.call\(prepare, ...\): scale.mine declares no `library`, so it may only launch kernels"),
        ("aLibrary", i32(3), r"argument 1 is .*3.*; expected a tensor or None"),
        ("aLibrary", 4096, "argument 1 is 4096; expected a tensor or None"),
    ],
)
def test_a_librarys_call_that_is_none_is_refused(launched, calls, argument, words):
    with pytest.raises(BuildError, match=words):
        launched(lambda t, launch: launch.call(prepare, argument), calls=calls, y=Y, x=X)


def test_elem_is_bf16_where_a_tensor_is(launched):
    y, x = tensor((8,), "bf16"), tensor((8,), "bf16")
    (found,) = launched(lambda t, launch: good(t, launch, define={"WIDTH": 8}), y=y, x=x)
    assert found.kernel.defines == (("ELEM", "bf16"), ("WIDTH", 8))
    assert element_type(Tensors(a=1, b=None, y=Y)) == "f32"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (lambda t: (t.y, t.x, None, f32(2), 8), r"argument 5 is the bare int 8.*i32\(8\)"),
        (lambda t: (t.y, t.x, None, 2.0, i32(8)), r"argument 4 is the bare float 2.0.*f32\(2.0\)"),
        (lambda t: (t.y, t.x, None, f32(2), True), r"argument 5 is True.*i32\(True\)"),
        (lambda t: (t.y, np.zeros(8, np.float32), None, f32(2), i32(8)), "argument 2 is a NumPy array"),
        (lambda t: (t.y, "x", None, f32(2), i32(8)), "argument 2 is 'x'"),
        (lambda t: (t.y, t.x, None, f32(2)), r"has 4 arguments; the kernel takes 5: elem\* y, "),
        (lambda t: (t.y, t.x, None, i32(2), i32(8)), "argument 4 is a scalar of int32; the kernel takes `float by`"),
        (lambda t: (t.y, t.x, None, f32(2), u32(8)), "argument 5 is a scalar of uint32; the kernel takes `int n`"),
        (lambda t: (t.y, t.x, None, f32(2), t.y), "argument 5 is a tensor of f32; the kernel takes `int n`"),
        (
            lambda t: (t.y, t.x, t.x, f32(2), i32(8)),
            r"argument 3 is a tensor of f32; the kernel takes `const int\* rows`",
        ),
        (lambda t: (t.y, i32(3), None, f32(2), i32(8)), "argument 2 is a scalar of int32"),
        (lambda t: (tensor((8,), "f64"), t.x, None, f32(2), i32(8)), "argument 1 is a tensor of f64"),
    ],
)
def test_a_wrong_argument_is_told_in_words(launched, args, words):
    with pytest.raises(BuildError) as error:
        launched(lambda t, launch: launch("scale", *args(t), grid=1, block=32), y=Y, x=X)
    text = " ".join(str(error.value).split())
    assert re.search(words, text), text
    assert "scale.mine forward (" in text and "test_launch.py:" in text


WHOLE = "holds whole numbers from"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (
            i32(2**31),
            rf"argument 5, `int n`, is i32\(2147483648\), and i32 {WHOLE} -2,147,483,648 to 2,147,483,647.*u64\(n\)",
        ),
        (i32(np.int64(2**31)), rf"`int n`, is i32\(.*2147483648.*\), and i32 {WHOLE}"),  # NumPy would wrap
        (i32(-(2**31) - 1), rf"`int n`, is i32\(-2147483649\), and i32 {WHOLE}"),
        (i32(2.5), r"`int n`, is i32\(2.5\).*i32\(int\(x\)\)"),  # NumPy would cut it off
        (i32(np.float32(3)), r"`int n`, is i32\(.*3.0.*\)"),
        (i32(None), r"`int n`, is i32\(None\)"),
        (u32(-1), rf"`int n`, is u32\(-1\), and u32 {WHOLE} 0 to 4,294,967,295.*i32\(n\)"),
        (u32(np.int32(-1)), rf"is u32\(.*-1.*\), and u32 {WHOLE}"),
        (u32(2**32), rf"is u32\(4294967296\), and u32 {WHOLE} 0 to 4,294,967,295.*u64\(n\)"),
        (u64(-1), rf"is u64\(-1\), and u64 {WHOLE} 0 to"),
        (u64(2**64), rf"is u64\(18446744073709551616\), and u64 {WHOLE} 0 to"),
        (i64(2**63), rf"is i64\(9223372036854775808\), and i64 {WHOLE} -"),
        (f32(1e39), r"is f32\(1e\+39\), and f32 holds numbers up to 3.4028235e\+38"),
        (f32(10**400), "is f32\\(10{400}\\)"),
        (f64("x"), r"is f64\('x'\)"),
    ],
)
def test_a_number_that_its_type_does_not_hold_is_refused_with_kernel_parameter_and_limits(launched, number, words):
    def launcher(t, launch):
        launch("scale", t.y, t.x, None, f32(2), number, grid=1, block=32)

    with pytest.raises(BuildError) as error:
        launched(launcher, y=Y, x=X)
    text = " ".join(f"{error.value} {error.value.hint}".split())
    assert re.search(words, text), text
    assert "scale.mine forward (" in text and "test_launch.py:" in text and "launch('scale'" in text


def test_numbers_at_the_edges_of_their_types_are_passed_on():
    edges = [(i32, 2**31 - 1), (i32, -(2**31)), (u32, 2**32 - 1), (i64, -(2**63)), (u64, 2**64 - 1), (i32, True)]
    assert all(int(make(value)) == value and isinstance(make(value), np.generic) for make, value in edges)
    assert f32(np.inf) == np.inf and np.isnan(f32(np.nan)) and f32(3.4028234e38) < np.inf and f64(1e300) == 1e300


def test_a_number_that_does_not_fit_is_refused_by_the_simulator_too():
    with pytest.raises(BuildError, match=r"argument 1 is i32\(2147483648\), and i32 holds"):
        sim.run('extern "C" __global__ void k(float* y, int n) {}', "k", 1, 32, [np.zeros(1, np.float32), i32(2**31)])


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"block": 1025}, "1025 threads"),
        ({"block": (32, 33)}, "1056 threads"),
        ({"grid": 0}, "grid=0"),
        ({"grid": (1, 70000)}, "largest grid"),
        ({"grid": (1, 1, 1, 1)}, "one to three sizes"),
        ({"block": 2.5}, "one to three sizes"),
        ({"smem": 300_000}, "bytes of shared memory"),
        ({"cluster": 16}, "cluster=16"),
        ({"cluster": 2, "grid": 3}, "a grid that it divides"),
    ],
)
def test_sizes_that_no_device_has_are_refused(launched, how, words):
    with pytest.raises(BuildError, match=words):
        launched(lambda t, launch: good(t, launch, **how), y=Y, x=X)


def test_workspace_goes_to_any_pointer_and_counters_are_passed_on(launched):
    scratch, zeros = tensor((64,), "u8"), tensor((4,), "u32")

    def launcher(t, launch):
        assert launch.workspace is scratch and launch.counters is zeros and launch.sms == 7
        assert launch.resident("none", block=64) == 7
        launch("scale", launch.workspace, t.x, None, f32(1), i32(8), grid=1, block=8)

    assert len(launched(launcher, workspace=scratch, counters=zeros, y=Y, x=X)) == 1


def test_parts_of_a_tensor_keep_their_addresses():
    x = tensor((4, 6), "bf16", 1024)
    assert x[1:3].pointer == 1024 + 12 and x[1:3].shape == (2, 6)
    assert x.part(6, (2, 3)).pointer == 1024 + 12
    assert x.reshape(3, -1).shape == (3, 8) and x.reshape((24,)).nbytes == 48
    assert tensor((64,), "u8", 1024).part(16, (4,), "f32").dtype == "f32"
    for wrong in (lambda: x.part(20, (5,)), lambda: x.reshape(5, 5), lambda: x.part(-1, (1,)), lambda: x[0]):
        with pytest.raises(BuildError):
            wrong()


def test_contents_cannot_be_read_by_a_launcher():
    with pytest.raises(TypeError, match="never contents"):
        np.asarray(tensor((4,)))


def test_bf16_rounds_to_nearest_even_and_keeps_what_is_not_finite():
    values = np.array(
        [1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -0.0, np.inf, -np.inf, 3.4e38, 1e-40], np.float32
    )
    bits = [0x3F80, 0x3F80, 0x3F82, 0x3F81, 0x8000, 0x7F80, 0xFF80, 0x7F80, 0x0001]
    assert to_bf16(values).tolist() == bits
    assert np.isnan(from_bf16(to_bf16(np.array([np.nan, -np.nan], np.float32)))).all()
    every = np.arange(2**16, dtype=np.uint16)
    kept = from_bf16(every)
    assert np.array_equal(to_bf16(kept)[~np.isnan(kept)], every[~np.isnan(kept)])
    assert decode(encode([1, 2.5], "bf16", (2,)), "bf16").tolist() == [1, 2.5]


def test_arguments_lie_as_the_kernel_reads_them():
    assert bytes_of(tensor((1,), pointer=0x1234)) == (0x1234).to_bytes(8, "little") and bytes_of(None) == bytes(8)
    assert bytes_of(f32(1)) == b"\0\0\x80\x3f" and bytes_of(i32(-1)) == b"\xff" * 4


def test_a_tensor_map_runs_from_the_fastest_dim():
    found = tensor_map(tensor((6, 64, 128), "bf16"), box=(64, 32, 1))
    assert found.dims == (128, 64, 6) and found.strides == (256, 256 * 64) and found.swizzle == 128


@pytest.mark.parametrize(
    ("shape", "how", "words"),
    [
        ((64, 65), {"box": (64, 1)}, "not multiples of 16 bytes"),
        ((64, 64), {"box": (64,)}, "the box has 1 sizes"),
        ((64, 64), {"box": (128, 1)}, "more than swizzle"),
        ((64, 512), {"box": (512, 1), "swizzle": 0}, "1 to 256"),
        ((64, 64), {"box": (4, 1)}, "not a multiple of 16"),
        ((2, 2, 2, 2, 2, 8), {"box": (8, 1, 1, 1, 1, 1)}, "rank 6"),
        ((64, 64), {"box": (64, 1), "swizzle": 100}, "expected 0, 32, 64 or 128"),
        ((64, 64), {"box": (64, 1), "strides": (128, 128)}, "all but the first"),
    ],
)
def test_a_tensor_map_that_the_hardware_refuses_is_told_in_words(shape, how, words):
    with pytest.raises(BuildError, match=words):
        tensor_map(tensor(shape, "bf16"), **how)
    with pytest.raises(BuildError, match="multiple of 16 bytes"):
        tensor_map(tensor((64, 64), "bf16", pointer=8), box=(64, 1))


# --- other ops' launches -----------------------------------------------------------------------------------------

PACKED, ROWS = tensor((2, 5, 24)), tensor((3, 8))
NESTED = {
    "saved tensors that nobody keeps": (
        "attention.naive", "forward", {"qkv": PACKED, "heads": 2}, "it saves p, and a nested launch keeps nothing"
    ),
    "others than are kept": (
        "attention.naive", "backward", {"qkv": PACKED, "heads": 2, "lse": Y}, "saves p, and a nested launch keeps lse"
    ),
    "what is kept": ("attention.online", "backward", {"qkv": PACKED, "heads": 2, "lse": Y}, None),
    "adding, where it can": ("gelu.vector", "backward", {"x": ROWS, "add_dx": True}, None),
    "adding, where it cannot": ("gelu.blocked", "backward", {"x": ROWS, "add_dx": True}, "it cannot add to dx"),
    "limits of its own": (
        "matmul.register", "forward", {"x": ROWS, "weight": ROWS}, "3 x 3 results would leave most of a tile"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", NESTED)
def test_a_nested_launch_takes_a_variant_that_can_do_what_is_asked(what):
    name, method, values, says = NESTED[what]
    registry = load_registry(only=())
    op, _, variant = name.partition(".")
    why_not = Nested.of(registry.op(op), method, values).why_not(registry.variant(op, variant))
    assert why_not == says or says in why_not


def test_what_a_nested_forward_keeps_is_of_a_variant_that_has_a_backward():
    class OnlyForward(Variant):
        op, name, saved, backward = "attention", "only_forward", {"lse": "B heads T : acc"}, None

    attention = load_registry(only=()).op("attention")
    asked = {"qkv": PACKED, "heads": 2, "lse": Y}
    assert Nested.of(attention, "forward", asked).why_not(OnlyForward()) == "it has no backward"
    OnlyForward.saved = {}
    assert Nested.of(attention, "forward", {"qkv": PACKED, "heads": 2}).why_not(OnlyForward()) is None


def test_a_nested_launch_has_the_sizes_of_its_tensors_and_what_is_left_out_is_none():
    matmul = load_registry(only=()).op("matmul")
    t = Nested.of(matmul, "backward", {"x": ROWS, "weight": tensor((5, 8)), "dy": tensor((3, 5)), "dx": ROWS}).t
    assert (t.rows, t.features, t.K, t.bias) == (3, 5, 8, None)
    assert t.dx is ROWS and t.dweight is None and not t.add_dweight
    assert "dy" not in vars(Nested.of(matmul, "forward", {"x": ROWS, "weight": tensor((5, 8))}).t)
    with pytest.raises(BuildError, match="lacks the input 'x'"):
        Nested.of(matmul, "backward", {"weight": ROWS, "dy": ROWS})
    with pytest.raises(BuildError, match="has no attribute"):
        Nested.of(matmul, "forward", {"x": ROWS, "weight": ROWS, "widht": 3})


def test_nested_launches_one_after_the_other_share_a_workspace_and_one_within_another_has_its_own(tmp_path):
    """Of each launcher: whose workspace it was given."""
    (tmp_path / "one.cu").write_text('extern "C" __global__ void work(float* y) {}')
    made = []

    class Inner(Variant):
        op, name = "inner", "mine"
        sources = {"forward": (tmp_path / "one.cu",)}

        def workspace(self, t):
            return t.size

        def forward(self, t, launch):
            launch("work", launch.workspace, grid=1, block=32)
            if t.deep:
                launch.op("inner", size=8, deep=False)

    class Outer(Inner):
        def workspace(self, t):
            return 0

        def forward(self, t, launch):
            for size, deep in ((16, True), (24, False)):
                launch.op("inner", size=size, deep=deep)

    def zeros(nbytes):
        made.append(nbytes)
        return tensor((nbytes,), "u8", pointer=4096 * len(made))

    host = Host(zeros=zeros, scratch=Scratch(zeros))
    pick = lambda name, method, values: (Inner(), Tensors(**values))  # noqa: E731
    for _ in range(2):  # nodes
        found = [r.args[0].pointer for r in record(Outer(), "forward", Tensors(), pick, host=host)]
    first, within, second = found
    assert first == second != within and made == [16, 8, 24]
