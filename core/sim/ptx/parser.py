"""PTX text -> functions, instructions, variables and source lines. It knows the grammar and no opcode.

The grammar is PTX ISA, chapters 4, 5 and 10. Register names are made unique within a function, since inline
assembly declares its own in nested scopes. `.loc` lines give each instruction the line of CUDA C++ it came from.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from core.sim.faults import PtxError
from core.sim.ptx.register_types import TYPES, Type
from core.sim.ptx.syntax import (
    NOWHERE,
    Address,
    Immediate,
    Instruction,
    Label,
    Location,
    Module,
    Negated,
    Operand,
    Pair,
    PtxFunction,
    PtxVariable,
    Register,
    Special,
    Symbol,
    Vector,
)

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.S)
_PIECE = re.compile(
    r"""\s*(?:
      (?P<loc>\.loc\b[^\n]*)
    | (?P<pragma>\.pragma[^;]*;)
    | (?P<open>\{) | (?P<close>\})
    | (?P<label>[\w$%]+)\s*:(?!:)
    | (?P<statement>[^;]*);
    )""",
    re.X,
)
_LOC = re.compile(r"\.loc\s+(\d+)\s+(\d+)\s+(\d+)(?:.*inlined_at\s+(\d+)\s+(\d+)\s+(\d+))?")
_HEAD = re.compile(
    r"(?:\.(?:visible|weak|extern)\s*)*\.(entry|func)\s*(?:\.noreturn\s*)?"
    r"(?:\(([^)]*)\)\s*)?([\w$]+)\s*(?:\(([^)]*)\))?"
)
_GLOBAL = re.compile(
    r"(?:\.(?:visible|weak|extern|common)\s*)*\.(global|const|shared)\b\s*([^;=]*?)\s*(?:=\s*(\{[^}]*\}|[^;]+))?;"
)
_DECLARED = re.compile(
    r"(?:\.align\s+(\d+)\s*)?(?:\.attribute\([^)]*\)\s*)?(?:\.align\s+(\d+)\s*)?\.(\w+)\s+"
    r"(?:\.ptr(?:\s*\.(?:global|shared|local|const))?(?:\s*\.align\s+\d+)?\s+)?([\w$%]+)((?:\[\d*\])*)$"
)
_STATEMENT = re.compile(r"\.(\w+)\s*(.*)$")  # a directive needs no blank before a dot: ".reg.b16 h"
_OPERAND = re.compile(r"\{[^{}]*\}|\[(?:[^\[\]{}]|\{[^{}]*\})*\]|\([^()]*\)|[^,\s]+")
_NUMBER = re.compile(r"-?(?:0[xX][0-9a-fA-F]+|0[bB][01]+|\d+)U?$")


@functools.lru_cache(maxsize=64)
def parse(text: str) -> Module:
    """The module in PTX `text`; cached by its content. Raises PtxError for text that is not PTX."""
    files = {m[1]: m[2] for m in re.finditer(r'^\s*\.file\s+(\d+)\s+"([^"]*)"', text, re.M)}
    text = _COMMENT.sub(" ", text)
    target = re.search(r"^\s*\.target\s+(\w+)", text, re.M)
    if not target:
        raise PtxError("this is not PTX: it has no .target line")
    functions = _Functions()
    module = Module(target[1], functions, {})
    end = 0
    for head in _HEAD.finditer(text):
        if head.start() < end:
            continue
        _globals(text[end : head.start()], module)
        opening = _next(text, head.end())
        if opening < 0 or text[opening] == ";":
            end = opening + 1
            continue
        end = _closing(text, opening)
        functions.unread[head[3]] = partial(
            _function, head, text[head.end() : opening], text[opening + 1 : end - 1], files
        )
        if head[1] == "entry":
            module.kernels.append(head[3])
    _globals(text[end:], module)
    return module


class _Functions(Mapping[str, PtxFunction]):
    """A module's functions by name, each read at its first use: of a file with many kernels a launch takes one."""

    def __init__(self) -> None:
        self.unread: dict[str, Callable[[], PtxFunction]] = {}
        self.known: dict[str, PtxFunction] = {}

    def __getitem__(self, name: str) -> PtxFunction:
        if name not in self.known:
            self.known[name] = self.unread[name]()
        return self.known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.unread)

    def __len__(self) -> int:
        return len(self.unread)


def _next(text: str, start: int) -> int:
    match = re.compile(r"[{;]").search(text, start)
    return match.start() if match else -1


def _closing(text: str, opening: int) -> int:
    """One past the brace that closes the one at `opening`."""
    depth = 0
    for brace in re.compile(r"[{}]").finditer(text, opening):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return brace.end()
    raise PtxError("a function's body is not closed: the PTX is cut off")


