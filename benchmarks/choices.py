"""The rules of scoring as judges of choices: which picks the right answer most often, and what does it cost?

    python benchmarks/choices.py --out benchmarks/results/choices_cpu2_202611.json
    python benchmarks/choices.py --folders FOLDER ...      keep every answer; a run that was stopped goes on there

The question of Table 4 of iLLaDA (arXiv 2606.25331), on a model that runs on two cores: its confidence against the
likelihood from 1, 8 and 128 samples, the chain from left to right, and the exact bound. The questions are the skills as
choices, of the test split: the right answer among three that look like it (`illada.evaluate.tasks.distractors`). Every
rule is asked the same questions, so differences are paired: McNemar's test, corrected by Holm for the number of rules
that are compared with confidence.

The exact bound needs 2^L - 1 forwards, so it is asked where no candidate has more than a few tokens; there all rules
are compared once more.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import tyro
from rich.table import Table

from card import describe_run, print_card, publish
from illada.data.skills.registry import SKILLS
from illada.evaluate.bootstrap import holm, mcnemar, paired_difference
from illada.evaluate.evaluation import evaluate, questions_digest
from illada.evaluate.fitting import Room
from illada.evaluate.run import Prepared, prepare
from illada.evaluate.scoring import ScoringParams
from illada.evaluate.suites import Asking
from illada.evaluate.summary import AnswerLine, part_of
from illada.evaluate.tasks.skills import skill_choices
from illada.pipeline import LanguageModel, load

RULES = {
    "confidence": ScoringParams(method="confidence"),
    "likelihood 1": ScoringParams(method="likelihood", samples=1),
    "likelihood 8": ScoringParams(method="likelihood", samples=8),
    "likelihood 128": ScoringParams(method="likelihood", samples=128),
    "chain": ScoringParams(method="chain"),
}
EXACT = "exact"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Which model chooses, and among what."""

    model: str = "tiny-instruct"
    questions: int = 100
    """Of each skill."""
    skills: tuple[str, ...] = tuple(SKILLS)
    exact_tokens: int = 8
    """The exact bound is asked where no candidate has more."""
    folders: Path | None = None
    """Keep the answers here, in a folder for each rule that `illada eval --compare` reads."""
    out: Path | None = None
    """Write the result to this file, too."""


def main() -> None:
    settings = tyro.cli(Settings)
    model, tasks = load(settings.model), prepared(settings)
    short = [one for task in tasks if (one := only_short(task, model, settings.exact_tokens)).questions]
    with tempfile.TemporaryDirectory() as scratch:
        folders = settings.folders or Path(scratch)
        answers = {rule: asked(model, tasks, params, folders / rule) for rule, params in RULES.items()}
        exact = asked(model, short, ScoringParams(method="exact"), folders / EXACT)
    few = {rule: kept(lines, exact) for rule, lines in answers.items()} | {EXACT: exact}
    records = {"all": compared(answers), "short": compared(few)}
    show(f"{settings.model}: choices of all skills", records["all"])
    show(f"{settings.model}: choices whose answers have at most {settings.exact_tokens} tokens", records["short"])
    head = describe_run("choices", torch.device("cpu"), shown(settings))
    publish(head | {"records": records}, settings.out)


def prepared(settings: Settings) -> list[Prepared]:
    """The skills as choices, asked in turns."""
    chosen = tuple(SKILLS[name] for name in settings.skills)
    tasks = skill_choices(chosen, count=settings.questions)
    return [prepare(one, Asking(task=one.name, chat=True), data=None, limit=None) for one in tasks]


def shown(settings: Settings) -> dict[str, Any]:
    """The settings without places on this machine."""
    return {name: value for name, value in asdict(settings).items() if name not in ("folders", "out")}


def only_short(one: Prepared, model: LanguageModel, most: int) -> Prepared:
    """The questions none of whose candidates has more than `most` tokens."""
    questions = tuple(
        question
        for question in one.questions
        if all(len(model.tokenizer.encode(candidate)) <= most for candidate in question.candidates)
    )
    return replace(one, questions=questions)


def asked(model: LanguageModel, tasks: Sequence[Prepared], params: ScoringParams, out: Path) -> Sequence[AnswerLine]:
    """The answers by one rule."""
    room = Room(
        context=model.transformer.config.max_length, encode=model.tokenizer.encode, decode=model.tokenizer.decode
    )
    asking = [replace(one, asking=replace(one.asking, scoring=params)) for one in tasks]
    settings = {"scoring": asdict(params), "questions": questions_digest(tasks)}
    return evaluate(model, asking, settings=settings, room=room, out=out).lines


def kept(lines: Sequence[AnswerLine], others: Sequence[AnswerLine]) -> list[AnswerLine]:
    """Those to the questions that the others answer, too."""
    keys = {(line.task, line.id) for line in others}
    return [line for line in lines if (line.task, line.id) in keys]


def compared(answers: Mapping[str, Sequence[AnswerLine]]) -> dict[str, dict[str, Any]]:
    """Rule -> share of right answers, cost, and how it differs from confidence."""
    found = {rule: summed_up(lines) for rule, lines in answers.items()}
    first = answers["confidence"]
    others = [rule for rule in answers if rule != "confidence"]
    pairs = {rule: against(first, answers[rule]) for rule in others}
    corrected = holm([pairs[rule]["p_value"] for rule in others])
    for rule, value in zip(others, corrected, strict=True):
        found[rule]["confidence_minus_this"] = pairs[rule] | {"corrected": value}
    return found


def summed_up(lines: Sequence[AnswerLine]) -> dict[str, Any]:
    by_task: dict[str, list[AnswerLine]] = {}
    for line in lines:
        by_task.setdefault(line.task.removesuffix("_choice"), []).append(line)
    return {
        **asdict(part_of(lines)),
        "share": part_of(lines).share,
        "forwards": fmean(line.forwards for line in lines),
        "skills": {name: {**asdict(part_of(some)), "share": part_of(some).share} for name, some in by_task.items()},
    }


def against(first: Sequence[AnswerLine], other: Sequence[AnswerLine]) -> dict[str, Any]:
    """Confidence minus another rule, question by question."""
    pairs = [(one.correct, two.correct) for one, two in zip(first, other, strict=True)]
    only_first, only_other = pairs.count((True, False)), pairs.count((False, True))
    difference = paired_difference([float(two) for _, two in pairs], [float(one) for one, _ in pairs])
    return {
        **asdict(difference),
        "only_confidence": only_first,
        "only_this": only_other,
        "p_value": mcnemar(only_first, only_other),
    }


def show(title: str, records: Mapping[str, Mapping[str, Any]]) -> None:
    table = Table("rule", "right", "95 %", "forwards", "confidence minus this", "p, corrected")
    for rule, record in records.items():
        low, high = record["interval"]["low"], record["interval"]["high"]
        cells = [rule, f"{record['share']:.1%}", f"{low:.1%} to {high:.1%}", f"{record['forwards']:.1f}"]
        if (pair := record.get("confidence_minus_this")) is not None:
            span = f"{pair['interval']['low']:+.1%} to {pair['interval']['high']:+.1%}"
            cells += [f"{pair['value']:+.1%} ({span})", f"{pair['corrected']:.2g}"]
        table.add_row(*cells)
    count = next(iter(records.values()))["count"]
    print_card(title, table, f"{count:,} questions of four candidates: 25 % is chance. Intervals: Wilson; bootstrap.")


if __name__ == "__main__":
    main()
