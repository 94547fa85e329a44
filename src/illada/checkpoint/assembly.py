"""A model ready for use: found, checked, built, its matrices packed if wanted, and its adapter beside them.

Where an adapter is named in a model's place, the model that it was trained on is loaded with it. Beside the weights an
adapter computes what it learnt to, whatever they are held in; to merge it with them, export it
(`illada.checkpoint.source.open_model` does).
"""

from pathlib import Path

import torch

from illada.checkpoint.adapter import holds_adapter, put_adapter
from illada.checkpoint.huggingface.configuration import Overrides
from illada.checkpoint.saved import build
from illada.checkpoint.source import find_model, open_adapter, open_base, open_model
from illada.data.tokenizer import Tokenizer
from illada.model.quantized import Bits, check_bits
from illada.model.transformer import Transformer


def assemble(
    where: str | Path,
    *,
    adapter: str | Path | None = None,
    overrides: Overrides = Overrides(),  # noqa: B008  # it is frozen
    device: torch.device,
    dtype: torch.dtype | None = None,
    quantize: Bits | None = None,
) -> tuple[Transformer, Tokenizer]:
    """The model and its tokenizer.

    Args:
        where: what `find_model` takes.
        adapter: for the model at `where`: a run or checkpoint that trained one, or any folder that peft wrote.
        overrides: what to assume where a published folder is silent.
        device: where to compute.
        dtype: of the weights; None: fp32, or bf16 if some are quantised.
        quantize: hold the matrices of the blocks in so many bits.

    Raises:
        FileNotFoundError: the model or the adapter does not exist.
        ValueError: as `open_model`, or the adapter does not belong to the model.
        ModuleNotFoundError: an extra is needed and not installed.
    """
    check_bits(quantize)
    folder = find_model(where)
    if adapter is not None:
        saved, trained = open_model(folder, overrides), open_adapter(adapter)
    elif holds_adapter(folder):
        trained = open_adapter(folder)
        saved = open_base(trained, overrides)
    else:
        saved, trained = open_model(folder, overrides), None
    dtype = dtype or (torch.float32 if quantize is None else torch.bfloat16)
    model = build(saved, device=device, dtype=dtype, quantize=quantize)
    if trained is not None:
        put_adapter(model, trained)
    return model, saved.tokenizer
