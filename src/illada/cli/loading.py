"""The flags of every command that loads a model."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from illada.checkpoint.huggingface.configuration import Overrides
from illada.model.quantized import Bits
from illada.pipeline import LanguageModel, load

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
Dtype = Literal["fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class Loading:
    """Where a model is put, and what is assumed where a published folder is silent."""

    device: str = "auto"
    """auto: the first GPU, else the CPU."""
    dtype: Dtype | None = None
    """Of the weights in memory, whatever they are stored in; by default fp32, or bf16 where others are quantised."""
    quantize: Bits | None = None
    """Hold the matrices of the blocks in 8 or 4 bits; needs the extra `quant`."""
    adapter: Path | None = None
    """The run, checkpoint or folder of an adapter (LoRA) for the model; needs the extra `finetune`."""
    compile: bool = False
    """torch.compile the blocks: seconds at the start, faster where many small operations take the time, as on a GPU."""
    overrides: Annotated[Overrides, tyro.conf.arg(name="")] = field(default_factory=Overrides)

    def load(self, where: str | Path) -> LanguageModel:
        """The model that `where` names; see `illada.checkpoint.source`."""
        model = load(
            where,
            adapter=self.adapter,
            quantize=self.quantize,
            device=self.device,
            dtype=None if self.dtype is None else DTYPES[self.dtype],
            overrides=self.overrides,
        )
        if self.compile:
            from illada.model.compiling import compile_for_generation  # it takes torch's compiler with it

            compile_for_generation(model.transformer)
        return model
