"""A study that is carried out in seconds, for the tests of this room."""

from dataclasses import replace
from pathlib import Path

import pytest

from illada.compare.lessons import Lessons
from illada.compare.plan import Exam, LessonStage, Pace, Plan, TextStage
from illada.compare.run import Pool
from illada.compare.study import Arm, Claim, Study, Sweep
from illada.data.corpus import CorpusConfig
from illada.data.example_rows import ExamplePacking
from illada.data.packing import PackingConfig
from illada.model.config import ModelConfig
from illada.sample.request import SamplingParams

BLOCK = 4
MODEL = ModelConfig(
    hidden_size=32, layers=1, heads=2, kv_heads=2, ffn_size=48, max_length=64, rope_theta=100.0, init_std=0.1
)
CAUSAL = (("model.attention", "causal"), ("objective", "next_token"), ("sampler.block_length", 32))


def small_plan(**changes) -> Plan:
    stage = LessonStage(
        pace=Pace(steps=6, batch_size=8, curve=2),
        lessons=Lessons(skills=("compare",), levels=(1,), problems=40),
        examples=ExamplePacking(
            length=48, one_per_row=True, filler="canvas", block_length=BLOCK, long_canvas_probability=0.0
        ),
    )
    plan = Plan(
        model=MODEL,
        lessons=stage,
        sampler=SamplingParams(length=BLOCK, block_length=BLOCK),
        exam=Exam(questions=8, choices=4, likelihoods=4, samples=2),
    )
    return replace(plan, **changes)


def small_study(**changes) -> Study:
    study = Study(
        name="small",
        question="Does it run?",
        plan=small_plan(),
        arms=(
            Arm(name="diffusion"),
            Arm(name="autoregressive", changes=CAUSAL),
            Arm(name="autoregressive, FLOPs", changes=CAUSAL, budget="flops", rate_of="autoregressive"),
        ),
        claims=(
            Claim(measure="exact/compare", better="diffusion", worse="autoregressive", says="diffusion is better"),
        ),
        seeds=(0, 1),
        sweep=Sweep(rates=(1e-3, 4e-3), share=0.5),
    )
    return replace(study, **changes)


def study_with_text(text: Path, *, rows: int = 8) -> Study:
    """Six runs: one arm is pre-trained on the text and taught, the other taught alone; all are looked at twice."""
    stage = TextStage(
        pace=Pace(steps=2, batch_size=rows, curve=2),
        corpus=CorpusConfig(sources=(str(text),), vocab_size=300, workers=1),
        packing=PackingConfig(length=32),
        held_out_rows=6,
        held_out_samples=2,
    )
    plan = small_plan(text=stage, exam=Exam(questions=4, likelihoods=4, samples=2))
    plan = replace(plan, lessons=replace(plan.lessons, looks=2, pace=Pace(steps=8, batch_size=8, curve=2)))
    return small_study(
        plan=plan,
        arms=(
            Arm(name="diffusion"),
            Arm(name="autoregressive", changes=(*CAUSAL, ("text", None)), rate_of="diffusion"),
        ),
        sweep=Sweep(rates=(1e-3, 4e-3), share=0.25),
    )


@pytest.fixture(scope="session")
def pool(tmp_path_factory) -> Pool:
    """Where the runs of this room's tests lie: equal ones are done once."""
    return Pool(path=Path(tmp_path_factory.mktemp("pool")))
