"""`generate` in the library's words, written by our engine: a row of a batch gets what it gets alone."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from transformers.generation.configuration_utils import GenerationConfig

from illada.pipeline import LanguageModel
from illada.sample.request import SamplingParams

_OURS = {field.name for field in fields(SamplingParams)}
_OF_NO_EFFECT = (
    *("bos_token_id", "eos_token_id", "pad_token_id", "transformers_version", "_from_model_config", "use_cache"),
    *("return_dict_in_generate", "output_scores", "cache_implementation"),
)
"""What a GenerationConfig may say without asking for anything: ends and padding are the tokenizer's."""


def generate(
    writer: LanguageModel,
    defaults: GenerationConfig,
    inputs: Tensor | None = None,
    *,
    input_ids: Tensor | None = None,
    attention_mask: Tensor | None = None,
    token_type_ids: Tensor | None = None,
    generation_config: GenerationConfig | None = None,
    **options: Any,
) -> Tensor:
    """Prompts as they were given, completions behind them, padding behind the shorter ones: [batch, length].

    Args:
        writer: the model with its tokenizer.
        defaults: the model's own `generation_config`, which the others go before.
        inputs: token ids [batch, length], BOS and all, padded on either side.
        input_ids: the same.
        attention_mask: 1 on the prompts, 0 on their padding.
        token_type_ids: some tokenizers give them; all must be 0.
        generation_config: of it `max_new_tokens`, `do_sample`, `temperature` and `top_p` are understood.
        options: the same by name, over it; and the fields of `illada.sample.request.SamplingParams`.

    Raises:
        ValueError: something else is asked for, an option is out of range, or a prompt leaves no room.
    """
    ids = input_ids if inputs is None else inputs
    if ids is None:
        raise ValueError("generate needs prompts: give input_ids, at least with BOS")
    if token_type_ids is not None and bool(token_type_ids.any()):
        raise ValueError("generate knows one kind of token: token_type_ids must be 0")
    given = _asked(defaults) | _asked(generation_config) | options
    mask = torch.ones_like(ids) if attention_mask is None else attention_mask
    prompts = [row[seen != 0].tolist() for row, seen in zip(ids, mask, strict=True)]
    completions = writer.complete_ids(prompts, **sampling(given))
    longest = max(len(completion.tokens) for completion in completions)
    pad = writer.tokenizer.specials.pad
    rows = [[*completion.tokens, *[pad] * (longest - len(completion.tokens))] for completion in completions]
    return torch.cat((ids, torch.tensor(rows, dtype=ids.dtype, device=ids.device).view(len(rows), longest)), dim=1)


def sampling(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of our sampler for what is asked of `generate`.

    Raises:
        ValueError: something that has no meaning here; it is named.
    """
    given = {name: value for name, value in given.items() if value is not None}
    unknown = given.keys() - _OURS - {"max_new_tokens", "do_sample"} - set(_OF_NO_EFFECT)
    if unknown := {name for name in unknown if given[name] is not False}:
        raise ValueError(
            f"generate has no {', '.join(sorted(unknown))} here: max_new_tokens, do_sample, temperature and top_p are "
            "understood, and the fields of illada.SamplingParams"
        )
    options = {name: value for name, value in given.items() if name in _OURS}
    if "max_new_tokens" in given:
        options["length"] = given["max_new_tokens"]
    if given.get("do_sample"):
        options = {"temperature": 1.0, **options}
    elif "do_sample" in given:
        options["temperature"] = 0.0
    return options


def _asked(config: GenerationConfig | None) -> dict[str, Any]:
    """What a configuration asks for beyond the library's defaults, names of no effect left out."""
    if config is None:
        return {}
    return {name: value for name, value in config.to_diff_dict().items() if name not in _OF_NO_EFFECT}
