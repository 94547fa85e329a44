"""One run of a plan in its folder, done once: trained, examined, and its numbers kept.

    POOL/runs/KEY/plan.json       the plan
    POOL/runs/KEY/lessons/        the run folder of the stage on exercises
    POOL/runs/KEY/seconds.json    what it took, on the machine it ran on
    POOL/runs/KEY/result.json     the numbers; written last: where it is, the run is done
    POOL/texts/KEY/               the run folder of a pre-training, shared by all plans that begin with it
    POOL/data/                    prepared text and exercises

KEY is a fingerprint of all that decides the numbers. A run that was killed goes on at its newest checkpoint; two
processes that want the same run wait for each other.
"""

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from illada.checkpoint.native import checkpoint_path
from illada.compare.exam import Examiner, text_gaps
from illada.compare.lessons import Text
from illada.compare.plan import LessonStage, Plan, TextStage
from illada.compare.stages import (
    HELD_OUT,
    Opening,
    Places,
    lesson_task,
    lesson_tokenizer,
    run_config,
    text_corpus,
    text_task,
)
from illada.config import to_dict
from illada.data.corpus import Corpus
from illada.durable import write_text
from illada.pipeline import load
from illada.train.run import Task, execute

RESULT, SECONDS, PLAN = "result.json", "seconds.json", "plan.json"

_QUIET = Console(quiet=True)


@dataclass(frozen=True, kw_only=True)
class Pool:
    """The folder in which the runs of all studies lie."""

    path: Path

    @property
    def places(self) -> Places:
        """Where prepared data are kept."""
        return Places(cache=self.path / "data")

    def folder(self, plan: Plan) -> Path:
        """Of one run."""
        return self.path / "runs" / plan.key

    def result(self, plan: Plan) -> dict[str, Any] | None:
        """The numbers of a finished run; None: it is not finished."""
        file = self.folder(plan) / RESULT
        if not file.exists():
            return None
        result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return result

    def seconds(self, plan: Plan) -> dict[str, float]:
        """What a finished run took."""
        seconds: dict[str, float] = json.loads((self.folder(plan) / SECONDS).read_text(encoding="utf-8"))
        return seconds


class Interrupted(Exception):  # noqa: N818  # no error: somebody asked for it
    """A run saved its work and left because a signal asked for it."""


def finish(plan: Plan, pool: Pool) -> dict[str, Any]:
    """The numbers of a run: found, or computed now. One that diverged has a single entry, `diverged`, beside its key.

    Raises:
        Interrupted: a signal asked to leave; the same call goes on from there.
        OSError: the disk is full, say.
    """
    folder = pool.folder(plan)
    with locked(folder):
        if (found := pool.result(plan)) is not None:
            return found
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / PLAN, json.dumps(to_dict(plan), indent=2) + "\n")
        try:
            result, seconds = _run(plan, pool, folder)
        except FloatingPointError as error:  # the same numbers would come again: kept as what came of it
            result, seconds = {"key": plan.key, "diverged": str(error)}, {"whole": 0.0, "exam": 0.0}
        write_text(folder / SECONDS, json.dumps(seconds, indent=2) + "\n")
        write_text(folder / RESULT, json.dumps(result, indent=2) + "\n")
    return result


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """While entered, no other process is at work in the folder; the lock goes with the process that holds it."""
    file = folder.with_name(f"{folder.name}.lock")
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _run(plan: Plan, pool: Pool, folder: Path) -> tuple[dict[str, Any], dict[str, float]]:
    began = time.perf_counter()
    result: dict[str, Any] = {"key": plan.key, "curves": {}, "tokens": {}, "looks": []}
    opening = corpus = None
    if plan.text is not None:
        corpus = text_corpus(plan.text, pool.places)
        run, checkpoint = _text_run(plan, plan.text, corpus, pool)
        _note(result, "text", run, "held_out/nats_per_token")
        opening = Opening(tokenizer=corpus.tokenizer, folder=checkpoint)
        result["vocab_size"] = corpus.tokenizer.vocab_size
    measures = _of_text(plan, corpus, opening, result)
    examined = 0.0
    if plan.lessons is not None:
        material = None if corpus is None else Text(shards=corpus.train[0][0], tokenizer=corpus.tokenizer)
        opening = opening or Opening(tokenizer=lesson_tokenizer(plan.lessons, pool.places))
        result["vocab_size"] = opening.tokenizer.vocab_size
        task = lesson_task(plan, plan.lessons, opening, material, pool.places)
        config = run_config(plan, plan.lessons.pace, plan.lessons.noise, looks=plan.lessons.looks)
        run = _trained(folder / "lessons", config, task)
        _note(result, "lessons", run, HELD_OUT)
        for look in range(1, plan.lessons.looks + 1):
            start = time.perf_counter()
            steps = config.loop.steps * look // plan.lessons.looks
            found = _examined(plan, plan.lessons, checkpoint_path(run / "checkpoints", steps), corpus)
            examined += time.perf_counter() - start
            result["looks"].append({"at": look / plan.lessons.looks, "measures": measures | found})
    else:
        result["looks"].append({"at": 1.0, "measures": measures})
    return result, {"whole": time.perf_counter() - began, "exam": examined}


