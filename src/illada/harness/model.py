"""The model `illada` of lm-eval: its three kinds of requests, answered by `illada.pipeline.LanguageModel`.

Requests of any length share forwards, no answer depends on which, and answers come in the order of the requests.
"""

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from illada.checkpoint.source import find_model, model_digest
from illada.evaluate.perplexity import score_windows
from illada.evaluate.scoring import ScoringParams
from illada.harness.prompts import Fitted, Prompts
from illada.harness.settings import ModelArguments, read_model_arguments, read_sampling
from illada.pipeline import LanguageModel, load
from illada.sample.request import SamplingParams

try:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM
    from lm_eval.api.registry import MODEL_REGISTRY, register_model
    from tqdm import tqdm
except ImportError as error:
    raise ImportError(f"the evaluation harness is not installed ({error}): pip install illada[eval]") from error

NAME = "illada"
"""What `--model` calls it. A task file that refers to this constant, by `!function illada.harness.model.NAME`, makes
the model known to an lm-eval that does not look for models in other packages."""

_SCORED_TOGETHER = 1024
"""Requests after which answers go to lm-eval's cache (`--use_cache`), where an evaluation that is killed goes on."""
_MEASURED_TOGETHER = 16
"""Texts, likewise."""

_LOG = logging.getLogger("lm_eval.illada")  # beside lm-eval's own lines, and as loud as they are


