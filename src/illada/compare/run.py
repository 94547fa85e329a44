"""One run of a plan in its folder, done once: trained, examined, and its numbers kept.

    POOL/runs/KEY/plan.json       the plan
    POOL/runs/KEY/lessons/        the run folder of the stage on exercises
    POOL/runs/KEY/seconds.json    what it took, on the machine it ran on
    POOL/runs/KEY/result.json     the numbers; written last: where it is, the run is done
    POOL/texts/KEY/               the run folder of a pre-training, shared by all plans that begin with it
    POOL/data/                    prepared text and exercises

KEY is a fingerprint of all that decides the numbers; device and number of processes change the last digits and are no
part of it. A run that was killed goes on at its newest checkpoint; two jobs that want the same run wait for each other.

The processes of one job train together. The first of them alone writes these files and asks what a model has learnt,
and tells the others what came of it.
"""

import contextlib
import fcntl
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
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
from illada.distributed.mesh import Mesh, alone
from illada.distributed.processes import Processes
from illada.durable import write_text
from illada.pipeline import load
from illada.train.run import RunConfig, Task, execute

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


def finish(plan: Plan, pool: Pool, mesh: Mesh | None = None) -> dict[str, Any]:
    """The numbers of a run: found, or computed now. One that diverged has a single entry, `diverged`, beside its key.

    All processes of a mesh call it together, and get the same; None: this process alone, on the CPU.

    Raises:
        Interrupted: a signal asked to leave; the same call goes on from there.
        OSError: the disk is full, say.
        PeerError: another process of the job failed, or has gone.
    """
    mesh = mesh or alone(torch.device("cpu"))
    processes = mesh.processes
    with locked(pool.folder(plan), processes):
        found: dict[str, Any] | None = processes.by_first(partial(_found_or_begun, plan, pool))
        if found is not None:
            return found
        try:
            result, seconds = _run(plan, pool, mesh)
        except FloatingPointError as error:  # the same numbers would come again: kept as what came of it
            result, seconds = {"key": plan.key, "diverged": str(error)}, {"whole": 0.0, "exam": 0.0}
        processes.by_first(partial(_keep, pool.folder(plan), result, seconds))
    return result


def _found_or_begun(plan: Plan, pool: Pool) -> dict[str, Any] | None:
    """The numbers, if the run is finished; else its folder is there from now on."""
    if (found := pool.result(plan)) is None:
        folder = pool.folder(plan)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / PLAN, json.dumps(to_dict(plan), indent=2) + "\n")
    return found


def _keep(folder: Path, result: dict[str, Any], seconds: dict[str, float]) -> None:
    write_text(folder / SECONDS, json.dumps(seconds, indent=2) + "\n")
    write_text(folder / RESULT, json.dumps(result, indent=2) + "\n")


@contextlib.contextmanager
def locked(folder: Path, processes: Processes) -> Iterator[None]:
    """While entered, no other job is at work in the folder; the lock goes with the process that holds it, the first."""
    file = folder.with_name(f"{folder.name}.lock")
    with contextlib.ExitStack() as held:

        def take() -> None:
            file.parent.mkdir(parents=True, exist_ok=True)
            fcntl.flock(held.enter_context(file.open("w")), fcntl.LOCK_EX)

        processes.by_first(take)
        yield


