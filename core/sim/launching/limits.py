"""The hardware's limits on a launch."""

from __future__ import annotations

import functools

from core.kernels.chips import CHIPS, DEFAULT_SHARED, MAX_BLOCK, MAX_GRID, MAX_THREADS
from core.kernels.nvrtc import DYNAMIC_SHARED
from core.sim.faults import KernelError
from core.sim.machine.geometry import Shape
from core.sim.native.stored import KernelFacts
from core.sim.ptx import state_spaces as spaces

CHIP = CHIPS[90]  # whose PTX the simulator runs
MAX_CLUSTER = 16  # with the opting in that core.sim.run is spared


@functools.lru_cache(maxsize=1024)
def check_limits(facts: KernelFacts, shape: Shape, smem: int) -> None:
    """Raises KernelError for a launch beyond the limits."""
    static = facts.static_shared
    whole = facts.shared_size - facts.zones - spaces.SHARED_START + smem
    problems = {
        f"a thread block of {shape.threads} threads; at most {MAX_THREADS}": not 1 <= shape.threads <= MAX_THREADS,
        f"a thread block of {shape.threads} threads; the kernel was compiled for at most {facts.max_threads}": (
            shape.threads > facts.max_threads
        ),
        f"a block of {shape.block}; at most {MAX_BLOCK[2]} along z": shape.block[2] > MAX_BLOCK[2],
        f"a grid of {shape.grid}; at most {MAX_GRID}": min(shape.grid) < 1
        or any(n > most for n, most in zip(shape.grid, MAX_GRID, strict=True)),
        f"{whole} bytes of shared memory, {whole - smem} static and {smem} dynamic; at most {CHIP.shared}": (
            whole > CHIP.shared
        ),
        f"a cluster of {shape.cluster} that does not divide the grid's x of {shape.grid[0]}": (
            shape.cluster > MAX_CLUSTER or shape.grid[0] % shape.cluster != 0
        ),
    }
    violations = [text for text, bad in problems.items() if bad]
    if static > DEFAULT_SHARED:
        violations.append(f"{static} bytes of __shared__ arrays; at most {DEFAULT_SHARED}")
    hint = DYNAMIC_SHARED if static > DEFAULT_SHARED else ""
    if violations:
        raise KernelError(
            f"kernel {facts.title} cannot be launched: {'; '.join(violations)}", kind="launch limits", hint=hint
        )
