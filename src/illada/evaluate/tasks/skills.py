"""The checkable skills as tasks: with a written answer, and as a choice among answers that look alike."""

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import torch

from illada.data.skills.problem import LEVELS, Problem, Skill
from illada.data.skills.registry import SKILLS, Split, items, named_skill
from illada.evaluate.task import HubData, Kind, Question, Row, Verdict
from illada.seeding import Stream

COUNT = 200
"""Problems of each skill, if nobody says otherwise."""
CANDIDATES = 4
_DRAWS = 64


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
    """The same as choices: the right answer among three wrong ones that look like it.

    They are the right answer with two words exchanged or one replaced; for a number, other numbers of the prompt and
    its neighbours; and failing that, answers to other problems.
    """

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
        known = list(rows)
        others = [str(row["response"]) for row in known]
        for row, question in zip(known, self.written.questions(iter(known), folder, shots), strict=True):
            problem = Problem(key=row["key"], prompt=row["prompt"], response=row["response"])
            order = Stream(self.written.seed, f"skills/choice/{self.written.skill}")
            skill = named_skill(self.written.skill)
            candidates, gold = _candidates(problem, skill, others, order, int(row["number"]))
            yield Question(
                id=question.id,
                ask=question.ask,
                group=question.group,
                reference=problem.response,
                candidates=candidates,
                gold=gold,
            )


def _candidates(
    problem: Problem, skill: Skill, others: list[str], stream: Stream, number: int
) -> tuple[tuple[str, ...], int]:
    """Four answers in random order, and the place of the right one."""
    draws = iter(stream.uniform64(torch.tensor(number), 4 * _DRAWS).tolist())
    spoilt = (_spoilt(problem.response, next(draws), next(draws), next(draws)) for _ in range(_DRAWS))
    pool = dict.fromkeys((*spoilt, *_numbers_near(problem), *others))
    wrong = list(islice((text for text in pool if not skill.check(problem, text)), CANDIDATES - 1))
    place = int(next(draws) * (len(wrong) + 1))
    return (*wrong[:place], problem.response, *wrong[place:]), place


def _numbers_near(problem: Problem) -> list[str]:
    """For an answer that is a number: the other numbers of the prompt, then its neighbours."""
    if not problem.response.isdecimal():
        return []
    value = int(problem.response)
    near = [value + step for step in (1, -1, 10, -10, 2)]
    return [*re.findall(r"\d+", problem.prompt), *(str(number) for number in near if number >= 0)]


def _spoilt(text: str, kind: float, where: float, other: float) -> str:
    """The text with two neighbouring words exchanged, or one word replaced by another of its words."""
    words = text.split(" ")
    first = int(where * len(words))
    second = int(other * len(words)) if kind < 0.5 else min(first + 1, len(words) - 1)
    changed = list(words)
    if kind < 0.5:
        changed[first] = words[second]
    else:
        changed[first], changed[second] = words[second], words[first]
    return " ".join(changed)


def skill_tasks(skills: tuple[Skill, ...], *, count: int = COUNT, levels: tuple[int, ...] = LEVELS) -> list[SkillTask]:
    """A task for each of these skills."""
    return [SkillTask(skill=skill.name, count=count, levels=levels) for skill in skills]


SKILL_TASKS = {name: SkillTask(skill=name) for name in SKILLS}
"""Every skill by its name."""
