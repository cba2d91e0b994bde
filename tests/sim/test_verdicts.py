"""Verdicts: records of the op check with the sizes that they cover, and those that a release ships."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import small_run
from short_plugin import CONFIG, MODEL, plugin, train

from core.discovery import GIVEN
from core.loader import load_registry
from core.testing import release
from core.testing.case import make_case
from core.testing.check import check_variant
from core.testing.records import keep, verdicts_of
from core.variant_sources import c_code, key_of, python_code, sources_of
from core.verdicts import Verdict, Verdicts, sizes_of

REAL = load_registry()
PASSED = Verdict("sim", "", "f32", True, {"forward": 1e-7}, {"C": 70, "rows": 300})


def test_a_record_names_the_sizes_that_it_covers_and_those_that_it_does_not() -> None:
    assert PASSED.at({"C": 64, "rows": 128}) == "checked to C=70 in the simulator"
    assert PASSED.at({"C": 4096, "rows": 128}) == "not checked at C=4,096"
    assert PASSED.at({"C": 4096, "rows": 600, "K": 7}) == "not checked at C=4,096 K=7"
    assert PASSED.at({}) == "checked in the simulator"
    assert Verdict("cuda", "NVIDIA T4, sm_75", "f32", False).at({}) == "failed on NVIDIA T4, sm_75"


def test_records_of_one_variant_add_up_and_a_failure_stays() -> None:
    more = PASSED.with_more(Verdict("sim", "", "f32", True, {"forward": 1e-6}, {"C": 4096, "rows": 2}))
    assert dict(more.sizes) == {"C": 4096, "rows": 300} and more.worst == 1e-6 and not more.smallest
    failed = Verdict("sim", "", "f32", False, finding="y is wrong")
    assert PASSED.with_more(failed) == failed == failed.with_more(PASSED)
    low = Verdict("sim", "", "f32", True, sizes={"C": 9}, smallest={"C": 3})
    both = low.with_more(Verdict("sim", "", "f32", True, sizes={"C": 70, "rows": 8}, smallest={"C": 5, "rows": 8}))
    assert (both.smallest, both.sizes) == ({"C": 3, "rows": 8}, {"C": 70, "rows": 8}) and both.has_range
    assert both.below({"C": 2, "rows": 8}) == {"C": 2} and not both.beyond({"C": 2})
    old = low.with_more(PASSED)
    assert old.smallest == {"C": 3} and not old.has_range and not old.below({"rows": 1}), "an older record has no range"


def test_the_store_keeps_records_by_place_dtype_and_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, store = REAL.variant("gelu", "vector"), tmp_path / "cache" / "checks.json"
    verdicts = Verdicts(REAL, store)
    monkeypatch.setattr("core.verdicts.release_file", lambda record: None)
    assert verdicts.lookup(kernel, "sim", "f32") is None
    keep(verdicts, kernel, PASSED)
    assert Verdicts(REAL, store).lookup(kernel, "NVIDIA H200, sm_90a", "f32") == PASSED, "the simulator's, for a GPU"
    assert verdicts.lookup(kernel, "sim", "bf16") is None and verdicts.at(kernel, "NVIDIA H200, sm_90a", "f32") is None
    failed = Verdict("cuda", "NVIDIA H200, sm_90a", "f32", False, finding="forward: y is wrong")
    keep(verdicts, kernel, failed)
    assert verdicts.failure(kernel, "NVIDIA H200, sm_90a", "f32") == (
        "its check failed on NVIDIA H200, sm_90a: forward: y is wrong"
    )
    assert verdicts.failure(kernel, "NVIDIA A100, sm_80", "f32") is None
    passed = Verdict("cuda", "NVIDIA H200, sm_90a", "f32", True, {"forward": 0.0}, {"rows": 1})
    keep(verdicts, kernel, passed)
    assert not Verdicts(REAL, store).at(kernel, failed.chip, "f32").passed, "part of a check clears no failure"
    keep(verdicts, kernel, passed, whole=True)
    assert Verdicts(REAL, store).at(kernel, failed.chip, "f32") == passed
    with monkeypatch.context() as patched:
        patched.setattr("core.variant_sources._part", lambda path: b"changed")
        assert Verdicts(REAL, store).lookup(kernel, "sim", "f32") is None
    refused = Verdicts(REAL, store / "a file is no folder")
    keep(refused, kernel, failed)
    keep(refused, kernel, PASSED)
    assert refused.at(kernel, "sim", "f32") == PASSED and refused.failure(kernel, failed.chip, "f32"), (
        "what cannot be written counts in this process"
    )
    store.write_text("{damaged")
    assert Verdicts(REAL, store).lookup(kernel, "sim", "f32") is None


def test_a_key_is_of_the_code_alone() -> None:
    python = (
        '"""A page."""\nimport a  # why\n\n\ndef f():\n    """What."""\n    return "# no comment", \'\'\'"""\'\'\'\n'
    )
    assert python_code(python) == "import a\ndef f():\n    return \"# no comment\", '''\"\"\"'''"
    assert python_code('x = 1\n"""no docstring: an expression\n"""\n') != python_code("x = 1\n")
    assert c_code('// one\nint a; /* two\nlines */ char b[] = "// three";\n\n') == 'int a;   char b[] = "// three";'
    assert python_code("def f(:") == "def f(:"


