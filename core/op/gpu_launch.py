"""GpuLaunch, the `launch` of variants with CUDA kernels. docs/launch.md explains each method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from core.op.launch_types import Launch


class GpuLaunch(Launch, Protocol):
    """The launch of a variant that has CUDA kernels, on a GPU and in the simulator alike.

    workspace: the variant's scratch, (workspace(t),) u8, without contents; None where its size is 0. counters: its
    own zeros, (counters(t),) u32, which every launch leaves zero; None where there are none.
    """

    workspace: Any
    counters: Any

    def __call__(
        self,
        kernel: str,
        *args: Any,
        grid: int | Sequence[int],
        block: int | Sequence[int],
        smem: int = 0,
        cluster: int = 1,
        define: Mapping[str, str | int] | None = None,
    ) -> None:
        """Launch the `extern "C"` kernel of that name from the variant's `source`.

        args, in the kernel's order: tensors, None for a null pointer, scalars with a type (`i32(n)`, `u64(n)`,
        `f32(x)`), tensor maps of `tmap`. grid: thread blocks, block: threads, each one to three sizes of at least 1.
        smem: bytes of dynamic shared memory, which the chip counts together with the kernel's static ones. cluster:
        thread blocks along x, a divisor of the grid's, from compute capability 9.0 on. define: macros of this instance
        of the kernel. Raises BuildError for arguments that do not fit the kernel's signature and for a launch beyond
        the limits of all chips or of this one.
        """
        ...

    def call(
        self,
        prepare: Callable[..., Callable[[int], None]],
        *tensors: Any,
        watch: Callable[[float], None] | None = None,
    ) -> None:
        """Record the work of a vendor's library, for a variant that declares it as `library`.

        `prepare(*addresses)`, an int for each tensor and 0 for None, is called once before the list first runs, and
        gives `start(stream)`, which puts the work on that CUDA stream; it may neither allocate nor wait. Where the work
        needs other processes, `watch(seconds)` is called while the host waits for the device. Raises BuildError for an
        argument that is neither a tensor nor None, and for a variant without `library`.
        """
        ...

    def on_host(self, work: Callable[..., Sequence[Any]], reads: Sequence[Any], writes: Sequence[Any]) -> None:
        """Record work of the host between launches: the device downloads `reads`, calls `work(*arrays)`, bf16 and
        fp16 as f32, and uploads its results to `writes`, in their order. Each replay waits for the device and splits a
        CUDA graph. Raises BuildError for an argument that is no tensor."""
        ...

    @property
    def sms(self) -> int:
        """Multiprocessors of the device, a count: 4 in the simulator, so that grids stay small."""
        ...

    def resident(self, kernel: str, *, block: int, smem: int = 0, define: Mapping[str, str | int] | None = None) -> int:
        """The number of thread blocks of `block` threads and `smem` bytes that run at once on the whole device: a
        thread block
        may wait for another only in a grid of that size. Raises BuildError where none fits."""
        ...

    @staticmethod
    def tmap(
        tensor: Any,
        box: Sequence[int],
        swizzle: int = 128,
        dims: Sequence[int] | None = None,
        strides: Sequence[int] | None = None,
    ) -> Any:
        """A tensor map for bulk copies, an argument of `launch(...)`, from compute capability 9.0 on.

        box: elements that one copy moves. dims: the tensor's sizes in elements, by default its shape's; both from the
        fastest dim on. strides: bytes between neighbours of each dim but the fastest. swizzle: bytes, 0 for none.
        Raises BuildError for a map that the hardware does not have.
        """
        ...
