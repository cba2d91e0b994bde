"""The variants of an op with formulas: `reference`, where its author wrote none, and `generated` on CUDA."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from core.cache import cache_folder
from core.cache.writing import try_write
from core.expr import cdiv
from core.generated import numpy_form
from core.generated.cuda_form import CudaForm
from core.generated.formulas import Formulas
from core.kernels.columns import by_column, by_slice, partial_bytes
from core.op import Reference, Variant
from core.scalars import f32, i32, u64

THREADS, WARPS = 128, 4
SLICE = 128  # rows whose part of a parameter's gradient one thread block sums


class GeneratedReference(Reference):
    """The formulas in NumPy."""

    formulas: ClassVar[Formulas]

    def forward(self, t: Any) -> None:  # type: ignore[override]
        """Write the outputs."""
        numpy_form.forward(self.formulas, t)

    def backward(self, t: Any) -> None:  # type: ignore[override]
        """Write or add the gradients."""
        numpy_form.backward(self.formulas, t)


class GeneratedCuda(Variant):
    """The formulas as kernels; the file is in the cache folder, under a name with its hash."""

    formulas: ClassVar[Formulas]
    priority = 1  # after any variant written by hand, but before one that is only to be read

    @cached_property
    def form(self) -> CudaForm:
        """The kernels as text."""
        return CudaForm(self.formulas)

    @cached_property
    def file(self) -> Path:
        """The file of the kernels, written when it is first wanted for."""
        text = self.form.text()
        name = f"{self.op}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.cu"
        path = cache_folder() / "generated" / name
        if not path.exists() and not try_write(path, text.encode()):  # a cache that cannot be written to
            path = Path(tempfile.mkdtemp()) / name
            path.write_text(text, "utf-8")
        return path

    @property
    def sources(self) -> Mapping[str, tuple[Path, ...]]:  # type: ignore[override]
        """launcher -> the generated file."""
        return dict.fromkeys(("forward", "backward"), (self.file,))

    def workspace(self, t: Any) -> int:
        """Row values that parameters' gradients read, then the partial sums of one parameter."""
        if not self.form.columns:
            return 0
        return self._kept_bytes(t) + partial_bytes(t.rows, getattr(t, self.formulas.last), SLICE)

    def _kept_bytes(self, t: Any) -> int:
        return cdiv(4 * t.rows * len(self.form.row_values), 256) * 256

    def forward(self, t: Any, launch: Any) -> None:
        """One launch for all outputs."""
        results = [getattr(t, name) for name in self.formulas.op.outputs]
        self._launch("forward", results, list(self.formulas.op.outputs), t, launch)

    def backward(self, t: Any, launch: Any) -> None:
        """One launch for the gradients of inputs, two for each parameter's."""
        inputs = [f"d{name}" for name in self.formulas.op.inputs]
        columns = [name for name in self.form.columns if getattr(t, f"d{name}") is not None]
        results = [getattr(t, name) for name in inputs]
        rows = (
            launch.workspace.part(0, (t.rows * len(self.form.row_values),), "f32")
            if columns and self.form.row_values
            else None
        )
        if any(result is not None for result in results) or rows is not None:
            flags = [i32(bool(getattr(t, f"add_{name}", False))) for name in inputs]
            self._launch("backward", results, inputs, t, launch, rows, flags)
        for column in columns:
            self._launch_column(column, rows, t, launch)

    def _launch(
        self, kernel: str, results: Any, names: Any, t: Any, launch: Any, rows: Any = None, flags: Any = ()
    ) -> None:
        formulas, last = self.formulas, self.formulas.last
        wanted = [
            *names,
            *(f"d{column}" for column in self.form.columns if kernel == "backward" and self.form.row_values),
        ]
        needed = formulas.closure(wanted)
        tensors = [getattr(t, name) for name in (*formulas.tensors, *formulas.above) if name in needed]
        numbers = [f32(getattr(t, name)) for name in formulas.numbers]
        if not last:
            size = next(tensor.size for tensor in (*tensors, *results) if tensor is not None)
            launch(kernel, *results, *tensors, *numbers, u64(size), *flags, grid=cdiv(size, THREADS), block=THREADS)
            return
        of_rows = [rows] if kernel == "backward" and self.form.row_values else []
        sizes = (i32(t.rows), i32(getattr(t, last)))
        launch(
            kernel, *results, *tensors, *numbers, *of_rows, *sizes, *flags, grid=cdiv(t.rows, WARPS), block=(32, WARPS)
        )  # fmt: skip

    def _launch_column(self, column: str, rows: Any, t: Any, launch: Any) -> None:
        formulas, C = self.formulas, getattr(t, self.formulas.last)
        needed = formulas.closure([f"d{column}"])
        tensors = [getattr(t, name) for name in (*formulas.tensors, *formulas.above) if name in needed]
        numbers = [f32(getattr(t, name)) for name in formulas.numbers]
        slices = cdiv(t.rows, SLICE)
        partials = launch.workspace.part(self._kept_bytes(t), (slices * C,), "f32")
        sizes = (i32(t.rows), i32(C), i32(SLICE))
        launch(f"partials_{column}", partials, *tensors, rows, *numbers, *sizes, **by_slice(t.rows, C, SLICE))
        add = bool(getattr(t, f"add_d{column}", False))
        out = getattr(t, f"d{column}")
        launch("add_partials", out, partials, i32(slices), i32(C), i32(add), **by_column(C))


def variants_of(formulas: Formulas, with_reference: bool) -> list[Variant]:
    """`reference`, where wanted for, and `generated`."""
    members = {"op": formulas.op.name, "formulas": formulas, "reads": formulas.reads,
               "can_add": tuple(formulas.op.inputs)}  # fmt: skip
    kinds: list[Variant] = [type("GeneratedCuda", (GeneratedCuda,), {**members, "name": "generated"})()]
    if with_reference:
        made_of = {name: formulas.made_of(name) for name in (*formulas.op.outputs, *formulas.gradients)}
        kinds.insert(0, type("GeneratedReference", (GeneratedReference,), {**members, "made_of": made_of})())
    return kinds