def _run(plan: Plan, pool: Pool, mesh: Mesh) -> tuple[dict[str, Any], dict[str, float]]:
    began = time.perf_counter()
    processes = mesh.processes
    result: dict[str, Any] = {"key": plan.key, "curves": {}, "tokens": {}, "looks": []}
    opening = corpus = None
    if plan.text is not None:
        corpus = processes.in_turn(partial(text_corpus, plan.text, pool.places))
        run, checkpoint = _text_run(plan, plan.text, corpus, pool, mesh)
        _note(result, "text", run, "held_out/nats_per_token", processes)
        opening = Opening(tokenizer=corpus.tokenizer, folder=checkpoint)
        result["vocab_size"] = corpus.tokenizer.vocab_size
    measures = processes.by_first(partial(_of_text, plan, corpus, opening, result, mesh.device))
    examined = 0.0
    if plan.lessons is not None:
        material = None if corpus is None else Text(shards=corpus.train[0][0], tokenizer=corpus.tokenizer)
        if opening is None:
            opening = Opening(tokenizer=processes.in_turn(partial(lesson_tokenizer, plan.lessons, pool.places)))
        result["vocab_size"] = opening.tokenizer.vocab_size
        task = processes.in_turn(partial(lesson_task, plan, plan.lessons, opening, material, pool.places))
        looks = plan.lessons.looks
        config = run_config(plan, plan.lessons.pace, plan.lessons.noise, looks=looks, device=mesh.device.type)
        run = _trained(pool.folder(plan) / "lessons", config, task, mesh)
        _note(result, "lessons", run, HELD_OUT, processes)
        for look in range(1, looks + 1):
            start = time.perf_counter()
            checkpoint = checkpoint_path(run / "checkpoints", config.loop.steps * look // looks)
            found = processes.by_first(partial(_examined, plan, plan.lessons, checkpoint, corpus, mesh.device))
            examined += time.perf_counter() - start
            result["looks"].append({"at": look / looks, "measures": measures | found})
    else:
        result["looks"].append({"at": 1.0, "measures": measures})
    return result, {"whole": time.perf_counter() - began, "exam": examined}


def _text_run(plan: Plan, stage: TextStage, corpus: Corpus, pool: Pool, mesh: Mesh) -> tuple[Path, Path]:
    """(run folder, newest checkpoint) of the pre-training, which other plans may share."""
    only_text = replace(plan, lessons=None)
    # what is asked afterwards decides nothing about it
    folder = pool.path / "texts" / replace(only_text, exam=type(plan.exam)(), sampler=type(plan.sampler)()).key
    config = run_config(plan, stage.pace, stage.noise, device=mesh.device.type)
    with locked(folder, mesh.processes):
        run = _trained(folder, config, text_task(plan, stage, corpus, mesh=mesh), mesh)
    return run, checkpoint_path(run / "checkpoints", config.loop.steps)


def _trained(folder: Path, config: RunConfig, task: Task, mesh: Mesh) -> Path:
    outcome = execute(config, folder, task, resume=True, console=_QUIET, mesh=mesh)
    if outcome.stopped_by is not None:
        raise Interrupted(f"left at step {outcome.steps} ({outcome.stopped_by})")
    return folder


def _of_text(
    plan: Plan, corpus: Corpus | None, opening: Opening | None, result: dict[str, Any], device: torch.device
) -> dict[str, float]:
    """What the pre-trained model does by itself: its likelihood of new text, and gaps where that is what it learnt."""
    if corpus is None or opening is None or opening.folder is None:
        return {}
    last = result["curves"]["text"][-1]
    found = {"nats per token/text": last["value"], "nats per token/text, error": last["error"]}
    if plan.exam.questions and plan.lessons is not None and plan.lessons.lessons.gaps and plan.objective == "diffusion":
        held_out = Text(shards=corpus.held_out, tokenizer=corpus.tokenizer)
        model = load(opening.folder, device=str(device))
        found |= text_gaps(model, plan.lessons, held_out, count=plan.exam.questions)
    return found


def _examined(
    plan: Plan, stage: LessonStage, checkpoint: Path, corpus: Corpus | None, device: torch.device
) -> dict[str, float]:
    if not plan.exam.questions:
        return {}
    held_out = None if corpus is None else Text(shards=corpus.held_out, tokenizer=corpus.tokenizer)
    model = load(checkpoint, device=str(device))
    return Examiner(model=model, plan=plan, stage=stage, held_out=held_out).measures()


def _note(result: dict[str, Any], stage: str, run: Path, held_out: str, processes: Processes) -> None:
    """The learning curve of a stage, and the tokens it took."""
    result["tokens"][stage], result["curves"][stage] = processes.by_first(partial(_tokens_and_curve, run, held_out))


def _tokens_and_curve(run: Path, held_out: str) -> tuple[float, list[dict[str, Any]]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    tokens = {line["step"]: line["train/tokens"] for line in lines if "train/tokens" in line} | {0: 0.0}
    error = "held_out/standard_error_nats_per_token"
    curve = [
        {
            "step": line["step"],
            "tokens": tokens.get(line["step"]),
            "value": line[held_out],
            "error": line.get(error, 0.0),
        }
        for line in lines
        if held_out in line
    ]
    return max(tokens.values()), curve
