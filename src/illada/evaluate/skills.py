"""How many problems of each skill are answered exactly right, and what an answer costs.

    test problems of a skill  ->  replies  ->  the skill's own check  ->  share of right answers, with its interval

The problems are drawn independently, so a small world's problem may come twice; the interval is that of independent
draws, and stands.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from illada.data.skills.registry import Item
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
        by_skill = _grouped(answers, lambda answer: answer.item.skill)
        levels = {name: _grouped(some, lambda answer: answer.item.level) for name, some in by_skill.items()}
        return cls(
            answers=tuple(answers),
            overall=Score.of(answers),
            skills={name: Score.of(some) for name, some in by_skill.items()},
            levels={
                name: {level: Score.of(some) for level, some in sorted(groups.items())}
                for name, groups in levels.items()
            },
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
