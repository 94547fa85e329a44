"""Exercises to learn and to be asked: skills, facts, gaps in a text, and questions on tales.

All but the tales are made by the package.

Two arms of a study get the very same exercises in the very same words.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, product
from typing import Literal

import torch

from illada.compare.tales import tale_questions, told_answers
from illada.data.skills.problem import LEVELS
from illada.data.skills.registry import items, named_skills
from illada.data.token_files import TokenFiles
from illada.data.tokenizer import Tokenizer
from illada.seeding import Stream

Pair = tuple[str, str]
"""What is asked, and the answer."""

Direction = Literal["forward", "backward"]

GAP_MARK = "~"
"""Stands for the gap in a text whose gap is asked for: the fill-in-the-middle format of both arms."""
_CONSONANTS, _VOWELS = "bcdfghjklmnprstvwz", "aeiou"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Facts `A is B` about made-up names: some are told both ways, the others one way alone.

    Those told both ways teach what being asked backwards means; the others are asked backwards without ever having
    been told so (Berglund et al., "The reversal curse", arXiv 2309.12288).
    """

    both: int = 0
    """Told forwards (`A is` -> `B`) and backwards (`B was` -> `A`)."""
    forward: int = 0
    """Told forwards alone."""

    def pairs(self) -> tuple[list[Pair], list[Pair]]:
        """(A, B) of the facts told both ways, and of those told forwards."""
        words = [f"{a}{b}{c}{d}" for a, b, c, d in product(_CONSONANTS, _VOWELS, _CONSONANTS, _VOWELS)]
        count = self.both + self.forward
        order = Stream(0, "facts").permute(torch.arange(2 * count), len(words)).tolist()
        names = [words[place] for place in order]
        facts = list(zip(names[:count], names[count:], strict=True))
        return facts[: self.both], facts[self.both :]

    def told(self) -> list[Pair]:
        """Every exercise that is learnt."""
        both, forward = self.pairs()
        return [asked(fact, "forward") for fact in (*both, *forward)] + [asked(fact, "backward") for fact in both]


def asked(fact: Pair, direction: Direction) -> Pair:
    """A fact as a question and its answer."""
    name, other = fact
    return (f"{name} is", other) if direction == "forward" else (f"{other} was", name)


@dataclass(frozen=True, kw_only=True)
class Lessons:
    """What is learnt."""

    skills: tuple[str, ...] = ()
    levels: tuple[int, ...] = LEVELS
    problems: int = 0
    """Different ones of each skill, as far as it has so many."""
    facts: Facts | None = None
    gaps: int = 0
    """Gaps in the text of the first stage, to be filled from both sides."""
    gap: int = 4
    """Tokens of a gap."""
    context: int = 16
    """Tokens on either side of it."""
    tales: str | None = None
    """A folder with `fairytaleqa/`: questions on passages of its training stories."""
    wrong: float = 0.0
    """Share of the exercises whose answer is that of another one: to see whether a study notices."""

    def __post_init__(self) -> None:
        """Refuse lessons without an exercise."""
        if self.skills:
            named_skills(self.skills)
        if not (self.skills and self.problems) and self.facts is None and not self.gaps and self.tales is None:
            raise ValueError("there is nothing to learn: name skills and a number of problems, facts, gaps, or tales")
        if not 0 <= self.wrong <= 1:
            raise ValueError(f"wrong is a share and lies between 0 and 1, got {self.wrong}")


def exercises(lessons: Lessons, text: "Text | None" = None) -> list[Pair]:
    """All that is learnt, in an order that the loader shuffles.

    Raises:
        FileNotFoundError: tales are asked for, and they are not there.
        ValueError: gaps are asked for, and there is no text.
    """
    pairs = [pair for skill in lessons.skills for pair in _problems(skill, lessons.problems, lessons.levels)]
    if lessons.facts is not None:
        pairs += lessons.facts.told()
    if lessons.gaps:
        if text is None:
            raise ValueError(f"{lessons.gaps} gaps are to be filled, but there is no text to make them in")
        pairs += [gap.exercise for gap in gaps(lessons, text, count=lessons.gaps)]
    if lessons.tales is not None:
        pairs += [pair for question in tale_questions(lessons.tales, "train") for pair in told_answers(question)]
    return _corrupted(pairs, lessons.wrong)


@lru_cache(maxsize=8)
def _problems(skill: str, count: int, levels: tuple[int, ...]) -> tuple[Pair, ...]:
    """Kept, because some take milliseconds each to make."""
    some = items(skill, "train", count, levels=levels)
    return tuple((item.problem.prompt, item.problem.response) for item in some)


@dataclass(frozen=True, kw_only=True)
class Text:
    """Running text that gaps are made in."""

    shards: TokenFiles
    tokenizer: Tokenizer


@dataclass(frozen=True, kw_only=True)
class Gap:
    """A piece that is missing in a text."""

    before: str
    missing: str
    after: str

    @property
    def exercise(self) -> Pair:
        """As a question: the text with a mark in the place of the gap."""
        return f"{self.before}{GAP_MARK}{self.after}", self.missing


def gaps(lessons: Lessons, text: Text, *, count: int) -> Iterator[Gap]:
    """Gaps at random places of a text; those whose parts are no text, or hold the mark, are passed over."""
    size = 2 * lessons.context + lessons.gap
    stream = Stream(0, "gaps")
    number = made = 0
    while made < count:
        draw = float(stream.uniform64(torch.tensor(number), 1))
        number += 1
        ids = text.shards.read(int(draw * (len(text.shards) - size)), size).tolist()
        cuts = (0, lessons.context, lessons.context + lessons.gap, size)
        parts = [text.tokenizer.decode(ids[start:stop]) for start, stop in pairwise(cuts)]
        # an answer is stripped of blanks at its ends when it is read: a gap must not begin or end with one
        if all(parts) and parts[1] == parts[1].strip() and GAP_MARK not in "".join(parts) and _plain(parts):
            made += 1
            yield Gap(before=parts[0], missing=parts[1], after=parts[2])


def _plain(parts: Sequence[str]) -> bool:
    return "\N{REPLACEMENT CHARACTER}" not in "".join(parts)


def _corrupted(pairs: list[Pair], share: float) -> list[Pair]:
    """A share of the exercises with the answers of others."""
    if not share:
        return pairs
    stream = Stream(0, "wrong")
    chosen = stream.uniform64(torch.arange(len(pairs)), 1).flatten() < share
    other = stream.permute(torch.arange(len(pairs)), len(pairs), epoch=1).tolist()
    return [
        (prompt, pairs[other[number]][1] if wrong else response)
        for number, ((prompt, response), wrong) in enumerate(zip(pairs, chosen.tolist(), strict=True))
    ]
