"""Numbers that go wrong: each is put into a small run, which must stop before harm, or go on as its config says."""

from __future__ import annotations

import errno
import json
import math
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_run

from core import checkpoint, files
from core.checkpoint.tensor_file import TensorFile
from core.cli import run as core_command
from core.errors import NumericsError
from core.signals import Stop
from core.train.crash import statistics
from core.train.detect import MOST_SKIPS, Detector
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
WEIGHT = "h.0.qkv.weight"
NONE = "first = 9999"
Hook = Callable[[Any, int, dict[str, Any]], None]


@pytest.fixture
def here(workdir: Path) -> Path:
    small_run.write(workdir, CONFIG, "config.toml")
    Path("faulty.py").write_text(PLUGIN)
    fault()
    return workdir


def fault(text: str = NONE, spike: str = NONE) -> None:
    Path("model.toml").write_text(MODEL.replace("FAULT", text).replace("SPIKE", spike))


def trainer(stack: ExitStack, out: str, *overrides: str, hook: Hook | None = None, **asked: Any) -> Trainer:
    request = TrainArguments("config.toml", overrides, device="cpu", out=Path(out), **asked)
    made = prepare(request, Display(quiet=True), stack)
    made.job.hooks = [hook] if hook else []
    return made


def train(out: str, *overrides: str, stop_after: int = 0, hook: Hook | None = None, **asked: Any) -> Trainer:
    """A run from its start to its end, or to where it is asked to stop, as by SIGINT."""
    with ExitStack() as stack:
        made, stop = trainer(stack, out, *overrides, **asked), Stop()

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
    found = {"param": engine.parameters(), **engine.optimizer_state()}
    return {f"{kind}.{name}": np.array(a) for kind, values in found.items() for name, a in values.items()}


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(a[n].tobytes() == b[n].tobytes() for n in a)


def curve(out: str) -> list[tuple[Any, ...]]:
    names = ("step", "loss", "norm", "lr", "loss_z", "skipped")
    return [tuple(m.get(name) for name in names) for m in read_lines(Path(out, "metrics.jsonl"))]


def on_disk(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def log(out: str = "a") -> str:
    return Path(out, "train.log").read_text("utf-8")


def crashed(out: str = "a", step: int = 4) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(out, f"crash-step_{step:08d}", "crash.json").read_text())
    return found


# --- what is not finite --------------------------------------------------------------------------------------------

CASES = {
    "weight": (NONE, f"parameter {WEIGHT} holds 1 nan among 768 numbers"),
    "activation": (
        "row = 32",  # in the second micro-step
        r"node h.0.bad \(faulty.reference\) is the first .* y of its forward in micro-step 2 holds 1 nan among 2,048",
    ),
    "gradient": (
        'harm = "inf", backward = true',
        r"node h.0.bad \(faulty.reference\) .* dx of its backward in micro-step 1 holds 1 inf among 2,048",
    ),
    "lr": (NONE, "the learning rate is nan"),
}


@pytest.mark.parametrize("where", CASES)
def test_what_is_not_finite_stops_the_run_before_it_changes_anything(here: Path, stack: ExitStack, where: str) -> None:
    fault(CASES[where][0])
    made = trainer(stack, "a", *(["schedule.name=broken"] if where == "lr" else []))
    before: dict[str, Any] = {}

    def at_the_third_step(run: Any, step: int, metrics: dict[str, Any]) -> None:
        if step == 3:
            if where == "weight":
                made.job.engine.parameters()[WEIGHT][0, 0] = math.nan
            before.update(tensors(made), disk=np.frombuffer(repr(on_disk(here / "a/checkpoints")).encode(), np.uint8))

    made.job.hooks = [at_the_third_step]
    with pytest.raises(NumericsError, match=CASES[where][1]) as caught:
        made.train(Stop())
    assert caught.value.exit_code == 5
    assert "step 4/6: " in caught.value.message and "nothing was updated" in caught.value.message
    assert "checkpoint is that of step 2; the step is in a/crash-step_00000004" in caught.value.message.replace(
        "\\", "/"
    )
    after = {**tensors(made), "disk": np.frombuffer(repr(on_disk(here / "a/checkpoints")).encode(), np.uint8)}
    assert same(before, after)
    assert [m["step"] for m in read_lines(here / "a/metrics.jsonl")] == [1, 2, 3]


