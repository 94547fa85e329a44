"""Every task by its name."""

from illada.evaluate.task import Task
from illada.evaluate.tasks.bbh import BBH_TASKS
from illada.evaluate.tasks.choice import CHOICE_TASKS
from illada.evaluate.tasks.code import CODE_TASKS
from illada.evaluate.tasks.competition import MATH_TASKS
from illada.evaluate.tasks.fairytaleqa import FAIRYTALEQA_TASKS
from illada.evaluate.tasks.gsm8k import GSM8K_TASKS
from illada.evaluate.tasks.mmlu import MMLU_CHOICES, MMLU_WRITTEN

TASKS: dict[str, Task] = {
    **MMLU_CHOICES,
    **CHOICE_TASKS,
    **MMLU_WRITTEN,
    **BBH_TASKS,
    **GSM8K_TASKS,
    **FAIRYTALEQA_TASKS,
    **MATH_TASKS,
    **CODE_TASKS,
}
"""The benchmarks; the skills, which are made and not read, are in `illada.evaluate.tasks.skills`."""


def named_task(name: str) -> Task:
    """The benchmark called `name`.

    Raises:
        ValueError: there is none; the message lists those there are.
    """
    if name not in TASKS:
        raise ValueError(f"no task is called {name!r}; there are: skills, skills_choice, {', '.join(TASKS)}")
    return TASKS[name]
