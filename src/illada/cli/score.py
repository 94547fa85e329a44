"""`illada score PROMPT CANDIDATES`: how probable each answer is."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from illada.assets import BASE
from illada.cli.flags import parse
from illada.cli.loading import Loading
from illada.data.formats import json_records
from illada.evaluate.scoring import CandidateScore, Normalisation, ScoringParams, best
from illada.track.console import ProgressBar


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Score candidates: what may follow a prompt, its leading blank included."""

    prompt: Annotated[str, tyro.conf.Positional] = ""
    """The text in front."""
    candidates: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """What may follow it."""
    file: Path | None = None
    """Many questions in place of one: JSON lines with the fields prompt and candidates."""
    model: Path = Path(BASE)
    """A run, a checkpoint, tiny or tiny-instruct, a published folder, or an id on the hub."""
    normalise: Normalisation = "none"
    """What decides: the sum, or the sum per token or per byte of the candidate."""
    params: Annotated[ScoringParams, tyro.conf.arg(name="")] = field(default_factory=ScoringParams)
    loading: Annotated[Loading, tyro.conf.arg(name="")] = field(default_factory=Loading)
    json: bool = False
    """Print one JSON object per question: scores, errors, reveal orders, terms, the best."""

    def __post_init__(self) -> None:
        """Either a question or a file of them."""
        if (self.file is None) == (not self.candidates):
            raise ValueError("give a prompt and its candidates, or --file with questions, and not both")


def command(arguments: list[str]) -> int:
    """Load, score, print."""
    chosen = parse(Arguments, arguments, command="score")
    questions = [(chosen.prompt, chosen.candidates)] if chosen.file is None else read_questions(chosen.file)
    model = chosen.loading.load(chosen.model)
    total = sum(len(candidates) for _, candidates in questions)
    with ProgressBar(Console(stderr=True), title="candidates", total_steps=total) as bar:
        scores = model.score(
            [prompt for prompt, _ in questions],
            [candidates for _, candidates in questions],
            chosen.params,
            on_progress=(lambda done: bar.log(done, {})) if len(questions) > 1 else None,
        )
    for (prompt, candidates), found in zip(questions, scores, strict=True):
        winner = best(found, normalise=chosen.normalise)
        if chosen.json:
            rows = [_row(text, score) for text, score in zip(candidates, found, strict=True)]
            print(json.dumps({"prompt": prompt, "best": winner, "candidates": rows}))  # noqa: T201  # for programs
        else:
            Console().print(table(candidates, found, winner=winner))
    return 0


def _row(text: str, score: CandidateScore) -> dict[str, object]:
    """A candidate as plain data; JSON has no infinity."""
    error = score.standard_error if math.isfinite(score.standard_error) else None
    return {"candidate": text, **asdict(score), "standard_error": error}


def read_questions(file: Path) -> list[tuple[str, tuple[str, ...]]]:
    """(prompt, candidates) of every line.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line without a prompt or without candidates, by its number.
    """
    questions = []
    for place, record in json_records(file):
        values = record if isinstance(record, dict) else {}
        prompt, candidates = values.get("prompt"), values.get("candidates")
        texts = candidates if isinstance(candidates, list) else []
        if not isinstance(prompt, str) or not texts or not all(isinstance(text, str) for text in texts):
            raise ValueError(f'{place}: expected {{"prompt": "text", "candidates": ["text", ...]}}')
        questions.append((prompt, tuple(texts)))
    if not questions:
        raise ValueError(f"{file} holds no question")
    return questions


def table(candidates: Sequence[str], scores: Sequence[CandidateScore], *, winner: int) -> Table:
    """A line for each candidate; the winner is marked."""
    shown = Table(box=None, pad_edge=False)
    shown.add_column("")
    shown.add_column("candidate")
    for name in ("nats", "per token", "per byte", "tokens", "forwards"):
        shown.add_column(name, justify="right", no_wrap=True)
    for number, (text, score) in enumerate(zip(candidates, scores, strict=True)):
        error = f" ± {score.standard_error:.3f}" if score.standard_error else ""
        shown.add_row(
            "*" if number == winner else "",
            escape(repr(text)),
            f"{score.log_probability:.3f}{error}",
            f"{score.normalised('tokens'):.3f}",
            f"{score.normalised('bytes'):.3f}",
            str(score.tokens),
            str(score.forwards),
        )
    return shown
