"""`core sim FILE KERNEL ARG...`: any CUDA kernel or PTX in the simulator, with its arguments on the command line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from core.cli.kernel_runs import branches_option, status_line
from core.cli.show import emit_json, json_option
from core.cli.trace import counted_table, numbers
from core.errors import BuildError, UsageError, did_you_mean
from core.kernels.sources import source_lines
from core.kernels.tensors import from_bf16, to_bf16
from core.outputs import write_target
from core.outside import open_file, reads
from core.sim.counting import Counted
from core.sim.faults import KernelError
from core.sim.launching.launch_report import Report
from core.sim.native.choice import EXECUTORS
from core.sim.packing import Pointer
from core.sim.standalone import KernelFile, load
from core.words import extent, human

Array = np.ndarray[Any, Any]
DTYPES: dict[str, Any] = {
    "f32": np.float32, "f64": np.float64, "f16": np.float16, "bf16": np.uint16, "i8": np.int8, "u8": np.uint8,
    "i16": np.int16, "u16": np.uint16, "i32": np.int32, "u32": np.uint32, "i64": np.int64, "u64": np.uint64,
}  # fmt: skip
MAKERS = ("zeros", "ones", "arange", "randn", "rand", "randint")
MADE = re.compile(r"(?P<maker>[a-z]+):(?P<sizes>\d+(?:x\d+)*)(?::(?P<dtype>\w+))?$")
TYPED = re.compile(r"(?P<dtype>[a-z]+\d+):(?P<number>[-+.\w]+)$")
INSIDE = re.compile(r"(?P<name>[A-Za-z_]\w*)(?:\+(?P<index>\d+))?$")
NEGATIVE = re.compile(r"-(\d|\.\d|inf$)")
SIZES = re.compile(r"\d+(,\d+){0,2}$")
ARGUMENTS = "zeros:1000  randn:64x32:bf16  x.npy  5  2.5  f32:1  null  NAME=zeros:9  NAME+1  (core sim --help)"
ALL = 1 << 30
PRINTED = Path("-")  # as --view: no page


class NumbersMayBeNegative(click.Command):
    """A verb whose `-1` is an argument, not an option."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(context, [f" {a}" if NEGATIVE.match(a) else a for a in args])


