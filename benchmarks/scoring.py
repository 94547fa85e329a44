"""Confidence scores of choices: candidates in shared forwards, against one candidate at a time.

    python benchmarks/scoring.py                        the skills as choices: needs no data
    python benchmarks/scoring.py --data FOLDER --out benchmarks/results/scoring_cpu2_202611.json
                                                        ARC-Challenge and MMLU-Redux from local files, too

Both contenders answer the same questions through the evaluation of the library: prompts, tokens, the verdict, and the
weights are the same, and so is the `Transformer`. What differs is how a candidate gets its score (iLLaDA, arXiv
2606.25331, Eq. 2). The loop does what the authors' script does: for every candidate by itself, L forwards of one row,
logits at every position, cross-entropy at those that are masked, and the token with the smallest is revealed. The
library collects rows of all candidates of a batch of questions, computes equal ones once, and lets only the positions
that are asked for meet the vocabulary. Every score must agree to 3e-4 nats, and every choice.

The questions are spread evenly over a benchmark. Both contenders take turns, in an order that turns round, so that a
machine that slows down slows both; a round gives one ratio of times, and median and quartiles are over rounds. On one
token per candidate, the letters of MMLU, all candidates of a question are one row; on whole answers only rows that
happen to be equal can be shared, and the rest of the gain is that of batches.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import tyro
from rich.table import Table

from card import describe_run, print_card, publish, seconds_of, spread
from illada.data.skills.registry import SKILLS
from illada.evaluate.fitting import Room
from illada.evaluate.run import Prepared, answer, prepare
from illada.evaluate.scoring import CandidateScore
from illada.evaluate.suites import Asking
from illada.evaluate.summary import AnswerLine
from illada.evaluate.task import Question
from illada.evaluate.tasks.registry import TASKS
from illada.evaluate.tasks.skills import skill_choices
from illada.pipeline import LanguageModel, load

TOLERANCE = 3e-4
"""Nats by which two scores may differ: what summing in another order does to float32."""
WHOLE_ANSWERS, LETTERS = "arc_challenge", "mmlu_redux"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Which model answers what, and how often."""

    model: str = "tiny-instruct"
    data: Path | None = None
    """A folder of benchmarks, as `illada eval` reads it."""
    questions: int = 64
    """Of each benchmark."""
    skill_questions: int = 12
    """Of each skill."""
    skills: tuple[str, ...] = tuple(SKILLS)
    rounds: int = 5
    threads: int | None = None
    """By default all cores."""
    out: Path | None = None
    """Write the result to this file, too."""


class OneAtATime(LanguageModel):
    """Scores as the authors' script does."""

    @torch.no_grad()
    def score_ids(self, prompts, candidates, *_: object, **__: object) -> list[list[CandidateScore]]:
        return [[self.confidence(ids, target) for target in few] for ids, few in zip(prompts, candidates, strict=True)]

    def confidence(self, prompt: Sequence[int], target: Sequence[int]) -> CandidateScore:
        mask_id, end = self.tokenizer.specials.mask, self.tokenizer.specials.eos
        clean = torch.tensor([*prompt, *target, end])
        noisy = torch.tensor([*prompt, *[mask_id] * len(target), end])
        terms, order = [], []
        while len(terms) < len(target):
            masked = (noisy == mask_id).nonzero()[:, 0]
            logits = self.transformer.logits(self.transformer(noisy[None]))[0]
            losses = F.cross_entropy(logits[masked], clean[masked], reduction="none")
            surest = losses.argmin()
            terms.append(-losses[surest].item())
            order.append(masked[surest].item() - len(prompt))
            noisy[masked[surest]] = clean[masked[surest]]
        return CandidateScore(
            log_probability=sum(terms),
            standard_error=0.0,
            tokens=len(target),
            bytes=len(self.tokenizer.decode_bytes(target)),
            order=tuple(order),
            terms=tuple(terms),
            greedy=None,
            forwards=len(target),
            positions=len(target) * len(clean),
        )


def main() -> None:
    settings = tyro.cli(Settings)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    model = load(settings.model, device="cpu")
    records = [measure(name, model, tasks, settings.rounds) for name, tasks in kinds(settings).items()]
    names = ("row, tokens", "answer, tokens", "rows: loop", "shared", "items/s: loop", "shared", "times as fast")
    table = Table("candidates", "items", *names)
    for record in records:
        ratio, loop, shared = record["times_as_fast"], record["loop"], record["shared"]
        table.add_row(
            record["kind"],
            f"{record['questions']}",
            f"{record['row_tokens']:.0f}",
            f"{record['answer_tokens']:.1f}",
            f"{loop['rows']:,}",
            f"{shared['rows']:,}",
            f"{loop['items_per_second']['median']:.2f}",
            f"{shared['items_per_second']['median']:.2f}",
            f"{ratio['median']:.2f} [{ratio['q1']:.2f}, {ratio['q3']:.2f}]",
        )
    most = max(record["largest_difference"] for record in records)
    note = (
        f"the same scores: no two differ by more than {most:.1e} nats; median and quartiles of {settings.rounds} rounds"
    )
    print_card(f"Confidence scores with {settings.model}, {torch.get_num_threads()} threads", table, note)
    publish(describe_run("scoring", torch.device("cpu"), shown(settings)) | {"records": records}, settings.out)


