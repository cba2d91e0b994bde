"""The course's pictures: name -> function that draws it. `core learn pictures` writes them beside the pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .graphs import layernorm, slopes
from .kernels import banks, coalescing, race
from .matmul import fragments, tiles
from .memory import arena
from .models import attention_map, op_box, stream
from .numbers import curves, formats, online, softmax
from .today import ring, turning

PICTURES: Mapping[str, Callable[[], str]] = {
    one.__name__: one
    for one in (
        slopes,
        op_box,
        softmax,
        layernorm,
        stream,
        formats,
        online,
        coalescing,
        banks,
        arena,
        race,
        tiles,
        fragments,
        attention_map,
        curves,
        turning,
        ring,
    )
}
