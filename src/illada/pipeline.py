"""The front door for people who use a model: text in, text out.

model = illada.load("runs/tiny")
print(model.generate("def read(path):", length=64).text)
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import torch

from illada.checkpoint.native import find_checkpoint, load_checkpoint, load_weights
from illada.data.tokenizer import Tokenizer
from illada.model.device import choose_device
from illada.model.transformer import Transformer
from illada.sample.request import Completion, SamplingParams
from illada.sample.sampler import Canvas, FilledCanvas, OnStep, fill

BATCH_SIZE = 16


@dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """Weights and tokenizer together; `illada.load` makes one."""

    transformer: Transformer
    tokenizer: Tokenizer

    def __post_init__(self) -> None:
        """Refuse a vocabulary that the model has no rows for."""
        have, need = self.transformer.config.vocab_size, self.tokenizer.vocab_size
        if have < need:
            raise ValueError(
                f"the tokenizer has {need} entries, but the model only {have}: they do not belong together"
            )

    @overload
    def generate(
        self,
        prompt: str,
        params: SamplingParams | None = None,
        *,
        seeds: None = None,
        on_step: OnStep | None = None,
        **options: object,
    ) -> Completion: ...
    @overload
    def generate(
        self,
        prompt: list[str],
        params: SamplingParams | None = None,
        *,
        seeds: Sequence[int] | None = None,
        on_step: OnStep | None = None,
        **options: object,
    ) -> list[Completion]: ...
    def generate(
        self,
        prompt: str | list[str],
        params: SamplingParams | None = None,
        *,
        seeds: Sequence[int] | None = None,
        on_step: OnStep | None = None,
        **options: object,
    ) -> Completion | list[Completion]:
        """Continue one prompt, or several in shared forwards; each gives what it would give alone.

        Args:
            prompt: text; special tokens spelt in it stay text. The model sees BOS in front of it.
            params: how to sample; None: the defaults.
            seeds: one per prompt; None: the seed of the parameters for each, so that equal prompts give equal texts.
            on_step: called after every forward of a batch of at most 16 rows; for live views.
            options: single fields of `SamplingParams` by name, over `params`.

        Raises:
            ValueError: an option out of range, or prompt and completion together exceed the context.
        """
        chosen = _merge(params, options)
        prompts = [prompt] if isinstance(prompt, str) else prompt
        noise = [chosen.seed] * len(prompts) if seeds is None else list(seeds)
        if len(noise) != len(prompts):
            raise ValueError(f"{len(prompts)} prompts need as many seeds, got {len(noise)}")
        given = [[self.tokenizer.specials.bos, *ids] for ids in self.tokenizer.encode_batch(prompts)]
        self._check_context([len(ids) + chosen.length for ids in given])
        canvases = [
            Canvas(tokens=(*ids, *[None] * chosen.length), seed=seed) for ids, seed in zip(given, noise, strict=True)
        ]
        completions = self._complete(canvases, chosen, on_step, stop_at_end=True)
        return completions[0] if isinstance(prompt, str) else completions

    def infill(
        self,
        prefix: str,
        suffix: str,
        params: SamplingParams | None = None,
        *,
        on_step: OnStep | None = None,
        **options: object,
    ) -> Completion:
        """Write the `length` tokens that stand between a prefix and a suffix, seeing both.

        End of text is never chosen: the text goes on behind the gap.

        Raises:
            ValueError: an option out of range, or all three parts together exceed the context.
        """
        chosen = _merge(params, options)
        specials = self.tokenizer.specials
        chosen = replace(chosen, suppress=(*chosen.suppress, specials.bos, specials.eos, specials.pad))
        before = [specials.bos, *self.tokenizer.encode(prefix)]
        after = self.tokenizer.encode(suffix)
        self._check_context([len(before) + chosen.length + len(after)])
        canvas = Canvas(tokens=(*before, *[None] * chosen.length, *after), seed=chosen.seed)
        return self._complete([canvas], chosen, on_step, stop_at_end=False)[0]

    def _complete(
        self, canvases: list[Canvas], params: SamplingParams, on_step: OnStep | None, *, stop_at_end: bool
    ) -> list[Completion]:
        # rows that the model has beyond the vocabulary stand for no text
        spare = range(self.tokenizer.vocab_size, self.transformer.config.vocab_size)
        params = replace(params, suppress=(*params.suppress, *spare))
        completions = []
        for start in range(0, len(canvases), BATCH_SIZE):
            batch = canvases[start : start + BATCH_SIZE]
            began = time.perf_counter()
            filled = fill(self.transformer, batch, params, mask_id=self.tokenizer.specials.mask, on_step=on_step)
            seconds = time.perf_counter() - began
            completions += [
                self._completion(canvas, row, seconds, stop_at_end=stop_at_end)
                for canvas, row in zip(batch, filled, strict=True)
            ]
        return completions

    def _completion(self, canvas: Canvas, filled: FilledCanvas, seconds: float, *, stop_at_end: bool) -> Completion:
        """What was written into the holes, up to the end of text."""
        holes = canvas.holes
        tokens = [filled.tokens[position] for position in holes]
        end = self.tokenizer.specials.eos
        stopped = stop_at_end and end in tokens
        if stopped:
            tokens = tokens[: tokens.index(end)]
        return Completion(
            text=self.tokenizer.decode(tokens),
            tokens=tuple(tokens),
            finish_reason="stop" if stopped else "length",
            prompt_tokens=len(canvas.tokens) - len(holes),
            forwards=filled.forwards,
            seconds=seconds,
            revealed_at=tuple(filled.revealed_at[position] for position in holes[: len(tokens)]),
        )

    def _check_context(self, lengths: list[int]) -> None:
        limit = self.transformer.config.max_length
        if (longest := max(lengths, default=0)) > limit:
            raise ValueError(
                f"prompt and completion need {longest} tokens, but the model's context holds {limit}: "
                "shorten the prompt or ask for a smaller length"
            )


def load(path: str | Path, *, device: str = "auto", dtype: torch.dtype = torch.float32) -> LanguageModel:
    """The model in a run folder (its newest checkpoint) or a checkpoint folder.

    Raises:
        FileNotFoundError: no checkpoint is there.
        ValueError: the checkpoint is damaged, or the device is not there.
    """
    place = choose_device(device)
    folder = find_checkpoint(Path(path))
    saved = load_checkpoint(folder)
    with torch.device("meta"):
        model = Transformer(saved.model_config)
    model = model.to_empty(device=place).to(dtype)
    load_weights(model, saved.weights, source=str(folder))
    return LanguageModel(transformer=model.eval(), tokenizer=saved.tokenizer)


def _merge(params: SamplingParams | None, options: dict[str, object]) -> SamplingParams:
    known = SamplingParams.__dataclass_fields__
    if unknown := sorted(options.keys() - known.keys()):
        raise ValueError(f"no sampling option is called {', '.join(unknown)}; there are: {', '.join(known)}")
    make: Callable[..., SamplingParams] = replace
    return make(params or SamplingParams(), **options)
