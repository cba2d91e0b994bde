"""Launches of kernels with the product of core/mma_product.cuh: tiles, grids, shared memory, macros."""

from __future__ import annotations

from typing import Any

from core.expr import cdiv
from core.kernels.width import WIDEST

Tiles = dict[str, int]
# The kernels' macros TILE_I .. WARPS_J. Large tiles use an element more often, small ones give more thread blocks.
WIDE: Tiles = {"TILE_I": 128, "TILE_J": 128, "TILE_K": 32, "STAGES": 3, "WARPS_I": 2, "WARPS_J": 2}
SMALL: Tiles = {"TILE_I": 64, "TILE_J": 64, "TILE_K": 64, "STAGES": 3, "WARPS_I": 2, "WARPS_J": 2}
LOWER = (96, 64)  # rows of the large tile's relatives: more thread blocks, which may fill a last wave better
BLOCKS = 256  # thread blocks that fill a large chip
# fp16 is Turing's precision of training: no copy runs ahead there, and two stages leave room for a second thread block
STAGES = {"fp16": 2}


def candidates(rows: int, columns: int, dtype: str = "bf16", aligned: bool = True) -> list[Tiles]:
    """Tile candidates, best guess first: small ones where large ones are too few to fill a chip, and small ones alone
    where rows do not start on 16 bytes, whose elements are copied one by one. A stage has the same bytes in f32, and
    half the depth."""
    few = tiles(WIDE, rows, columns) < BLOCKS // 2
    shallow = WIDEST["bf16"] // WIDEST[dtype]
    best = ((SMALL, WIDE) if few else (WIDE, SMALL)) if aligned else (SMALL,)
    return [{**c, "TILE_K": c["TILE_K"] // shallow, "STAGES": STAGES.get(dtype, c["STAGES"])} for c in best]


def lower(configs: list[Tiles]) -> list[Tiles]:
    """The candidates, and large tiles with fewer rows. 96 rows are no side of an operand that is turned on the way:
    `square` is the tile of a product of two such."""
    large = [config for config in configs if config["TILE_J"] == WIDE["TILE_J"]]
    return [*configs, *({**config, "TILE_I": rows} for config in large for rows in LOWER)]


def square(config: Tiles) -> Tiles:
    """The candidate of which `lower` made this one."""
    return {**config, "TILE_I": config["TILE_J"]}


def tiles(config: Tiles, rows: int, columns: int) -> int:
    """Thread blocks of a product of rows x columns results."""
    return cdiv(rows, config["TILE_I"]) * cdiv(columns, config["TILE_J"])


def over(config: Tiles, rows: int, columns: int, operand: Any, *widths: int) -> dict[str, Any]:
    """grid, block, smem and define of a kernel with a thread block for each tile of rows x columns results.

    operand: a tensor of the operands' type. widths: lengths of all the rows that the kernel reads and writes.
    """
    threads = 32 * config["WARPS_I"] * config["WARPS_J"]
    stage = bytes_each(operand) * (config["TILE_I"] + config["TILE_J"]) * config["TILE_K"]
    macros = {name: value for name, value in config.items() if name.isupper()}
    define = {**macros, "ALIGNED": int(aligned(operand, *widths))}
    return {
        "grid": tiles(config, rows, columns), "block": threads, "smem": stage * config["STAGES"], "define": define
    }  # fmt: skip


def aligned(tensor: Any, *widths: int) -> bool:
    """Whether rows of these many of a tensor's elements all start on 16 bytes."""
    return all(n % WIDEST[tensor.dtype] == 0 for n in widths)


def bytes_each(tensor: Any) -> int:
    """Bytes of an element."""
    return 16 // WIDEST[tensor.dtype]
