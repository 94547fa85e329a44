"""Plans and what an arm may change of them."""

from dataclasses import replace

import pytest

from illada.compare.lessons import Lessons
from illada.compare.plan import LessonStage, Pace, Plan, TextStage, changed, differing
from illada.config import to_dict
from illada.data.packing import PackingConfig

from .conftest import CAUSAL, MODEL, small_plan


def test_an_arm_changes_the_fields_that_it_names_and_no_other():
    plan = small_plan()
    other = changed(plan, {**dict(CAUSAL), "lessons.pace.steps": 9})
    assert differing(plan, other) == {
        "lessons.pace.steps": (6, 9),
        "model.attention": ("bidirectional", "causal"),
        "objective": ("diffusion", "next_token"),
        "sampler.block_length": (4, 32),
    }
    assert differing(plan, changed(plan, {})) == {}


def test_fields_are_set_together_before_they_are_checked():
    """One without the other is refused: the objective needs the attention."""
    plan = small_plan()
    with pytest.raises(ValueError, match="needs bidirectional attention"):
        changed(plan, {"model.attention": "causal"})
    assert changed(plan, dict(CAUSAL)).objective == "next_token"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modle.attention": "causal"}, "Plan has no field 'modle'"),
        ({"lessons.pace.stesp": 3}, "Pace has no field 'stesp'"),
        ({"text.pace.steps": 3}, "there is nothing to change in None"),
        ({"lessons.pace.steps": 0}, "steps must be at least 1, got 0"),
    ],
)
def test_a_field_that_there_is_not_is_an_error(changes, message):
    with pytest.raises(ValueError, match=message):
        changed(small_plan(), changes)


def test_equal_plans_have_one_key_and_others_another():
    assert small_plan().key == small_plan().key
    assert len({small_plan(seed=seed).key for seed in range(5)} | {small_plan(peak=1e-3).key}) == 6


def test_the_plan_is_plain_data():
    assert to_dict(small_plan())["lessons"]["lessons"]["skills"] == ["compare"]


def test_plans_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="needs a stage"):
        Plan(model=MODEL)
    with pytest.raises(ValueError, match="rows of 65 tokens exceed the model's context of 64"):
        Plan(model=MODEL, text=TextStage(pace=Pace(steps=1), packing=PackingConfig(length=65)))
    stage = LessonStage(pace=Pace(steps=1), lessons=Lessons(skills=("add",), problems=3))
    assert replace(small_plan(), model=replace(MODEL, max_length=600), lessons=stage).lessons == stage
