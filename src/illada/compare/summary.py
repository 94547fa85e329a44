"""From the numbers of all runs to results as plain data: means, claims, differences, fits. No clock is read here."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from illada.compare.conduct import Conducted
from illada.compare.plan import Plan, differing
from illada.compare.statistics import Paired, mean_over_seeds, paired, power_law
from illada.compare.study import Arm, Claim
from illada.compare.verdict import Verdict, is_share, lower_is_better
from illada.config import to_dict
from illada.evaluate.bootstrap import holm
from illada.model.accounting import count_parameters


def summarize(conducted: Conducted) -> dict[str, Any]:
    """The study's results: equal whenever the runs are."""
    study = conducted.study
    return {
        "study": study.name,
        "question": study.question,
        "note": study.note,
        "axis": study.axis,
        "axis_end": study.axis_end,
        "seeds": list(study.seeds),
        "plan": to_dict(study.plan),
        "arms": [_arm(conducted, arm) for arm in study.arms],
        "sweep": [vars(one) for one in conducted.tried],
        "claims": [claim_row(one) for one in verdicts(conducted)],
        "differences": _differences(conducted),
        "fits": _fits(conducted),
        "curves": _curves(conducted),
        "runs": [
            {"arm": arm, "seed": seed, "key": result["key"], "tokens": result["tokens"], "looks": result["looks"]}
            for (arm, seed), result in conducted.results.items()
        ],
    }


def verdicts(conducted: Conducted) -> list[Verdict]:
    """What became of the claims, their p-values corrected together."""
    compared = [(claim, pair) for claim in conducted.study.claims if (pair := _pair(conducted, claim)) is not None]
    corrected = holm([difference.p_value for _, (_, _, difference) in compared])
    return [
        Verdict(
            claim=claim,
            better=mean_over_seeds(first),
            worse=mean_over_seeds(second),
            difference=difference,
            corrected=p_value,
        )
        for (claim, (first, second, difference)), p_value in zip(compared, corrected, strict=True)
    ]


def claim_row(verdict: Verdict) -> dict[str, Any]:
    """A claim as plain data."""
    claim = verdict.claim
    return {
        **vars(claim),
        "better_mean": to_dict(verdict.better),
        "worse_mean": to_dict(verdict.worse),
        "difference": to_dict(verdict.difference),
        "corrected_p": verdict.corrected,
        "outcome": verdict.outcome,
        "sentence": verdict.sentence,
    }


def _pair(conducted: Conducted, claim: Claim) -> tuple[list[float], list[float], Paired] | None:
    better = conducted.values(claim.better, claim.measure, at=claim.better_look)
    worse = conducted.values(claim.worse, claim.worse_measure or claim.measure, at=claim.worse_look)
    if better is None or worse is None:
        raise ValueError(f"{claim.measure} was not measured of both {claim.better} and {claim.worse}")
    turned = (worse, better) if lower_is_better(claim.measure) else (better, worse)
    return better, worse, paired(*turned, resolution=resolution(conducted.study.plan, claim.measure))


def resolution(plan: Plan, measure: str) -> float:
    """What one answer more or less changes."""
    if not is_share(measure) or plan.lessons is None:
        return 0.0
    count = max(1, plan.exam.choices if measure.startswith("choice") else plan.exam.questions)
    skills = max(1, len(plan.lessons.lessons.skills)) if measure.endswith("/all") else 1
    return 1 / (count * skills)


def _arm(conducted: Conducted, arm: Arm) -> dict[str, Any]:
    study = conducted.study
    plan = conducted.plans[arm.name, study.seeds[0]]
    cost = conducted.costs[arm.name]
    stages = {name: stage for name in ("text", "lessons") if (stage := getattr(plan, name)) is not None}
    reference = conducted.plans[study.arms[0].name, study.seeds[0]]
    vocab = conducted.results[arm.name, study.seeds[0]].get("vocab_size", plan.model.vocab_size)
    return {
        "name": arm.name,
        "budget": arm.budget,
        "series": arm.series,
        "at": arm.at,
        "changes": {name: _plain(value) for name, value in arm.changes},
        "differs_from_first_in": sorted(differing(reference, plan)),
        "rate": plan.peak,
        "parameters": count_parameters(replace(plan.model, vocab_size=vocab)).total,
        "steps": {name: stage.pace.steps for name, stage in stages.items()},
        "tokens": {name: getattr(cost, name).times(stage.pace.steps).tokens for name, stage in stages.items()},
        "flops": {name: getattr(cost, name).times(stage.pace.steps).flops for name, stage in stages.items()},
        "measures": _means(conducted, arm),
    }