def _globals(text: str, module: Module) -> None:
    text = re.sub(r"\.section\s+\S+\s*\{[^}]*\}", " ", text)
    for match in _GLOBAL.finditer(text):
        variable = _variable(match[1], match[2], match[3])
        module.variables[variable.name] = variable


def _variable(space: str, declaration: str, initial: str | None = None) -> PtxVariable:
    match = _DECLARED.match(" ".join(declaration.split()))
    if not match:
        raise PtxError(f"cannot read the declaration `.{space} {declaration}`")
    element = TYPES[match[3]].bytes if match[3] in TYPES else 0
    if not element:
        raise PtxError(f"cannot read the declaration `.{space} {declaration}`: type .{match[3]} is unknown")
    dimensions = re.findall(r"\[(\d*)\]", match[5])
    size = element
    for dimension in dimensions:
        size *= int(dimension or 0)
    align = int(match[1] or match[2] or element)
    values = _initial(initial, TYPES[match[3]]) if initial else None
    return PtxVariable(space, match[4], align, size, values, match[3])


def _initial(text: str, kind: Type) -> bytes | tuple[str, ...]:
    items = [item.strip() for item in text.strip("{} \n").replace("{", "").replace("}", "").split(",") if item.strip()]
    if any(not _NUMBER.match(item) and not re.match(r"0[fFdD]", item) for item in items):
        return tuple(items)
    return b"".join((_number(i).bits & ((1 << kind.bits) - 1)).to_bytes(kind.bytes, "little") for i in items)


def _number(text: str) -> Immediate:
    if re.match(r"0[fF][0-9a-fA-F]{8}$", text):
        return Immediate(int(text[2:], 16), 32)
    if re.match(r"0[dD][0-9a-fA-F]{16}$", text):
        return Immediate(int(text[2:], 16), 64)
    digits = text.rstrip("U")
    body = digits.lstrip("-")
    base = (
        16
        if body[:2] in ("0x", "0X")
        else 2
        if body[:2] in ("0b", "0B")
        else 8
        if len(body) > 1 and body[0] == "0"
        else 10
    )
    return Immediate(int(digits, base))


def _declarations(text: str | None, space: str) -> list[PtxVariable]:
    parts = [part.strip() for part in (text or "").split(",")]
    return [_variable(space, part.removeprefix(".param").strip()) for part in parts if part]


def _function(head: re.Match[str], directives: str, body: str, files: dict[str, str]) -> PtxFunction:
    settings = {
        m[1]: tuple(int(n) for n in re.findall(r"\d+", m[2])) for m in re.finditer(r"\.(\w+)([\d,\s]*)", directives)
    }
    function = PtxFunction(
        head[3], head[1] == "entry", _declarations(head[4], "param"), _declarations(head[2], "param"), settings
    )
    _Body(function, files).read(body)
    return function


