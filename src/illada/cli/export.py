"""`illada export RUN --out FOLDER`: the weights of a run without what only training needs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from rich.console import Console

from illada.checkpoint.native import find_checkpoint, load_checkpoint, save_checkpoint
from illada.cli.flags import parse
from illada.model.accounting import count_parameters

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Write the newest checkpoint of a run as a checkpoint folder to give away: weights, tokenizer, configuration."""

    run: Annotated[Path, tyro.conf.Positional]
    """A run folder or a checkpoint folder."""
    out: Path
    """The folder to write; it must not exist yet."""
    dtype: Literal["fp32", "bf16"] = "bf16"
    """How the weights are stored."""


def command(arguments: list[str]) -> int:
    """Load, cast, save."""
    chosen = parse(Arguments, arguments, command="export")
    saved = load_checkpoint(find_checkpoint(chosen.run))
    dtype = _DTYPES[chosen.dtype]
    save_checkpoint(
        chosen.out,
        model_config=saved.model_config,
        weights={name: tensor.to(dtype) for name, tensor in saved.weights.items()},
        tokenizer=saved.tokenizer,
    )
    size = sum(file.stat().st_size for file in chosen.out.iterdir())
    parameters = count_parameters(saved.model_config).total
    Console(stderr=True).print(f"{parameters:,} parameters, {size / 1e6:.1f} MB", highlight=False)
    Console().print(str(chosen.out), markup=False, highlight=False, soft_wrap=True)
    return 0
