"""The flags of every command that loads a model."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from illada.checkpoint.huggingface.configuration import Overrides
from illada.pipeline import LanguageModel, load

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
Dtype = Literal["fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class Loading:
    """Where a model is put, and what is assumed where a published folder is silent."""

    device: str = "auto"
    """auto: the first GPU, else the CPU."""
    dtype: Dtype = "fp32"
    """Of the weights in memory, whatever they are stored in."""
    overrides: Annotated[Overrides, tyro.conf.arg(name="")] = field(default_factory=Overrides)

    def load(self, where: str | Path) -> LanguageModel:
        """The model that `where` names; see `illada.checkpoint.source`."""
        return load(where, device=self.device, dtype=DTYPES[self.dtype], overrides=self.overrides)