def test_a_crash_folder_has_the_batch_its_text_the_statistics_and_the_cause(here: Path, stack: ExitStack) -> None:
    fault("row = 32")
    made = trainer(stack, "a")
    with pytest.raises(NumericsError):
        made.train(Stop())
    folder = here / "a/crash-step_00000004"
    assert {p.name for p in folder.iterdir()} == {"crash.json", "batch.safetensors", "batch.txt", "tensors.jsonl"}
    cause = crashed()["cause"]
    assert (cause["node"], cause["op"], cause["tensor"], cause["micro_step"]) == ("h.0.bad", "faulty", "y", 1)
    assert math.isnan(float(crashed()["loss"])) and crashed()["lr"] == 1e-3
    stored = TensorFile(folder / "batch.safetensors")
    for index, batch in enumerate(made.job.batches(3)):
        for name, values in batch.items():
            np.testing.assert_array_equal(stored[f"{index}.{name}"], values)
        for row in batch["tokens"]:
            assert (
                made.job.tokenizer is not None and made.job.tokenizer.decode(row) in (folder / "batch.txt").read_text()
            )
    rows = [json.loads(line) for line in (folder / "tensors.jsonl").read_text().splitlines()]
    parameters = made.job.engine.parameters()
    assert [r["tensor"] for r in rows if r["kind"] == "parameter"] == list(parameters)
    assert rows[-1]["node"] == "h.0.bad" and rows[-1]["nan"] == 1
    assert not any(r["nan"] or r["inf"] for r in rows[:-1]), "what came before was finite"
    values = np.asarray(parameters[WEIGHT], np.float64)
    row = next(r for r in rows if r["tensor"] == WEIGHT)
    assert (row["min"], row["max"]) == (values.min(), values.max())
    assert row["rms"] == pytest.approx(math.sqrt((values**2).mean()))


def test_an_error_of_the_machine_is_not_blamed_on_an_op(here: Path, stack: ExitStack) -> None:
    fault("once = true")
    with pytest.raises(NumericsError, match="run again, the same step has only finite numbers.*nothing was updated"):
        trainer(stack, "a").train(Stop())
    assert crashed()["cause"]["kind"] == "unknown" and crashed()["cause"]["node"] == ""


def test_gradients_too_large_to_square_in_f32_are_clipped_by_their_norm(here: Path, stack: ExitStack) -> None:
    fault('harm = "large", backward = true')
    assert trainer(stack, "a").train(Stop()) == 0
    large = [m for m in read_lines(here / "a/metrics.jsonl") if m["norm"] > 1e20]
    assert len(large) == 1 and math.isfinite(large[0]["norm"])
    assert all(math.isfinite(m["loss"]) for m in read_lines(here / "a/metrics.jsonl"))


def test_weights_that_an_update_made_infinite_do_not_become_a_checkpoint(here: Path, stack: ExitStack) -> None:
    made = trainer(stack, "a")
    before: dict[str, bytes] = {}

    def spoil(run: Any, step: int, metrics: dict[str, Any]) -> None:
        if step == 3:
            made.job.engine.optimizer_state()["v"][WEIGHT][0, 0] = math.nan
            before.update(on_disk(here / "a/checkpoints"))

    made.job.hooks = [spoil]
    with pytest.raises(NumericsError, match=f"step 4/6: parameter {WEIGHT}, v {WEIGHT} holds non-finite values"):
        made.train(Stop())
    assert on_disk(here / "a/checkpoints") == before and checkpoint.find(here / "a").step == 2


def test_a_crash_folder_that_cannot_be_written_does_not_hide_the_cause(
    here: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault()
    made = trainer(stack, "a", "schedule.name=broken")

    def full(call: str, path: Path) -> None:
        if "crash-step" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "POINT", full)
    with pytest.raises(NumericsError, match="the learning rate is nan.* cannot be written: No space left on device"):
        made.train(Stop())


