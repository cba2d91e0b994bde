"""Translated kernels in the cache folder, so that a later process neither parses nor translates them again.

An entry is named by a hash of the PTX, the kernel, the machine and the simulator's own files; it begins with the digest
of the rest, so that a damaged one is made again. Written beside its place and renamed, as all of the cache is.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from core.cache import cache_folder, used
from core.cache.writing import try_write
from core.outside import read_whole
from core.sim.native.translation import OP, Code
from core.sim.ptx.syntax import Module, PtxVariable

ROOT = Path(__file__).parent.parent
DIGEST = 32  # bytes
ARRAYS = {"ops": OP, "lists": np.dtype("<u4"), "pcs": np.dtype("<i8")}


@dataclass(frozen=True)
class KernelFacts:
    """Facts of a kernel that a launch needs in addition to its instructions.

    Sizes in bytes; parameters: (size, offset) of each. heap: whether it allocates; meets: whether it has the
    grid's barrier; prints: whether it prints; ordered: whether the order of thread blocks can show; polls: whether it
    waits in a loop.
    """

    name: str
    title: str
    required_cluster: int
    max_threads: int
    shared_size: int
    shared_used: int
    static_shared: int
    zones: int
    local_size: int
    parameters: tuple[tuple[int, int], ...]
    heap: bool
    meets: bool
    prints: bool
    ordered: bool
    polls: bool

    @cached_property
    def parameter_bytes(self) -> int:
        return max((offset + size for size, offset in self.parameters), default=0)


@dataclass(frozen=True)
class PtxOutline:
    """The names of a PTX module's kernels, and its variables outside of shared memory."""

    kernels: tuple[str, ...]
    variables: tuple[PtxVariable, ...]


def outline_of(module: Module) -> PtxOutline:
    return PtxOutline(
        tuple(module.kernels),
        tuple(v for v in module.variables.values() if v.space != "shared"),
    )


def known_outline(ptx: str) -> PtxOutline | None:
    """The outline that an earlier process left, None where there is none."""
    entry = _read(_entry(ptx))
    if entry is None:
        return None
    header, _ = entry
    return PtxOutline(tuple(header["kernels"]), tuple(_variable(one) for one in header["variables"]))


def keep_outline(ptx: str, outline: PtxOutline) -> None:
    variables = [asdict(v) for v in outline.variables]
    for one in variables:
        one["bytes"] = one["initial"].hex() if isinstance(one["initial"], bytes) else None
        one["initial"] = None if one["bytes"] is not None else one["initial"]
    _write(_entry(ptx), {"kernels": outline.kernels, "variables": variables})


def _variable(one: dict[str, Any]) -> PtxVariable:
    initial, raw = one.pop("initial"), one.pop("bytes")
    return PtxVariable(**one, initial=bytes.fromhex(raw) if raw is not None else tuple(initial) if initial else None)


def known_code(ptx: str, kernel: str, machine: str) -> tuple[KernelFacts, Code] | None:
    """A kernel that an earlier process translated for the machine with this key, None where there is none."""
    entry = _read(_entry(ptx, kernel, machine))
    if entry is None:
        return None
    header, data = entry
    arrays: dict[str, Any] = {}
    at = 0
    for name, dtype in ARRAYS.items():
        size = header["counts"][name] * dtype.itemsize
        arrays[name] = np.frombuffer(data[at : at + size], dtype)
        at += size
    facts = {**header["facts"], "parameters": tuple((size, offset) for size, offset in header["facts"]["parameters"])}
    rest = header["code"]
    rest["constants"] = [(at, wide, v if isinstance(v, int) else (v[0], v[1])) for at, wide, v in rest["constants"]]
    rest["fresh"] = [tuple(one) for one in rest["fresh"]]
    rest["parameters"] = [tuple(one) for one in rest["parameters"]]
    rest["specials"] = [tuple(one) for one in rest["specials"]]
    return KernelFacts(**facts), Code(**arrays, **rest)


def keep_code(ptx: str, machine: str, facts: KernelFacts, code: Code) -> None:
    fields = vars(code)
    counts = {name: len(fields[name]) for name in ARRAYS}
    header = {"facts": asdict(facts), "code": {n: v for n, v in fields.items() if n not in ARRAYS}, "counts": counts}
    data = b"".join(np.ascontiguousarray(fields[n], dtype).tobytes() for n, dtype in ARRAYS.items())
    _write(_entry(ptx, facts.name, machine), header, data)


# --- entries ---------------------------------------------------------------------------------------------------------


@cache
def _simulator() -> str:
    """A digest of the files that define the reading and translation of PTX."""
    texts = [(str(path.relative_to(ROOT)), path.read_text("utf-8")) for path in sorted(ROOT.rglob("*.py"))]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def _entry(ptx: str, *of: str) -> Path:
    key = hashlib.sha256(json.dumps([_simulator(), ptx, *of]).encode()).hexdigest()
    return cache_folder() / "machine" / f"{key}.code"


def _read(entry: Path) -> tuple[dict[str, Any], bytes] | None:
    """(header, the rest), None where the entry is absent or damaged."""
    try:
        whole = read_whole(entry)
    except OSError:
        return None
    if hashlib.sha256(whole[DIGEST:]).digest() != whole[:DIGEST]:
        return None
    used(entry)
    header, _, data = whole[DIGEST:].partition(b"\n")
    return json.loads(header), data


def _write(entry: Path, header: dict[str, Any], data: bytes = b"") -> None:
    rest = json.dumps(header).encode() + b"\n" + data
    try_write(entry, hashlib.sha256(rest).digest() + rest)