def _text_run(plan: Plan, stage: TextStage, corpus: Corpus, pool: Pool) -> tuple[Path, Path]:
    """(run folder, newest checkpoint) of the pre-training, which other plans may share."""
    only_text = replace(plan, lessons=None)
    # what is asked afterwards decides nothing about it
    folder = pool.path / "texts" / replace(only_text, exam=type(plan.exam)(), sampler=type(plan.sampler)()).key
    config = run_config(plan, stage.pace, stage.noise)
    with locked(folder):
        run = _trained(folder, config, text_task(plan, stage, corpus))
    return run, checkpoint_path(run / "checkpoints", config.loop.steps)


def _trained(folder: Path, config: Any, task: Task) -> Path:
    outcome = execute(config, folder, task, resume=True, console=_QUIET)
    if outcome.stopped_by is not None:
        raise Interrupted(f"left at step {outcome.steps} ({outcome.stopped_by})")
    return folder


def _of_text(plan: Plan, corpus: Corpus | None, opening: Opening | None, result: dict[str, Any]) -> dict[str, float]:
    """What the pre-trained model does by itself: its likelihood of new text, and gaps where that is what it learnt."""
    if corpus is None or opening is None or opening.folder is None:
        return {}
    last = result["curves"]["text"][-1]
    found = {"nats per token/text": last["value"], "nats per token/text, error": last["error"]}
    if plan.exam.questions and plan.lessons is not None and plan.lessons.lessons.gaps and plan.objective == "diffusion":
        held_out = Text(shards=corpus.held_out, tokenizer=corpus.tokenizer)
        model = load(opening.folder, device="cpu")
        found |= text_gaps(model, plan.lessons, held_out, count=plan.exam.questions)
    return found


def _examined(plan: Plan, stage: LessonStage, checkpoint: Path, corpus: Corpus | None) -> dict[str, float]:
    if not plan.exam.questions:
        return {}
    held_out = None if corpus is None else Text(shards=corpus.held_out, tokenizer=corpus.tokenizer)
    model = load(checkpoint, device="cpu")
    return Examiner(model=model, plan=plan, stage=stage, held_out=held_out).measures()


def _note(result: dict[str, Any], stage: str, run: Path, held_out: str) -> None:
    """The learning curve of a stage, and the tokens it took."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    tokens = {line["step"]: line["train/tokens"] for line in lines if "train/tokens" in line} | {0: 0.0}
    result["tokens"][stage] = max(tokens.values())
    error = "held_out/standard_error_nats_per_token"
    result["curves"][stage] = [
        {
            "step": line["step"],
            "tokens": tokens.get(line["step"]),
            "value": line[held_out],
            "error": line.get(error, 0.0),
        }
        for line in lines
        if held_out in line
    ]
