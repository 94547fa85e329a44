"""How many problems of each skill are answered exactly right, and what an answer costs.

    test problems of a skill  ->  replies  ->  the skill's own check  ->  share of right answers, with its interval

The problems are drawn independently, so a small world's problem may come twice; the interval is that of independent
draws, and stands.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from illada.data.skills.problem import LEVELS
from illada.data.skills.registry import SKILLS, Item, Split, items, named_skill, named_skills
from illada.evaluate.intervals import Interval, wilson_interval
from illada.sample.request import Completion

Generate = Callable[[list[str]], Sequence[str | Completion]]
"""Prompts -> one reply to each, in their order."""

OnProgress = Callable[[int], None]
"""Called with the number of answers so far."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One problem and what was replied."""

    item: Item
    reply: str
    correct: bool
    seconds: float
    """Its share of the wall time of the batch it was asked in."""
    forwards: int | None = None
    positions: int | None = None
    """Token positions that were computed for it, summed over forwards."""
    tokens: int | None = None
    """Length of the reply."""

    def row(self) -> dict[str, Any]:
        """The answer as plain data, one line of a file."""
        problem = self.item.problem
        return {
            "skill": self.item.skill,
            "level": self.item.level,
            "prompt": problem.prompt,
            "expected": problem.response,
            "reply": self.reply,
            "correct": self.correct,
            "forwards": self.forwards,
            "positions": self.positions,
            "tokens": self.tokens,
        }


@dataclass(frozen=True, kw_only=True)
class Score:
    """What some answers amount to; the last four are means per answer, None where replies do not tell."""

    count: int
    correct: int
    exact_match: float
    """correct / count."""
    interval: Interval
    """The 95 % Wilson interval of `exact_match`."""
    seconds: float
    forwards: float | None
    positions: float | None
    tokens: float | None

    @classmethod
    def of(cls, answers: Sequence[Answer]) -> "Score":
        """Count them up.

        Raises:
            ValueError: there are none.
        """
        correct = sum(answer.correct for answer in answers)
        interval = wilson_interval(correct, len(answers))
        return cls(
            count=len(answers),
            correct=correct,
            exact_match=correct / len(answers),
            interval=interval,
            seconds=fmean(answer.seconds for answer in answers),
            forwards=_mean([answer.forwards for answer in answers]),
            positions=_mean([answer.positions for answer in answers]),
            tokens=_mean([answer.tokens for answer in answers]),
        )


@dataclass(frozen=True, kw_only=True)
class SkillReport:
    """All answers, and their scores."""

    answers: tuple[Answer, ...]
    """Skill by skill, in the order they were asked."""
    overall: Score
    skills: dict[str, Score]
    levels: dict[str, dict[int, Score]]
    """Skill -> level -> score, for the levels that occurred."""

    @classmethod
    def of(cls, answers: Sequence[Answer]) -> "SkillReport":
        """Score the answers as a whole, by skill, and by skill and level.

        Raises:
            ValueError: there are none.
        """
        skills: dict[str, list[Answer]] = {}
        levels: dict[str, dict[int, list[Answer]]] = {}
        for answer in sorted(answers, key=lambda answer: answer.item.level):
            skills.setdefault(answer.item.skill, []).append(answer)
            levels.setdefault(answer.item.skill, {}).setdefault(answer.item.level, []).append(answer)
        names = dict.fromkeys(answer.item.skill for answer in answers)
        return cls(
            answers=tuple(answers),
            overall=Score.of(answers),
            skills={name: Score.of(skills[name]) for name in names},
            levels={name: {level: Score.of(some) for level, some in levels[name].items()} for name in names},
        )

    def summary(self) -> dict[str, Any]:
        """The scores as plain data for JSON, without the single answers."""
        return {
            "overall": asdict(self.overall),
            "skills": {
                name: {
                    **asdict(score),
                    "levels": {str(level): asdict(part) for level, part in self.levels[name].items()},
                }
                for name, score in self.skills.items()
            },
        }


def evaluate_skills(
    generate: Generate,
    skills: Sequence[str] = tuple(SKILLS),
    *,
    count: int = 200,
    seed: int = 0,
    levels: Sequence[int] = LEVELS,
    split: Split = "test",
    batch_size: int = 64,
    on_progress: OnProgress | None = None,
) -> SkillReport:
    """Ask the first `count` problems of each skill, at most `batch_size` prompts of one skill at a time.

    Raises:
        ValueError: an unknown skill, split or level, a count or batch size below 1, or not one reply to each prompt.
    """
    for name, value in (("count", count), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    names = [skill.name for skill in named_skills(skills)]
    problems = {name: list(items(name, split, count, seed=seed, levels=levels)) for name in names}
    answers: list[Answer] = []
    for asked in problems.values():
        for start in range(0, count, batch_size):
            answers += _answered(generate, asked[start : start + batch_size])
            if on_progress is not None:
                on_progress(len(answers))
    return SkillReport.of(answers)


def _answered(generate: Generate, asked: Sequence[Item]) -> list[Answer]:
    """Ask, take the time, and check."""
    began = time.perf_counter()
    replies = generate([item.problem.prompt for item in asked])
    seconds = (time.perf_counter() - began) / len(asked)
    if len(replies) != len(asked):
        raise ValueError(f"{len(asked)} prompts need as many replies, got {len(replies)}")
    return [_judged(item, reply, seconds) for item, reply in zip(asked, replies, strict=True)]


def _judged(item: Item, reply: str | Completion, seconds: float) -> Answer:
    text = reply if isinstance(reply, str) else reply.text
    correct = named_skill(item.skill).check(item.problem, text)
    if isinstance(reply, str):
        return Answer(item=item, reply=text, correct=correct, seconds=seconds)
    return Answer(
        item=item,
        reply=text,
        correct=correct,
        seconds=seconds,
        forwards=reply.forwards,
        positions=reply.positions,
        tokens=len(reply.tokens),
    )


def _mean(values: Sequence[int | None]) -> float | None:
    """The mean of what is known."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
