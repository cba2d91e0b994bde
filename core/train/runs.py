"""Runs read from their folders, also while they run: summaries, curves, and the first difference of two runs.

The module only reads; a folder that lacks a file, or has a damaged one, is listed with the rest.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core import checkpoint
from core.checkpoint.pointers import CHECKPOINTS
from core.errors import CheckpointError
from core.outside import open_file, parse_json, read_whole
from core.train.differences import differences
from core.train.run import LOCK, METRICS, RESOLVED, VARIANTS, read_lines
from core.train.run_names import resolved_config

RUNNING, DONE, CRASHED, STOPPED, NEW = "running", "done", "crashed", "stopped", "no steps"
CURVES = ("loss", "norm", "lr", "val_loss", "ms", "tokens_per_s")  # the numbers of a step in metrics.jsonl
CRASH = "crash-step_"


@dataclass(frozen=True)
class Summary:
    """One run. steps: planned; None where the config cannot be read. loss: of the last step; best: of validation.

    saved: the step of the newest checkpoint; best_saved: of the best by validation, where the run keeps it.
    """

    name: str
    path: Path
    state: str
    model: str
    step: int
    steps: int | None
    loss: float | None
    best: float | None
    saved: int | None
    best_saved: int | None
    changed: float  # seconds since the epoch


def summaries(folder: Path) -> list[Summary]:
    """The runs in a folder, the one that changed last first."""
    paths = [p for p in folder.iterdir() if (p / RESOLVED).is_file()] if folder.is_dir() else []
    return sorted(map(summary, paths), key=lambda s: (-s.changed, s.name))


def _validated(record: Mapping[str, Any], best: Any) -> Any:
    """The validation loss of a line by which the run has a best."""
    own = record.get("val_losses")
    return own.get(best) if best and isinstance(own, dict) else record.get("val_loss")


def summary(path: Path) -> Summary:
    config, records = resolved_config(path) or {}, records_of(path)
    table = config.get("train")
    steps = table.get("steps") if isinstance(table, dict) else None
    step = records[-1]["step"] if records else 0
    best = table.get("best") if isinstance(table, dict) else ""
    losses = [loss for r in records if (loss := number(_validated(r, best))) is not None]
    saved = checkpoint.steps(path / CHECKPOINTS)
    files = [path / name for name in (METRICS, RESOLVED) if (path / name).exists()]
    return Summary(
        path.name,
        path,
        state_of(path, step, steps),
        Path(str(config.get("model", "?"))).stem,
        step,
        steps if isinstance(steps, int) else None,
        number(records[-1].get("loss")) if records else None,
        min(losses, default=None),
        saved[0] if saved else None,
        best_saved(path / CHECKPOINTS),
        max((file.stat().st_mtime for file in files), default=0.0),
    )


def best_saved(checkpoints: Path) -> int | None:
    with contextlib.suppress(CheckpointError):
        return checkpoint.best(checkpoints)
    return None


def state_of(path: Path, step: int, steps: Any) -> str:
    if locked(path / LOCK):
        return RUNNING
    if isinstance(steps, int) and step >= steps:
        return DONE
    if (path / f"{CRASH}{step + 1:08d}").is_dir():
        return CRASHED
    return STOPPED if step else NEW


def locked(path: Path) -> bool:
    """Whether a process has the run: its lock is taken, shared, and released at once."""
    if sys.platform == "win32":
        return False
    import fcntl

    with contextlib.suppress(OSError), open_file(path, follow=False) as file:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def json_of(path: Path) -> dict[str, Any]:
    """The object of a JSON file; {} where it cannot be read or is something else."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        held = parse_json(read_whole(path, follow=False))
        return held if isinstance(held, dict) else {}
    return {}


def records_of(path: Path) -> list[dict[str, Any]]:
    """The steps' metrics in order, the last word on each: a resumed run may have written a step again."""
    try:
        by_step = {record["step"]: record for record in read_lines(path / METRICS)}
    except OSError:  # others' runs are listed all the same
        return []
    return [by_step[step] for step in sorted(by_step)]


def curve(path: Path, name: str) -> tuple[list[int], list[float]]:
    """(steps, values) of those that have the value."""
    points = [(r["step"], r[name]) for r in records_of(path) if number(r.get(name)) is not None]
    return [step for step, _ in points], [float(value) for _, value in points]


def number(value: Any) -> float | None:
    """A finite number as a float, None for anything else."""
    with contextlib.suppress(OverflowError):
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(float(value)):
            return float(value)
    return None


# --- where two runs part -----------------------------------------------------------------------------------------

SPEED = ("ms", "tokens_per_s", "memory", "mfu", "sol")  # differences of equal runs
SAME = ("step", "tokens")
Records = Mapping[int, Mapping[str, Any]]  # step -> its line of metrics.jsonl


@dataclass(frozen=True)
class Parting:
    """The comparison of two runs. common: steps that both have. step, name, values: the first number that differs, or
    None.

    settings: lines of differences in configs and variants. last: of runs that part, losses of the last step that has
    them in both: name -> (a's, b's).
    """

    common: int
    step: int | None
    name: str
    values: tuple[Any, Any] | None
    settings: list[str]
    last: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def equal(self) -> bool:
        return self.step is None


def parting(a: Path, b: Path) -> Parting:
    """The first step, and the first value of it, in which two runs differ; bit for bit."""
    ours, theirs = ({r["step"]: r for r in records_of(path)} for path in (a, b))
    common = sorted(ours.keys() & theirs.keys())
    settings = list(settings_apart(a, b))
    for step in common:
        for name in (n for n in {**ours[step], **theirs[step]} if n not in SPEED):
            pair = ours[step].get(name), theirs[step].get(name)
            if pair[0] != pair[1] and None not in pair:
                return Parting(len(common), step, name, pair, settings, losses_at_end(ours, theirs, common))
    return Parting(len(common), None, "", None, settings)


