"""Checks before step 1: of variants that no check covers at this run's sizes, and of all of them on an unknown GPU.

Two questions, each with a bound of time of its own ([train] first_contact and check):

- On a chip without a verdict, each variant that the run chose is checked in a child process. A variant that is wrong,
  does not launch or never returns is skipped in favour of the next one, and the run continues.
- A variant that does not come with the release is checked at this run's sizes where no check has covered them.

Verdicts are kept for the next run. A variant that was chosen by name and fails stops the run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from core.config import RunConfig
from core.engine import Engine
from core.errors import DeviceError
from core.plan import Need, Plan, needs_of
from core.plan.needs import sizes_by_choice
from core.train.display import Display
from core.verdicts import Verdict, Verdicts, chip_of, label, place_of, ships
from core.words import duration

if TYPE_CHECKING:
    from core.testing.model_sizes import SizesOutcome
    from core.testing.worker import Checker, InProcess

CONTACT, CHECK = "first_contact", "check"  # keys of [train]
SECONDS = {CONTACT: 40.0, CHECK: 30.0}  # their bounds where they are `true`
LEAST = 1.0  # seconds that a check gets at least
LAUNCHES = 3  # of a bound: the part of it that the launches of one call may take


@dataclass
class Precheck:
    """The state of the checks before a run's first step. plans: what the run will run, made anew when a choice falls.

    left: "op.variant" -> why some size of it was not checked. fell: "op.variant" of those that failed now.
    """

    config: RunConfig
    plugins: Sequence[str]
    engine: Engine
    verdicts: Verdicts
    plans: Callable[[], list[Plan]]
    display: Display
    left: dict[str, str] = field(default_factory=dict)
    fell: set[str] = field(default_factory=set)
    ends: dict[str, float] = field(default_factory=dict)  # key of [train] -> when its time is over
    done: set[str] = field(default_factory=set)
    _needs: list[Need] = field(default_factory=list)  # of the choices as they are

    @property
    def place(self) -> str:
        return place_of(self.engine.device)

    @property
    def _simulated(self) -> bool:
        return self.engine.registry.device(self.config.device).simulated

    def run(self) -> None:
        """Check what has to be checked. Raises Refused for a choice by name that fails, BuildError where nothing is
        left that can run."""
        with ExitStack() as stack:
            while rounds := dict(self._missing()):
                checker = self._checker(stack, rounds)
                fell = [need for key, needs in rounds.items() for need in self._round(checker, key, needs)]
                if not fell:
                    return
                self.engine.choose_again()
                self._needs = []

    def needs(self) -> list[Need]:
        """The distinct work of the run, nested launches and the update included."""
        if self._needs:
            return self._needs
        by_key: dict[str, Need] = {}
        for plan in self.plans():
            self.engine.report(plan).choices()  # records nested launches
            by_key |= {need.key: need for need in needs_of(plan, self.engine.chooser)}
        self._needs = list(by_key.values())
        return self._needs

    def _missing(self) -> Iterator[tuple[str, list[Need]]]:
        """(key of [train], needs to check under its bound)."""
        needs = [need for need in self.needs() if need.key not in self.done]
        needs.sort(key=lambda need: need.nodes[0] not in self.engine.chooser.nested)  # what others launch comes first
        for key, wanted in ((CONTACT, self._unknown_here), (CHECK, self._uncovered)):
            seconds = bound_of(self.config, key)
            missing = [need for need in needs if wanted(need)] if seconds else []
            if missing:
                yield key, missing
            needs = [need for need in needs if need not in missing]

    def _unknown_here(self, need: Need) -> bool:
        """Whether no check ran on this chip."""
        known = self.verdicts.at(need.variant, self.place, need.dtype)
        return bool(chip_of(self.engine.device)) and known is None

    def _uncovered(self, need: Need) -> bool:
        """Whether it does not come with the release, and no check went to these sizes or tried to."""
        if ships(need.variant, self.verdicts.registry):
            return False
        known = self.verdicts.lookup(need.variant, self.place, need.dtype)
        return known is None or bool(known.beyond(need.sizes) and label(need.sizes) not in known.tried)

    def _checker(self, stack: ExitStack, rounds: dict[str, list[Need]]) -> Checker | InProcess:
        from core.testing.worker import (  # a run that checks nothing needs nothing of the op check
            Checker,
            CheckPlace,
            InProcess,
        )

        if not self._in_child:
            return InProcess(self.config.device, self.verdicts.registry)
        config, bounds = self.config, [bound_of(self.config, key) for key in rounds]
        place = CheckPlace(config.device, tuple(self.plugins), tuple(config.plugins.disable))
        return stack.enter_context(Checker(place, max(bounds) / LAUNCHES))

    @property
    def _in_child(self) -> bool:
        """Whether checks run in a child process: where kernels do."""
        return bool(self.engine.device.compiles)

    def _round(self, checker: Checker | InProcess, key: str, needs: list[Need]) -> list[Need]:
        """Check needs one after another; those that failed."""
        from core.testing.model_sizes import rounds, share

        bound = bound_of(self.config, key)
        self._announce(key, needs, bound)
        end = self.ends.setdefault(key, time.monotonic() + bound)
        fresh = {(n.op.name, n.variant.name) for n in needs if self._first_look(n)}
        outcomes: dict[int, SizesOutcome] = {}
        self.done |= {need.key for need in needs}
        for numbers in rounds(len(needs), outcomes):
            for place, number in enumerate(numbers):
                need, remaining = needs[number], end - time.monotonic()
                name = (need.op.name, need.variant.name)
                if any(not outcomes[n].passed for n in outcomes if needs[n].name == need.name):
                    continue
                if remaining < LEAST:
                    self.left[need.name] = "the time was over"
                    continue
                waiting = [(needs[n].op, needs[n].example) for n in numbers[place:]]
                seconds = share(remaining, waiting, self._simulated, LEAST)
                doing = f"checking {need.name}, {place + 1} of {len(numbers)}"
                try:
                    outcomes[number] = self._one(checker, need, name in fresh, seconds, outcomes.get(number), doing)
                except DeviceError as error:  # of the child's start: the run needs none
                    self.left |= dict.fromkeys((needs[n].name for n in numbers[place:]), error.message)
                    self.display.line(f"  {error.message}")
                    return [needs[n] for n, f in outcomes.items() if not f.passed]
                fresh.discard(name)
        return [needs[n] for n, f in outcomes.items() if not f.passed]

    def _first_look(self, need: Need) -> bool:
        return self.verdicts.at(need.variant, self.place, need.dtype) is None

    def _one(
        self,
        checker: Checker | InProcess,
        need: Need,
        examples: bool,
        seconds: float,
        before: SizesOutcome | None,
        doing: str,
    ) -> SizesOutcome:
        """Check one need, or continue its check; say what came out, and keep it."""
        from core.testing.model_sizes import task_of

        self.display.status(doing)
        task = replace(task_of(need, examples), done=before.done if before else 0)
        result = checker.check(task, seconds, lambda text: self.display.status(f"{doing}: {text}"))
        result = before.with_more(result) if before else result
        chip = chip_of(self.engine.device)
        verdict = result.verdict(self.config.device, chip, need.dtype, [label(need.sizes)])
        if verdict is not None:
            self.verdicts.keep(need.variant, verdict)
        if not result.passed:
            self.fell.add(need.name)
        elif result.left:
            self.left[need.name] = result.left
        self.display.line(f"  {need.name}: {outcome(need, verdict, result.left)} ({result.seconds:.1f} s)")
        return result

    def _announce(self, key: str, needs: list[Need], bound: float) -> None:
        from core.testing.growing_sizes import estimate

        seconds = sum(estimate(need.op, need.example, self._simulated) for need in needs)
        variants = len({need.name for need in needs})
        what = f"{variants} variant{'s' * (variants > 1)}"
        about = f"about {duration(max(1, min(bound, seconds)))}, at most {bound:g} s"
        off = f"[train] {key} = false leaves it out"
        if key == CONTACT:
            what = f"first contact with {self.place}: no verdict on {what}"
        else:
            what = f"no check of {what} at this run's sizes"
        self.display.line(f"{what}; checked before step 1{', in a child process' * self._in_child}, {about}; {off}")

    def notes(self) -> list[str]:
        """Lines for the end of the table: choices that fell, and what could not be checked."""
        lines = [f"passed over: {name}: {finding}" for name, finding in self._passed_over().items()]
        needs = [n for n in self.needs() if n.name in self.left or self._may_be_wrong(n)]
        for (op, variant), sizes in sizes_by_choice(needs).items():
            known = self.verdicts.lookup(self.verdicts.registry.variant(op, variant), self.place, needs[0].dtype)
            beyond = sizes if known is None else known.beyond(sizes)
            if beyond:
                why = self.left.get(f"{op}.{variant}", "")
                lines.append(f"not checked at this run's sizes: {op}.{variant} at {label(beyond)}{why and f' ({why})'}")
        return lines

    def _may_be_wrong(self, need: Need) -> bool:
        return not ships(need.variant, self.verdicts.registry)

    def _passed_over(self) -> dict[str, str]:
        """Variants that would have been taken, with what was found."""
        failures: dict[str, str] = {}
        chooser = self.engine.chooser
        for need in self.needs():
            for other in chooser.candidates(need.op):
                name = f"{other.op}.{other.name}"
                if (other.priority > need.variant.priority or name in self.fell) and (why := chooser.failed(other)):
                    failures[name] = why
        return failures


def bound_of(config: RunConfig, key: str) -> float:
    """Seconds that [train] gives to a question; 0 where it is switched off."""
    asked = getattr(config.train, key)
    return SECONDS[key] if asked is True else float(asked)


def outcome(need: Need, verdict: Verdict | None, left: str) -> str:
    """What came of a check, in words."""
    if verdict is not None and not verdict.passed:
        return f"FAILED: {verdict.finding}"
    if verdict is None:
        return f"not checked: {left}"
    beyond = verdict.beyond(need.sizes)
    reached = f"passed at {label(verdict.sizes)}"
    return f"{reached}; not at {label(beyond)}: {left}" if beyond else reached
