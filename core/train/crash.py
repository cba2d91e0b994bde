"""The crash of a step: its cause, and a folder with the batch and statistics of every tensor.

    runs/<name>/crash-step_00000004/
        crash.json          the step, its numbers, and the cause
        batch.safetensors   every micro-batch: "0.tokens", "0.targets", "1.tokens", ...
        batch.txt           the same as text, where the run has a tokenizer
        tensors.jsonl       statistics, a line a tensor: parameters, then each op's results, in the order of execution

The cause is found by running the step again, op by op, without its update: the first op that writes a value that is not
finite is the cause, since all earlier values were finite. The search stops there and changes no state of training.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from core import files
from core.checkpoint.safetensors_file import write_tensors
from core.engine import Engine
from core.errors import NumericsError
from core.ranks.group import Ranks
from core.roles import TOKENS
from core.tokenizers.tokenizer import Tokenizer
from core.train.run import to_line
from core.words import printable

Array = np.ndarray[Any, Any]
Batches = Sequence[Mapping[str, Array]]
REPORT, BATCH, TEXT, TENSORS = "crash.json", "batch.safetensors", "batch.txt", "tensors.jsonl"
OVERFLOWED = "fp16 has no number above 65,504, and the loss scale is at its least: precision bf16 or f32 has"
TOO_LARGE = "fp16 has no number above 65,504: precision bf16 or f32 has, if it is not the data or an op"
SPIKE_HINT = 'look at the batch; [detect] action = "skip" leaves such updates out'
CHUNK = 1 << 20  # elements of a tensor that are read together


@dataclass(frozen=True)
class Cause:
    """The origin of the first number that is not finite. `what` is its description; the rest are names, "" or None
    where they have no meaning. kind: "lr", "parameter", a kind of step ("forward", "backward", ...), "norm",
    "spike", or "unknown". rank, host: of the process that found it, in a run on several."""

    kind: str
    what: str
    tensor: str = ""
    node: str = ""
    op: str = ""
    variant: str = ""
    micro_step: int | None = None
    rank: int | None = None
    host: str = ""


@dataclass
class Replay:
    """A step that is run again. `statistics` fills while `find` looks for the cause."""

    engine: Engine
    batches: Batches
    lr: float
    statistics: list[dict[str, Any]] = field(default_factory=list)

    def find(self) -> Cause:
        """The cause of a step that was not finite: the first thing that is not, in the order in which it is used."""
        if not math.isfinite(self.lr):
            return Cause("lr", f"the learning rate is {self.lr}")
        return self._parameter() or self._op() or self._norm() or UNKNOWN

    def spike(self, sentence: str) -> Cause:
        """The cause of a step whose numbers are finite, with the statistics of all that it computed."""
        return self._parameter() or self._op() or Cause("spike", sentence)

    def _keep(self, array: Array, **names: Any) -> bool:
        """Keep a tensor's statistics; whether all of it is finite."""
        numbers = statistics(array)
        self.statistics.append({**names, **numbers})
        return not (numbers["nan"] or numbers["inf"])

    def _parameter(self) -> Cause | None:
        bad = [
            name for name, array in self.engine.parameters().items()
            if not self._keep(array, kind="parameter", tensor=name)
        ]  # fmt: skip
        if not bad:
            return None
        first = next(row for row in self.statistics if row["tensor"] == bad[0])
        more = f", and {len(bad) - 1} more parameters likewise" if len(bad) > 1 else ""
        return Cause("parameter", f"parameter {bad[0]} holds {amount(first)}{more}", tensor=bad[0])

    def _op(self) -> Cause | None:
        with contextlib.closing(self.engine.replay(self.batches)) as events:
            for micro, event in events:
                for name in event.written:
                    array = event.tensors[name]
                    if array is None or array.dtype.kind != "f":
                        continue
                    names = {"kind": event.kind, "node": event.node, "op": event.op, "variant": event.variant}
                    if not self._keep(array, **names, tensor=name, micro_step=micro):
                        return self._first(names, name, micro)
        return None

    def _first(self, names: Mapping[str, str], tensor: str, micro: int) -> Cause:
        who = f"node {names['node']} ({names['op']}.{names['variant']})" if names["node"] else "a sum of gradients"
        sentence = (
            f"{who} is the first to write non-finite values: {tensor} of its {names['kind']} in micro-step {micro + 1} "
            f"holds {amount(self.statistics[-1])}"
        )
        kind, node, op, variant = (names[name] for name in ("kind", "node", "op", "variant"))
        return Cause(kind, sentence, tensor, node, op, variant, micro)

    def _norm(self) -> Cause | None:
        """Gradients that are finite and too large to be squared."""
        largest, name = 0.0, ""
        for parameter, gradient in self.engine.parameter_gradients():
            self._keep(gradient, kind="gradient", tensor=parameter)
            size = float(np.abs(gradient).max(initial=0))
            if size > largest:
                largest, name = size, parameter
        if largest**2 < float(np.finfo(np.float32).max):
            return None
        return Cause("norm", f"the gradients are finite and their norm is not: {name} has one of {largest:g}", name)


