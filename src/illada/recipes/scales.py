"""How large the ready-made studies are, and the parts that their plans are made of."""

from dataclasses import dataclass, replace
from typing import Any

from illada.compare.lessons import Lessons
from illada.compare.plan import LessonStage, Pace, Plan, TextStage
from illada.data.corpus import CorpusConfig
from illada.data.example_rows import ExamplePacking
from illada.data.packing import PackingConfig
from illada.data.tokenizer import LEAST_VOCABULARY
from illada.model.config import ModelConfig, named_size
from illada.sample.request import SamplingParams

Changes = tuple[tuple[str, Any], ...]

BLOCK = 20
"""Tokens of a block: the longest answer of these skills and its end of text."""
CAUSAL: Changes = (("model.attention", "causal"), ("objective", "next_token"), ("sampler.block_length", 32))
"""The autoregressive twin: attention, objective, and a sampler that knows no blocks (their length is its default)."""
FOCUS = 1.0
"""β of the token reweighting: that of "Beyond autoregression" for sudoku."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large the models of a study are, and how long they are trained."""

    model: ModelConfig
    steps: float = 1.0
    """Times the steps of the smallest scale."""
    sizes: tuple[tuple[int, int, int], ...] = ()
    """(hidden, layers, ffn) of the models of `scaling`."""


MICRO = ModelConfig(
    hidden_size=96, layers=3, heads=4, kv_heads=4, ffn_size=256, max_length=128, rope_theta=100.0, init_std=0.08
)
"""0.4M parameters: a run takes some minutes of one CPU thread."""

SCALES: dict[str, Scale] = {
    "micro": Scale(model=MICRO, sizes=((64, 2, 176), (96, 3, 256), (128, 4, 344), (160, 5, 432))),
    "tiny": Scale(
        model=replace(named_size("tiny"), max_length=256),
        sizes=((128, 3, 344), (192, 4, 512), (256, 4, 688), (320, 5, 864)),
    ),
    "small": Scale(
        model=replace(named_size("small"), max_length=256),
        steps=10.0,
        sizes=((256, 6, 704), (384, 8, 1056), (512, 10, 1408), (640, 12, 1760)),
    ),
}
"""By name: half an hour of one thread for a study, an hour or two of two cores, hours of a GPU."""


def pace_of(scale: Scale, steps: int, *, batch_size: int) -> Pace:
    """So many steps at the smallest scale."""
    return Pace(steps=max(1, round(scale.steps * steps)), batch_size=batch_size, curve=5)


def lesson_stage(lessons: Lessons, *, pace: Pace, block: int = BLOCK, **changes: Any) -> LessonStage:
    """A stage on exercises: one to a row, its answer on a canvas of blocks."""
    stage = LessonStage(
        pace=pace,
        lessons=lessons,
        examples=ExamplePacking(
            length=96, one_per_row=True, filler="canvas", block_length=block, long_canvas_probability=0.0
        ),
    )
    return replace(stage, **changes)


def text_stage(scale: Scale, *, steps: int, **changes: Any) -> TextStage:
    """A stage on running text, in short rows."""
    stage = TextStage(
        pace=pace_of(scale, steps, batch_size=32),
        corpus=CorpusConfig(vocab_size=LEAST_VOCABULARY, workers=1),
        packing=PackingConfig(length=64, split_probability=0.0),
    )
    return replace(stage, **changes)


def plan_of(scale: Scale, *, block: int = BLOCK, **parts: Any) -> Plan:
    """A plan whose answers are written block by block."""
    return Plan(model=scale.model, sampler=SamplingParams(length=block, block_length=block), **parts)