def shown(settings: Settings) -> dict[str, Any]:
    """The settings without places on this machine."""
    values = asdict(settings)
    return {**values, "data": settings.data and settings.data.name, "out": settings.out and settings.out.name}


def kinds(settings: Settings) -> dict[str, list[Prepared]]:
    """What is asked: name -> tasks."""
    skills = skill_choices(tuple(SKILLS[name] for name in settings.skills), count=settings.skill_questions)
    asked = {"skills": [prepare(one, Asking(task=one.name, chat=True), data=None, limit=None) for one in skills]}
    for name in (WHOLE_ANSWERS, LETTERS) if settings.data else ():
        whole = prepare(TASKS[name], Asking(task=name), data=settings.data, limit=None)
        asked[name] = [replace(whole, questions=evenly(whole.questions, settings.questions))]
    return asked


def evenly(questions: tuple[Question, ...], count: int) -> tuple[Question, ...]:
    """So many of a benchmark's questions, from its beginning to its end."""
    return questions[:: max(1, len(questions) // count)][:count]


def measure(name: str, model: LanguageModel, tasks: Sequence[Prepared], rounds: int) -> dict[str, Any]:
    """Both contenders on the same questions, in turn."""
    contenders = {"loop": OneAtATime(transformer=model.transformer, tokenizer=model.tokenizer), "shared": model}
    counts, answers = {}, {}
    for who, contender in contenders.items():  # not timed: the first forwards are slower
        with counting(model) as counts[who]:
            answers[who] = ask(contender, tasks)
    difference = largest_difference(answers["loop"], answers["shared"])
    seconds: dict[str, list[float]] = {who: [] for who in contenders}
    for number in range(rounds):
        for who in [*contenders][:: 1 if number % 2 else -1]:
            seconds[who].append(seconds_of(partial(ask, contenders[who], tasks), torch.device("cpu")))
    lines = answers["loop"]
    forwards, candidates = sum(line.forwards for line in lines), sum(len(line.scores) for line in lines)
    speed = {who: {"items_per_second": spread([len(lines) / took for took in seconds[who]])} for who in contenders}
    return {
        "kind": name,
        "questions": len(lines),
        "candidates": candidates,
        "answer_tokens": forwards / candidates,
        "row_tokens": sum(line.positions for line in lines) / forwards,
        **{who: counts[who] | speed[who] for who in contenders},
        "times_as_fast": spread([one / other for one, other in zip(seconds["loop"], seconds["shared"], strict=True)]),
        "largest_difference": difference,
    }


def ask(model: LanguageModel, tasks: Sequence[Prepared]) -> list[AnswerLine]:
    """Answer all questions, in the batches in which the evaluation asks them."""
    room = Room(
        context=model.transformer.config.max_length, encode=model.tokenizer.encode, decode=model.tokenizer.decode
    )
    return [line for one in tasks for batch in one.batches for line in answer(model, one, batch, room=room)]


@contextmanager
def counting(model: LanguageModel) -> Iterator[dict[str, int]]:
    """Forwards of the model, rows in them, and their positions, padding included."""
    counts = {"forwards": 0, "rows": 0, "positions": 0}

    def count(_module, arguments) -> None:
        rows, length = arguments[0].shape
        counts["forwards"] += 1
        counts["rows"] += rows
        counts["positions"] += rows * length

    hook = model.transformer.register_forward_pre_hook(count)
    try:
        yield counts
    finally:
        hook.remove()


def largest_difference(one: Sequence[AnswerLine], other: Sequence[AnswerLine]) -> float:
    """Of two scores of the same candidate, in nats.

    Raises:
        AssertionError: it is more than `TOLERANCE`, or another candidate was chosen.
    """
    largest = 0.0
    for plain, shared in zip(one, other, strict=True):
        pairs = list(zip(plain.scores, shared.scores, strict=True))
        largest = max(largest, *(abs(first - second) for first, second in pairs))
        assert largest <= TOLERANCE, f"{plain.task} {plain.id}: the scores are {pairs}"
        assert plain.output == shared.output, f"{plain.task} {plain.id}: another candidate is chosen"
        assert (plain.forwards, plain.positions) == (shared.forwards, shared.positions)
    return largest


if __name__ == "__main__":
    main()