class IlladaLM(LM):  # type: ignore[misc]  # lm-eval has no types
    """A masked diffusion language model, or a causal one, in lm-eval."""

    def __init__(self, pretrained: str | LanguageModel | None = None, **arguments: Any) -> None:
        """Load a model.

        Args:
            pretrained: a run folder, a checkpoint folder, the name of a model that comes with the package, or a
                model that is loaded already.
            arguments: see `illada.harness.settings.ModelArguments`, and single fields of
                `illada.evaluate.scoring.ScoringParams` and `illada.sample.request.SamplingParams`.

        Raises:
            ValueError: an unknown argument, or a value that is none.
            FileNotFoundError: no checkpoint is there.
        """
        super().__init__()
        loaded = pretrained if isinstance(pretrained, LanguageModel) else None
        named = arguments if loaded else {**arguments, "pretrained": pretrained}
        self.arguments = read_model_arguments(named, cuda=torch.cuda.is_available())
        self.model = loaded or _load(self.arguments)
        self.scoring = _scoring(self.arguments.scoring, self.model, chosen="method" in arguments)
        self._prompts = Prompts(model=self.model, bos=self.arguments.add_bos_token)
        self._weights = "" if loaded else model_digest(find_model(self.arguments.pretrained))

    # --- the three kinds of requests ---

    def loglikelihood(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """(score of the continuation in nats, the model would have written it) for every (context, continuation).

        Raises:
            ValueError: nothing to score, or more than the context holds; before the first forward.
        """
        pairs = self._prompts.encode_pairs([request.args for request in requests])
        fitted = [
            self._prompts.fit_scored(prompt, target, behind=1 if self.scoring.end else 0) for prompt, target in pairs
        ]
        _tell_what_was_cut(fitted, context=self._prompts.context)
        answers: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        # texts of one length together, and those of one question side by side
        order = sorted(range(len(requests)), key=lambda number: (len(fitted[number].ids), fitted[number].ids))
        with tqdm(total=len(requests), desc="illada: scores", disable=disable_tqdm) as bar:
            for part in _parts(order, _SCORED_TOGETHER):
                scores = self.model.score_ids(
                    [fitted[number].ids for number in part],
                    [[pairs[number][1]] for number in part],
                    self.scoring,
                    on_progress=partial(_show, bar, bar.n),
                )
                for number, (score,) in zip(part, scores, strict=True):
                    answers[number] = (score.log_probability, bool(score.greedy))
                    self.cache_hook.add_partial("loglikelihood", requests[number].args, answers[number])
        return answers

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of every text in nats, or the bound on it, over windows as in `illada perplexity`."""
        specials = self.model.tokenizer.specials
        answers: list[float] = []
        with tqdm(total=len(requests), desc="illada: texts", disable=disable_tqdm) as bar:
            for part in _parts(range(len(requests)), _MEASURED_TOGETHER):
                scores = score_windows(
                    self.model.transformer,
                    self.model.tokenizer.encode_batch([requests[number].args[0] for number in part]),
                    bos_id=specials.bos,
                    mask_id=specials.mask,
                    samples=self.arguments.rolling_samples,
                    stride=self.arguments.stride,
                    seed=self.scoring.seed,
                    positions_per_forward=self.scoring.positions_per_forward,
                )
                for number, windows in zip(part, scores, strict=True):
                    answers.append(math.fsum(window.log_probability for window in windows))
                    self.cache_hook.add_partial("loglikelihood_rolling", requests[number].args, answers[number])
                bar.update(len(part))
        return answers

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """What the model writes behind every (context, settings), up to where one of the stop strings would begin.

        Raises:
            ValueError: settings out of their range, or without room in the context; before the first forward.
        """
        read = [read_sampling(self.arguments.sampling, request.args[1]) for request in requests]
        _tell_what_is_ignored(name for _, ignored in read for name in ignored)
        settings = [params for params, _ in read]
        fitted = [
            self._prompts.fit_written(self._prompts.encode(request.args[0]), params)
            for request, params in zip(requests, settings, strict=True)
        ]
        _tell_what_was_cut(fitted, context=self._prompts.context)
        _tell_what_is_short(fitted, settings, context=self._prompts.context)
        seeds = _seeds(fitted, settings)
        answers = [""] * len(requests)
        with tqdm(total=len(requests), desc="illada: answers", disable=disable_tqdm) as bar:
            for params in dict.fromkeys(settings):
                alike = [number for number in range(len(requests)) if settings[number] == params]
                alike.sort(key=lambda number: -len(fitted[number].ids))
                for part in _parts(alike, self.arguments.batch_size):
                    texts = self._write([fitted[number] for number in part], params, [seeds[number] for number in part])
                    for number, text in zip(part, texts, strict=True):
                        answers[number] = text
                        self.cache_hook.add_partial("generate_until", requests[number].args, text)
                    bar.update(len(part))
        return answers

    def _write(self, prompts: Sequence[Fitted], params: SamplingParams, seeds: Sequence[int]) -> Iterator[str]:
        completions = self.model.complete_ids([prompt.ids for prompt in prompts], params, seeds=seeds)
        thoughts_end = self.arguments.think_end_token
        for completion in completions:
            yield completion.text.split(thoughts_end)[-1].lstrip() if thoughts_end else completion.text

    # --- chat templates, and what lm-eval tells about a model ---

    def apply_chat_template(self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
        """The text of a dialogue, which knows what in it the template has written.

        Args:
            chat_history: the turns, oldest first.
            add_generation_prompt: end with what stands in front of an answer; otherwise the last turn is left open.

        Raises:
            ValueError: the tokenizer has no template, or it refuses the dialogue.
        """
        return self.model.chat_template.rendered(
            chat_history, add_generation_prompt=add_generation_prompt, continue_final=not add_generation_prompt
        )

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The source of the template.

        Raises:
            ValueError: the tokenizer has none, or it is asked for by a name: there is one at most.
        """
        if isinstance(chat_template, str):
            raise ValueError(
                f"the tokenizer has no chat template called {chat_template!r}, only one without a name: "
                "use --apply_chat_template alone"
            )
        return self.model.chat_template.source if chat_template else None

    @property
    def tokenizer_name(self) -> str:
        """A name for lm-eval's cache of prompts: equal where the same messages give the same prompts."""
        tokenizer = self.model.tokenizer
        digest = hashlib.sha256(f"{tokenizer.fingerprint}{tokenizer.chat_template}".encode()).hexdigest()
        return f"illada-{digest[:16]}"

    @property
    def max_length(self) -> int:
        """Positions that the model holds."""
        return self._prompts.context

    def get_model_info(self) -> dict[str, Any]:
        """What lm-eval writes beside the results."""
        parameters = list(self.model.transformer.parameters())
        return {
            "model_num_parameters": sum(parameter.numel() for parameter in parameters),
            "model_dtype": str(parameters[0].dtype),
            "model_sha": self._weights,
        }


if NAME not in MODEL_REGISTRY:  # where lm-eval knows of the entry point, it is
    register_model(NAME)(IlladaLM)


def _load(arguments: ModelArguments) -> LanguageModel:
    dtype = torch.bfloat16 if arguments.dtype == "bfloat16" else torch.float32
    return load(arguments.pretrained, device=arguments.device, dtype=dtype)


def _scoring(params: ScoringParams, model: LanguageModel, *, chosen: bool) -> ScoringParams:
    """Those of a causal model: no end of text behind the candidate, and its one method where none was chosen."""
    if model.transformer.config.attention != "causal":
        return params
    return replace(params, end=False, method=params.method if chosen else "chain")


def _show(bar: tqdm, before: int, count: int) -> None:
    bar.update(before + count - bar.n)


def _parts(numbers: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (numbers[start : start + size] for start in range(0, len(numbers), size))


def _seeds(fitted: Sequence[Fitted], settings: Sequence[SamplingParams]) -> list[int]:
    """A repeated request gets other noise each time, the same whenever it is asked."""
    times: Counter[tuple[tuple[int, ...], SamplingParams]] = Counter()
    seeds = []
    for prompt, params in zip(fitted, settings, strict=True):
        seeds.append(params.seed + times[prompt.ids, params])
        times[prompt.ids, params] += 1
    return seeds


def _tell_what_was_cut(fitted: Sequence[Fitted], *, context: int) -> None:
    cut = [one.cut for one in fitted if one.cut]
    if cut:
        _LOG.warning(
            "%d of %d prompts do not fit the context of %d tokens: up to %d tokens are left out at their beginning",
            len(cut),
            len(fitted),
            context,
            max(cut),
        )


def _tell_what_is_short(fitted: Sequence[Fitted], settings: Sequence[SamplingParams], *, context: int) -> None:
    lengths = [(len(prompt.ids), params.length) for prompt, params in zip(fitted, settings, strict=True)]
    if short := [context - prompt for prompt, length in lengths if prompt + length > context]:
        _LOG.warning(
            "%d of %d answers get fewer tokens than asked for: the context of %d holds from %d on behind their prompts",
            len(short),
            len(fitted),
            context,
            min(short),
        )


def _tell_what_is_ignored(names: Iterator[str]) -> None:
    if ignored := sorted(set(names)):
        _LOG.warning("generation settings without a meaning here are ignored: %s", ", ".join(ignored))