class _Body:
    """Reads one function's body: keeps the scopes and the current source line."""

    def __init__(self, function: PtxFunction, files: dict[str, str]) -> None:
        self.function = function
        self.files = files
        self.scopes: list[dict[str, str]] = [{}]
        self.count = 0
        self.location = NOWHERE
        self.calls: dict[tuple[str, str, str], Location] = {}  # (file, line, column) -> its last `.loc`
        self.operands: dict[str, Operand] = {}

    def read(self, body: str) -> None:
        position = 0
        pending = []
        while position < len(body):
            piece = _PIECE.match(body, position)
            if not piece:
                if body[position:].strip():
                    raise PtxError(f"cannot read `{body[position:].strip()[:80]}` in function {self.function.name}")
                break
            position = piece.end()
            if piece.lastgroup == "statement":
                pending.append(piece["statement"])
                self.statement(" ".join(piece["statement"].split()))
            else:
                getattr(self, f"on_{piece.lastgroup}", self.ignore)(piece)

    def ignore(self, piece: re.Match[str]) -> None:
        pass

    def on_open(self, piece: re.Match[str]) -> None:
        self.count += 1
        self.scopes.append({})
        # A label may be used before its place: all of a scope's labels count from its start.
        depth, text = 0, piece.string
        for match in re.compile(r"[{};]|([\w$%]+)\s*:(?!:)").finditer(text, piece.end()):
            if match[0] == "{":
                depth += 1
            elif match[0] == "}":
                depth -= 1
                if depth < 0:
                    break
            elif match[1] and depth == 0:
                self.scopes[-1][match[1]] = f"{match[1]}@{self.count}"

    def on_close(self, piece: re.Match[str]) -> None:
        self.scopes.pop()

    def on_label(self, piece: re.Match[str]) -> None:
        self.last_label = self.resolve(piece["label"])
        self.function.body.append(Label(self.last_label))

    def on_loc(self, piece: re.Match[str]) -> None:
        match = _LOC.match(piece["loc"])
        if not match:
            return
        # Line 0 is the compiler's "no line": the last one applies.
        if int(match[2]):
            # A call that was inlined itself has been recorded before, with its place.
            call = match[4], match[5], match[6]
            outer = (
                self.calls.get(call) or Location(self.files.get(match[4], "ptx"), int(match[5])) if match[4] else None
            )
            self.location = Location(self.files.get(match[1], "ptx"), int(match[2]), outer)
            self.calls[match[1], match[2], match[3]] = self.location

    def resolve(self, name: str) -> str:
        for scope in reversed(self.scopes):
            if name in scope:
                return scope[name]
        return name

    def declare(self, name: str) -> str:
        if len(self.scopes) == 1:
            return name
        self.scopes[-1][name] = f"{name}@{self.count}"
        return self.scopes[-1][name]

    def statement(self, text: str) -> None:
        if not text:
            return
        directive = _STATEMENT.match(text)
        if directive is None:
            self.function.body.append(self.instruction(text))
            return
        name, rest = directive[1], directive[2]
        if name == "reg":
            self.registers(text, rest)
        elif name in ("local", "shared", "param"):
            variable = _variable(name, rest)
            called = self.declare(variable.name)
            self.function.variables.append(PtxVariable(name, called, variable.align, variable.size))
        elif name == "branchtargets":
            self.function.tables[self.last_label] = tuple(self.resolve(n.strip()) for n in rest.split(","))
        elif name not in ("callprototype", "calltargets"):  # the call places the parameters: it needs neither
            raise PtxError(f"cannot read `{text}` in function {self.function.name}")

    def registers(self, text: str, declared: str) -> None:
        kind, _, names = declared.removeprefix(".").partition(" ")
        for name in names.split(","):
            match = re.match(r"([\w$%]+)(?:<(\d+)>)?$", name.strip())
            if not match or kind not in TYPES:
                raise PtxError(f"cannot read `{text}` in function {self.function.name}")
            every = [f"{match[1]}{i}" for i in range(int(match[2]))] if match[2] else [match[1]]
            for one in every:
                self.function.registers[self.declare(one)] = TYPES[kind]

    def instruction(self, text: str) -> Instruction:
        match = re.match(r"(?:@(!?)([\w$%]+)\s+)?([a-z][\w.:]*)\s*(.*)$", text)
        if not match:
            raise PtxError(f"cannot read `{text}` in function {self.function.name}")
        predicate = Register(self.resolve(match[2])) if match[2] else None
        operands = tuple(self.operand(token) for token in _OPERAND.findall(match[4]))
        names = tuple(match[3].replace("::", ":").split("."))
        return Instruction(match[3], operands, predicate, bool(match[1]), self.location, text, names)

    def operand(self, token: str) -> Operand:
        """The operand of a token, which outside of inner scopes is the same each time."""
        if len(self.scopes) > 1:
            return self.read_operand(token)
        if token not in self.operands:
            self.operands[token] = self.read_operand(token)
        return self.operands[token]

    def read_operand(self, token: str) -> Operand:
        token = token.strip()
        if token[0] in "{(":
            return Vector(tuple(self.operand(part) for part in token[1:-1].split(",") if part.strip()))
        if token[0] == "[":
            return self.address(token[1:-1].strip())
        if token[0] == "!":
            return Negated(self.operand(token[1:]))
        if "|" in token:
            first, second = token.split("|")
            return Pair(self.operand(first), self.operand(second))
        if _NUMBER.match(token) or re.match(r"0[fFdD][0-9a-fA-F]{8,16}$", token):
            return _number(token)
        if token == "WARP_SZ":
            return Immediate(32)
        name = self.resolve(token)
        if name in self.function.registers or token == "_":
            return Register(name)
        if token[0] == "%":
            return Special(token)
        base, plus, offset = name.partition("+")
        return Symbol(self.resolve(base), int(offset, 0) if plus else 0)

    def address(self, inner: str) -> Address:
        tensor = re.match(r"([^,{]+),\s*(\{.*\})$", inner)
        if tensor:
            coordinates = self.operand(tensor[2])
            assert isinstance(coordinates, Vector)
            return Address(self.operand(tensor[1]), 0, coordinates)
        match = re.match(r"(.+?)\s*\+\s*(-?(?:0x[0-9a-fA-F]+|\d+))$", inner)
        if match:
            return Address(self.operand(match[1]), int(match[2], 0))
        return Address(self.operand(inner))
