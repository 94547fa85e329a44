"""Carrying a study out: the sweep of learning rates, then every arm with every seed.

study -> costs -> steps of equal tokens or FLOPs -> sweep -> rates -> arms x seeds -> results

In a job of several processes all do this together, and train every run together. What there is to find out on the disk
the first of them finds out and tells, so that all go the same way.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any

import torch

from illada.compare.budget import PlanCost, equal_flops, plan_cost
from illada.compare.plan import Exam, Plan
from illada.compare.run import Interrupted, Pool, finish
from illada.compare.stages import run_config
from illada.compare.study import Study
from illada.config import from_dict, to_dict
from illada.distributed.mesh import Mesh, MeshConfig
from illada.distributed.processes import joined, peers_in_sight
from illada.train.loop import check_divisible

Report = Callable[[str], None]

_GO_ON = "the same command goes on, or let torchrun start it again with --max-restarts"


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A run of the sweep."""

    arm: str
    rate: float
    held_out: float
    """Its own loss in nats per token, infinite where it diverged: not to be compared between objectives."""


@dataclass(frozen=True, kw_only=True)
class Conducted:
    """A study and all that came of it."""

    study: Study
    plans: dict[tuple[str, int], Plan]
    """By arm and seed, as they were run."""
    costs: dict[str, PlanCost]
    """Of a step, by arm."""
    tried: tuple[Tried, ...]
    results: dict[tuple[str, int], dict[str, Any]]

    def values(self, arm: str, measure: str, *, at: float | None = None) -> list[float] | None:
        """One number per seed, in the order of the seeds; None where some seed has none."""
        found = [measures_at(self.results[arm, seed], at).get(measure) for seed in self.study.seeds]
        return None if any(value is None for value in found) else [float(value) for value in found if value is not None]


def measures_at(result: Mapping[str, Any], at: float | None) -> Mapping[str, float]:
    """What was measured after a share of the last stage; None: at its end.

    Raises:
        ValueError: nobody looked then.
    """
    looks = result["looks"]
    if at is None:
        last: Mapping[str, float] = looks[-1]["measures"]
        return last
    for look in looks:
        if math.isclose(look["at"], at, abs_tol=1e-9):
            found: Mapping[str, float] = look["measures"]
            return found
    raise ValueError(f"nothing was measured at {at:g} of the stage, but at {[look['at'] for look in looks]}")


def conduct(
    study: Study,
    pool: Pool,
    *,
    jobs: int = 1,
    threads: int = 1,
    device: str = "auto",
    report: Report = lambda _: None,
) -> Conducted:
    """Run what is not there yet, `jobs` runs at a time, each on `threads` threads.

    As one of several processes that torchrun started: one run after the other, each trained by all of them.

    Raises:
        ValueError: a run of an arm diverged, the jobs or threads are none, there is no such device, or the processes
            cannot share the work so.
        illada.compare.run.Interrupted: a signal asked to leave; the same call goes on from there.
        illada.distributed.processes.PeerError: another process of the job failed, or has gone.
    """
    if jobs < 1 or threads < 1:
        raise ValueError(f"jobs and threads must be at least 1, got {jobs} and {threads}")
    with joined() as processes:
        if jobs > 1 and processes.size > 1:
            raise ValueError(
                f"all {processes.size} processes of torchrun train one run after the other: leave jobs at 1, got {jobs}"
            )
        mesh = Mesh(MeshConfig(), processes=processes, device=processes.device(device))
        processes.anywhere(False)  # a meeting, before any may be refused and leave: others may still be laying out
        _check_batches(study, mesh)
        try:
            with peers_in_sight(processes, advice=_GO_ON):
                tell = report if processes.first else _say_nothing
                return _carried_out(study, pool, mesh, jobs=jobs, threads=threads, report=tell)
        except Interrupted as reason:  # all processes were, and part in order before it is told
            leaving = reason
    raise leaving


def _say_nothing(text: str) -> None:
    del text


def _check_batches(study: Study, mesh: Mesh) -> None:
    """Refuse, before anything begins, steps whose rows do not divide among the processes."""
    for arm in study.arms:
        plan = study.planned(arm)
        for stage in (plan.text, plan.lessons):
            if stage is not None:
                check_divisible(run_config(plan, stage.pace, stage.noise).loop, mesh)


