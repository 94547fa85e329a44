"""A study as data: a plan, arms that change fields of it by name, seeds, and claims about differences."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from illada.compare.plan import Plan, changed

Budget = Literal["tokens", "flops"]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One side of a comparison."""

    name: str
    changes: tuple[tuple[str, Any], ...] = ()
    """(dotted name of a field of the plan, value): what differs from the plan, and nothing else does."""
    budget: Budget = "tokens"
    """tokens: the steps of the plan, so as many tokens. flops: as many training FLOPs as the study's first arm."""
    rate_of: str | None = None
    """The arm whose learning rate it takes; None: it has a sweep of its own."""
    series: str = ""
    """Arms of one series are joined in the figures, from `at` to `at`."""
    at: float | None = None
    """Its place on the study's axis."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A difference that somebody says there is: `better` is better than `worse` in `measure`."""

    measure: str
    better: str
    worse: str
    says: str
    """The claim in words."""
    better_look: float | None = None
    """Of the stage, where `better` was looked at; None: at its end."""
    worse_look: float | None = None
    worse_measure: str = ""
    """What is measured of `worse`, where that is something else."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """How the learning rate of an arm is chosen: runs of a share of the steps, the lowest held-out loss of its own."""

    rates: tuple[float, ...] = (2.5e-4, 6e-4, 1.5e-3, 4e-3)
    share: float = 0.25
    seed: int = 1000
    """None of the study's."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """A comparison.

    Raises:
        ValueError: fewer than two seeds or no arm, names that are not there or there twice.
    """

    name: str
    question: str
    plan: Plan
    arms: tuple[Arm, ...]
    """The first is the reference of equal FLOPs."""
    claims: tuple[Claim, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    sweep: Sweep = Sweep()
    axis: str = ""
    """What the arms' `at` counts; where they have none, what the looks at a stage count."""
    axis_end: float = 1.0
    """How many of it a whole stage is."""
    note: str = ""
    """What a reader has to know of the scale."""

    def __post_init__(self) -> None:
        """Check names and counts."""
        names = [arm.name for arm in self.arms]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"a study needs arms of different names, got {', '.join(names) or 'none'}")
        if len(set(self.seeds)) < 2:
            raise ValueError(f"a study needs at least 2 seeds to tell chance from effect, got {len(set(self.seeds))}")
        if self.sweep.seed in self.seeds:
            raise ValueError(f"the sweep's seed {self.sweep.seed} is one of the study's: choose another")
        used = [arm.rate_of for arm in self.arms if arm.rate_of] + [
            name for claim in self.claims for name in (claim.better, claim.worse)
        ]
        if unknown := [name for name in used if name not in names]:
            raise ValueError(f"there is no arm {unknown[0]!r}; there are: {', '.join(names)}")
        for arm in self.arms:
            self.planned(arm)

    def arm(self, name: str) -> Arm:
        """The arm of this name."""
        return next(arm for arm in self.arms if arm.name == name)

    def planned(self, arm: Arm) -> Plan:
        """The plan of an arm, for equal tokens."""
        return changed(self.plan, dict(arm.changes))


def shortened(study: Study, share: float) -> Study:
    """The same study with a share of the steps and of the questions: to see that it runs, not to learn from it.

    Raises:
        ValueError: a share that is none.
    """
    if not 0 < share <= 1:
        raise ValueError(f"the share of a study must be above 0 and at most 1, got {share}")
    if share == 1:
        return study
    plan = study.plan
    for name in ("text", "lessons"):
        if (stage := getattr(plan, name)) is not None:
            looks = getattr(stage, "looks", 1)
            pace = replace(stage.pace, steps=max(looks, round(share * stage.pace.steps)))
            plan = replace(plan, **{name: replace(stage, pace=pace)})
    exam = plan.exam
    few = {
        name: min(getattr(exam, name), max(2, round(share * getattr(exam, name))))
        for name in ("questions", "seen", "choices", "likelihoods")
    }
    arms = tuple(
        replace(
            arm,
            changes=tuple(
                (name, max(1, round(share * value)) if name.endswith("pace.steps") else value)
                for name, value in arm.changes
            ),
        )
        for arm in study.arms
    )
    rates = study.sweep.rates[:2]
    return replace(
        study, plan=replace(plan, exam=replace(exam, **few)), arms=arms, sweep=replace(study.sweep, rates=rates)
    )
