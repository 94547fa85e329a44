"""`illada generate PROMPT`: continue a text."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from illada.assets import BASE, fast_settings
from illada.cli.flags import parse
from illada.cli.loading import Loading
from illada.cli.output import print_completion, watched
from illada.pipeline import LanguageModel
from illada.sample.request import SamplingParams

WRITING = SamplingParams(temperature=0.7, top_p=0.9, unmasking="random")
"""By confidence and at temperature 0 a small model repeats what it has written."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Continue a prompt with a model that `illada pretrain` made, or the one that comes with the package."""

    prompt: Annotated[str, tyro.conf.Positional]
    """The text to continue; may be empty."""
    model: Path = Path(BASE)
    """A run, a checkpoint, tiny or tiny-instruct, a published folder, or an id on the hub."""
    params: Annotated[SamplingParams, tyro.conf.arg(name="")] = field(default_factory=lambda: WRITING)
    fast: bool = False
    """The cheapest settings that lose nothing, as far as they are known for the model: caching, unmasking, block."""
    loading: Annotated[Loading, tyro.conf.arg(name="")] = field(default_factory=Loading)
    live: bool = False
    """Show the masks turning into text."""
    json: bool = False
    """Print one JSON object: text, tokens, finish_reason, forwards, seconds."""


def command(arguments: list[str]) -> int:
    """Load, generate, print."""
    chosen = parse(Arguments, arguments, command="generate")
    params = replace(chosen.params, **fast_settings(str(chosen.model))) if chosen.fast else chosen.params
    model = chosen.loading.load(chosen.model)
    with watched(model, enabled=chosen.live, title="generating") as on_step:
        completion = model.generate(chosen.prompt, _for_attention(model, params), on_step=on_step)
    print_completion(completion, as_json=chosen.json)
    return 0


def _for_attention(model: LanguageModel, params: SamplingParams) -> SamplingParams:
    """A causal model has no masks to choose among: the unmasking that is this command's own default is not for it."""
    if model.transformer.config.attention == "causal" and params.unmasking == WRITING.unmasking:
        return replace(params, unmasking=SamplingParams().unmasking)
    return params
