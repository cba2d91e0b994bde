"""Checks before step 1: of variants that no check covers at this run's sizes, and of all of them on an unknown GPU.

Two questions, each with a bound of time of its own ([train] first_contact and check):

- On a chip without a verdict, each variant that the run chose is checked in a child process. A variant that is wrong,
  does not launch or never returns is skipped in favour of the next one, and the run continues.
- A variant from outside of the release is checked at this run's sizes where no check has covered them.

Verdicts are kept for the next run. A variant that was chosen by name and fails stops the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from core.config import RunConfig
from core.engine import Engine
from core.plan import Need, Plan, needs_of
from core.plan.needs import sizes_by_choice
from core.train.display import Display
from core.verdicts import Verdicts, chip_of, label, place_of, ships

CONTACT, CHECK = "first_contact", "check"  # keys of [train]
SECONDS = {CONTACT: 40.0, CHECK: 30.0}  # their bounds where they are `true`
LEAST = 1.0  # seconds that a check gets at least
LAUNCHES = 3  # of a bound: the part of it that the launches of one call may take


@dataclass
class Precheck:
    """The state of the checks before a run's first step. plans: those of the run, made again after a failed choice.

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

    def choose_again(self) -> None:
        """Plan again after a choice was rejected."""
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

    def missing(self) -> Iterator[tuple[str, list[Need]]]:
        """(key of [train], needs to check under its bound)."""
        needs = [need for need in self.needs() if need.key not in self.done]
        needs.sort(key=lambda need: need.nodes[0] not in self.engine.chooser.nested)  # nested ops are first
        for key, wanted in ((CONTACT, self._unknown_here), (CHECK, self._uncovered)):
            seconds = bound_of(self.config, key)
            missing = [need for need in needs if wanted(need)] if seconds else []
            if missing:
                yield key, missing
            needs = [need for need in needs if need not in missing]

    def _unknown_here(self, need: Need) -> bool:
        """Whether no check ran on this chip."""
        verdict = self.verdicts.at(need.variant, self.place, need.dtype)
        return bool(chip_of(self.engine.device)) and verdict is None

    def _uncovered(self, need: Need) -> bool:
        """Whether it is from outside of the release, and no check reached these sizes or tried to."""
        if ships(need.variant, self.verdicts.registry):
            return False
        verdict = self.verdicts.lookup(need.variant, self.place, need.dtype)
        return verdict is None or bool(verdict.beyond(need.sizes) and label(need.sizes) not in verdict.tried)

    def notes(self) -> list[str]:
        """Lines for the end of the table: failed choices, and sizes that could not be checked."""
        lines = [f"passed over: {name}: {finding}" for name, finding in self._passed_over().items()]
        needs = [n for n in self.needs() if n.name in self.left or self._may_be_wrong(n)]
        for (op, variant), sizes in sizes_by_choice(needs).items():
            verdict = self.verdicts.lookup(self.verdicts.registry.variant(op, variant), self.place, needs[0].dtype)
            beyond = sizes if verdict is None else verdict.beyond(sizes)
            if beyond:
                why = self.left.get(f"{op}.{variant}", "")
                lines.append(f"not checked at this run's sizes: {op}.{variant} at {label(beyond)}{why and f' ({why})'}")
        return lines

    def _may_be_wrong(self, need: Need) -> bool:
        return not ships(need.variant, self.verdicts.registry)

    def _passed_over(self) -> dict[str, str]:
        """Variants that would have been taken, with their failures."""
        failures: dict[str, str] = {}
        chooser, refused = self.engine.chooser, self.engine.chooser.settings.failed
        for need in self.needs():
            for other in chooser.candidates(need.op):
                name = f"{other.op}.{other.name}"
                if (other.priority > need.variant.priority or name in self.fell) and (why := refused(other)):
                    failures[name] = why
        return failures


def bound_of(config: RunConfig, key: str) -> float:
    """Seconds that [train] gives to a question; 0 where it is switched off."""
    bound = getattr(config.train, key)
    return SECONDS[key] if bound is True else float(bound)
