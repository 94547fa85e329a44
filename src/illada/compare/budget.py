"""Equal tokens, equal FLOPs: what a step of a stage costs, and how many steps an arm may take.

A step's FLOPs are counted from the batches that the run will see: every position that is computed, padding too, goes
through the blocks; attention pairs each position with all of its row, or, where it is causal, with those up to itself;
the head meets the positions that the loss asks about. Forward and backward are three times the forward. What a kernel
computes beside that (masked pairs that it does not skip) is its own affair and not counted.
"""

import math
from dataclasses import dataclass, replace
from typing import TypeVar

from illada.compare.lessons import Text
from illada.compare.plan import LessonStage, Plan, TextStage
from illada.compare.stages import Opening, Places, lesson_task, lesson_tokenizer, text_corpus, text_task
from illada.data.packing import Batch
from illada.model.accounting import count_flops
from illada.model.config import ModelConfig
from illada.train.objective import DiffusionObjective, NextTokenObjective, Objective
from illada.train.run import Task

Stage = TypeVar("Stage", TextStage, LessonStage)

_BATCHES = 8


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """What a step of a stage takes on average."""

    tokens: float
    """Padding apart."""
    flops: float

    def times(self, steps: int) -> "StepCost":
        """Of so many steps."""
        return StepCost(tokens=self.tokens * steps, flops=self.flops * steps)


def training_flops(model: ModelConfig, objective: Objective, batch: Batch) -> float:
    """Of one step on this batch, forward and backward."""
    positions = batch.tokens.numel()
    asked = _asked(objective, batch)
    count = count_flops(model, length=batch.tokens.shape[1], head_fraction=asked / positions)
    return count.training * positions


def _asked(objective: Objective, batch: Batch) -> int:
    """The positions that meet the vocabulary."""
    if isinstance(objective, DiffusionObjective):
        return int(objective.corrupt(batch)[1].sum())
    if isinstance(objective, NextTokenObjective):
        return int(objective.where(batch).sum())
    raise TypeError(f"no count of what {type(objective).__name__} asks about")


def step_cost(task: Task, *, batch_size: int) -> StepCost:
    """The mean over the first batches of a stage; the task's loader moves on by them."""
    batches = [task.loader.next(batch_size) for _ in range(_BATCHES)]
    return StepCost(
        tokens=math.fsum(batch.token_count for batch in batches) / _BATCHES,
        flops=math.fsum(training_flops(task.model_config, task.objective, batch) for batch in batches) / _BATCHES,
    )


@dataclass(frozen=True, kw_only=True)
class PlanCost:
    """What a step of each stage takes; None where there is no such stage."""

    text: StepCost | None
    lessons: StepCost | None


def plan_cost(plan: Plan, places: Places) -> PlanCost:
    """The costs of a plan's steps, the same for every seed."""
    plan = replace(plan, seed=0)
    text = opening = material = None
    if plan.text is not None:
        corpus = text_corpus(plan.text, places)
        text = step_cost(text_task(plan, plan.text, corpus), batch_size=plan.text.pace.batch_size)
        opening = Opening(tokenizer=corpus.tokenizer)
        material = Text(shards=corpus.train[0][0], tokenizer=corpus.tokenizer)
    if plan.lessons is None:
        return PlanCost(text=text, lessons=None)
    opening = opening or Opening(tokenizer=lesson_tokenizer(plan.lessons, places))
    task = lesson_task(plan, plan.lessons, opening, material, places)
    return PlanCost(text=text, lessons=step_cost(task, batch_size=plan.lessons.pace.batch_size))


def equal_flops(plan: Plan, cost: PlanCost, reference: Plan, reference_cost: PlanCost) -> Plan:
    """The plan with as many steps of each stage as cost the FLOPs of the reference's.

    Raises:
        ValueError: one of them has a stage that the other lacks.
    """
    if (plan.text is None) != (reference.text is None) or (plan.lessons is None) != (reference.lessons is None):
        raise ValueError("arms of equal FLOPs need the same stages")
    if plan.text is not None and reference.text is not None:
        plan = replace(plan, text=_paced(plan.text, cost.text, reference.text, reference_cost.text))
    if plan.lessons is not None and reference.lessons is not None:
        plan = replace(plan, lessons=_paced(plan.lessons, cost.lessons, reference.lessons, reference_cost.lessons))
    return plan


def _paced(stage: Stage, cost: StepCost | None, other: Stage, other_cost: StepCost | None) -> Stage:
    assert cost is not None
    assert other_cost is not None
    steps = max(1, round(other.pace.steps * other_cost.flops / cost.flops))
    return replace(stage, pace=replace(stage.pace, steps=steps))
