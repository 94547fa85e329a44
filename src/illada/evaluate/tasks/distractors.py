"""Wrong answers that look like the right one, so that a skill can be asked as a choice.

They have the form of the right answer and, but for names and numbers of the prompt, its length: two of its words (or
digits) exchanged, or one of them another. Where an answer is written in steps, the steps stay and what they end in
changes. Which they are is a function of the random numbers alone.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import chain

from illada.data.skills.problem import FINAL, Draws, Problem, Skill

DRAWS = 300
"""Random numbers that suffice for one problem."""
_TRIES = 64
_FROM_PROMPT = 2
"""At most so many are numbers of the prompt where the right one is none of these: it would stand out."""
_LEADING_ZERO = re.compile(r"(?<!\d)0\d")


def distractors(problem: Problem, skill: Skill, *, others: Sequence[str], draws: Draws, count: int) -> tuple[str, ...]:
    """`count` different replies that the skill's check refuses.

    Args:
        problem: what is asked.
        skill: whose check decides what is wrong.
        others: right answers to other problems, from which words are taken; failing all else, they are the replies.
        draws: `DRAWS` random numbers.
        count: how many.

    Raises:
        ValueError: there are not so many.
    """
    found: dict[str, None] = {}
    for text in chain(_numbers_of_prompt(problem, draws), _near_misses(problem.response, others, draws), others):
        if not skill.check(problem, text):
            found[text] = None
        if len(found) == count:
            break
    if len(found) < count:
        raise ValueError(f"{count} wrong answers are needed, but only {len(found)} are found for {problem.prompt!r}")
    return tuple(found)


def _numbers_of_prompt(problem: Problem, draws: Draws) -> list[str]:
    """For an answer that is a number: some of the numbers that it could be mistaken for."""
    if not problem.response.isdecimal():
        return []
    numbers = list(dict.fromkeys(re.findall(r"\d+", problem.prompt)))
    most = len(numbers) if problem.response in numbers else _FROM_PROMPT
    wrong = [number for number in numbers if number != problem.response]
    return draws.sample(wrong, min(len(wrong), most))


def _near_misses(response: str, others: Sequence[str], draws: Draws) -> Iterator[str]:
    """The answer with something exchanged or replaced, again and again."""
    steps, mark, answer = response.rpartition(FINAL)
    for _ in range(_TRIES):
        changed = _exchanged(answer, draws) if draws.below(2) else _replaced(answer, others, draws)
        if not _LEADING_ZERO.search(changed):
            yield f"{steps}{mark}{changed}"


def _exchanged(answer: str, draws: Draws) -> str:
    """Two words in each other's place; of a single word, two characters."""
    parts = re.split(r"(\s+)", answer) if answer.split()[1:] else list(answer)
    places = [place for place, part in enumerate(parts) if part.strip()]
    one, other = draws.choice(places), draws.choice(places)
    parts[one], parts[other] = parts[other], parts[one]
    return "".join(parts)


def _replaced(answer: str, others: Sequence[str], draws: Draws) -> str:
    """One digit another one, out of the answer's own if there are several words; without digits, one word another."""
    several = bool(answer.split()[1:])
    digits = [match.start() for match in re.finditer(r"\d", answer)]
    if not digits:
        words = re.split(r"(\s+)", answer)
        words[2 * draws.below((len(words) + 1) // 2)] = draws.choice(draws.choice(others).split())
        return "".join(words)
    place = draws.choice(digits)
    digit = draws.choice([answer[at] for at in digits] if several else "0123456789")
    return f"{answer[:place]}{digit}{answer[place + 1 :]}"
