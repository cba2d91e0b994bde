"""The training loop: draw, step, report; validate, sample and save when due, and at the end.

It knows an engine, data and a run folder, and not their origin. Batches, learning rates and dropout follow from the
step's number and the tokens drawn; the rest of the state between steps is in `Trainer.state`, so that a resumed run
repeats an uninterrupted one bit for bit.
"""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from core import checkpoint
from core.checkpoint import Contents
from core.engine import Record
from core.engine.scaling import Scaling
from core.errors import CheckpointError, CoreError, NumericsError, words_of
from core.signals import Stop
from core.train.detect import ABORT, Seen, not_finite
from core.train.hook_calls import call
from core.train.job import Job
from core.train.step_line import in_words, step_line
from core.train.training import TrainingRun
from core.train.validation import validate
from core.words import duration, printable

Array = np.ndarray[Any, Any]
CONTINUE = "continue"  # of [train] save_errors


class Trainer:
    """Runs a Job from a step to its end. `step` is the number of steps done."""

    def __init__(self, job: Job, resumed: Mapping[str, Any] | None = None, arrays: Mapping[str, Any] = {}) -> None:
        """resumed: the state of the checkpoint that the engine holds, as `state` gave it; None at first.
        arrays: those that it has for hooks."""
        before = resumed or {"step": 0, "tokens": 0, "best_val": None}
        self.job = job
        self.step: int = before["step"]
        self._first: int = self.step
        self.tokens: int = before["tokens"]  # drawn so far: the position in the data
        self.best_val: float | None = before["best_val"]
        self.best_step: int | None = before.get("best_step")  # whose checkpoint is kept as the best
        self._best_before: tuple[float | None, int | None] = (None, None)  # the best one after a failed save
        self.saved: int | None = self.step or None  # the newest step that is on disk
        self._sampler = (
            import_module("core.train.sampling").sample if job.table.sample_every and job.tokenizer else None
        )
        job.detector.load(before)
        self._seconds = 0.0  # of a step: a running mean, for the remaining time
        self._ahead: Sequence[Mapping[str, Array]] | None = None  # the next step's batches, drawn while this one ran
        self._events = 0.0  # seconds of validation, samples and checkpoints so far
        self._roll: Any = None  # of the ranks, where there are several
        self._health_rows: Any = None  # `rows` of the latest line of health.jsonl
        self._failed_hooks: set[int] = set()
        self.training = TrainingRun(job, self.step, before.get("hooks", {}), arrays)
        self._refused: dict[str, str] = {}  # files whose lines the disk did not take -> the reason, as printed

    def state(self) -> dict[str, Any]:
        """The loop's state that later steps depend on, for a checkpoint beside tensors and `Job.state`."""
        return {
            "step": self.step,
            "steps": self.job.table.steps,
            "seed": self.job.seed,
            "tokens": self.tokens,
            "updates": self.job.engine.updates,
            **self.job.engine.scaling.state(),
            "best_val": self.best_val,
            "best_step": self.best_step,
            "best": self.job.table.best,
            "hooks": self.training.state,
            **self.job.detector.state(),
        }

    def train(self, stop: Stop) -> int:
        """Train to the last step or until `stop`. Returns the exit code: 0, or 128 and the signal's number.

        Raises NumericsError, with nothing updated, nothing saved and a crash folder left, when a loss, gradient or
        learning rate is not finite, or a spike is to end the run.
        """
        job = self.job
        begun = time.perf_counter()
        if self.step >= job.table.steps:
            job.display.line(f"nothing to do: {self.step} of {job.table.steps} steps are done")
        self._call_hooks("core_train_start", {})
        if job.ranks.leads:
            self.training.check_options()
        while self.step < job.table.steps and not self._ends(stop):
            metrics = self._one_step()
            self.training.updated(self.step)
            last = self.step == job.table.steps
            before = time.perf_counter()
            if self._due(job.table.val_every, last):
                self._validate(metrics, stop)
            if self._due(job.table.sample_every, last) and not self._ends(stop):
                self._sample(stop)
            job.run.metrics(metrics)
            self._call_hooks("core_step_end", metrics)
            ends = last or self._ends(stop)
            at_end = ends and job.table.checkpoint_every != 0
            if at_end or self._due(job.table.checkpoint_every, False) or self._best_is_now():
                self._save_or_warn(ends)
            self._say_refused()
            self._events += time.perf_counter() - before
        self._call_hooks("core_train_end", {})
        self._write_health()
        for name, (lines, why) in job.run.refused().items():
            job.display.line(f"warning: the last {lines} lines of {name} could not be written: {why}")
        job.display.line(self._closing(stop, time.perf_counter() - begun))
        job.ranks.finish()
        return stop.exit_code

    def _ends(self, stop: Stop) -> bool:
        """Whether a signal came or a hook stops the run, on this rank or another: then it is so on all of them."""
        if self.job.ranks.size > 1:
            signal, ended = self.job.ranks.agree([stop.signal or 0, bool(self.training.ended)], "max")
            stop.signal = int(signal) or None
            self.training.ended = self.training.ended or ("a hook of rank 0" if ended else "")
        return stop.requested or bool(self.training.ended)

    def _best_is_now(self) -> bool:
        """Whether the validation of this step is the best so far and its checkpoint is to be kept."""
        return self.best_step == self.step

    def _due(self, every: int, now: bool) -> bool:
        return every > 0 and (now or self.step % every == 0)

    # --- a step ----------------------------------------------------------------------------------------------

    def _one_step(self) -> dict[str, Any]:
        """One optimizer step and its line; the metrics of it."""
        job, detector = self.job, self.job.detector
        lr = job.lr(self.step)
        begun, waited = time.perf_counter(), job.ranks.waited
        job.ranks.states("reading batches", self.step + 1, self.step == self._first)  # the first step also compiles
        batches = self._ahead if self._ahead is not None else job.batches(self.step)
        self._ahead = None
        job.ranks.states("forward and backward", long=self.step == self._first)
        watched = job.table.health_every > 0 and (self.step + 1) % job.table.health_every == 0
        record = job.engine.step(batches, lr, detector.limits_of_updates(), self._draw_ahead, watched)
        seconds = time.perf_counter() - begun
        self._roll_call(record, seconds - job.ranks.waited + waited)
        if record.halted:
            raise self._crash(record, batches, lr)
        seen = detector.see(record.loss, record.norm)
        if seen.spikes and (detector.action == ABORT or detector.stuck):
            raise self._crash(record, batches, lr, detector.ending(seen))
        self.step += 1
        self.tokens += job.table.tokens_per_step
        speed = job.table.tokens_per_step / seconds
        metrics: dict[str, Any] = {
            "step": self.step,
            "loss": float(record.loss),
            **({"losses": dict(record.losses)} if record.losses else {}),
            "norm": float(record.norm),
            "lr": lr,
            "ms": round(1000 * seconds, 3),
            "tokens": self.tokens,
            "tokens_per_s": round(speed, 3),
            "loss_z": seen.loss_z,
            "norm_z": seen.norm_z,
            "mfu": round(speed / job.peak_tokens_per_s, 5) if job.peak_tokens_per_s else None,
            "sol": round(least / seconds, 5) if (least := job.least_seconds()) else None,
            "memory": job.memory(),
            **scaled(record, job.engine.scaling),
            **({} if record.ok else {"skipped": True}),
        }
        due = job.table.log_every > 0 and (
            self.step % job.table.log_every == 0 or self.step == job.table.steps or record.overflow
        )
        job.display.step(step_line(metrics, job.table.steps, self._eta(seconds)), due)
        if due or (watched and self.step // job.table.health_every % job.health_columns == 0):
            self._write_health()
        self._warn(seen)
        return metrics

    def _roll_call(self, record: Record, seconds: float) -> None:
        """On several ranks: all have done the same in this step. seconds: this rank's own part of it."""
        if self.job.ranks.size == 1:
            return
        if self._roll is None:
            from core.train.roll_call import RollCall  # of runs on several ranks

            self._roll = RollCall(self.job.ranks, self.job.display.line)
        self._roll.call(self.step + 1, record, seconds)

    def _write_health(self) -> None:
        """The statistics that the device holds, into health.jsonl."""
        if not self.job.table.health_every:
            return
        from core.train.health_file import line_of

        for column in self.job.engine.take_health():
            self.job.run.health(line_of(column, column.rows is not self._health_rows))
            self._health_rows = column.rows

    def _draw_ahead(self) -> None:
        """The next step's batches, drawn while the device computes this one. Their errors are the next step's."""
        if self.step + 1 < self.job.table.steps:
            self.job.ranks.states("reading batches")
            with contextlib.suppress(CoreError):
                self._ahead = self.job.batches(self.step + 1)

    def _warn(self, seen: Seen) -> None:
        """Warn of anomalies in a step that do not stop the run."""
        detector, line = self.job.detector, self.job.display.line
        if seen.spikes:
            done = "its update is left out" if detector.refuses else "its update is made all the same"
            line(f'warning: step {self.step}: {"; ".join(seen.spikes)}; {done} ([detect] action = "{detector.action}")')
        if self._due(detector.look_every, False):
            warning = detector.look(self.job.engine.zero_gradients())
            if warning:
                line(warning)

    def _eta(self, seconds: float) -> float:
        """Seconds to the end: a running mean of step times, and the share of events between steps."""
        self._seconds = seconds if not self._seconds else self._seconds + 0.1 * (seconds - self._seconds)
        between = self._events / (self.step - self._first)
        return (self.job.table.steps - self.step) * (self._seconds + between)

    def _crash(
        self, record: Record, batches: Sequence[Mapping[str, Array]], lr: float, spike: str = ""
    ) -> NumericsError:
        """Find the cause of a step that nothing was updated by, leave the folder to study it by; the error to raise."""
        from core.train.crash import crashed  # for runs that crash

        self._write_health()
        return crashed(self.job, self.step + 1, record, batches, lr, spike, self._newest())

    def _newest(self) -> str:
        return f"the newest checkpoint is that of step {self.saved}" if self.saved else "there is no checkpoint yet"

    def _say_refused(self) -> None:
        """Report once, for each file, that the disk does not take its lines, and once that it does again."""
        now = self.job.run.refused()
        for name, (_, why) in now.items():
            if self._refused.get(name) != why:
                self.job.display.line(f"warning: {name}: {why}; its lines are kept until there is room")
        for name in self._refused.keys() - now.keys():
            self.job.display.line(f"{name}: all lines are written")
        self._refused = {name: why for name, (_, why) in now.items()}

    def _call_hooks(self, name: str, metrics: dict[str, Any]) -> None:
        """Plugins' hooks of a run, on rank 0: see `core.train.hook_calls`."""
        if self.job.ranks.leads:
            call(name, self.job, self.training, metrics, self._failed_hooks)

    # --- events between steps -------------------------------------------------------------------------------

    def _validate(self, metrics: dict[str, Any], stop: Stop) -> None:
        """Mean loss over the validation batches, into `metrics`; nothing if it was stopped half-way."""
        job = self.job
        if job.val_batches is None:
            return
        job.ranks.states("validation", long=True)
        with self.training.validating():
            validation = validate(job, stop)
        if validation is None:
            return
        metrics |= validation[0]
        value = validation[1][job.table.best] if job.table.best else metrics["val_loss"]
        best = math.isfinite(value) and (self.best_val is None or value < self.best_val)
        if best:
            self._best_before = (self.best_val, self.best_step)
            self.best_val = value
            self.best_step = self.step if job.keep_best else None
        own = in_words(metrics.get("val_losses", {}))
        said = f" (best{' ' * bool(job.table.best)}{job.table.best} so far)" if best else ""
        job.display.line(f"val loss {metrics['val_loss']:.4f}{own} over {metrics['val_tokens']:,} tokens{said}")

    def _sample(self, stop: Stop) -> None:
        """Text from the model as it is, printed and kept in samples.jsonl. Nothing of training depends on it."""
        job = self.job
        if job.tokenizer is None or self._sampler is None or not job.ranks.leads:
            return
        job.display.status("sampling")
        job.ranks.states("sampling", long=True)
        line, text = self._sampler(job, self.step, stop)
        job.run.sample(line)
        job.display.line(f"sample at step {self.step}:\n" + indented(printable(text)))

    def _save_or_warn(self, last: bool) -> None:
        """Save; on several ranks, a disk error of one of them is one of all."""
        saved, error = self.saved, None
        try:
            self.save()
        except CheckpointError as problem:
            error = problem
        if not self.job.ranks.agree([error is not None], "max")[0]:
            return
        self.saved = saved
        error = error or CheckpointError("another rank could not save its part of the checkpoint")
        if last or self.job.table.save_errors != CONTINUE:
            raise error
        if self._best_is_now():  # the next validation is compared with the best one on disk
            self.best_val, self.best_step = self._best_before
        self.job.display.line(f"warning: {error.message}; {self._newest()}, and training continues")

    def save(self) -> None:
        """A checkpoint of now, then the ones that it makes superfluous go. Raises CheckpointError."""
        job = self.job
        job.ranks.states("saving", long=True)
        if job.ranks.size > 1:
            from core.train.replicas import compare_replicas, held_by_all

            compare_replicas(job.ranks, self.step, held_by_all(job.engine))
        if not job.ranks.leads and not job.engine.slices:
            self.saved = self.step
            return
        job.display.status(f"saving the checkpoint of step {self.step}")
        begun = time.perf_counter()
        self._write_health()
        job.run.sync()
        contents = Contents(
            job.engine.parameters(),
            {**job.engine.optimizer_state(), **(others := self.training.weights_to_keep())},
            job.model_toml,
            job.tokenizer_json,
            {**job.state, **self.state(), "kept": list(others)},
        )
        self._refuse_not_finite(contents)
        if job.engine.slices:
            from core.train.sliced_saving import saver  # of runs on several ranks

            path = saver(job.engine)(job.run.checkpoints, self.step, contents)
        else:
            path = checkpoint.save(job.run.checkpoints, self.step, contents)
        self.saved = self.training.saved = self.step
        if not job.ranks.leads:
            return
        job.display.line(f"saved {path} in {time.perf_counter() - begun:.1f} s")
        retention = (job.table.keep_last, job.table.keep_every, self.best_step)
        for problem in checkpoint.retain(job.run.checkpoints, self.step, *retention):
            job.display.line(f"warning: {problem}")

    def _refuse_not_finite(self, contents: Contents) -> None:
        """Raise NumericsError where the update wrote non-finite values: they must not become the newest checkpoint."""
        tensors = {"parameter": contents.parameters, **contents.optimizer}
        bad = [f"{kind} {name}" for kind, values in tensors.items() if (name := not_finite(values))]
        if self.job.engine.slices:  # each rank has seen its own
            answers = [answer.decode() for answer in self.job.ranks.gather("\n".join(bad).encode())]
            bad = list(dict.fromkeys(line for answer in answers for line in answer.splitlines()))
        if bad:
            raise NumericsError(
                f"step {self.step}/{self.job.table.steps}: {', '.join(bad)} holds non-finite values after the update; "
                f"this step is not saved, and {self._newest()}",
                hint="lower optimizer.lr, or check the optimizer; --resume continues from the newest checkpoint",
            )

    def _closing(self, stop: Stop, seconds: float) -> str:
        """The last line: the steps done and the checkpoint that is on disk."""
        if self.training.ended and not stop.requested:
            return f"ended after step {self.step}/{self.job.table.steps}: {self.training.ended}; in {self.job.run.path}"
        if not stop.requested:
            return f"done: {self.step} steps in {duration(seconds)}, in {self.job.run.path}"
        if self.saved == self.step and self.step:
            saved = f"the checkpoint of step {self.step} is saved; --resume continues from it"
        elif self.saved:
            saved = f"step {self.step} is not saved (checkpoint_every = 0); the newest checkpoint is step {self.saved}"
        else:
            saved = "nothing is saved" + (" (checkpoint_every = 0)" if self.step else ": no step was done")
        return f"ended by {stop.name} after step {self.step}/{self.job.table.steps}: {saved}"


def indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.split("\n"))


def run_job(trainer: Trainer) -> int:
    """Train under the signal handlers; an expected error is also in train.log. Returns the exit code."""
    display = trainer.job.display
    try:
        with Stop() as stop, warnings.catch_warnings():
            # a non-finite value is an error with a name and a step, not a stream of NumPy's warnings
            warnings.filterwarnings("ignore", "(invalid value|overflow|divide by zero) encountered", RuntimeWarning)
            return trainer.train(stop)
    except CoreError as error:
        trainer.job.run.log(f"error: {error}")
        raise
    except Exception as error:  # not expected; the command line names the culprit
        trainer.job.run.log(f"error: {words_of(error)}")
        raise
    finally:
        display.close()


def scaled(record: Record, scaling: Scaling) -> dict[str, Any]:
    """Metrics of a step with a loss scale: it, the overflows so far, and after an overflow that of the next step."""
    if record.loss_scale is None:
        return {}
    following = {"next_loss_scale": scaling.factor} if record.overflow else {}
    return {"loss_scale": record.loss_scale, "overflows": scaling.overflows, **following}
