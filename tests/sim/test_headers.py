"""A plugin's kernels include the core's headers, and each tool sees them: check, trace, copies, caches, verdicts."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import core.sim
from core import cli
from core.errors import BuildError
from core.kernels import nvrtc, sources
from core.kernels.nvrtc import Kernel, compile_ptx
from core.loader import load_registry
from core.testing import check_variant
from core.variant_sources import key_of

PAGE = Path(__file__).parents[2] / "docs/kernels.md"
PLUGIN = '''"""Linear maps and scaled rows of a stranger, from the core's headers alone."""
import numpy as np
from core import Op, Param, Reference, Variant, cdiv, i32
from core.kernels.columns import by_column, by_slice, partial_bytes
from core.kernels.width import defined, width

EXAMPLES = [{"x": (67, 6)}, {"x": (2, 3, 8)}]
scaled = Op("scaled", inputs={"x": "... C"}, outputs={"y": "... C"}, params={"weight": Param("C")}, examples=EXAMPLES)
mapped = Op("mapped", inputs={"x": "... K"}, outputs={"y": "... N"}, params={"weight": Param("N K")},
            infer=lambda dims: dims.setdefault("N", 5), examples=[{"x": (66, 17)}, {"x": (2, 3, 8)}])


class ScaledReference(Reference):
    op, reads, can_add = "scaled", ("x", "weight"), ("x",)

    def forward(self, t):
        t.y[...] = t.x * t.weight

    def backward(self, t):
        t.add("dx", t.dy * t.weight)
        t.add("dweight", (t.dy * t.x).reshape(-1, t.C).sum(0))


class ScaledPacks(Variant):
    op, name, reads, can_add = "scaled", "packs", ("x", "weight"), ("x",)

    def over(self, t):
        wide = width(t.C, t.x)
        return {"grid": cdiv(t.rows * t.C, 32 * wide), "block": 32, "define": defined(wide)}

    def forward(self, t, launch):
        launch("scale", t.y, t.x, t.weight, i32(t.rows), i32(t.C), i32(0), **self.over(t))

    def workspace(self, t):
        return partial_bytes(t.rows, t.C, 64)

    def backward(self, t, launch):
        if t.dx is not None:
            launch("scale", t.dx, t.dy, t.weight, i32(t.rows), i32(t.C), i32(t.add_dx), **self.over(t))
        if t.dweight is not None:
            part, slices = launch.workspace, cdiv(t.rows, 64)
            launch("parts", part, t.dy, t.x, i32(t.rows), i32(t.C), i32(64), **by_slice(t.rows, t.C, 64))
            launch("total", t.dweight, part, i32(slices), i32(t.C), i32(t.add_dweight), **by_column(t.C))


class MappedReference(Reference):
    op, reads = "mapped", ("x", "weight")

    def forward(self, t):
        t.y[...] = t.x @ t.weight.T

    def backward(self, t):
        t.add("dx", t.dy @ t.weight)
        t.add("dweight", t.dy.reshape(-1, t.N).T @ t.x.reshape(-1, t.K))


class MappedTiled(Variant):
    op, name, reads = "mapped", "tiled", ("x", "weight")

    def tiles(self, rows, columns):
        return {"grid": (cdiv(rows, 64), cdiv(columns, 64)), "block": 256}

    def forward(self, t, launch):
        launch("forward", t.y, t.x, t.weight, i32(t.rows), i32(t.N), i32(t.K), **self.tiles(t.rows, t.N))

    def backward(self, t, launch):
        if t.dx is not None:
            launch("dx", t.dx, t.dy, t.weight, i32(t.rows), i32(t.N), i32(t.K), **self.tiles(t.rows, t.K))
        if t.dweight is not None:
            sizes = i32(t.rows), i32(t.N), i32(t.K), i32(t.add_dweight)
            launch("dweight", t.dweight, t.dy, t.x, *sizes, **self.tiles(t.N, t.K))


def core_ops():
    return [scaled, mapped]


def core_variants():
    return [ScaledReference, ScaledPacks, MappedReference, MappedTiled]
