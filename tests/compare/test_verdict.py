"""Simulated studies: an effect that is there is found, one that is not is not; and the sentences say so."""

import random

import pytest

from illada.compare.conduct import Conducted
from illada.compare.lessons import Lessons
from illada.compare.plan import Exam, LessonStage, Pace, Plan
from illada.compare.study import Arm, Claim, Study
from illada.compare.summary import verdicts
from illada.compare.verdict import LEVEL
from illada.model.config import ModelConfig

SKILLS = ("repeat", "reverse", "sort", "compare")
PLAN = Plan(
    model=ModelConfig(hidden_size=16, layers=1, heads=2, kv_heads=1, ffn_size=16, max_length=512, vocab_size=300),
    lessons=LessonStage(pace=Pace(steps=4), lessons=Lessons(skills=SKILLS, problems=4)),
    exam=Exam(questions=200),
)


def study_of(seeds: int) -> Study:
    return Study(
        name="simulated",
        question="?",
        plan=PLAN,
        arms=(Arm(name="A"), Arm(name="B", changes=(("lessons.lessons.wrong", 0.5),))),
        claims=tuple(
            Claim(measure=f"exact/{skill}", better="A", worse="B", says=f"A is better at {skill}") for skill in SKILLS
        ),
        seeds=tuple(range(seeds)),
    )


def simulated(number: int, *, effect: float, seeds: int = 3) -> Conducted:
    """Scores of both arms: what a seed is worth, a run's own luck, and the luck of 200 questions."""
    draw, study = random.Random(number), study_of(seeds)
    results = {}
    for seed in study.seeds:
        common = draw.gauss(0, 0.05)
        for arm in ("A", "B"):
            measures = {}
            for skill in SKILLS:
                chance = 0.5 + common + draw.gauss(0, 0.02) + (effect if arm == "A" else 0)
                measures[f"exact/{skill}"] = sum(draw.random() < chance for _ in range(200)) / 200
            results[arm, seed] = {"looks": [{"at": 1.0, "measures": measures}]}
    return Conducted(study=study, plans={}, costs={}, tried=(), results=results)


def found(conducted: Conducted) -> set[str]:
    return {verdict.outcome for verdict in verdicts(conducted)}


def test_a_planted_effect_is_found():
    outcomes = [found(simulated(number, effect=0.4, seeds=5)) for number in range(100)]
    assert sum("shown" in one for one in outcomes) >= 95
    assert not any("contradicted" in one for one in outcomes)


@pytest.mark.parametrize("seeds", [3, 5])
def test_no_effect_is_not_found_in_at_least_95_of_100_studies(seeds):
    outcomes = [found(simulated(number, effect=0.0, seeds=seeds)) for number in range(100)]
    assert sum(one == {"open"} for one in outcomes) >= 95


def test_false_alarms_are_as_rare_as_the_correction_promises():
    """Over 400 studies of four claims each, at most that share and three standard errors of it."""
    alarms = sum(found(simulated(number, effect=0.0)) != {"open"} for number in range(1000, 1400))
    assert alarms <= 400 * LEVEL + 3 * (400 * LEVEL * (1 - LEVEL)) ** 0.5


def one_verdict(better: list[float], worse: list[float], measure: str = "exact/repeat"):
    study = study_of(len(better))
    claim = Claim(measure=measure, better="A", worse="B", says="A is better")
    study = Study(
        name="one", question="?", plan=PLAN, arms=study.arms, claims=(claim,), seeds=tuple(range(len(better)))
    )
    results = {
        (arm, seed): {"looks": [{"at": 1.0, "measures": {measure: value}}]}
        for arm, values in (("A", better), ("B", worse))
        for seed, value in enumerate(values)
    }
    return verdicts(Conducted(study=study, plans={}, costs={}, tried=(), results=results))[0]


def test_each_outcome_has_its_sentence():
    shown = one_verdict([0.81, 0.80, 0.82], [0.40, 0.41, 0.39])
    assert shown.sentence.startswith("Shown at this scale: A is better (exact/repeat: 81.0 % against 40.0 %")
    assert "+41.0 points" in shown.sentence
    assert "3 seeds" in shown.sentence
    assert one_verdict([0.40, 0.41, 0.39], [0.81, 0.80, 0.82]).sentence.startswith("The opposite is shown")
    # an interval of three seeds reaches beyond what shares can differ: it is told as far as they can
    assert "to +100.0 points" in one_verdict([0.9, 0.3, 0.1], [0.1, 0.1, 0.1]).sentence
    undecided = one_verdict([0.5, 0.7, 0.4], [0.5, 0.5, 0.5])
    assert undecided.sentence.startswith("Not decided: A is better")
    assert "are not excluded" in undecided.sentence
    assert "Nothing can be said" in one_verdict([1.0, 1.0, 1.0], [0.99, 0.98, 1.0]).sentence
    assert "Nothing can be said" in one_verdict([0.0, 0.01, 0.0], [0.0, 0.0, 0.0]).sentence


def test_where_less_is_better_the_difference_is_turned():
    verdict = one_verdict([1.0, 1.1, 1.05], [2.0, 2.1, 2.06], "nats per token/text")
    assert (verdict.outcome, verdict.difference.value > 0) == ("shown", True)


def test_a_claim_about_what_was_not_measured_is_an_error():
    conducted = simulated(0, effect=0.0)
    with pytest.raises(ValueError, match="was not measured of both A and B"):
        verdicts(
            Conducted(
                study=Study(
                    name="x",
                    question="?",
                    plan=PLAN,
                    arms=conducted.study.arms,
                    claims=(Claim(measure="exact/none", better="A", worse="B", says="?"),),
                ),
                plans={},
                costs={},
                tried=(),
                results=conducted.results,
            )
        )


def test_the_verdicts_are_a_function_of_the_numbers_alone():
    first, second = (verdicts(simulated(7, effect=0.1)) for _ in range(2))
    assert first == second