def test_a_key_leaves_out_what_a_reference_states_and_does_not_compute_with() -> None:
    code = "class A(Reference):\n    op = 'a'\n    def forward(self, t):\n        t.y[...] = t.x\n"
    said = "    made_of = {\n        'y': 'x',\n    }\n    def parts(self, t, tensor, index):\n        return {}\n"
    assert python_code(code + said) == python_code(code)
    assert python_code(code.replace("t.x", "self.parts(t, 'y', 0)") + said) != python_code(code.replace("t.x", "1"))
    assert python_code((code + said).replace("Reference", "Variant")) != python_code(
        code.replace("Reference", "Variant")
    )


def test_a_key_depends_on_kernels_headers_and_references() -> None:
    names = {p.name for p in sources_of(REAL.variant("head_loss", "chunked"), REAL)}
    assert {"head_loss.py", "matmul.py", "cross_entropy.py"} <= names
    names = {p.name for p in sources_of(REAL.variant("gelu", "vector"), REAL)}
    assert {"gelu.cu", "gelu.cuh", "prelude.cuh"} <= names
    keys = {key_of(v, REAL) for variants in REAL.variants.values() for v in variants.values()}
    assert len(keys) == sum(map(len, REAL.variants.values()))


def test_a_report_becomes_a_record_for_each_dtype() -> None:
    op, variant = REAL.op("add"), REAL.variant("add", "reference")
    report = check_variant(op, variant, REAL, examples=[0, 1])
    by_dtype = {v.dtype: v for v in verdicts_of(report, "")}
    assert set(by_dtype) == {"f32", "f64"} and all(v.passed for v in by_dtype.values())
    assert by_dtype["f32"].sizes == {"rows": 4 * 7 * 64} and by_dtype["f32"].smallest == {"rows": 99}
    assert "accumulate" in by_dtype["f32"].checks
    assert by_dtype["f64"].worst < by_dtype["f32"].worst < 1e-5


def test_sizes_are_those_that_the_schema_names() -> None:
    op = REAL.op("embedding")
    assert sizes_of(op, {"...": (4, 7), "rows": 50, "cols": 9}) == {"...": 28, "rows": 50, "cols": 9}
    case = make_case(REAL.op("attention"), {"qkv": (2, 5, 24), "heads": 2, "window": 3})
    assert sizes_of(case.op, case.dims) == {"B": 2, "T": 5, "E": 24, "heads": 2, "D": 4, "S": 8, "kv_heads": 2}


@pytest.fixture
def here(workdir: Path) -> Path:
    (workdir / "model.toml").write_text(MODEL)
    small_run.write(workdir, CONFIG, "run.toml")
    return workdir


