"""MATH (arXiv 2103.03874): problems of competitions, whose answer stands in a box."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from illada.evaluate.task import HubData, Question, Row, Shot, Verdict, WrittenTask
from illada.evaluate.tasks.rows import FileTask, no_shots

SUBJECTS = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)

EXAMPLES = (
    (
        r"Solve $3x - 7 = 11$ for $x$.",
        r"Adding 7 to both sides gives $3x = 18$, so $x = \boxed{6}$.",
        "6",
    ),
    (
        r"A bag holds 4 white and 6 black balls. One is drawn at random. What is the probability that it is white?",
        r"Of the $4 + 6 = 10$ balls $4$ are white, so the probability is $\frac{4}{10} = \boxed{\frac{2}{5}}$.",
        r"\frac{2}{5}",
    ),
    (
        r"What is the area of a right triangle with legs of length $5$ and $8$?",
        r"It is half the product of the legs: $\frac{1}{2} \cdot 5 \cdot 8 = \boxed{20}$.",
        "20",
    ),
    (
        r"What is the remainder of $2^{10}$ divided by $7$?",
        r"As $2^3 = 8$ leaves $1$, so does $2^9$, and $2^{10}$ leaves $\boxed{2}$.",
        "2",
    ),
)
"""(problem, solution, answer), written for this project."""

_REMOVED = re.compile(r"\\left|\\right|\\[,;!:]|\\ |\\\$|\$|\\%|%|\\(?:text|mathrm|mbox)\{\s*[^}]*\}\s*$")
_WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mbox)\{([^{}]*)\}")
_FRACTION = re.compile(r"\\frac\{([^{}]*)\}\{([^{}]*)\}")
_SHORT_FRACTION = re.compile(r"\\frac(?:\{([^{}]*)\}|(\w))(?:\{([^{}]*)\}|(\w))")


@dataclass(frozen=True, kw_only=True)
class Competition(FileTask):
    """Four solved examples unless said otherwise; problem, solution, box. The subjects are groups."""

    def questions(self, rows: Iterator[Row], folder: Path | None, shots: int | None) -> Iterator[Question]:
        """One question for each row.

        Raises:
            ValueError: more examples than there are.
        """
        count = len(EXAMPLES) if shots is None else shots
        if count > len(EXAMPLES):
            raise ValueError(f"there are {len(EXAMPLES)} examples for {self.name}, but {count} are asked for")
        for number, row in enumerate(rows):
            yield Question(
                id=str(number),
                ask=f"Problem:\n{row['problem']}\n\nSolution:",
                shots=tuple(
                    Shot(ask=f"Problem:\n{problem}\n\nSolution:", answer=f" {solution}")
                    for problem, solution, _ in EXAMPLES[:count]
                ),
                reference=boxed(row["solution"]) or "",
                stop=("Problem:",),
                group=str(row.get("type", "")),
            )

    def judge(self, question: Question, answer: str) -> Verdict:
        """What is in the last box."""
        return _judged(question, answer)


@dataclass(frozen=True, kw_only=True)
class CompetitionChat(FileTask):
    """Asked as a person would, without examples; what stands before "</think>" does not count."""

    def questions(self, rows: Iterator[Row], folder: Path | None, shots: int | None) -> Iterator[Question]:
        """One question for each row.

        Raises:
            ValueError: examples are asked for.
        """
        no_shots(self.name, shots)
        for number, row in enumerate(rows):
            yield Question(
                id=str(number),
                ask=f"{row['problem']}\n\nReason step by step, and put your final answer within \\boxed{{}}.",
                reference=boxed(row["solution"]) or "",
                group=str(row.get("type", "")),
            )

    def judge(self, question: Question, answer: str) -> Verdict:
        """What is in the last box."""
        return _judged(question, answer.rpartition("</think>")[2])


def boxed(text: str) -> str | None:
    """The content of the last box whose braces close; None without one."""
    start = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    while start >= 0:
        first = text.index("{", start)
        depth = 0
        for place in range(first, len(text)):
            depth += {"{": 1, "}": -1}.get(text[place], 0)
            if depth == 0:
                return text[first + 1 : place].strip()
        start = max(text.rfind("\\boxed{", 0, start), text.rfind("\\fbox{", 0, start))
    return None


def equivalent(one: str, other: str) -> bool:
    """Whether two answers are the same number or, up to how they are set, the same formula.

    With the library math-verify (extra `math`) what it finds equal is equal, too.
    """
    first, second = plain(one), plain(other)
    if first == second:
        return bool(first)
    numbers = (_number(first), _number(second))
    if None not in numbers and numbers[0] == numbers[1]:
        return True
    return _verified(one, other)


def plain(answer: str) -> str:
    """An answer without what only sets it: spaces, dollars, units, sizes of brackets, kinds of fractions."""
    text = answer.strip().rstrip(".").replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    text = text.replace("^{\\circ}", "").replace("^\\circ", "")
    stripped = _REMOVED.sub("", text)
    text = _WRAPPED.sub(r"\1", stripped if stripped.strip() else text)
    text = _SHORT_FRACTION.sub(lambda found: "\\frac{{{}}}{{{}}}".format(*_two(found)), text)
    text = text.rpartition("=")[2] if re.fullmatch(r"\s*[a-zA-Z]\s*=[^=]*", text) else text
    return re.sub(r"\s+", "", re.sub(r"(?<=\d),(?=\d{3}(?:\D|$))", "", text))


def _two(found: re.Match[str]) -> tuple[str, str]:
    return found[1] if found[1] is not None else found[2], found[3] if found[3] is not None else found[4]


def _number(text: str) -> Fraction | None:
    """A plain number or a fraction of two; None for anything else."""
    text = _FRACTION.sub(r"\1/\2", text) if text.count("\\frac") == 1 else text
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None


def _verified(one: str, other: str) -> bool:
    if find_spec("math_verify") is None:
        return False
    library = import_module("math_verify")
    return bool(library.verify(library.parse(f"\\boxed{{{other}}}"), library.parse(f"\\boxed{{{one}}}")))


def _judged(question: Question, answer: str) -> Verdict:
    found = boxed(answer)
    return Verdict(correct=found is not None and equivalent(found, question.reference), extracted=found)


_HUB = tuple(HubData(path="EleutherAI/hendrycks_math", name=subject) for subject in SUBJECTS)

MATH_TASKS: dict[str, WrittenTask] = {
    task.name: task
    for task in (
        Competition(name="math", kind="text", hub=_HUB, file="math/test.jsonl"),
        CompetitionChat(name="math_chat", kind="text", hub=_HUB, file="math/test.jsonl"),
    )
}
"""By name."""