def losses_at_end(ours: Records, theirs: Records, common: Sequence[int]) -> dict[str, tuple[float, float]]:
    """`loss at step 20` and `val_loss at step 20` -> (a's, b's), of the last step that has the number in both."""
    pairs = {}
    for name in ("loss", "val_loss"):
        for step in reversed(common):
            x, y = number(ours[step].get(name)), number(theirs[step].get(name))
            if x is not None and y is not None:
                pairs[f"{name} at step {step:,}"] = (x, y)
                break
    return pairs


def settings_apart(a: Path, b: Path) -> Iterator[str]:
    """The differences of the resolved configs, `key: a's -> b's`, then of the variants, a line for each op."""
    yield from changed("config", resolved_config(a) or {}, resolved_config(b) or {})
    ours, theirs = json_of(a / VARIANTS), json_of(b / VARIANTS)
    yield from changed("variant", settings_of(ours), settings_of(theirs))
    yield from variants_apart(variants_of(ours), variants_of(theirs))
    yield from changed("variant", tiles_of(ours, theirs), tiles_of(theirs, ours))


def settings_of(held: Mapping[str, Any]) -> dict[str, Any]:
    """Device and precision of a variants.json."""
    return {key: held[key] for key in ("device", "precision") if key in held}


def tiles_of(held: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """The tiles of a variants.json, for those nodes that have some in another one too."""
    ours, theirs = (one["tiles"] if isinstance(one.get("tiles"), dict) else {} for one in (held, other))
    return {"tiles": {node: tiles for node, tiles in ours.items() if node in theirs}}


def changed(kind: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """`kind key: before's -> after's` for every key whose values differ."""
    return (f"{kind} {line}" for line in differences(before, after, most=None))


def variants_apart(before: Mapping[str, Mapping[str, int]], after: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    """A line for each op that both runs have with other variants, and one that names the ops of one run alone.

    before, after: op -> variant -> number of nodes. Other numbers of nodes with the same variants are no difference.
    """
    for op in (op for op in before if op in after and before[op].keys() != after[op].keys()):
        yield f"variant {op}: {counted(before[op])} -> {counted(after[op])}"
    if not before or not after or before.keys() == after.keys():
        return
    same = sum(op in after and before[op].keys() == after[op].keys() for op in before)
    ours, theirs = (op for op in before if op not in after), (op for op in after if op not in before)
    alone = ", ".join(ours) or "none", ", ".join(theirs) or "none"
    yield f"ops: {same} have the same variants in both; the first run alone has {alone[0]}; the second, {alone[1]}"


def counted(variants: Mapping[str, int]) -> str:
    """`tiled (4 nodes), mma (1 node)`."""
    return ", ".join(f"{name} ({count} node{'s' * (count != 1)})" for name, count in variants.items())


def variants_of(held: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Op -> variant -> number of nodes, of a run's variants.json; {} for another file."""
    ops: dict[str, dict[str, int]] = {}
    rows = held.get("table")
    for row in rows if isinstance(rows, list) else ():
        with contextlib.suppress(KeyError, TypeError, ValueError):
            op, variant, nodes = str(row["op"]), str(row["variant"]), int(row["nodes"])
            count = ops.setdefault(op, {})
            count[variant] = count.get(variant, 0) + nodes
    return ops


# --- curves in a terminal ----------------------------------------------------------------------------------------

MARKS = "*+xo#@%&"  # one run each
BRAILLE = 0x2800
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # bits of a cell's 4 rows of 2 dots


def drawn(curves: Sequence[tuple[Sequence[float], Sequence[float]]], width: int, height: int, fine: bool) -> list[str]:
    """Curves, each (xs, ys), as lines of text: `width` x `height` cells, a scale at the left and below.

    fine: a cell is 2 x 4 dots of braille, all runs alike; else it is the mark of the run that is there.
    """
    xs, ys = ([v for pair in curves for v in pair[axis]] for axis in (0, 1))
    if not xs:
        return []
    low, high, first, last = min(ys), max(ys), min(xs), max(xs)
    shrink = 1.0 if math.isfinite(high - low) else 0.25  # of values whose difference no float holds
    span = shrink * high - shrink * low
    cells = [[0 if fine else " " for _ in range(width)] for _ in range(height)]
    across, down = (2 * width, 4 * height) if fine else (width, height)
    for index, (px, py) in enumerate(curves):
        for x, y in zip(px, py, strict=True):
            column = round((x - first) / ((last - first) or 1) * (across - 1))
            row = round((shrink * high - shrink * y) / (span or 1) * (down - 1))
            if fine:
                cells[row // 4][column // 2] |= DOTS[row % 4][column % 2]  # type: ignore[operator]
            else:
                cells[row][column] = MARKS[index % len(MARKS)]
    labels = [f"{high:.4g}", *[""] * (height - 2), f"{low:.4g}"][:height]
    margin = max(map(len, labels))
    lines = []
    for label, row_cells in zip(labels, cells, strict=True):
        text = "".join(chr(BRAILLE + c) if isinstance(c, int) else c for c in row_cells)
        lines.append(f"{label.rjust(margin)} |{text.rstrip(chr(BRAILLE) + ' ')}")
    ends = f"{first:g}", f"{last:g}"
    return [*lines, " " * (margin + 2) + ends[0] + ends[1].rjust(width - len(ends[0]))]