def test_a_release_checks_what_is_stale_and_nothing_else(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A plugin ships its verdicts: a run on a machine that never checked it looks them up."""
    Path("mine").mkdir()
    source = plugin("mine/__init__.py", -1)
    assert release.main(["--plugin", "mine", "--list"]) == 0
    assert capsys.readouterr().out.split() == ["total.reference", "total.short"]
    assert release.main(["--plugin", "mine", "--jobs", "1"]) == 0
    assert "total.short: passed (2 of 2)" in capsys.readouterr().out
    rows = json.loads(Path("mine/verdicts.json").read_text())
    assert {(r["variant"], r["dtype"], r["device"]) for r in rows} == {
        ("reference", "f32", "cpu"), ("reference", "f64", "cpu"), ("short", "f32", "cpu"),
    }  # fmt: skip
    assert all(r["passed"] and r["sizes"] == {"rows": 10, "C": 33} and r["checks"]["gradient"] < 1e-6 for r in rows)
    assert all(r["smallest"] == {"rows": 3, "C": 7} and r["date"] for r in rows)
    older = [{name: value for name, value in r.items() if name != "smallest"} for r in rows]
    Path("mine/verdicts.json").write_text(json.dumps(older))
    assert release.stale(load_registry(["mine"]), (GIVEN,)) == [], "an older record counts"
    assert release.main(["--plugin", "mine", "--list"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "total.reference: smallest sizes not recorded"
    assert release.main(["--plugin", "mine", "--jobs", "1"]) == 0 and "(2 of 2)" in capsys.readouterr().out
    assert json.loads(Path("mine/verdicts.json").read_text()) == rows, "and is brought up to date"
    assert release.main(["--plugin", "mine", "--jobs", "1"]) == 0 and not capsys.readouterr().out
    assert train("mine", "--set", "ops.total=short", "--out", "a") == 0
    said = capsys.readouterr().out
    assert "before step 1" not in said and "checked to rows=10" in said
    registry = load_registry(["mine"])
    registry.variants["total"].pop("short")
    assert release.stale(registry, (GIVEN,)) == ["total.short"], "an entry without a variant"
    Path(source).write_text(Path(source).read_text().replace("t.dy * 2", "t.dy * 3"))
    monkey = load_registry(["mine"])
    assert release.stale(monkey, (GIVEN,)) == ["total.reference", "total.short"]


DOUBLE = """
from core import Op, Reference, Variant, cdiv, u64
double = Op("double", inputs={"x": "... C"}, outputs={"y": "... C"}, examples=[{"x": (3, 7)}, {"x": (2, 5, 33)}])
class DoubleReference(Reference):
    op = "double"
    def forward(self, t):
        t.y[...] = t.x * 2
    def backward(self, t):
        t.add("dx", t.dy * 2)
class DoubleKernel(Variant):
    op, name, source, arch, dtypes = "double", "kernel", "double.cu", "sm_90a", ("f32",)
    uncovered = UNCOVERED
    def forward(self, t, launch):
        launch("twice", t.y, t.x, u64(t.rows * t.C), grid=cdiv(t.rows * t.C, 64), block=64)
    def backward(self, t, launch):
        launch("twice", t.dx, t.dy, u64(t.rows * t.C), grid=cdiv(t.rows * t.C, 64), block=64)
def core_ops():
    return [double]
def core_variants():
    return [DoubleReference, DoubleKernel]
"""
TWICE = """extern "C" __global__ void twice(float* y, const float* x, u64 n) {
    u64 i = global_thread();
    if (n > 50000000)
        y[n] = 0;
    if (i < n) y[i] = x[i] * 2;
}
"""


@pytest.mark.parametrize(
    "ours, declared, says",
    [
        (False, {}, ""),
        (True, {}, "double.kernel: refused"),
        (True, {"y[n] = 0;": "tensors are shorter"}, ""),
        (True, {"y[n] = 0;": "tensors are shorter", "y[n] = 1;": "gone"}, "line that is not a gap: y[n] = 1;"),
    ],
)
def test_a_release_refuses_a_kernel_of_ours_with_a_line_that_no_example_runs_and_nothing_declares(
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    ours: bool,
    declared: dict[str, str],
    says: str,
) -> None:
    Path("doubles").mkdir()
    Path("doubles/__init__.py").write_text(DOUBLE.replace("UNCOVERED", repr(declared)))
    Path("doubles/double.cu").write_text(TWICE)
    monkeypatch.setattr(release, "ships", lambda variant, registry: ours)
    code, said = release.main(["--plugin", "doubles", "--jobs", "1"]), capsys.readouterr().out
    rows = [row for row in json.loads(Path("doubles/verdicts.json").read_text()) if row["variant"] == "kernel"]
    assert (code, len(rows)) == ((1, 0) if says else (0, 1)) and says in said, said
    assert ("double.cu:4: no example runs this line: y[n] = 0;" in said) is not declared
    assert ("declare it: uncovered" in said) is bool(says)
