"""The checkable skills as tasks: with a written answer, and as a choice among answers that look alike."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from illada.data.skills.problem import LEVELS, Draws, Problem, Skill
from illada.data.skills.registry import Split, items, named_skill
from illada.evaluate.task import HubData, Kind, Question, Row, Verdict
from illada.evaluate.tasks.distractors import DRAWS, distractors
from illada.seeding import Stream

COUNT = 200
"""Problems of each skill, if nobody says otherwise."""
CANDIDATES = 4
_OTHERS = 64
"""Right answers to so many first problems are what words of wrong ones are taken from."""


@dataclass(frozen=True, kw_only=True)
class SkillTask:
    """Problems of one skill; nothing is read, they are made. Their groups are the levels."""

    skill: str
    count: int = COUNT
    levels: tuple[int, ...] = LEVELS
    split: Split = "test"
    seed: int = 0

    @property
    def name(self) -> str:
        """The name of the skill."""
        return self.skill

    @property
    def kind(self) -> Kind:
        """Written."""
        return "text"

    @property
    def hub(self) -> tuple[HubData, ...]:
        """Nowhere."""
        return ()

    def local_rows(self, folder: Path) -> Iterator[Row]:
        """The problems; the folder is not read."""
        for number, item in enumerate(items(self.skill, self.split, self.count, seed=self.seed, levels=self.levels)):
            yield {"number": number, "level": item.level, **asdict(item.problem)}

    def hub_row(self, row: Row) -> Row:
        """As it is."""
        return row

    def questions(self, rows: Iterator[Row], folder: Path | None, shots: int | None) -> Iterator[Question]:
        """One question for each problem.

        Raises:
            ValueError: examples are asked for; there are none.
        """
        if shots:
            raise ValueError(f"the skill {self.skill} is asked without examples, got {shots}")
        return map(self._question, rows)

    def judge(self, question: Question, answer: str) -> Verdict:
        """By the skill's own check."""
        problem = Problem(key="", prompt=question.ask, response=question.reference)
        return Verdict(correct=named_skill(self.skill).check(problem, answer), extracted=answer.strip() or None)

    def _question(self, row: Row) -> Question:
        return Question(
            id=str(row["number"]), ask=row["prompt"], reference=row["response"], group=f"level {row['level']}"
        )


@dataclass(frozen=True, kw_only=True)
class SkillChoice:
    """The same as choices: the right answer among three that look like it (`illada.evaluate.tasks.distractors`)."""

    written: SkillTask

    @property
    def name(self) -> str:
        """`repeat_choice`."""
        return f"{self.written.skill}_choice"

    @property
    def kind(self) -> Kind:
        """A choice."""
        return "choice"

    @property
    def hub(self) -> tuple[HubData, ...]:
        """Nowhere."""
        return ()

    def local_rows(self, folder: Path) -> Iterator[Row]:
        """The problems; the folder is not read."""
        return self.written.local_rows(folder)

    def hub_row(self, row: Row) -> Row:
        """As it is."""
        return row

    def questions(self, rows: Iterator[Row], folder: Path | None, shots: int | None) -> Iterator[Question]:
        """One question for each problem.

        Raises:
            ValueError: examples are asked for; there are none.
        """
        one = self.written
        known = items(one.skill, one.split, _OTHERS, seed=one.seed, levels=one.levels)
        others = [item.problem.response for item in known]
        stream = Stream(one.seed, f"skills/choice/{one.split}/{one.skill}")
        for question in one.questions(rows, folder, shots):
            yield self._with_candidates(question, others, stream)

    def _with_candidates(self, question: Question, others: Sequence[str], stream: Stream) -> Question:
        """The right answer at a random place among the wrong ones; a function of the question's number alone."""
        draws = Draws(iter(stream.uniform64(torch.tensor(int(question.id)), DRAWS).tolist()))
        problem = Problem(key="", prompt=question.ask, response=question.reference)
        skill = named_skill(self.written.skill)
        wrong = distractors(problem, skill, others=others, draws=draws, count=CANDIDATES - 1)
        gold = draws.below(CANDIDATES)
        return replace(question, candidates=(*wrong[:gold], question.reference, *wrong[gold:]), gold=gold)


def skill_tasks(skills: tuple[Skill, ...], *, count: int = COUNT, levels: tuple[int, ...] = LEVELS) -> list[SkillTask]:
    """A task for each of these skills."""
    return [SkillTask(skill=skill.name, count=count, levels=levels) for skill in skills]


def skill_choices(
    skills: tuple[Skill, ...], *, count: int = COUNT, levels: tuple[int, ...] = LEVELS
) -> list[SkillChoice]:
    """A choice for each of these skills."""
    return [SkillChoice(written=task) for task in skill_tasks(skills, count=count, levels=levels)]
