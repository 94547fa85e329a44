"""The front door for people who use a model: text in, text out.

model = illada.load("runs/tiny")
print(model.generate("def read(path):", length=64).text)
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import cast, overload

import torch

from illada.assets import BASE
from illada.checkpoint.assembly import assemble
from illada.checkpoint.huggingface.configuration import Overrides
from illada.config import merge
from illada.data.chat import ChatTemplate, Message
from illada.data.tokenizer import Tokenizer
from illada.evaluate.pairs import encode_pairs
from illada.evaluate.scoring import CandidateScore, ScoringParams, score_candidates
from illada.evaluate.shared_forwards import Candidate
from illada.model.device import choose_device
from illada.model.quantized import Bits
from illada.model.transformer import Transformer
from illada.sample.canvas import Canvas, FilledCanvas
from illada.sample.engine import Engine, RowState
from illada.sample.request import Chunk, Completion, SamplingParams
from illada.sample.sampler import OnStep, fill
from illada.sample.stopping import Stopping
from illada.sample.streaming import stream_chunks
from illada.sample.writing import Prompt, Writing, budget_within, write, writing_request

MASK_SHOWN = "░"

Messages = Sequence[Message | Mapping[str, str]]
"""The turns of a dialogue, oldest first."""


@dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """Weights and tokenizer together; `illada.load` makes one."""

    transformer: Transformer
    tokenizer: Tokenizer

    def __post_init__(self) -> None:
        """Refuse a vocabulary that the model has no rows for."""
        have, need = self.transformer.config.vocab_size, self.tokenizer.vocab_size
        if have < need:
            raise ValueError(f"the tokenizer has {need} entries, the model only {have}: they do not belong together")

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
            on_step: called after every forward; for live views.
            options: single fields of `SamplingParams` by name, over `params`.

        Raises:
            ValueError: an option out of range, or a prompt that leaves no room in the context.
        """
        prompts = [prompt] if isinstance(prompt, str) else prompt
        given = self._encoded(prompts)
        completions = self.complete_ids(given, params, seeds=seeds, on_step=on_step, **options)
        return completions[0] if isinstance(prompt, str) else completions

    def chat(
        self,
        conversations: Sequence[Messages],
        params: SamplingParams | None = None,
        *,
        seeds: Sequence[int] | None = None,
        on_step: OnStep | None = None,
        **options: object,
    ) -> list[Completion]:
        """Answer several conversations in shared forwards, by the chat template of the tokenizer.

        Raises:
            ValueError: there is no template, it refuses a conversation, or as `generate`.
        """
        given = [self.chat_template.encode(messages) for messages in conversations]
        return self.complete_ids(given, params, seeds=seeds, on_step=on_step, **options)

    def stream(
        self, prompt: str, params: SamplingParams | None = None, *, provisional: bool = False, **options: object
    ) -> Generator[Chunk, None, None]:
        """Continue a prompt piece by piece: a chunk for every block, or, `provisional`, for every forward.

        The texts of all chunks together are the completion's, which comes with the last. Leaving the iterator stops
        the work.

        Raises:
            ValueError: as `generate`, before the first chunk.
        """
        return self.stream_ids(self._encoded([prompt])[0], params, provisional=provisional, **options)

    def stream_chat(
        self, messages: Messages, params: SamplingParams | None = None, *, provisional: bool = False, **options: object
    ) -> Generator[Chunk, None, None]:
        """Answer a conversation piece by piece; see `stream`."""
        return self.stream_ids(self.chat_template.encode(messages), params, provisional=provisional, **options)

    def complete_ids(
        self,
        prompts: Sequence[Sequence[int]],
        params: SamplingParams | None = None,
        *,
        seeds: Sequence[int] | None = None,
        on_step: OnStep | None = None,
        **options: object,
    ) -> list[Completion]:
        """`generate` for prompts that are token ids already, BOS and all."""
        chosen = self._chosen(params, options)
        noise = [chosen.seed] * len(prompts) if seeds is None else list(seeds)
        if len(noise) != len(prompts):
            raise ValueError(f"{len(prompts)} prompts need as many seeds, got {len(noise)}")
        self._check_room(prompts, chosen)
        written = write(
            self.transformer,
            [Prompt(tokens=tuple(ids), seed=seed) for ids, seed in zip(prompts, noise, strict=True)],
            chosen,
            mask_id=self.tokenizer.specials.mask,
            stopping=self._stopping(chosen),
            thinking_marker=self._marker(chosen),
            on_step=on_step,
        )
        return [self._completion(writing) for writing in written]

    def stream_ids(
        self,
        prompt: Sequence[int],
        params: SamplingParams | None = None,
        *,
        provisional: bool = False,
        **options: object,
    ) -> Generator[Chunk, None, None]:
        """`stream` for a prompt of token ids."""
        chosen = self._chosen(params, options)
        self._check_room([prompt], chosen)
        return self._streamed(Prompt(tokens=tuple(prompt), seed=chosen.seed), chosen, provisional)

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
            ValueError: an option out of range, all three parts together exceed the context, or the model is causal.
        """
        chosen = self._chosen(params, options)
        specials = self.tokenizer.specials
        chosen = replace(chosen, suppress=(*chosen.suppress, specials.bos, *self.tokenizer.end_ids, specials.pad))
        before = [specials.bos, *self.tokenizer.encode(prefix)]
        after = self.tokenizer.encode(suffix)
        self._check_room([[*before, *after]], replace(chosen, canvas="fixed"))
        canvas = Canvas(tokens=(*before, *[None] * chosen.length, *after), seed=chosen.seed)
        filled = fill(self.transformer, [canvas], chosen, mask_id=specials.mask, on_step=on_step)[0]
        return self._filled_in(canvas, filled)

    @overload
    def score(
        self,
        prompt: str,
        candidates: Sequence[str],
        params: ScoringParams | None = None,
        *,
        on_progress: Callable[[int], None] | None = None,
        **options: object,
    ) -> list[CandidateScore]: ...
    @overload
    def score(
        self,
        prompt: list[str],
        candidates: Sequence[Sequence[str]],
        params: ScoringParams | None = None,
        *,
        on_progress: Callable[[int], None] | None = None,
        **options: object,
    ) -> list[list[CandidateScore]]: ...
    def score(
        self,
        prompt: str | list[str],
        candidates: Sequence[str] | Sequence[Sequence[str]],
        params: ScoringParams | None = None,
        *,
        on_progress: Callable[[int], None] | None = None,
        **options: object,
    ) -> list[CandidateScore] | list[list[CandidateScore]]:
        """How probable each candidate is behind its prompt; questions and candidates of any length share forwards.

        Args:
            prompt: text, or several; the model sees BOS in front of it. Blanks at its end move to the candidates.
            candidates: what may follow it, leading blank included; for several prompts, a list for each.
            params: how to score; None: the defaults.
            on_progress: called with the number of candidates that are done.
            options: single fields of `ScoringParams` by name, over `params`.

        Raises:
            ValueError: an option out of range, an empty candidate, or one that the context does not hold.
        """
        alone = isinstance(prompt, str)
        prompts = [prompt] if isinstance(prompt, str) else prompt
        lists = cast(Sequence[Sequence[str]], [candidates] if alone else candidates)
        if len(prompts) != len(lists):
            raise ValueError(f"{len(prompts)} prompts need as many lists of candidates, got {len(lists)}")
        bos, given, targets = self.tokenizer.specials.bos, [], []
        for text, few in zip(prompts, lists, strict=True):
            pairs = encode_pairs(self.tokenizer, [(text, candidate) for candidate in few])
            given.append([bos, *pairs[0][0]] if pairs else [bos])
            targets.append([target for _, target in pairs])
        scores = self.score_ids(given, targets, params, on_progress=on_progress, **options)
        return scores[0] if alone else scores

    def score_chat(
        self, conversations: Sequence[Messages], candidates: Sequence[Sequence[str]], params: ScoringParams
    ) -> list[list[CandidateScore]]:
        """`score` for answers to conversations, by the chat template of the tokenizer.

        Raises:
            ValueError: there is no template, it refuses a conversation, or as `score`.
        """
        given = [self.chat_template.encode(messages) for messages in conversations]
        return self.score_ids(given, [[self.tokenizer.encode(text) for text in few] for few in candidates], params)

    def score_ids(
        self,
        prompts: Sequence[Sequence[int]],
        candidates: Sequence[Sequence[Sequence[int]]],
        params: ScoringParams | None = None,
        *,
        on_progress: Callable[[int], None] | None = None,
        **options: object,
    ) -> list[list[CandidateScore]]:
        """`score` for prompts and candidates that are token ids already, BOS and all."""
        chosen = merge(ScoringParams, params, options)
        specials = self.tokenizer.specials
        behind = (specials.eos,) if chosen.end and self.transformer.config.attention != "causal" else ()
        pairs = [(tuple(ids), tuple(few)) for ids, some in zip(prompts, candidates, strict=True) for few in some]
        scores = score_candidates(
            self.transformer,
            [Candidate(prompt=prompt, target=target, behind=behind) for prompt, target in pairs],
            chosen,
            mask_id=specials.mask,
            byte_counts=[len(self.tokenizer.decode_bytes(target)) for _, target in pairs],
            on_progress=on_progress,
        )
        ordered = iter(scores)
        return [[next(ordered) for _ in some] for some in candidates]

    @cached_property
    def chat_template(self) -> ChatTemplate:
        """How turns become tokens.

        Raises:
            ValueError: the tokenizer has no template.
        """
        return ChatTemplate(self.tokenizer)

    def _marker(self, params: SamplingParams) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(params.thinking_marker)) if params.thinking_strength else ()

    def _streamed(self, prompt: Prompt, params: SamplingParams, provisional: bool) -> Generator[Chunk, None, None]:
        context = self.transformer.config.max_length
        return stream_chunks(
            Engine(self.transformer, mask_id=self.tokenizer.specials.mask),
            writing_request(
                prompt,
                params,
                config=self.transformer.config,
                stopping=self._stopping(params),
                marker=self._marker(params),
            ),
            complete=lambda filled: self._completion(Writing.of(prompt, filled, params=params, context=context)),
            show=self._shown if provisional else None,
        )

    def _shown(self, state: RowState) -> str:
        """The blocks at work, as far as they are decided."""
        mask = self.tokenizer.specials.mask
        at_work = state.tokens[state.start :]
        return "".join(MASK_SHOWN if token == mask else self.tokenizer.decode([token]) for token in at_work)

    def _completion(self, writing: Writing) -> Completion:
        cut = writing.cut
        count = len(writing.tokens) if cut is None else cut.tokens
        return Completion(
            text=self._data(writing).decode("utf-8", errors="replace"),
            tokens=writing.tokens[:count],
            finish_reason="stop" if cut is not None else "context" if writing.clipped else "length",
            stop_string=None if cut is None else cut.stop_string,
            prompt_tokens=len(writing.prompt.tokens),
            forwards=writing.forwards,
            positions=writing.positions,
            seconds=writing.seconds,
            revealed_at=writing.revealed_at[:count],
        )

    def _filled_in(self, canvas: Canvas, filled: FilledCanvas) -> Completion:
        tokens = [filled.tokens[position] for position in canvas.holes]
        return Completion(
            text=self.tokenizer.decode(tokens),
            tokens=tuple(tokens),
            finish_reason="length",
            prompt_tokens=len(canvas.tokens) - len(tokens),
            forwards=filled.forwards,
            positions=filled.positions,
            seconds=filled.seconds,
            revealed_at=tuple(filled.revealed_at[position] for position in canvas.holes),
        )

    def _data(self, writing: Writing) -> bytes:
        return self.tokenizer.decode_bytes(writing.tokens) if writing.cut is None else writing.cut.data

    def _stopping(self, params: SamplingParams) -> Stopping:
        ends = (*self.tokenizer.end_ids, *self.tokenizer.special_ids(params.stop))
        return Stopping(end_ids=ends, strings=params.stop, decode=self.tokenizer.decode_bytes)

    def _encoded(self, prompts: list[str]) -> list[list[int]]:
        return [[self.tokenizer.specials.bos, *ids] for ids in self.tokenizer.encode_batch(prompts)]

    def _check_room(self, prompts: Sequence[Sequence[int]], params: SamplingParams) -> None:
        """Every prompt before the first forward of any."""
        for ids in prompts:
            budget_within(self.transformer.config.max_length, prompt=len(ids), params=params)

    def _chosen(self, params: SamplingParams | None, options: dict[str, object]) -> SamplingParams:
        chosen = merge(SamplingParams, params, options)
        # rows that the model has beyond the vocabulary stand for no text
        spare = range(self.tokenizer.vocab_size, self.transformer.config.vocab_size)
        end = self.tokenizer.end_ids
        return replace(
            chosen,
            suppress=(*chosen.suppress, *spare, *(end if chosen.end == "never" else ())),
            reveal_last=(*chosen.reveal_last, *(end if chosen.end == "last" else ())),
        )


def load(
    where: str | Path = BASE,
    *,
    adapter: str | Path | None = None,
    quantize: Bits | None = None,
    device: str = "auto",
    dtype: torch.dtype | None = None,
    overrides: Overrides | None = None,
    **options: object,
) -> LanguageModel:
    """The model that `where` names (see `illada.checkpoint.source`), in `dtype`: fp32, or bf16 if it is quantised.

    `adapter`: a LoRA for it. `quantize`: see `illada.model.quantized`. `options`: the fields of `Overrides` by name.

    Raises:
        FileNotFoundError: there is no such model, or a file of it is missing.
        ValueError: it is damaged or not supported, a value cannot be assumed, or the device is not there.
        ModuleNotFoundError: the extra `quant` or `finetune` is needed and not installed.
    """
    assumed, place = merge(Overrides, overrides, options), choose_device(device)
    parts = assemble(where, adapter=adapter, overrides=assumed, device=place, dtype=dtype, quantize=quantize)
    return LanguageModel(transformer=parts[0], tokenizer=parts[1])