@click.command("sim", cls=NumbersMayBeNegative)
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.argument("kernel", required=False, metavar="[KERNEL]")
@click.argument("arguments", nargs=-1, metavar="[ARG]...")
@click.option("--grid", default="1", metavar="X[,Y[,Z]]", show_default=True, help="Thread blocks.")
@click.option("--block", default="32", metavar="X[,Y[,Z]]", show_default=True, help="Threads of a thread block.")
@click.option("--smem", default=0, metavar="BYTES", help="Dynamic shared memory.")
@click.option("--cluster", default=1, metavar="N", help="Thread blocks of a cluster.")
@click.option(
    "--strict",
    is_flag=True,
    help="Also report races, undefined values, and results that depend on the order of threads.",
)
@click.option("--count", is_flag=True, help="Count work by source line, as core trace does.")
@click.option("--executor", type=click.Choice(EXECUTORS), help="[default: native if a C compiler is found]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of random contents.")
@click.option(
    "--set", "variables", multiple=True, metavar="NAME=ARG", help="Set a __device__ or __constant__ variable."
)
@click.option("--get", "wanted", multiple=True, metavar="NAME[:DTYPE]", help="Print a variable after the launch.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FOLDER", help="Write changed arrays as NAME.npy.")
@click.option(
    "--view", "page", type=click.Path(path_type=Path), metavar="FILE",
    help="Write a page that shows the launch line by line; - prints one warp of it.",
)  # fmt: skip
@click.option("--show", default=8, show_default=True, metavar="N", help="Number of values printed of each array.")
@click.option("-I", "include", multiple=True, metavar="FOLDER", help="A folder of headers, in addition to FILE's own.")
@click.option("-D", "defines", multiple=True, metavar="NAME[=VALUE]", help="Define a macro.")
@click.option("--prelude", is_flag=True, help="Include corelm's prelude, core/kernels/prelude.cuh.")
@branches_option
@json_option
def command(
    file: Path, kernel: str | None, arguments: tuple[str, ...], grid: str, block: str, smem: int, cluster: int,
    strict: bool, count: bool, executor: str | None, seed: int, variables: tuple[str, ...], wanted: tuple[str, ...],
    out: Path | None, page: Path | None, show: int, include: tuple[str, ...], defines: tuple[str, ...], prelude: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Run a kernel of FILE: CUDA C++, or PTX of Triton, Numba, CuPy or nvcc. Without KERNEL: list its kernels.

    KERNEL is "k", "k<float, 3>" of a template, "k(float*, int)" of an overload. ARG is one of

    \b
      zeros:1000  ones:64x32:bf16  randn:64x64  rand:9  randint:9:u8  arange:9:i32     an array, f32 by default
      x.npy                                                                            an array from a file
      5  2.5                      a number of the parameter's type; f32:1, i64:-7: of this type
      null                        a null pointer

    NAME=ARG names an array. NAME passes the same array again, and NAME+100 the address of its element 100.
    """
    if out is not None and not out.is_dir():
        raise UsageError(f"--out {out}: no folder", hint=f"mkdir {out}")
    check_page(page, as_json)
    macros = dict(_macro(text) for text in defines)
    with status_line(f"compiling {file.name}"):
        loaded = load(file, defines=macros, include=include, prelude=prelude)
    if kernel is None:
        _list(loaded, as_json)
        return
    maker = ArgumentMaker(seed)
    values = [maker.value(text.strip(), place) for place, text in enumerate(arguments)]
    for text in variables:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f'--set "{text}"; expected NAME=ARG', hint="--set coeffs=coeffs.npy")
        loaded.set(name, maker.value(value, 0))
    sizes = _sizes(grid, "--grid"), _sizes(block, "--block")
    launch = SimLaunch(loaded, file, kernel, sizes, values, smem, cluster, maker.arrays)
    report = launch.run(strict, count, executor, page)
    changed = launch.changed() | {one.partition(":")[0]: _variable(loaded, one, maker) for one in wanted}
    if out is not None:
        for name, array in changed.items():
            _save(out, name, array)
    if as_json:
        emit_json({"kernel": kernel, **_report_json(changed, maker, report)})
    else:
        click.echo("\n".join(_report_lines(changed, maker, report, file, show)))
    if page is not None:
        launch.show(page, None, as_json)


def check_page(page: Path | None, as_json: bool) -> None:
    """UsageError for a page that cannot be written, or lines that would follow JSON."""
    from core.view.page import page_place

    if page == PRINTED and as_json:
        raise UsageError("--view - prints lines, and --json JSON", hint="name a file, or leave one of them out")
    if page is not None and page != PRINTED:
        page_place(page, "--view")


class SimLaunch:
    """A launch of the command line, which can be made again from the same contents. sizes: of the grid, of a thread
    block; arrays: by name, those among `values`."""

    def __init__(
        self, loaded: KernelFile, file: Path, kernel: str, sizes: tuple[tuple[int, ...], tuple[int, ...]],
        values: list[Any], smem: int, cluster: int, arrays: dict[str, Array],
    ) -> None:  # fmt: skip
        self.loaded, self.file, self.kernel, self.sizes = loaded, file, kernel, sizes
        self.values, self.smem, self.cluster, self.arrays = values, smem, cluster, arrays
        self.before = {name: array.copy() for name, array in arrays.items()}
        self.memory = loaded.memory.bytes.copy()

    def run(self, strict: bool, count: bool, executor: str | None, page: Path | None) -> Report:
        """The report. A KernelError is shown on the page first, or names the option that would show it."""
        try:
            with status_line(f"simulating {self.kernel}"):
                return self.loaded.run(
                    self.kernel, *self.sizes, self.values, self.smem, self.cluster, strict, count=count, order="warn",
                    executor=executor,
                )  # fmt: skip
        except KernelError as error:
            if page is not None:
                self.show(page, error)
            elif error.accesses and error.kind != "endless":
                error.hint = "; ".join(filter(None, (error.hint, "--view PAGE.html shows it line by line")))
            raise

    def changed(self) -> dict[str, Array]:
        """The arrays that the launch wrote, by name."""
        return {name: a for name, a in self.arrays.items() if a.tobytes() != self.before[name].tobytes()}

    def show(self, page: Path, error: KernelError | None, quiet: bool = False) -> None:
        """Run again, taped; write the page, or print its lines for "-". quiet: the page's size is printed on stderr."""
        from core.view.any_kernel import view_of_launch, write_page

        for name, array in self.arrays.items():
            array[...] = self.before[name]
        self.loaded.memory.bytes[: self.memory.size] = self.memory
        with status_line(f"taping {self.kernel}"):
            view = view_of_launch(
                self.loaded, self.file, self.kernel, *self.sizes, self.values, self.smem, self.cluster, error
            )
        if page == PRINTED:
            click.echo("\n".join(view.lines()))
        else:
            write_page(view, f"{self.file.name} {self.kernel}", page)
            click.echo(f"{page}: {human(page.stat().st_size)}", err=quiet)


def _report_json(changed: dict[str, Any], maker: ArgumentMaker, report: Any) -> dict[str, Any]:
    arrays = {
        name: {"dtype": maker.kinds[name], "values": _shown(a, maker.kinds[name]).tolist()}
        for name, a in changed.items()
    }
    counts = {"counts": numbers(report.counts.total)} if report.counts else {}
    return {"changed": arrays, "findings": [str(f) for f in report.findings], **counts}


def _report_lines(changed: dict[str, Any], maker: ArgumentMaker, report: Any, file: Path, show: int) -> Iterator[str]:
    """The values of changed arrays, at most `show` of each, then findings and counts."""
    for name, array in changed.items():
        yield f"{name}  {maker.kinds[name]} {extent(array.shape or (1,))}: {_values(array, maker.kinds[name], show)}"
    if not changed:
        yield "no array changed"
    yield from (f"finding: {finding}" for finding in report.findings)
    if report.counts is not None:
        yield from _counted(report.counts, file)


# --- arguments --------------------------------------------------------------------------------------------------


class ArgumentMaker:
    """Makes values of a command line's words. arrays: by name; kinds: their types as one writes them, bf16 too."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.arrays: dict[str, Array] = {}
        self.kinds: dict[str, str] = {}

    def value(self, text: str, place: int) -> Any:
        """An array, a Pointer, a number, or None. UsageError for any other word."""
        name, equals, word = text.partition("=") if re.match(r"[A-Za-z_]\w*=", text) else (f"arg{place}", "", text)
        if word == "null":
            return None
        array = self._array(word)
        if array is not None:
            self.arrays[name], self.kinds[name] = array
            return array[0]
        if (inside := INSIDE.match(word)) and inside["name"] in self.arrays:
            return Pointer(self.arrays[inside["name"]], int(inside["index"] or 0))
        if typed := TYPED.match(word):
            return self._typed(typed["dtype"], typed["number"])
        return _number(word)

    def _array(self, word: str) -> tuple[Array, str] | None:
        if word.endswith(".npy"):
            array = _load(Path(word))
            kind = next((k for k, t in DTYPES.items() if t == array.dtype and k != "bf16"), array.dtype.name)
            return array, kind
        made = MADE.match(word)
        if not made or made["maker"] in DTYPES:
            return None
        if made["maker"] not in MAKERS:
            raise UsageError(f'"{word}": {did_you_mean(made["maker"], MAKERS) or "no such array"}', hint=ARGUMENTS)
        sizes = tuple(int(n) for n in made["sizes"].split("x"))
        kind = made["dtype"] or ("i32" if made["maker"] == "randint" else "f32")
        return self._stored(self._drawn(made["maker"], sizes), kind), kind

    def _drawn(self, maker: str, sizes: tuple[int, ...]) -> Array:
        makers: dict[str, Callable[[], Any]] = {
            "zeros": lambda: np.zeros(sizes), "ones": lambda: np.ones(sizes),
            "arange": lambda: np.arange(float(np.prod(sizes))).reshape(sizes),
            "randn": lambda: self.random.standard_normal(sizes), "rand": lambda: self.random.random(sizes),
            "randint": lambda: self.random.integers(0, 100, sizes),
        }  # fmt: skip
        return np.asarray(makers[maker]())

    def _stored(self, values: Array, kind: str) -> Array:
        if kind not in DTYPES:
            raise UsageError(f'"{kind}" is not a type{did_you_mean(kind, DTYPES)}', hint=f"types: {', '.join(DTYPES)}")
        return to_bf16(values.astype(np.float32)) if kind == "bf16" else values.astype(DTYPES[kind])

    def _typed(self, kind: str, text: str) -> Any:
        value = _number(text)
        with np.errstate(over="ignore"):
            stored = self._stored(np.asarray(value), kind)
        if kind[0] in "iu" and int(stored[()]) != value:
            raise UsageError(f"{kind} does not hold {text}")
        return stored[()]


def _number(word: str) -> int | float:
    try:
        return int(word, 0)
    except ValueError:
        pass
    try:
        return float(word)
    except ValueError:
        raise UsageError(f'"{word}" is not an argument of a kernel', hint=ARGUMENTS) from None


def _load(path: Path) -> Array:
    with reads(BuildError, path), open_file(path) as file:
        try:
            return np.array(np.load(file, allow_pickle=False))
        except (ValueError, EOFError, MemoryError) as error:
            said = (
                "" if "pickle" in str(error) else f": {str(error)[:200]}"
            )  # NumPy's words for any file of other bytes
            raise BuildError(f"{path}: no array of NumPy{said}", hint="np.save writes one") from None


def _sizes(text: str, option: str) -> tuple[int, ...]:
    if not SIZES.match(text):
        raise UsageError(
            f'{option} "{text}"; expected one to three whole numbers', hint=f"{option} 4 or {option} 16,16"
        )
    return tuple(int(n) for n in text.split(","))


def _macro(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    return name, value if equals else "1"


# --- results ----------------------------------------------------------------------------------------------------


def _list(loaded: KernelFile, as_json: bool) -> None:
    kernels = loaded.kernels
    if not kernels:
        raise BuildError(
            f"{loaded.where} has no kernel; expected a __global__ function in CUDA C++, an .entry in PTX",
            hint="device functions and variables alone cannot be launched",
        )
    emit_json(kernels) if as_json else click.echo("\n".join(kernels))


def _variable(loaded: KernelFile, spec: str, maker: ArgumentMaker) -> Array:
    name, colon, kind = spec.partition(":")
    if colon and kind not in DTYPES:
        raise UsageError(f'--get {spec}: "{kind}" is not a type{did_you_mean(kind, DTYPES)}')
    array = loaded.get(name, DTYPES[kind] if colon else None)
    maker.kinds[name] = kind or next((k for k, t in DTYPES.items() if t == array.dtype), array.dtype.name)
    return array


def _shown(array: Array, kind: str) -> Array:
    return from_bf16(array) if kind == "bf16" else array


def _values(array: Array, kind: str, most: int) -> str:
    flat = _shown(array, kind).reshape(-1)
    texts = [f"{v:g}" if flat.dtype.kind == "f" else str(v) for v in flat[: most or ALL].tolist()]
    return " ".join(texts) + (" ..." if flat.size > len(texts) else "")


def _save(folder: Path, name: str, array: Array) -> None:
    import io

    data = io.BytesIO()
    np.save(data, array)
    write_target(folder / f"{name}.npy", data.getvalue(), "--out")


def _counted(counted: Counted, file: Path) -> Sequence[str]:
    """The kernel's lines with their counts."""
    texts = source_lines(file) if file.suffix != ".ptx" else []
    lines = counted.in_files([file.resolve().as_posix(), file.as_posix()])
    return counted_table(counted, lines, [texts[line - 1] if 0 < line <= len(texts) else "" for _, line in lines], ALL)
