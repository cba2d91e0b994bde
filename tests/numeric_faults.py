"""Runs with an op that does harm in chosen steps, and their records."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import small_run

from core import checkpoint
from core.signals import Stop
from core.train.display import Display
from core.train.loop import Trainer
from core.train.run import read_lines
from core.train.setup import TrainArguments, prepare

# An op that passes values on, and does harm when it is asked to: in steps `first` .. `last`, from token `row` on.
PLUGIN = """
import math
import numpy as np
from core import Op, Reference, Schedule

HARM = {"nan": math.nan, "inf": math.inf, "large": 1e23, "spike": 1e3, "nothing": 0.0}
once = []
faulty = Op("faulty", inputs={"x": "..."}, outputs={"y": "..."}, uses=("random",), examples=[{"x": (2, 3)}],
            padding=("...",), attrs={"harm": "nan", "backward": False, "first": 3, "last": 3, "row": 0, "once": False})

class Faulty(Reference):
    op = "faulty"

    def harm(self, t, x, backward):
        if t.key is None or t.backward != backward or not t.first <= t.key[2] <= t.last or t.key[3] < t.row:
            return x
        if t.once and once:
            return x
        once.append(1)
        x = x.copy()
        if t.harm in ("nan", "inf"):
            x.reshape(-1)[5] = HARM[t.harm]
        else:
            x *= np.float32(HARM[t.harm])
        return x

    def forward(self, t):
        t.y[...] = self.harm(t, t.x, False)

    def backward(self, t):
        t.add("dx", self.harm(t, t.dy, True))

class Broken(Schedule):
    name = "broken"

    def lr(self, step, steps, peak, options):
        return math.nan if step == 3 else peak

def core_ops(): return [faulty]
def core_variants(): return [Faulty]
def core_schedules(): return [Broken]
"""
MODEL = """
extends = "gpt2_124m"
[graph]
loud = { op = "faulty", in = "logits", SPIKE }
loss = { op = "cross_entropy", in = ["loud", "targets"], classes = "V" }
[block.layer]
drop = { op = "dropout", in = "act", p = 0.1 }
bad  = { op = "faulty", in = "drop", FAULT }
down = { op = "matmul", in = "bad", features = "C" }
"""
CONFIG = small_run.config(
    model="model.toml",
    plugins={"load": ["faulty.py"]},
    dims={"S": 16},
    data={"val": None},
    train={"checkpoint_every": 2, "check": False},
    detect={"window": 8, "loss_z": 50.0, "norm_z": 0.0},
    optimizer={"lr": 0.001},
)
NONE = "first = 9999"
Hook = Callable[[Any, int, dict[str, Any]], None]


def fault(text: str = NONE, spike: str = NONE) -> None:
    Path("model.toml").write_text(MODEL.replace("FAULT", text).replace("SPIKE", spike))


def trainer(stack: ExitStack, out: str, *overrides: str, hook: Hook | None = None, **arguments: Any) -> Trainer:
    request = TrainArguments("config.toml", overrides, device="cpu", out=Path(out), **arguments)
    made = prepare(request, Display(quiet=True), stack)
    made.job.hooks = [hook] if hook else []
    return made


def train(out: str, *overrides: str, stop_after: int = 0, hook: Hook | None = None, **arguments: Any) -> Trainer:
    """A run from its start to its end, or to where it is asked to stop, as by SIGINT."""
    with ExitStack() as stack:
        made, stop = trainer(stack, out, *overrides, **arguments), Stop()

        def each(run: Any, step: int, metrics: dict[str, Any]) -> None:
            if hook is not None:
                hook(made, step, metrics)
            if step == stop_after:
                stop.signal = signal.SIGINT

        made.job.hooks = [each]
        made.train(stop)
    return made


def tensors(made: Trainer) -> dict[str, Any]:
    """Copies of all parameters and of the optimizer's state."""
    engine = made.job.engine
    states = {"param": engine.parameters(), **engine.optimizer_state()}
    return {f"{kind}.{name}": np.array(a) for kind, values in states.items() for name, a in values.items()}


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(a[n].tobytes() == b[n].tobytes() for n in a)


def curve(out: str) -> list[tuple[Any, ...]]:
    names = ("step", "loss", "norm", "lr", "loss_z", "skipped")
    return [tuple(m.get(name) for name in names) for m in read_lines(Path(out, "metrics.jsonl"))]


def log(out: str = "a") -> str:
    return Path(out, "train.log").read_text("utf-8")


def crashed(out: str = "a", step: int = 4) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(Path(out, f"crash-step_{step:08d}", "crash.json").read_text())
    return report


def tensors_of(out: str) -> dict[str, Any]:
    saved = checkpoint.find(Path(out))
    parts = {"param": saved.parameters, **saved.optimizer}
    return {f"{kind}.{name}": np.array(values[name]) for kind, values in parts.items() for name in values}
