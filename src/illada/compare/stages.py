"""The stages of a plan, ready to train: model, rows, objective, and what is measured on the way."""

import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from illada.checkpoint.saved import build
from illada.checkpoint.source import model_digest, open_model
from illada.compare.lessons import Lessons, Pair, Text, exercises
from illada.compare.plan import LessonStage, Pace, Plan, TextStage
from illada.compare.tales import tale_questions, told_answers
from illada.config import fingerprint
from illada.data.chat import ChatTemplate, Message
from illada.data.corpus import Corpus, prepare
from illada.data.dialogues import Dialogue, Example, encode_dialogue, encode_dialogues
from illada.data.example_rows import ExamplePacking, ExampleRows
from illada.data.instructions import InstructionSet, write_instructions
from illada.data.loader import Loader
from illada.data.packing import PackedRows, TokenStream
from illada.data.skills.registry import items
from illada.data.tokenizer import Tokenizer
from illada.distributed.mesh import Mesh
from illada.durable import atomic_folder
from illada.evaluate.bound import HeldOut, held_out_bound
from illada.evaluate.response import ResponseBound, response_bound
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer, initialize
from illada.train.learning_rate import WarmupConstantCosine
from illada.train.loop import LoopConfig
from illada.train.objective import NoiseConfig, build_objective
from illada.train.run import RunConfig, Task

FLOOR = 0.02
"""Of the peak learning rate, at the end of its descent."""
HELD_OUT = "held_out/response_nats_per_token"
"""In the metrics of a stage on exercises: per token of the answer and its end."""
_FORMAT = 1  # part of the names of prepared exercises: raise it when the same lessons would give others
_CHECKPOINTS = 4
"""Of a stage, so that one that was killed loses little."""
_HELD_OUT = 48
"""Problems of each skill that the held-out loss is measured on."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where prepared data are kept."""

    cache: Path


@dataclass(frozen=True, kw_only=True)
class Opening:
    """What a stage starts from: weights that are there already, or a tokenizer and nothing learnt yet."""

    tokenizer: Tokenizer
    folder: Path | None = None
    """A checkpoint."""

    def model(self, config: ModelConfig, *, seed: int) -> Transformer:
        """The weights of the checkpoint, or new ones that depend on the seed and the shape alone."""
        if self.folder is not None:
            return build(open_model(self.folder), device=torch.device("cpu"), dtype=torch.float32).train()
        model = Transformer(replace(config, vocab_size=self.tokenizer.vocab_size))
        initialize(model, seed=seed)
        return model

    @property
    def identity(self) -> list[str]:
        """What a resumed run must have started from."""
        return [] if self.folder is None else [model_digest(self.folder)]


class FirstTokens:
    """The beginning of a stream of tokens: a text of which there is no more."""

    def __init__(self, stream: TokenStream, count: int) -> None:
        self._stream, self._count = stream, min(count, len(stream))

    def __len__(self) -> int:
        """How many tokens there are."""
        return self._count

    def read(self, start: int, length: int) -> npt.NDArray[np.int64]:
        """The tokens from `start` on."""
        return self._stream.read(start, length)

    def document_starts(self, start: int, length: int) -> npt.NDArray[np.int64]:
        """Where documents begin among them, counted from `start`."""
        return self._stream.document_starts(start, length)


def text_corpus(stage: TextStage, places: Places) -> Corpus:
    """The text of a stage, prepared or found again."""
    return prepare(stage.corpus, places.cache, report=lambda _: None)


def text_task(plan: Plan, stage: TextStage, corpus: Corpus, *, mesh: Mesh | None = None) -> Task:
    """Pre-training of a new model; the processes of a mesh share the measuring."""
    opening, pad = Opening(tokenizer=corpus.tokenizer), corpus.tokenizer.specials.pad
    length = stage.packing.length
    # one token more than the rows: so many windows fit, and every epoch begins at the same place
    most = None if stage.unique_rows is None else (stage.unique_rows + 1) * length - 1
    streams: list[tuple[TokenStream, float]] = [
        (shards if most is None else FirstTokens(shards, most), weight) for shards, weight in corpus.train
    ]
    sources = [(PackedRows(stream, stage.packing, seed=plan.seed, pad=pad), weight) for stream, weight in streams]
    held_out = HeldOut.from_shards(corpus.held_out, rows=stage.held_out_rows, length=length)
    mask_id = corpus.tokenizer.specials.mask
    return Task(
        title="text",
        model=opening.model(plan.model, seed=plan.seed),
        tokenizer=corpus.tokenizer,
        loader=Loader(sources, seed=plan.seed),
        data_identity=[shards.identity for shards, _ in corpus.train],
        row_length=length,
        objective=build_objective(plan.objective, stage.noise, mask_id=mask_id, seed=plan.seed),
        measure=lambda model: held_out_bound(
            model, held_out, mask_id=mask_id, samples=stage.held_out_samples, mesh=mesh
        ).metrics(),
    )


