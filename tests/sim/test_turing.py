"""fp16 on tensor cores of Turing (T4, RTX 20), which has half as deep products and no cp.async: the kernels as they are
compiled for it, in the simulator."""

from __future__ import annotations

import pytest

from core.device.launch import LaunchRecord
from core.device.simulated import SimDevice
from core.devices import SIM, DeviceKind
from core.kernels.chips import CHIPS
from core.loader import load_registry
from core.registry import Registry
from core.testing.case import make_case
from core.testing.check import check_variant
from core.testing.compiles import compilations, launches_of
from core.testing.trials import trials_of

TURING = DeviceKind(
    "turing", runs="cuda", precisions=SIM.precisions, opener=lambda: SimDevice(target="compute_75"), compiles=True,
    simulated=True,
)  # fmt: skip
# the variants with code of its own there, and examples of the op and of the variant itself that reach it
TENSOR_CORES = {
    "matmul.mma": (1, -2), "mlp_gelu.mma": (-2,), "head_loss.mma": (-3,), "attention.flash": (-3, -1)
}  # fmt: skip


@pytest.fixture(scope="module")
def registry() -> Registry:
    loaded = load_registry(only=())
    loaded.devices = {**loaded.devices, TURING.name: TURING}
    return loaded


@pytest.mark.parametrize("name", TENSOR_CORES)
def test_tensor_cores_of_turing_compute_the_op_in_fp16_and_in_no_other_type(registry: Registry, name: str) -> None:
    op, _, variant = name.partition(".")
    held = registry.variant(op, variant)
    how = {"examples": TENSOR_CORES[name], "archs": ()}
    report = check_variant(registry.op(op), held, registry, TURING.name, dtypes=("fp16",), **how)
    assert report.passed, report.describe_failures()
    assert report.checks["forward"][0] >= 1
    for dtype in set(held.dtypes) - {"fp16"}:
        other = check_variant(registry.op(op), held, registry, TURING.name, dtypes=(dtype,), **how)
        assert "forward" not in other.checks and other.skipped


def flash_launches(registry: Registry, *columns: int) -> list[LaunchRecord]:
    """Those of attention in fp16, with heads of so many columns, in every configuration."""
    op, held = registry.op("attention"), registry.variant("attention", "flash")
    cases = [make_case(op, {"qkv": (1, 130, 3 * n), "heads": 1}) for n in columns]
    return launches_of(trials_of(op, held, registry, dtypes=("fp16",), cases=cases)[0], decoding=False)


@pytest.mark.parametrize("columns", (56, 64))
def test_the_largest_tile_of_attention_s_backward_spills_nothing(registry: Registry, columns: int) -> None:
    """At the widest heads that have it: with and without columns of zeros in shared memory."""
    largest = {("BLOCKS", 2), ("TILE", 32)}
    launches = [
        launch
        for launch in flash_launches(registry, columns)
        if launch.kernel.name == "flash_dkv" and largest <= set(launch.kernel.defines)
    ]
    (compiled,) = compilations(registry.variant("attention", "flash"), launches, ("sm_75",))
    assert compiled.resources.spills == 0 and not compiled.problems


def test_tiles_of_attention_fit_shared_memory_with_every_head_and_configuration(registry: Registry) -> None:
    launches = flash_launches(registry, *range(8, 129, 8))
    assert len(launches) > 3 * 16
    assert not {dict(one.kernel.defines)["HEAD_DIM"] for one in launches if one.smem > CHIPS[75].shared}
