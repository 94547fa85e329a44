"""Studies as data, and the ready-made ones: what two arms differ in."""

from dataclasses import replace

import pytest

from illada.compare.plan import differing
from illada.compare.study import Arm, Claim, Study, Sweep, shortened
from illada.recipes.comparison import STUDIES, matched, planning
from illada.recipes.scales import SCALES

from .conftest import CAUSAL, small_plan, small_study

TWIN = {
    "model.attention": ("bidirectional", "causal"),
    "objective": ("diffusion", "next_token"),
    "sampler.block_length": (20, 32),
}


@pytest.mark.parametrize("scale", SCALES)
def test_the_arms_of_matched_differ_in_attention_objective_and_sampler_alone(scale):
    study = matched(SCALES[scale])
    first, *others = [study.planned(arm) for arm in study.arms]
    for other in others:
        assert differing(first, other) == TWIN


def test_the_reweighting_is_one_field():
    study = planning(SCALES["micro"])
    plans = {arm.name: study.planned(arm) for arm in study.arms}
    assert differing(plans["diffusion"], plans["diffusion, reweighted"]) == {"lessons.noise.focus": (0.0, 1.0)}
    assert differing(plans["diffusion"], plans["autoregressive"]) == TWIN


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.parametrize("scale", SCALES)
def test_every_arm_differs_from_the_plan_in_the_fields_that_it_names_alone(name, scale):
    study = STUDIES[name](SCALES[scale])
    assert study.name == name
    assert len(study.seeds) >= 3
    for arm in study.arms:
        named = {field for field, _ in arm.changes}
        found = set(differing(study.plan, study.planned(arm)))
        assert all(any(field == one or field.startswith(f"{one}.") for one in named) for field in found)


@pytest.mark.parametrize("name", STUDIES)
def test_a_shortened_study_is_the_same_but_for_steps_and_questions(name):
    study = STUDIES[name](SCALES["micro"])
    short = shortened(study, 0.01)
    assert set(differing(study.plan, short.plan)) <= {
        *(f"{stage}.pace.steps" for stage in ("text", "lessons")),
        *(f"exam.{field}" for field in ("questions", "seen", "choices", "likelihoods")),
    }
    assert [arm.name for arm in short.arms] == [arm.name for arm in study.arms]
    assert short.claims == study.claims


def test_a_share_must_be_one():
    with pytest.raises(ValueError, match=r"above 0 and at most 1, got 0\.0"):
        shortened(small_study(), 0.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": (3,)}, "at least 2 seeds to tell chance from effect, got 1"),
        ({"arms": ()}, "arms of different names, got none"),
        ({"arms": (Arm(name="a"), Arm(name="a"))}, "arms of different names, got a, a"),
        ({"sweep": Sweep(seed=1)}, "seed 1 is one of the study's"),
        ({"claims": (Claim(measure="m", better="x", worse="diffusion", says="?"),)}, "there is no arm 'x'"),
        ({"arms": (Arm(name="a", rate_of="b"),), "claims": ()}, "there is no arm 'b'"),
        ({"arms": (Arm(name="a", changes=(("objektive", "x"),)),), "claims": ()}, "has no field 'objektive'"),
    ],
)
def test_studies_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(small_study(), **changes)


def test_a_study_is_made_of_a_plan_and_changes():
    study = Study(name="x", question="?", plan=small_plan(), arms=(Arm(name="twin", changes=CAUSAL),))
    assert study.planned(study.arm("twin")).objective == "next_token"
