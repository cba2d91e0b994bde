"""A limit of the stub driver as a row: what is limited, where that is documented, a call, and the statuses of CUDA."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from stub_calls import Stub

OK, VALUE, MEMORY, NOT_INITIALIZED, CONTEXT = 0, 1, 2, 3, 201
NO_BINARY, NO_JIT, HANDLE, NOT_FOUND, ILLEGAL, RESOURCES, UNSUPPORTED = 209, 221, 400, 500, 700, 701, 801
CAPTURE_UNSUPPORTED, CAPTURE_INVALIDATED, CAPTURED_EVENT, CLUSTER_SIZE = 900, 901, 907, 912


class Row(NamedTuple):
    what: str
    source: str
    call: Callable[[Stub], list[object]]
    gives: list[object]
    chip: int = 90
    environment: dict[str, str] = {}
