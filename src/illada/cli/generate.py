"""`illada generate PROMPT`: continue a text."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from illada.cli.flags import parse
from illada.cli.output import print_completion, watched
from illada.pipeline import load
from illada.sample.request import SamplingParams


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Continue a prompt with a model that `illada pretrain` made."""

    prompt: Annotated[str, tyro.conf.Positional]
    """The text to continue; may be empty."""
    model: Path
    """A run folder or a checkpoint folder."""
    params: Annotated[SamplingParams, tyro.conf.arg(name="")] = field(default_factory=SamplingParams)
    device: str = "auto"
    live: bool = False
    """Show the masks turning into text."""
    json: bool = False
    """Print one JSON object: text, tokens, finish_reason, forwards, seconds."""


def command(arguments: list[str]) -> int:
    """Load, generate, print."""
    chosen = parse(Arguments, arguments, command="generate")
    model = load(chosen.model, device=chosen.device)
    with watched(model, enabled=chosen.live, title="generating") as on_step:
        completion = model.generate(chosen.prompt, chosen.params, on_step=on_step)
    print_completion(completion, as_json=chosen.json)
    return 0