def _carried_out(study: Study, pool: Pool, mesh: Mesh, *, jobs: int, threads: int, report: Report) -> Conducted:
    told = mesh.processes.by_first(
        lambda: {arm.name: to_dict(plan_cost(study.planned(arm), pool.places)) for arm in study.arms}
    )
    costs = {name: from_dict(PlanCost, cost) for name, cost in told.items()}
    equal = _equal_plans(study, costs)
    trials = _trials(study, equal)
    outcomes = finish_all([plan for _, _, plan in trials], pool, mesh, jobs=jobs, threads=threads, report=report)
    tried = tuple(
        Tried(arm=arm, rate=rate, held_out=_held_out(found))
        for (arm, rate, _), found in zip(trials, outcomes, strict=True)
    )
    rates = _rates(study, tried)
    plans = {
        (arm.name, seed): replace(equal[arm.name], peak=rates[arm.name], seed=seed)
        for seed in study.seeds
        for arm in study.arms
    }
    found = finish_all(list(plans.values()), pool, mesh, jobs=jobs, threads=threads, report=report)
    results = dict(zip(plans, found, strict=True))
    for (arm, seed), result in results.items():
        if "diverged" in result:
            raise ValueError(f"{arm}, seed {seed}, diverged ({result['diverged']}): sweep lower learning rates")
    return Conducted(study=study, plans=plans, costs=costs, tried=tried, results=results)


def _equal_plans(study: Study, costs: Mapping[str, PlanCost]) -> dict[str, Plan]:
    """The plan of every arm, its steps those of its budget."""
    first = study.arms[0]
    reference = study.planned(first)
    plans = {}
    for arm in study.arms:
        plan = study.planned(arm)
        if arm.budget == "flops":
            plan = equal_flops(plan, costs[arm.name], reference, costs[first.name])
        plans[arm.name] = plan
    return plans


def _trials(study: Study, plans: Mapping[str, Plan]) -> list[tuple[str, float, Plan]]:
    """(arm, rate, shortened plan) of the sweep."""
    if len(study.sweep.rates) == 1:
        return []
    return [
        (arm.name, rate, replace(_shortened(plans[arm.name], study.sweep.share), peak=rate, seed=study.sweep.seed))
        for arm in study.arms
        if arm.rate_of is None
        for rate in study.sweep.rates
    ]


def _shortened(plan: Plan, share: float) -> Plan:
    """The same with a share of the steps, and nothing asked afterwards."""
    for name in ("text", "lessons"):
        if (stage := getattr(plan, name)) is not None:
            pace = replace(stage.pace, steps=max(1, round(share * stage.pace.steps)), curve=1)
            plan = replace(plan, **{name: replace(stage, pace=pace)})
    if plan.lessons is not None:
        plan = replace(plan, lessons=replace(plan.lessons, looks=1))
    return replace(plan, exam=Exam(questions=0))


def _held_out(result: Mapping[str, Any]) -> float:
    if "diverged" in result:
        return math.inf
    curve = result["curves"].get("lessons") or result["curves"]["text"]
    return float(curve[-1]["value"])


def _rates(study: Study, tried: Sequence[Tried]) -> dict[str, float]:
    """The rate of every arm: that of its lowest loss, of equal ones the lower."""
    rates = {}
    for arm in study.arms:
        own = [one for one in tried if one.arm == arm.name]
        if own:
            rates[arm.name] = min(own, key=lambda one: (one.held_out, one.rate)).rate
    for arm in study.arms:
        if arm.name not in rates:
            rates[arm.name] = rates.get(arm.rate_of or "", study.sweep.rates[0])
    return rates


def finish_all(
    plans: Iterable[Plan], pool: Pool, mesh: Mesh, *, jobs: int, threads: int, report: Report
) -> list[dict[str, Any]]:
    """The numbers of every run, those that are missing computed, several processes at a time if `jobs` says so."""
    plans = list(plans)
    lacking = mesh.processes.by_first(lambda: [plan.key for plan in plans if pool.result(plan) is None])
    missing = list({plan.key: plan for plan in plans if plan.key in lacking}.values())
    count = len(missing)
    if jobs > 1 and count > 1:
        # spawned, not forked: a fork of a process with torch's threads may hang
        with ProcessPoolExecutor(min(jobs, count), mp_context=get_context("spawn")) as workers:
            results = workers.map(_finished, missing, [pool] * count, [mesh] * count, [threads] * count)
            for number, result in enumerate(results, start=1):
                report(f"{number} of {count} runs: {result['key']}")
    else:
        for number, plan in enumerate(missing, start=1):
            report(f"{number} of {count} runs: {plan.key}")
            _finished(plan, pool, mesh, threads)
    return [finish(plan, pool, mesh) for plan in plans]


def _finished(plan: Plan, pool: Pool, mesh: Mesh, threads: int) -> dict[str, Any]:
    """One run on so many threads: their number is part of what the last digits of a sum depend on."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return finish(plan, pool, mesh)
    finally:
        torch.set_num_threads(before)