def lesson_task(plan: Plan, stage: LessonStage, opening: Opening, text: Text | None, places: Places) -> Task:
    """Training on exercises, behind what `opening` has learnt."""
    specials = opening.tokenizer.specials
    folder = instruction_folder(stage.lessons, opening.tokenizer, text, places)
    rows = ExampleRows(InstructionSet.open(folder), stage.examples, seed=plan.seed, pad=specials.pad, eos=specials.eos)
    said = encoded(held_out_pairs(stage, text), opening.tokenizer)
    canvases = [on_canvas(example, stage.examples, eos=specials.eos) for example in said]
    # as in training, what does not fit into a row is left out: canvas and all, whatever the objective
    kept = [len(one.prompt) + len(one.response) <= stage.examples.length for one in canvases]
    if not any(kept):
        raise ValueError(
            f"no held-out exercise fits into rows of {stage.examples.length} tokens: raise examples.length"
        )
    answered = sum(len(example.response) for example in compress(said, kept))
    held_out = list(compress(canvases if plan.objective == "diffusion" else said, kept))
    return Task(
        title="lessons",
        model=opening.model(plan.model, seed=plan.seed),
        tokenizer=opening.tokenizer,
        loader=Loader([(rows, 1.0)], seed=plan.seed),
        data_identity=[folder.name, *opening.identity],
        row_length=stage.examples.length,
        objective=build_objective(plan.objective, stage.noise, mask_id=specials.mask, seed=plan.seed),
        measure=lambda model: {
            HELD_OUT: _per_answer_token(response_bound(model, held_out, mask_id=specials.mask), answered)
        },
    )


def on_canvas(example: Example, packing: ExamplePacking, *, eos: int) -> Example:
    """The answer as a diffusion model has learnt it: filled up with ends of text to the end of its last block.

    They are part of what such a model says. Where rows have none, the answer is as it is.
    """
    if packing.filler != "canvas":
        return example
    missing = -len(example.response) % packing.block_length
    return replace(example, response=[*example.response, *[eos] * missing])


def _per_answer_token(bound: ResponseBound, answered: int) -> float:
    """Nats of the whole canvas, per token of the answers and their one end of text: what both objectives count by."""
    return bound.nats_per_token * bound.tokens / answered


def lesson_tokenizer(stage: LessonStage, places: Places) -> Tokenizer:
    """The tokenizer of exercises that no text comes before, trained once."""
    folder = places.cache / "tokenizers" / _named_after(_FORMAT, stage.vocab_size, fingerprint(stage.lessons))
    if not folder.exists():
        texts = (f"{prompt}\n{answer}" for prompt, answer in exercises(stage.lessons))
        trained = Tokenizer.train(texts, stage.vocab_size)
        with contextlib.suppress(FileExistsError), atomic_folder(folder) as partial:  # another process may be faster
            trained.save(partial)
    return Tokenizer.load(folder)


def held_out_pairs(stage: LessonStage, text: Text | None) -> list[Pair]:
    """Exercises for the learning curve: new problems and new tales; else some of the facts or gaps that are learnt."""
    lessons = stage.lessons
    pairs = [
        (item.problem.prompt, item.problem.response)
        for skill in lessons.skills
        for item in items(skill, "test", _HELD_OUT, seed=1, levels=lessons.levels)
    ]
    if lessons.tales is not None:
        pairs += [told_answers(question)[0] for question in tale_questions(lessons.tales, "val")[:_HELD_OUT]]
    return pairs or exercises(lessons, text)[:_HELD_OUT]


def encoded(pairs: Sequence[Pair], tokenizer: Tokenizer) -> list[Example]:
    """Exercises as token ids, in the tokenizer's chat template."""
    template = ChatTemplate(tokenizer)
    return [example for pair in pairs for example in encode_dialogue(dialogue(pair), template)]


def dialogue(pair: Pair) -> Dialogue:
    """An exercise as the turn of a user and that of the assistant."""
    prompt, answer = pair
    return Dialogue(messages=(Message(role="user", content=prompt), Message(role="assistant", content=answer)))


def instruction_folder(lessons: Lessons, tokenizer: Tokenizer, text: Text | None, places: Places) -> Path:
    """Exercises on the disk, encoded once for all runs that learn them."""
    origin = "" if text is None else text.shards.identity
    name = _named_after(_FORMAT, fingerprint(lessons), tokenizer.fingerprint, origin)
    folder = places.cache / "lessons" / name
    if not folder.exists():
        dialogues = encode_dialogues(map(dialogue, exercises(lessons, text)), ChatTemplate(tokenizer))
        with contextlib.suppress(FileExistsError):  # another process may be faster
            write_instructions(dialogues, folder, vocab_size=tokenizer.vocab_size)
    return folder


def _named_after(*content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def run_config(plan: Plan, pace: Pace, noise: NoiseConfig, *, looks: int = 1, device: str = "cpu") -> RunConfig:
    """How a stage is trained.

    On a GPU in fp32 as on the CPU: where a run was trained is no part of its plan, and must not show in its numbers.
    """
    peak = plan.peak * pace.rate_share
    steps = max(1, round(pace.steps / looks)) * looks
    options: dict[str, Any] = {"keep_every": steps // looks} if looks > 1 else {}
    return RunConfig(
        objective=plan.objective,
        noise=noise,
        optimizer=plan.optimizer,
        learning_rate=WarmupConstantCosine(
            peak=peak,
            floor=peak * FLOOR,
            warmup_steps=max(1, round(pace.warmup * steps)),
            decay_fraction=pace.decay if looks == 1 else 0.0,
        ),
        loop=LoopConfig(
            steps=steps,
            batch_size=pace.batch_size,
            precision="fp32",
            log_every=max(1, steps // (2 * pace.curve)),
            validate_every=max(1, steps // pace.curve),
            checkpoint_every=steps // looks if looks > 1 else max(1, steps // _CHECKPOINTS),
            keep_last=1,
            **options,
        ),
        device=device,
        seed=plan.seed,
    )