def _plain(value: Any) -> Any:
    return to_dict(value) if hasattr(value, "__dataclass_fields__") else value


def _means(conducted: Conducted, arm: Arm) -> list[dict[str, Any]]:
    """Every measure at every look, with its interval over seeds."""
    looks = conducted.results[arm.name, conducted.study.seeds[0]]["looks"]
    return [
        {"measure": name, "at": look["at"], "values": values, **to_dict(mean_over_seeds(values))}
        for look in looks
        for name in look["measures"]
        if (values := conducted.values(arm.name, name, at=look["at"])) is not None
    ]


def _differences(conducted: Conducted) -> list[dict[str, Any]]:
    """Every other arm against the first in every measure at the end, corrected together: what nobody claimed."""
    study = conducted.study
    first, *others = study.arms
    names = dict.fromkeys(
        name for arm in study.arms for name in conducted.results[arm.name, study.seeds[0]]["looks"][-1]["measures"]
    )
    rows = []
    for arm, name in product(others, [name for name in names if not name.endswith("error")]):
        one, other = conducted.values(first.name, name), conducted.values(arm.name, name)
        if one is not None and other is not None:
            found = paired(one, other, resolution=resolution(study.plan, name))
            rows.append({"first": first.name, "second": arm.name, "measure": name, **to_dict(found)})
    for row, corrected in zip(rows, holm([row["p_value"] for row in rows]), strict=True):
        row["corrected_p"] = corrected
    return rows


def _fits(conducted: Conducted) -> list[dict[str, Any]]:
    """Power laws of the held-out loss over training FLOPs, for every series of at least three arms."""
    study = conducted.study
    found = []
    for series in dict.fromkeys(arm.series for arm in study.arms if arm.series):
        points = [
            (cost, curve[-1]["value"])
            for arm in study.arms
            if arm.series == series
            for seed in study.seeds
            if (cost := _flops(conducted, arm)) and (curve := _last_curve(conducted.results[arm.name, seed]))
        ]
        if len({x for x, _ in points}) >= 3:
            law = power_law([x for x, _ in points], [y for _, y in points])
            found.append({"series": series, "x": "training FLOPs", "y": "held-out nats per token", **to_dict(law)})
    return found


def _flops(conducted: Conducted, arm: Arm) -> float:
    plan, cost = conducted.plans[arm.name, conducted.study.seeds[0]], conducted.costs[arm.name]
    return sum(
        part.times(stage.pace.steps).flops
        for part, stage in ((cost.text, plan.text), (cost.lessons, plan.lessons))
        if part is not None and stage is not None
    )


def _last_curve(result: dict[str, Any]) -> Sequence[dict[str, float]]:
    curves = result["curves"]
    last: Sequence[dict[str, float]] = curves.get("lessons") or curves["text"]
    return last


def _curves(conducted: Conducted) -> list[dict[str, Any]]:
    """The held-out loss of every arm and stage on the way, with its interval over seeds."""
    study = conducted.study
    found = []
    for arm in study.arms:
        per_seed = [conducted.results[arm.name, seed]["curves"] for seed in study.seeds]
        for stage in per_seed[0]:
            points = []
            for group in zip(*(curves[stage] for curves in per_seed), strict=True):
                mean = mean_over_seeds([point["value"] for point in group])
                points.append({"step": group[0]["step"], "tokens": group[0]["tokens"], **to_dict(mean)})
            found.append({"arm": arm.name, "stage": stage, "points": points})
    return found