def test_the_command_exits_with_5_and_no_traceback(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fault()
    assert core_command(["train", "config.toml", "--device", "cpu", "--out", "a"]) == 0
    fault("first = 1, last = 1")
    for _ in range(2):  # the same crash again takes the place of its folder
        assert core_command(["train", "config.toml", "--device", "cpu", "--out", "b", "--resume"]) == 5
    err = capsys.readouterr().err
    assert "core: error: step 2/6: loss is nan" in err and "crash-step_00000002" in err and "Traceback" not in err
    assert log("b").splitlines()[-2].startswith("error: step 2/6: loss is nan")
    assert [p.name for p in Path("b").glob("*crash*")] == ["crash-step_00000002"]


def test_what_halted_an_engine_lets_no_later_step_update(here: Path, stack: ExitStack) -> None:
    made = trainer(stack, "a")
    engine, batches = made.job.engine, made.job.batches(0)
    assert engine.step(batches, 1e-3, (math.inf, math.inf)).ok
    before = tensors(made)
    for lr in (math.inf, 1e-3, 1e-3):
        record = engine.step(batches, lr, (math.inf, math.inf))
        assert record.halted and not record.ok and same(tensors(made), before)
    assert engine.updates == 1


# --- spikes --------------------------------------------------------------------------------------------------------

SPIKE = 'harm = "spike", first = 10, last = 10'  # the 11th step
LONG = ("train.steps=14", "train.checkpoint_every=1", "train.keep_last=20")


def bits(kept: dict[int, dict[str, Any]]) -> Hook:
    """A hook that keeps the bits of everything after every step."""

    def keep(made: Any, step: int, metrics: dict[str, Any]) -> None:
        kept[step] = tensors(made)

    return keep


def test_a_spike_is_warned_of_and_its_update_is_made(here: Path) -> None:
    fault(spike=SPIKE)
    kept: dict[int, dict[str, Any]] = {}
    made = train("a", *LONG, "train.checkpoint_every=14", hook=bits(kept))
    assert log().count("warning: step 11: loss ") == 1 and log().count(" is a spike (+") == 1
    assert not same(kept[10], kept[11]) and made.job.engine.updates == 14
    assert curve("a")[10][1] in made.job.detector.losses.values()


def test_a_skipped_spike_changes_no_bit_stays_out_of_the_window_and_resumes_exactly(here: Path) -> None:
    fault(spike=SPIKE)
    kept: dict[int, dict[str, Any]] = {}
    made = train("a", *LONG, "detect.action=skip", hook=bits(kept))
    assert same(kept[10], kept[11]) and not same(kept[11], kept[12])
    assert [line[0] for line in curve("a") if line[-1]] == [11] and made.job.engine.updates == 13
    assert "warning: step 11: loss" in log() and "its update is left out" in log()
    spike = curve("a")[10][1]
    for step in (11, 14):
        state = checkpoint.load(here / f"a/checkpoints/step_{step:08d}").state
        assert state["updates"] == step - 1 and spike not in state["windows"]["loss"]
        assert len(state["windows"]["loss"]) == 8 and state["skipped"] == (step == 11)
    for cut in (7, 10, 11, 12):  # before the window is full, just before, just after, and later
        train("b", *LONG, "detect.action=skip", origin=here / f"a/checkpoints/step_{cut:08d}")
        assert curve("b") == curve("a")[cut:]
        assert same(tensors_of("b"), tensors_of("a"))
        files.remove_tree(here / "b")


def tensors_of(out: str) -> dict[str, Any]:
    found = checkpoint.find(Path(out))
    parts = {"param": found.parameters, **found.optimizer}
    return {f"{kind}.{name}": np.array(values[name]) for kind, values in parts.items() for name in values}


def test_a_spike_that_is_to_end_the_run_does_so_before_its_update(here: Path) -> None:
    fault(spike=SPIKE)
    kept: dict[int, dict[str, Any]] = {}
    with ExitStack() as stack:
        made = trainer(stack, "a", *LONG, "detect.action=abort")
        made.job.hooks = [lambda run, step, metrics: kept.update({step: tensors(made)})]
        with pytest.raises(
            NumericsError, match=r"step 11/14: loss \S+ is a spike .* above .*nothing was updated.*step 10"
        ):
            made.train(Stop())
        assert same(tensors(made), kept[10])
    cause = crashed(step=11)["cause"]
    assert cause["kind"] == "spike" and checkpoint.find(here / "a").step == 10
    rows = [json.loads(line) for line in Path("a/crash-step_00000011/tensors.jsonl").read_text().splitlines()]
    assert {"forward", "backward", "parameter"} <= {r["kind"] for r in rows}, "all of the step is there to look at"


def test_a_level_that_is_here_to_stay_ends_the_run_instead_of_being_skipped_for_good(here: Path) -> None:
    fault(spike=SPIKE.replace("last = 10", "last = 99"))
    with pytest.raises(NumericsError, match=rf'action = "skip", {MOST_SKIPS} in a row'):
        train("a", "train.steps=60", "train.checkpoint_every=0", "detect.action=skip")
    assert [line[0] for line in curve("a") if line[-1]] == list(range(11, 11 + MOST_SKIPS - 1))


def test_a_norm_is_watched_as_the_loss_is(here: Path) -> None:
    fault(spike=SPIKE + ", backward = true")
    made = train("a", *LONG, "detect.action=skip", "detect.norm_z=50", "detect.loss_z=0", "train.checkpoint_every=14")
    assert "warning: step 11: norm " in log() and made.job.engine.updates == 13


def test_nothing_is_a_spike_before_the_window_is_full_nor_without_a_threshold() -> None:
    rng = np.random.default_rng(0)
    for loss_z, steps in ((5.0, 7), (0.0, 30)):
        detector = Detector(window=8, loss_z=loss_z, norm_z=0.0)
        for value in rng.standard_normal(steps):
            assert detector.see(float(value), 1.0).spikes == [] and detector.limits() == (math.inf, math.inf)
    assert detector.see(1e9, 1.0).spikes == []
    level = Detector(window=4)
    for _ in range(9):
        assert level.see(1.0, 1.0).spikes == [], "a loss that never changes has no deviation to measure by"


# --- gradients of zero ---------------------------------------------------------------------------------------------


def test_a_parameter_whose_gradient_stays_zero_is_named_once(here: Path) -> None:
    fault('harm = "nothing", backward = true, first = 0, last = 99')
    train("a", "train.steps=20", "detect.zero_steps=8", "train.checkpoint_every=20")
    warnings = [line for line in log().splitlines() if "exactly zero" in line]
    assert len(warnings) == 1 and "for 8 steps the gradient of " in warnings[0]
    assert all(name in warnings[0] for name in ("h.0.ln_2.weight", "h.0.fc.weight", "h.0.fc.bias"))
    assert not any(name in warnings[0] for name in ("qkv", "down", "wte"))


def test_gradients_of_zero_are_counted_across_a_resume_and_reset_by_one_that_is_not(here: Path) -> None:
    fault('harm = "nothing", backward = true, first = 0, last = 5')
    quick = ("train.steps=12", "detect.zero_steps=8")
    train("a", *quick)
    assert "exactly zero" not in log("a")
    fault('harm = "nothing", backward = true, first = 0, last = 99')
    train("b", *quick, stop_after=5)
    assert checkpoint.find(here / "b").state["zeros"]["h.0.fc.weight"] == 5
    train("b", *quick, resume=True)
    assert log("b").count("exactly zero") == 1
    detector = Detector(zero_steps=8)
    assert not any(detector.look(names) for names in [*[["a"]] * 7, [], *[["a"]] * 7])
    assert "for 8 steps the gradient of a was" in detector.look(["a"])


# --- looking changes nothing ---------------------------------------------------------------------------------------


def test_a_run_that_is_traced_is_the_untraced_one_bit_for_bit(here: Path) -> None:
    train("a")

    def look(made: Any, step: int, metrics: dict[str, Any]) -> None:
        batch = made.job.batches(0)[0]
        for number, _ in enumerate(made.job.engine.trace(batch)):
            if step % 2 and number == 9:  # one that is given up half-way
                break
        list(made.job.engine.replay(made.job.batches(step)))

    train("b", hook=look)
    assert curve("b") == curve("a") and len(curve("a")) == 6 and same(tensors_of("b"), tensors_of("a"))


def test_a_step_that_is_run_again_has_the_same_gradients_bit_for_bit(here: Path, stack: ExitStack) -> None:
    made = trainer(stack, "a")
    engine = made.job.engine
    for step, limit in ((0, math.inf), (1, 0.0)):  # with dropout, whose keys are the step's; the second updates nothing
        assert engine.step(made.job.batches(step), 1e-3, (limit, math.inf)).ok == (step == 0)
    once = {name: array.copy() for name, array in engine.parameter_gradients()}
    before = tensors(made)
    kinds = {event.kind for _, event in engine.replay(made.job.batches(1))}
    again = {name: array.copy() for name, array in engine.parameter_gradients()}
    assert {"forward", "backward"} <= kinds and same(once, again) and same(tensors(made), before)


def test_statistics_are_of_what_is_finite() -> None:
    found = statistics(np.array([[0.0, 3.0], [math.nan, -4.0], [math.inf, 0.0]], np.float32))
    assert found == {
        "shape": [3, 2], "nan": 1, "inf": 1, "zeros": 2, "min": -4.0, "max": 3.0, "mean": -0.25, "rms": 2.5
    }  # fmt: skip
    assert statistics(np.full(2, math.nan))["max"] is None