UNKNOWN = Cause(
    "unknown",
    "run again, the same step has only finite numbers: either the machine made an error (memory, heat), or a kernel "
    "does not repeat, which `core check` finds",
)


IN_NO_RANK = ("spike", UNKNOWN.kind)  # kinds of a cause that no rank's own part of a step has


def statistics(array: Array) -> dict[str, Any]:
    """shape, nan and inf (counts), and of the finite numbers: zeros (a count), min, max, mean and rms."""
    flat, finite, zeros = array.reshape(-1), 0, 0
    least, most, total, squares, nan = math.inf, -math.inf, 0.0, 0.0, 0
    for start in range(0, flat.size, CHUNK):
        part = flat[start : start + CHUNK].astype(np.float64)
        nan += int(np.isnan(part).sum())
        part = part[np.isfinite(part)]
        finite, zeros = finite + part.size, zeros + int((part == 0).sum())
        least, most = min(least, part.min(initial=math.inf)), max(most, part.max(initial=-math.inf))
        total, squares = total + float(part.sum()), squares + float(part @ part)
    return {
        "shape": list(array.shape), "nan": nan, "inf": flat.size - finite - nan, "zeros": zeros,
        "min": float(least) if finite else None, "max": float(most) if finite else None,
        "mean": total / finite if finite else None, "rms": math.sqrt(squares / finite) if finite else None,
    }  # fmt: skip


def amount(row: Mapping[str, Any]) -> str:
    """ "3 nan and 1 inf among 1,024 numbers"."""
    parts = [f"{row[kind]:,} {kind}" for kind in ("nan", "inf") if row[kind]]
    return f"{' and '.join(parts)} among {math.prod(row['shape']):,} numbers"


def folder_name(step: int) -> str:
    return f"crash-step_{step:08d}"


def leave(folder: Path, report: Mapping[str, Any], cause: Cause, replay: Replay, tokenizer: Tokenizer | None) -> str:
    """Write the folder; a sentence on it. A disk that refuses must not hide the reason why the run stops."""
    try:
        write(folder, report, cause, replay, tokenizer)
    except OSError as error:
        return f"{folder} cannot be written: {error.strerror or error}"
    return f"the step is in {folder}"


def write(folder: Path, report: Mapping[str, Any], cause: Cause, replay: Replay, tokenizer: Tokenizer | None) -> None:
    """Write the folder, in place of one that the same step left before. Raises OSError when the disk does."""
    staged = folder.with_name(f".{folder.name}.tmp")
    for old in (staged, folder):
        if os.path.lexists(old):
            files.remove_tree(old)
    files.make_folder(staged)
    tensors = {
        f"{index}.{name}": stored(values)
        for index, batch in enumerate(replay.batches)
        for name, values in batch.items()
    }
    write_tensors(staged / BATCH, tensors, {"format": "corelm"})
    name = replay.engine.graph.roles.get(TOKENS)
    if tokenizer is not None and name is not None:
        files.write_durably(staged / TEXT, decoded(replay.batches, tokenizer, name).encode("utf-8", "backslashreplace"))
    files.write_durably(staged / TENSORS, "".join(map(to_line, replay.statistics)).encode())
    files.write_durably(staged / REPORT, files.to_json({**files.settled(report), "cause": asdict(cause)}))
    files.rename(staged, folder)