'''
SCALED = """#include "core/columns.cuh"
#include "core/width.cuh"
extern "C" __global__ void scale(elem* y, const elem* x, const elem* weight, int rows, int C, int add) {
    u64 i = global_thread() * WIDTH;
    if (i >= (u64)rows * C) return;
    auto in = load<WIDTH>(x + i), scale = load<WIDTH>(weight + i % C), out = held(y + i, add);
    for (int k = 0; k < WIDTH; k++) out[k] = out[k] + in[k] * scale[k];
    store(y + i, out);
}
extern "C" __global__ void parts(float* part, const elem* dy, const elem* x, int rows, int C, int slice) {
    slice_sums<1>(part, rows, C, slice, [&](float* sum, u64 row, int c) { *sum += dy[row * C + c] * x[row * C + c]; });
}
extern "C" __global__ void total(float* dweight, const float* part, int slices, int C, int add) {
    add_slices(dweight, part, slices, C, C, add);
}
"""
MAPPED = """#include "core/product.cuh"
extern "C" __global__ void __launch_bounds__(TILE_THREADS)
    forward(elem* y, const elem* x, const elem* weight, int M, int N, int K) {
    tile_product(Operand<true>{x, M, K, K}, Operand<true>{weight, N, K, K}, blockIdx.x * TILE, blockIdx.y * TILE,
                 [&](u64 row, u32 column, float sum) { y[row * N + column] = sum; });
}
extern "C" __global__ void __launch_bounds__(TILE_THREADS)
    dx(elem* dx, const elem* dy, const elem* weight, int M, int N, int K) {
    tile_product(Operand<true>{dy, M, N, N}, Operand<false>{weight, K, N, K}, blockIdx.x * TILE, blockIdx.y * TILE,
                 [&](u64 row, u32 column, float sum) { dx[row * K + column] = sum; });
}
extern "C" __global__ void __launch_bounds__(TILE_THREADS)
    dweight(float* dweight, const elem* dy, const elem* x, int M, int N, int K, int add) {
    tile_product(Operand<false>{dy, N, M, N}, Operand<false>{x, K, M, K}, blockIdx.x * TILE, blockIdx.y * TILE,
                 [&](u64 row, u32 column, float sum) {
                     u64 at = row * K + column;
                     dweight[at] = sum + (add ? dweight[at] : 0);
                 });
}
"""


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """A plugin in a folder of its own, whose kernels include the core's headers."""
    folder = tmp_path / "stranger"
    folder.mkdir()
    for name, text in {"__init__.py": PLUGIN, "scaled.cu": SCALED, "mapped.cu": MAPPED}.items():
        (folder / name).write_text(text, "utf-8")
    return folder


@pytest.fixture
def headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of public headers, as a copy that a test may change."""
    copied = tmp_path / "include"
    shutil.copytree(sources.include_folder(), copied)
    monkeypatch.setattr(sources, "include_folder", lambda: copied)
    return copied / "core"


@pytest.mark.parametrize("name", ["scaled.packs", "mapped.tiled"])
def test_kernels_of_a_strangers_plugin_pass_the_check_with_headers_of_the_core(stranger: Path, name: str) -> None:
    registry = load_registry([str(stranger)], only=())
    op, _, variant = name.partition(".")
    report = check_variant(registry.op(op), registry.variant(op, variant), registry, archs=("sm_75", "sm_90a"))
    assert report.passed and report.checks["compile"][0], report.describe_failures()


@pytest.mark.parametrize("name", sorted(p.name for p in (sources.include_folder() / "core").iterdir()))
def test_a_header_compiles_alone_and_twice_and_the_page_names_what_it_declares(name: str, tmp_path: Path) -> None:
    kernel = 'extern "C" __global__ void nothing() {}\n'
    (tmp_path / "again.cuh").write_text(f'#include "core/{name}"\n')
    (tmp_path / "k.cu").write_text(f'#include "core/{name}"\n#include "again.cuh"\n{kernel}')
    assert compile_ptx(Kernel(tmp_path / "k.cu", "nothing")).names == ["nothing"]
    whole = sources.whole_text(tmp_path / "k.cu")  # what mutation testing compiles
    assert compile_ptx(Kernel(tmp_path / "k.cu", "nothing", text=whole)).names == ["nothing"]
    text = (sources.include_folder() / "core" / name).read_text("utf-8")
    declared = re.findall(r"^__device__ inline (?:void|int|u32|float|Pack<T, WIDTH>) (\w+)\(", text, re.M)
    page = PAGE.read_text("utf-8").partition("## Headers")[2].partition("\n## ")[0]
    assert f"`core/{name}`" in page and declared and all(f"`{function}" in page for function in declared)


def test_a_changed_header_of_the_core_is_compiled_anew(stranger: Path, headers: Path) -> None:
    kernel = Kernel(stranger / "scaled.cu", "total")
    key = nvrtc.unit_of(kernel, "sm_90a").key
    assert nvrtc.unit_of(kernel, "sm_90a").key == key
    header = headers / "columns.cuh"
    header.write_text(header.read_text("utf-8") + "// changed\n", "utf-8")
    assert nvrtc.unit_of(kernel, "sm_90a").key != key


def test_a_changed_header_of_the_core_makes_verdicts_stale(stranger: Path, headers: Path) -> None:
    registry = load_registry([str(stranger)], only=())
    scaled, mapped = registry.variant("scaled", "packs"), registry.variant("mapped", "tiled")
    before = key_of(scaled, registry), key_of(mapped, registry)
    header = headers / "columns.cuh"
    header.write_text(header.read_text("utf-8").replace("row += 8", "row += 4 + 4"), "utf-8")
    assert key_of(scaled, registry) != before[0], "its kernels include the header"
    assert key_of(mapped, registry) == before[1], "its kernels do not"


def test_a_trace_counts_a_headers_work_at_the_headers_lines(stranger: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(stranger.parent)
    words = ["trace", "scaled.packs", "--plugin", "stranger", "--shape", "x=67,6", "--direction", "backward"]
    assert cli.run(words) == 0
    text = capsys.readouterr().out
    number = number_of("columns.cuh", "sum += partials")
    section = rf"columns\.cuh:\d+\n(?: +\d+ .*\n)*? +{number} .* for \(int i = 0; i < slices; i\+\+\)"
    assert re.search(section, text)
    own = SCALED.splitlines().index(next(line for line in SCALED.splitlines() if "slice_sums" in line)) + 1
    assert re.search(rf"^ +{own} .* slice_sums<1>", text, re.M), "what the plugin wrote is at its own line"


def number_of(name: str, text: str) -> int:
    """The number of a header's line with `text`."""
    lines = (sources.include_folder() / "core" / name).read_text("utf-8").splitlines()
    return next(n for n, line in enumerate(lines, 1) if text in line)


def test_a_fault_in_a_header_is_reported_with_the_headers_line_and_the_callers(tmp_path: Path) -> None:
    source = """#include "core/width.cuh"
extern "C" __global__ void kernel(float* y, const float* x) { store(y, held(x + 99, 1)); }
"""
    zeros = np.zeros(32, np.float32)
    with pytest.raises(core.sim.KernelError) as error:
        core.sim.run(source, "kernel", 1, 1, [zeros.copy(), zeros], prelude=True)
    place = f"core/width.cuh:{number_of('width.cuh', 'if (add)')}"
    assert place in str(error.value) and "inlined at kernel.cu:2" in str(error.value)


def test_a_copy_includes_the_cores_headers_and_has_no_copies_of_them(stranger: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(stranger.parent)
    words = ["new", "variant", "scaled", "mine", "--from", "packs", "--plugin", "stranger", "--out", "copied"]
    assert cli.run(words) == 0
    assert {p.name for p in Path("copied").rglob("*.cu*")} == {"scaled.cu"}
    registry = load_registry(["stranger", "copied"], only=())
    how = {"archs": (), "examples": (1,)}
    report = check_variant(registry.op("scaled"), registry.variant("scaled", "mine"), registry, **how)
    assert report.passed, report.describe_failures()


def test_two_headers_under_one_name_are_refused(tmp_path: Path) -> None:
    """NVRTC knows a header by the name in the `#include` alone, and would take the first for both."""
    for folder, value in (("one", 1), ("two", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "size.cuh").write_text(f"constexpr int SIZE_{value} = {value};\n")
        (tmp_path / folder / "use.cuh").write_text('#include "size.cuh"\n')
    (tmp_path / "k.cu").write_text('#include "one/use.cuh"\n#include "two/use.cuh"\n')
    with pytest.raises(BuildError, match=r'"size\.cuh" reaches .*one/size\.cuh and .*two/size\.cuh') as error:
        compile_ptx(Kernel(tmp_path / "k.cu", "k"))
    assert error.value.hint == "rename one of the headers"


@pytest.mark.parametrize("slices", [1, 33, 70])
def test_slices_are_folded_whatever_their_number(slices):
    source = """
#include "core/columns.cuh"
extern "C" __global__ void fold(float* out, const float* partials, int slices, int columns, int add) {
    fold_slices(out, partials, slices, columns, columns, add);
}"""
    partials = np.random.default_rng(slices).standard_normal((slices, 45)).astype(np.float32)
    out = np.ones(45, np.float32)
    sizes = [np.int32(slices), np.int32(45), np.int32(1)]
    core.sim.run(source, "fold", (2, 1), (32, 32), [out, partials, *sizes], prelude=True)
    np.testing.assert_allclose(out, 1 + partials.sum(0, dtype=np.float64), rtol=1e-5, atol=1e-5)
