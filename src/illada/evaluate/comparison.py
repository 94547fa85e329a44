"""Two evaluations of the same questions, side by side: paired differences and what they can be trusted for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from illada.evaluate.bootstrap import Difference, holm, mcnemar, paired_difference
from illada.evaluate.folder import ANSWERS, read_answers
from illada.evaluate.summary import AnswerLine, Part, part_of


@dataclass(frozen=True, kw_only=True)
class TaskComparison:
    """One task, A against B, on the examples that both have."""

    task: str
    first: Part
    second: Part
    difference: Difference
    """B - A, as shares."""
    only_first: int
    """Examples that only A has right."""
    only_second: int
    p_value: float
    """McNemar's, exact and two-sided."""
    corrected: float
    """The same, corrected for the number of tasks (Holm)."""


def compare_folders(first: Path, second: Path, *, common: bool = False) -> list[TaskComparison]:
    """Pair two folders by task and id. `common`: pair what both have, where they have not the same questions.

    Raises:
        FileNotFoundError: a folder has no answers.
        ValueError: the folders do not have the same questions, or none in common, or the same id with another prompt.
    """
    one, other = ({(line.task, line.id): line for line in read_answers(folder / ANSWERS)} for folder in (first, second))
    shared = [key for key in one if key in other]
    if not shared:
        raise ValueError(f"{first} and {second} have no question in common")
    if not common and (len(shared) < len(one) or len(shared) < len(other)):
        raise ValueError(
            f"{first} has {len(one)} answers and {second} has {len(other)}, of which {len(shared)} are to the same "
            "questions; add --common to compare these"
        )
    # prompts may differ (another number of examples, a chat template): what is asked at the end may not
    if odd := [key for key in shared if one[key].reference != other[key].reference]:
        raise ValueError(f"{odd[0][0]} {odd[0][1]} is another question in {first} than in {second}")
    return _corrected([_compare(task, one, other, shared) for task in dict.fromkeys(task for task, _ in shared)])


def _compare(
    task: str,
    one: dict[tuple[str, str], AnswerLine],
    other: dict[tuple[str, str], AnswerLine],
    shared: Sequence[tuple[str, str]],
) -> TaskComparison:
    pairs = [(one[key], other[key]) for key in shared if key[0] == task]
    only_first = sum(before.correct and not after.correct for before, after in pairs)
    only_second = sum(after.correct and not before.correct for before, after in pairs)
    p_value = mcnemar(only_first, only_second)
    return TaskComparison(
        task=task,
        first=part_of([before for before, _ in pairs]),
        second=part_of([after for _, after in pairs]),
        difference=paired_difference(
            [float(before.correct) for before, _ in pairs], [float(after.correct) for _, after in pairs]
        ),
        only_first=only_first,
        only_second=only_second,
        p_value=p_value,
        corrected=p_value,
    )


def _corrected(compared: list[TaskComparison]) -> list[TaskComparison]:
    corrected = holm([each.p_value for each in compared])
    return [
        TaskComparison(**{**vars(each), "corrected": value}) for each, value in zip(compared, corrected, strict=True)
    ]