def stored(values: Any) -> Array:
    """An input as the folder and other ranks have it: i32, f32 or f64."""
    array = np.asarray(values)
    kind = np.int32 if array.dtype.kind != "f" else np.float64 if array.dtype.itemsize > 4 else np.float32
    return array.astype(kind)


def decoded(batches: Batches, tokenizer: Tokenizer, name: str) -> str:
    """The tokens of batches, their input `name`, as text, row by row."""
    lines = []
    for index, batch in enumerate(batches):
        for row, ids in enumerate(batch[name]):
            lines += [f"--- micro-batch {index}, {name}, row {row}", printable(tokenizer.decode(ids))]
    return "\n".join(lines) + "\n"


def shared(ranks: Ranks, cause: Cause, replay: Replay) -> tuple[Cause, Replay]:
    """(cause, replay) of the first rank whose own part of the step has the cause, with its batches and statistics, on
    every rank; of rank 0 where no part has it."""
    causes = [Cause(**json.loads(data)) for data in ranks.gather(json.dumps(asdict(cause)).encode())]
    own = [rank for rank, one in enumerate(causes) if one.kind not in IN_NO_RANK]
    if not own:
        first = causes[0]
        where = "" if first.kind == "spike" else f"on all {ranks.size} ranks: "
        return replace(first, what=f"{where}{first.what}"), replay
    rank = own[0]
    theirs = replace(causes[rank], rank=rank, host=ranks.host(rank))
    theirs = replace(theirs, what=f"rank {rank} on {theirs.host}: {theirs.what}")
    sent = json.dumps(packed(replay)).encode() if rank == ranks.rank else b""
    part = json.loads(ranks.gather(sent)[rank])
    batches = [{n: np.array(values, dtype) for n, (dtype, values) in batch.items()} for batch in part["batches"]]
    return theirs, Replay(replay.engine, batches, replay.lr, part["statistics"])


def packed(replay: Replay) -> dict[str, Any]:
    """A replay's batches and statistics, as JSON has them."""
    arrays = [{name: stored(values) for name, values in batch.items()} for batch in replay.batches]
    batches = [{name: (array.dtype.str, array.tolist()) for name, array in batch.items()} for batch in arrays]
    return {"batches": batches, "statistics": [files.settled(row) for row in replay.statistics]}


def crashed(job: Any, step: int, record: Any, batches: Batches, lr: float, spike: str, newest: str) -> NumericsError:
    """The error for a step that nothing was updated by, once its cause is known and its folder is left.

    job: the run's `Job`; record: the step's, of an engine; spike: its words, "" for numbers that are not finite;
    newest: the newest checkpoint, as text.
    """
    replay = Replay(job.engine, batches, lr)
    job.display.status("looking for the cause")
    job.ranks.states("looking for the cause", long=True)
    cause = replay.spike(spike) if spike else replay.find()
    if job.ranks.size > 1:
        cause, replay = shared(job.ranks, cause, replay)
    scale = record.loss_scale
    scaled = {} if scale is None else {"loss_scale": scale}
    report = {"step": step, "loss": record.loss, "norm": record.norm, "lr": replay.lr, **scaled}
    folder = job.run.path / folder_name(step)
    where = leave(folder, report, cause, replay, job.tokenizer) if job.ranks.leads else f"rank 0 writes {folder}"
    at = "" if scale is None else f" at loss scale {scale:,.10g}"
    numbers = "" if spike else f"loss is {record.loss:.6g}, gradient norm is {record.norm:.6g}{at}: "
    hint = SPIKE_HINT if spike else "lower optimizer.lr or raise schedule.warmup, if it is not the data or an op"
    if scale is not None and math.isfinite(lr) and not spike:
        hint = OVERFLOWED if math.isfinite(record.loss) else TOO_LARGE
    return NumericsError(
        f"step {step}/{job.table.steps}: {numbers}{cause.what}; nothing was updated, and {newest}; {where}",
        hint=f"{hint}; --resume continues from the newest checkpoint",
    )
