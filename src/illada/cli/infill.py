"""`illada infill PREFIX SUFFIX`: write what stands between."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from illada.assets import BASE
from illada.cli.flags import parse
from illada.cli.loading import Loading
from illada.cli.output import print_completion, watched
from illada.sample.request import SamplingParams


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Fill the gap between two texts, seeing both; --length says how many tokens it takes."""

    prefix: Annotated[str, tyro.conf.Positional]
    suffix: Annotated[str, tyro.conf.Positional]
    model: Path = Path(BASE)
    """A run, a checkpoint, tiny or tiny-instruct, a published folder, or an id on the hub."""
    params: Annotated[SamplingParams, tyro.conf.arg(name="")] = field(default_factory=lambda: SamplingParams(length=16))
    loading: Annotated[Loading, tyro.conf.arg(name="")] = field(default_factory=Loading)
    live: bool = False
    """Show the masks turning into text."""
    json: bool = False
    """Print one JSON object: text, tokens, finish_reason, forwards, seconds."""


def command(arguments: list[str]) -> int:
    """Load, fill, print."""
    chosen = parse(Arguments, arguments, command="infill")
    model = chosen.loading.load(chosen.model)
    with watched(model, enabled=chosen.live, title="filling in") as on_step:
        completion = model.infill(chosen.prefix, chosen.suffix, chosen.params, on_step=on_step)
    print_completion(completion, as_json=chosen.json)
    return 0
