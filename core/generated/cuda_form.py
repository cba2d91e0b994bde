"""Formulas in CUDA C++: one kernel for all outputs, one for all gradients of inputs, two a parameter's gradient.

Elementwise ops have a thread an element. Others have a warp a row: a loop over the row for each level of reductions,
and one for the results; a value of a row stays in a register. A parameter's gradient is summed over rows in two
launches and a fixed order (core/columns.cuh), from the rows' values that the kernel before left in the workspace.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Sequence

from core.generated.formulas import COLUMN, ELEMENT, NUMBER, ROW, Formulas, reductions

WIDE = 120
SIGNS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">",
         ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}  # fmt: skip
BINDS = {ast.Add: 2, ast.Sub: 2, ast.Mult: 3, ast.Div: 3}  # operators; the sign of a number is 4
CALLS = {"exp": "expf", "log": "logf", "sqrt": "sqrtf", "rsqrt": "rsqrtf", "tanh": "tanhf", "sin": "sinf",
         "cos": "cosf", "abs": "fabsf", "maximum": "larger", "minimum": "smaller", "sigmoid": "sigmoid",
         "sign": "sign"}  # fmt: skip
HELPERS = {
    "larger": "a > b || a != a ? a : b",
    "smaller": "a < b || a != a ? a : b",
}
ONE = {"sigmoid": "1 / (1 + expf(-a))", "sign": "a > 0 ? 1 : a < 0 ? -1 : a"}


class CudaForm:
    """The text of a generated file. `row_values`: the rows' values for parameters' gradients, in the workspace."""

    def __init__(self, formulas: Formulas) -> None:
        self.formulas = formulas
        self.columns = list(formulas.op.params)
        self.row_values = self._values_of_rows()

    # --- expressions -------------------------------------------------------------------------------------------

    def written(self, node: ast.expr, reduced: dict[str, str], within: int = 0) -> str:
        """An expression in C++, in float; in brackets where it binds less than `within`, a number of BINDS.
        reduced: the variables of reductions by their text."""
        match node:
            case ast.Constant(value=int() | float() as number):
                return literal(float(number))
            case ast.Name(id=name):
                return name
            case ast.UnaryOp(operand=inner):
                text, binds = f"-{self.written(inner, reduced, 4)}", 4
            case ast.BinOp(left=left, op=ast.Pow(), right=ast.Constant(value=int(power))) if 2 <= power <= 4:
                text, binds = " * ".join([self.written(left, reduced, 4)] * power), BINDS[ast.Mult]
            case ast.BinOp(left=left, op=ast.Pow(), right=right):
                return f"powf({self.written(left, reduced)}, {self.written(right, reduced)})"
            case ast.BinOp(left=left, op=kind, right=right):
                binds = BINDS[type(kind)]
                sides = self.written(left, reduced, binds), self.written(right, reduced, binds + 1)
                text = f" {SIGNS[type(kind)]} ".join(sides)
            case ast.Compare(left=left, ops=[kind], comparators=[right]):
                return f"float({self.written(left, reduced, 2)} {SIGNS[type(kind)]} {self.written(right, reduced, 2)})"
            case ast.Call(func=ast.Name(id="where"), args=[condition, yes, no]):
                parts = [self.written(part, reduced, 2) for part in (condition, yes, no)]
                return f"({parts[0]} != 0 ? {parts[1]} : {parts[2]})"
            case ast.Call(func=ast.Name(id=name), args=args):
                if ast.unparse(node) in reduced:
                    return reduced[ast.unparse(node)]
                return f"{CALLS[name]}({', '.join(self.written(part, reduced) for part in args)})"
            case _:
                raise TypeError(ast.dump(node))
        return f"({text})" if binds < within else text

    # --- levels: the order of computation ----------------------------------------------------------------------

    def levels(self, results: Sequence[str]) -> dict[str, int]:
        """Reduction as text -> its level: that of one without others inside is 1."""
        lines, levels_by_text = self.formulas.lines, dict[str, int]()
        depth: dict[str, int] = {}

        def of(node: ast.expr) -> int:
            own = [of_child(child) for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
            return max(own, default=0)

        def of_child(node: ast.expr) -> int:
            if isinstance(node, ast.Name):
                return depth.get(node.id, 0)
            level = of(node)
            if node in reduced_nodes:
                level += 1
                levels_by_text[ast.unparse(node)] = level
            return level

        for name in self.formulas.closure(results):
            if name in lines:
                expression = lines[name].expression
                reduced_nodes = set(reductions(expression))
                depth[name] = of_child(expression)
        return levels_by_text

    def _values_of_rows(self) -> list[str]:
        """Lines and reductions of one number a row that the parameters' gradients read, as variables."""
        return self._row_values([f"d{name}" for name in self.columns]) if self.columns else []

    def _row_values(self, results: Sequence[str]) -> list[str]:
        return list(self.variables(results).values()) if results else []

    def variables(self, results: Sequence[str]) -> dict[str, str]:
        """Reduction as text -> the name of its variable: sum_1_, mean_2_, ..."""
        order = sorted(self.levels(results).items(), key=lambda item: item[1])
        return {text: f"{text.partition('(')[0]}_{number + 1}_" for number, (text, _) in enumerate(order)}

    # --- kernels -----------------------------------------------------------------------------------------------

    def text(self) -> str:
        """The whole file."""
        formulas = self.formulas
        op, outputs = formulas.op, list(formulas.op.outputs)
        head = [f"// {op.name}, generated from the formulas of its op:", "//"]
        head += [f"//     {line.text}" for line in formulas.lines.values()]
        parts = ["\n".join(head), *(['#include "core/columns.cuh"'] if self.columns else []), self._helpers()]
        gradients = [f"d{name}" for name in op.inputs]
        kernel = self._by_row if formulas.last else self._by_element
        parts += [kernel("forward", outputs), kernel("backward", gradients)]
        parts += [self._partials(name) for name in self.columns]
        parts += [self._sums()] if self.columns else []
        return "\n\n".join(filter(None, parts)) + "\n"

    def _helpers(self) -> str:
        text = "\n".join(line.text for line in self.formulas.lines.values())
        used = [(f"__device__ inline float {name}(float a, float b) {{ return {body}; }}", source)
                for (name, body), source in zip(HELPERS.items(), ("maximum", "minimum"), strict=True)]  # fmt: skip
        used += [(f"__device__ inline float {name}(float a) {{ return {body}; }}", name) for name, body in ONE.items()]
        return "\n".join(line for line, source in used if f"{source}(" in text)

    def _loads(self, needed: Sequence[str], kind: str, at: str) -> list[str]:
        """The values of needed tensors at a place, as floats."""
        formulas = self.formulas
        names = [n for n in needed if n in (*formulas.tensors, *formulas.above) and formulas.kinds[n] == kind]
        absent = {name: f"{name}_ ? float({name}_[{at}]) : 0" for name in formulas.above if len(formulas.above) > 1}
        return [f"float {name} = {absent.get(name, f'{name}_[{at}]')};" for name in names]

    def _between(
        self, needed: Sequence[str], kinds: Sequence[str], reduced: dict[str, str], skip: Sequence[str] = ()
    ) -> list[str]:
        """The lines in between, of such kinds, as floats."""
        lines = [self.formulas.lines[n] for n in needed if n in self.formulas.lines and n not in skip]
        return [
            f"float {line.name} = {self.written(line.expression, reduced)};"
            for line in lines
            if self.formulas.kinds[line.name] in kinds
        ]

    def _signature(self, name: str, results: Sequence[str], needed: Sequence[str], sizes: Sequence[str]) -> str:
        formulas = self.formulas
        adds = bool(results) and results[0] in formulas.gradients
        tensors = [n for n in (*formulas.tensors, *formulas.above) if n in needed]
        arguments = [f"elem* {result}_" for result in results]
        arguments += [f"const elem* {tensor}_" for tensor in tensors]
        arguments += [f"float {number}" for number in formulas.numbers]
        arguments += [*sizes, *(f"int add_{result}" for result in results if adds)]
        return head_of(name, arguments)

    def _stores(self, results: Sequence[str], at: str, reduced: dict[str, str]) -> list[str]:
        formulas = self.formulas
        stores = []
        for result in results:
            expression = formulas.lines[result].expression
            value = self.written(expression, reduced)
            if result in formulas.gradients:
                value = f"(add_{result} ? float({result}_[{at}]) : 0) + {self.written(expression, reduced, 2)}"
                stores.append(f"if ({result}_) {result}_[{at}] = {value};")
            else:
                stores.append(f"{result}_[{at}] = {value};")
        return stores

    def _by_element(self, name: str, results: Sequence[str]) -> str:
        needed, reduced = self.formulas.closure(results), dict[str, str]()
        body = [
            "u64 i_ = global_thread();",
            "if (i_ >= n_) return;",
            *self._loads(needed, ELEMENT, "i_"),
            *self._between(needed, (NUMBER, ELEMENT), reduced, results),
            *self._stores(results, "i_", reduced),
        ]
        return "\n".join([self._signature(name, results, needed, ["u64 n_"]), *(f"    {line}" for line in body), "}"])

    def _by_row(self, name: str, results: Sequence[str]) -> str:
        """A warp a row. In backward, the rows' values that parameters' gradients need are written to `kept_`."""
        formulas = self.formulas
        row_values = self.row_values if name == "backward" else []
        wanted = [*results, *(f"d{column}" for column in self.columns if row_values)]
        needed, variables = formulas.closure(wanted), self.variables(wanted)
        levels, reduced = self.levels(wanted), dict[str, str]()
        sizes = [*(["float* kept_"] if row_values else []), "int rows_", f"int {formulas.last}_"]
        body = ["u64 row_ = global_row();", "if (row_ >= rows_) return;  // a whole warp leaves"]
        body += [f"float {formulas.last} = {formulas.last}_;"]
        body += [f"{self._guard(one)}{one}_ += row_ * {formulas.last}_;" for one in self._along_rows(results, needed)]
        body += self._between(needed, (NUMBER,), reduced, results)
        done: set[str] = set()
        for level in sorted(set(levels.values())):
            here = {text: variables[text] for text in levels if levels[text] == level}
            body += self._loop(here, reduced)
            body += self._rows_ready(needed, reduced, done)
        body += [f"if (kept_ && threadIdx.x == 0) kept_[{i}ull * rows_ + row_] = {self._variable_of(v, wanted)};"
                 for i, v in enumerate(row_values)]  # fmt: skip
        body += [f"for (int c_ = threadIdx.x; c_ < {formulas.last}_; c_ += 32) {{"]
        inner = [*self._loads(needed, ELEMENT, "c_"), *self._loads(needed, COLUMN, "c_")]
        inner += self._between(needed, (COLUMN, ELEMENT), reduced, [*results, *formulas.gradients])
        body += [f"    {line}" for line in (*inner, *self._stores(results, "c_", reduced))] + ["}"]
        return "\n".join([self._signature(name, results, needed, sizes), *(f"    {line}" for line in body), "}"])

    def _variable_of(self, variable: str, wanted: Sequence[str]) -> str:
        """The variable in this kernel of a value that the parameters' kernels call `variable`."""
        theirs = {name: text for text, name in self.variables([f"d{name}" for name in self.columns]).items()}
        return self.variables(wanted)[theirs[variable]]

    def _along_rows(self, results: Sequence[str], needed: Sequence[str]) -> list[str]:
        """The tensors that have a row of their own for each row."""
        return [*results, *(n for n in (*self.formulas.op.inputs, *self.formulas.above) if n in needed)]

    def _guard(self, name: str) -> str:
        """A gradient may be absent: of an input that needs none, of one of several outputs that nothing uses."""
        above = self.formulas.above if len(self.formulas.above) > 1 else []
        return f"if ({name}_) " if name in (*self.formulas.gradients, *above) else ""

    def _loop(self, here: dict[str, str], reduced: dict[str, str]) -> list[str]:
        """A loop over the row for all reductions of one level, then the sums over the warp."""
        formulas, last = self.formulas, self.formulas.last
        starts = [
            f"float {variable} = {'-INFINITY' if text.startswith('max(') else '0'};" for text, variable in here.items()
        ]
        nodes = {text: ast.parse(text, mode="eval").body for text in here}
        inside = [n.id for node in nodes.values() for n in ast.walk(node) if isinstance(n, ast.Name)]
        wanted = formulas.closure(inside)
        inner = [*self._loads(wanted, ELEMENT, "c_"), *self._loads(wanted, COLUMN, "c_")]
        inner += self._between(wanted, (COLUMN, ELEMENT), reduced)
        for text, variable in here.items():
            call = nodes[text]
            assert isinstance(call, ast.Call)
            value = self.written(call.args[0], reduced)
            inner.append(
                f"{variable} = fmaxf({variable}, {value});" if text.startswith("max(") else f"{variable} += {value};"
            )
        ends = []
        for text, variable in here.items():
            over = "warp_max" if text.startswith("max(") else "warp_sum"
            divided = f" / {last}" if text.startswith("mean(") else ""
            ends.append(f"{variable} = {over}({variable}){divided};")
            reduced[text] = variable
        loop = [f"for (int c_ = threadIdx.x; c_ < {last}_; c_ += 32) {{", *(f"    {line}" for line in inner), "}"]
        return [*starts, *loop, *ends]

    def _rows_ready(self, needed: Sequence[str], reduced: dict[str, str], done: set[str]) -> list[str]:
        """The lines of one number a row all of whose reductions are computed."""
        ready = []
        for name in needed:
            line = self.formulas.lines.get(name)
            if line is None or name in done or self.formulas.kinds[name] != ROW:
                continue
            inner = [n for n in self.formulas.closure([name]) if n != name and self.formulas.kinds.get(n) == ROW]
            if all(ast.unparse(r) in reduced for r in reductions(line.expression)) and set(inner) <= done:
                ready.append(f"float {name} = {self.written(line.expression, reduced)};")
                done.add(name)
        return ready

    def _partials(self, column: str) -> str:
        """Sums of a parameter's gradient over a slice of the rows."""
        formulas, result = self.formulas, f"d{column}"
        needed, last = formulas.closure([result]), formulas.last
        reduced, done = self.variables([f"d{name}" for name in self.columns]), set[str]()
        tensors = [n for n in (*formulas.tensors, *formulas.above) if n in needed]
        arguments = ["float* partials_", *(f"const elem* {name}_" for name in tensors), "const float* kept_"]
        arguments += [f"float {number}" for number in formulas.numbers]
        arguments += ["int rows_", f"int {last}_", "int slice_"]
        inner = [f"float {reduced[text]} = kept_[{self.row_values.index(reduced[text])}ull * rows_ + row_];"
                 for text in self.levels([result])]  # fmt: skip
        inner += self._between(needed, (NUMBER,), reduced, [result])
        inner += self._rows_ready(needed, reduced, done)
        inner += [*self._loads(needed, ELEMENT, f"row_ * {last}_ + c_"), *self._loads(needed, COLUMN, "c_")]
        inner += self._between(needed, (COLUMN, ELEMENT), reduced, [result])
        inner.append(f"*sum_ += {self.written(formulas.lines[result].expression, reduced)};")
        head = head_of(f"partials_{column}", arguments)
        body = [f"float {last} = {last}_;"]
        body += [f"slice_sums<1>(partials_, rows_, {last}_, slice_, [&](float* sum_, u64 row_, int c_) {{"]
        body += [*(f"    {line}" for line in inner), "});"]
        return "\n".join([head, *(f"    {line}" for line in body), "}"])

    @staticmethod
    def _sums() -> str:
        arguments = ["float* out", "const float* partials", "int slices", "int columns", "int add"]
        return (
            f"{head_of('add_partials', arguments)}\n    add_slices(out, partials, slices, columns, columns, add);\n}}"
        )


def head_of(name: str, arguments: Sequence[str]) -> str:
    """The first lines of a kernel, each of at most WIDE characters."""
    start = f'extern "C" __global__ void {name}('
    joined = ", ".join(argument.replace(" ", "\0") for argument in arguments)
    filled = textwrap.fill(joined, WIDE - len(start) - 3).replace("\n", f"\n{' ' * len(start)}").replace("\0", " ")
    return f"{start}{filled}) {{"


def literal(number: float) -> str:
    """A number as a float of C++."""
    text = repr(number)
    return f"{text}f" if any(mark in text for mark in ".e") else f"{text}.0f"
