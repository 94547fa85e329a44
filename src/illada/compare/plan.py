"""The plan of one run, complete: what is trained, on what, how long, and what it is asked afterwards."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, TypeVar, cast

from illada.compare.lessons import Lessons
from illada.config import fingerprint, to_dict
from illada.data.corpus import CorpusConfig
from illada.data.example_rows import ExamplePacking
from illada.data.packing import PackingConfig
from illada.evaluate.scoring import Method
from illada.model.config import ModelConfig
from illada.sample.request import SamplingParams
from illada.train.objective import NoiseConfig, ObjectiveName, check_objective
from illada.train.optimizer import AdamWConfig

T = TypeVar("T")

_FORMAT = 2  # part of a run's key: raise it when the same plan would give other numbers


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How long a stage takes and in what steps."""

    steps: int
    batch_size: int = 64
    """Rows of a step."""
    warmup: float = 0.05
    """Share of the steps in which the learning rate rises."""
    decay: float = 0.4
    """Share of the steps in which it falls to a fiftieth; 0: it stays."""
    rate_share: float = 1.0
    """Of the plan's peak learning rate."""
    curve: int = 10
    """Points of the learning curve."""

    def __post_init__(self) -> None:
        """Refuse what is no stage."""
        for name in ("steps", "batch_size", "curve"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")


@dataclass(frozen=True, kw_only=True)
class TextStage:
    """Pre-training on running text."""

    pace: Pace
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    packing: PackingConfig = field(default_factory=PackingConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    held_out_rows: int = 64
    held_out_samples: int = 4
    """Masks per held-out row."""
    unique_rows: int | None = None
    """Rows that there are to learn from, again and again; None: as many as the text has."""


@dataclass(frozen=True, kw_only=True)
class LessonStage:
    """Training on exercises: behind running text, fine-tuning; alone, from the beginning."""

    pace: Pace
    lessons: Lessons
    examples: ExamplePacking = field(default_factory=lambda: ExamplePacking(one_per_row=True))
    noise: NoiseConfig = field(default_factory=lambda: NoiseConfig(maskable="response", normaliser="examples"))
    vocab_size: int = 288
    """Of the tokenizer that is trained on the exercises, where no text came before."""
    looks: int = 1
    """How often the answers are asked: after every 1/looks of the stage. More than one keeps the learning rate."""


@dataclass(frozen=True, kw_only=True)
class Exam:
    """What is measured afterwards; the questions are the same for every arm and seed."""

    questions: int = 200
    """Of each skill, new ones; of each direction of facts, of gaps, of tales. 0: nothing is asked at all."""
    seen: int = 0
    """Of each skill, out of the exercises that were learnt."""
    choices: int = 0
    """Of each skill, asked as a choice among four."""
    scoring: tuple[Method, ...] = ("likelihood",)
    """How the choices are scored; of a causal model always by its likelihood."""
    samples: int = 16
    """Masks per answer, for the bound on its likelihood."""
    likelihoods: int = 64
    """Answers of each skill whose likelihood is measured."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One run.

    Raises:
        ValueError: there is nothing to train on, rows that the model does not hold, or an objective that its attention
            does not allow.
    """

    model: ModelConfig
    """Its vocab_size follows the tokenizer."""
    objective: ObjectiveName = "diffusion"
    text: TextStage | None = None
    lessons: LessonStage | None = None
    optimizer: AdamWConfig = field(default_factory=AdamWConfig)
    peak: float = 2e-3
    """The highest learning rate."""
    sampler: SamplingParams = field(default_factory=SamplingParams)
    exam: Exam = field(default_factory=Exam)
    seed: int = 0
    """Of the start, of the order of the data and of the noise."""

    def __post_init__(self) -> None:
        """Check that the parts fit."""
        if self.text is None and self.lessons is None:
            raise ValueError("a plan needs a stage: text, lessons, or both")
        check_objective(self.objective, self.model.attention)
        lengths = [] if self.text is None else [self.text.packing.length]
        lengths += [] if self.lessons is None else [self.lessons.examples.length]
        if max(lengths) > self.model.max_length:
            raise ValueError(f"rows of {max(lengths)} tokens exceed the model's context of {self.model.max_length}")

    @property
    def key(self) -> str:
        """A short fingerprint: equal for plans that are equal in every field."""
        return f"{fingerprint(self)[:16]}-{_FORMAT}"


def changed(config: T, changes: Mapping[str, Any]) -> T:
    """A copy in which the fields with these dotted names have these values; all are set at once, then checked.

    Raises:
        ValueError: there is no such field, or the values do not fit one another.
    """
    if not is_dataclass(config):
        raise ValueError(f"{', '.join(changes)}: there is nothing to change in {config!r}")
    known = {one.name for one in fields(config)}
    values: dict[str, Any] = {}
    inner: dict[str, dict[str, Any]] = {}
    for name, value in changes.items():
        head, _, rest = name.partition(".")
        if head not in known:
            raise ValueError(f"{type(config).__name__} has no field {head!r}; there are: {', '.join(sorted(known))}")
        if rest:
            inner.setdefault(head, {})[rest] = value
        else:
            values[head] = value
    for head, some in inner.items():
        values[head] = changed(values.get(head, getattr(config, head)), some)
    return cast(T, replace(cast(Any, config), **values))


def differing(one: object, other: object) -> dict[str, tuple[Any, Any]]:
    """The fields in which two configurations differ, by dotted name."""
    first, second = dict(_flat(to_dict(one))), dict(_flat(to_dict(other)))
    names = sorted(first.keys() | second.keys())
    return {name: (first.get(name), second.get(name)) for name in names if first.get(name) != second.get(name)}


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        found += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return found
