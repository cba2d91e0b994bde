"""The rounds of checks before step 1, within their time; a variant that fails gives way to the next one.

`core.train.precheck` chooses the variants to check.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from core.errors import DeviceError
from core.plan import Need
from core.train.precheck import CONTACT, LAUNCHES, LEAST, Precheck, bound_of
from core.verdicts import Verdict, chip_of, label
from core.words import duration

if TYPE_CHECKING:
    from core.testing.model_sizes import SizesOutcome
    from core.testing.worker import Checker, InProcess


class CheckRounds:
    """Makes the checks that a run's `Precheck` misses, round by round: a failed choice may make others necessary."""

    def __init__(self, checks: Precheck) -> None:
        self.checks = checks

    @property
    def _simulated(self) -> bool:
        return self.checks.engine.registry.device(self.checks.config.device).simulated

    def run(self) -> None:
        """Make the necessary checks. Raises Refused for a choice by name that fails, BuildError where nothing is
        left that can run."""
        with ExitStack() as stack:
            while rounds := dict(self.checks.missing()):
                checker = self._checker(stack, rounds)
                fell = [need for key, needs in rounds.items() for need in self._round(checker, key, needs)]
                if not fell:
                    return
                self.checks.choose_again()

    def _checker(self, stack: ExitStack, rounds: dict[str, list[Need]]) -> Checker | InProcess:
        from core.testing.worker import (  # for runs that check any
            Checker,
            CheckPlace,
            InProcess,
        )

        if not self._in_child:
            return InProcess(self.checks.config.device, self.checks.verdicts.registry)
        config, bounds = self.checks.config, [bound_of(self.checks.config, key) for key in rounds]
        place = CheckPlace(config.device, tuple(self.checks.plugins), tuple(config.plugins.disable))
        return stack.enter_context(Checker(place, max(bounds) / LAUNCHES))

    @property
    def _in_child(self) -> bool:
        """Whether checks run in a child process: where kernels do."""
        return bool(self.checks.engine.device.compiles)

    def _round(self, checker: Checker | InProcess, key: str, needs: list[Need]) -> list[Need]:
        """Check needs one after another; those that failed."""
        from core.testing.model_sizes import rounds, share

        bound = bound_of(self.checks.config, key)
        self._announce(key, needs, bound)
        end = self.checks.ends.setdefault(key, time.monotonic() + bound)
        fresh = {(n.op.name, n.variant.name) for n in needs if self._first_look(n)}
        outcomes: dict[int, SizesOutcome] = {}
        self.checks.done |= {need.key for need in needs}
        for numbers in rounds(len(needs), outcomes):
            for place, number in enumerate(numbers):
                need, remaining = needs[number], end - time.monotonic()
                name = (need.op.name, need.variant.name)
                if any(not outcomes[n].passed for n in outcomes if needs[n].name == need.name):
                    continue
                if remaining < LEAST:
                    self.checks.left[need.name] = "the time was over"
                    continue
                waiting = [(needs[n].op, needs[n].example) for n in numbers[place:]]
                seconds = share(remaining, waiting, self._simulated, LEAST)
                doing = f"checking {need.name}, {place + 1} of {len(numbers)}"
                try:
                    outcomes[number] = self._one(checker, need, name in fresh, seconds, outcomes.get(number), doing)
                except DeviceError as error:  # of the child's start: the run needs none
                    self.checks.left |= dict.fromkeys((needs[n].name for n in numbers[place:]), error.message)
                    self.checks.display.line(f"  {error.message}")
                    return [needs[n] for n, f in outcomes.items() if not f.passed]
                fresh.discard(name)
        return [needs[n] for n, f in outcomes.items() if not f.passed]

    def _first_look(self, need: Need) -> bool:
        return self.checks.verdicts.at(need.variant, self.checks.place, need.dtype) is None

    def _one(
        self,
        checker: Checker | InProcess,
        need: Need,
        examples: bool,
        seconds: float,
        before: SizesOutcome | None,
        doing: str,
    ) -> SizesOutcome:
        """Check one need, or continue its check; print its result, and keep it."""
        from core.testing.model_sizes import task_of

        self.checks.display.status(doing)
        task = replace(task_of(need, examples), done=before.done if before else 0)
        result = checker.check(task, seconds, lambda text: self.checks.display.status(f"{doing}: {text}"))
        result = before.with_more(result) if before else result
        chip = chip_of(self.checks.engine.device)
        verdict = result.verdict(self.checks.config.device, chip, need.dtype, [label(need.sizes)])
        if verdict is not None:
            from core.testing.records import keep

            keep(self.checks.verdicts, need.variant, verdict)
        if not result.passed:
            self.checks.fell.add(need.name)
        elif result.left:
            self.checks.left[need.name] = result.left
        self.checks.display.line(f"  {need.name}: {outcome(need, verdict, result.left)} ({result.seconds:.1f} s)")
        return result

    def _announce(self, key: str, needs: list[Need], bound: float) -> None:
        from core.testing.growing_sizes import estimate

        seconds = sum(estimate(need.op, need.example, self._simulated) for need in needs)
        variants = len({need.name for need in needs})
        subject = f"{variants} variant{'s' * (variants > 1)}"
        about = f"about {duration(max(1, min(bound, seconds)))}, at most {bound:g} s"
        off = f"[train] {key} = false leaves it out"
        if key == CONTACT:
            subject = f"first contact with {self.checks.place}: no verdict on {subject}"
        else:
            subject = f"no check of {subject} at this run's sizes"
        self.checks.display.line(
            f"{subject}; checked before step 1{', in a child process' * self._in_child}, {about}; {off}"
        )


def outcome(need: Need, verdict: Verdict | None, left: str) -> str:
    """The outcome of a check as text."""
    if verdict is not None and not verdict.passed:
        return f"FAILED: {verdict.finding}"
    if verdict is None:
        return f"not checked: {left}"
    beyond = verdict.beyond(need.sizes)
    reached = f"passed at {label(verdict.sizes)}"
    return f"{reached}; not at {label(beyond)}: {left}" if beyond else reached
