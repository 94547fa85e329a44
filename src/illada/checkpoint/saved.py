"""A model on disk, of whatever layout, and how it becomes a Transformer.

    folder -> SavedModel: shape, tokenizer, and where each tensor lies -> built on the meta device -> filled

The weights go straight from the file into the place and dtype where they are used; beside them there is never more
than a piece of one tensor in memory.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from illada.checkpoint.stored import Stored
from illada.data.tokenizer import Tokenizer
from illada.model.config import ModelConfig
from illada.model.quantized import Bits, FrozenLinear, reserve
from illada.model.transformer import Transformer


@dataclass(frozen=True, kw_only=True)
class SavedModel:
    """What a folder holds; of the weights, only where they are. Names and shapes have been checked."""

    folder: Path
    model_config: ModelConfig
    tensors: Mapping[str, Stored]
    """By the names they have in a Transformer."""
    tokenizer: Tokenizer


Place = Callable[[str, Tensor, Stored], None]
"""Fills a parameter, given its name and what is stored for it; a sharded one reads only its own rows."""


def copy_whole(name: str, parameter: Tensor, stored: Stored) -> None:  # noqa: ARG001  # part of the protocol
    """Copy a tensor piece by piece, whatever its dtype, into a parameter of any dtype on any device."""
    for start, stop in stored.pieces():
        parameter[start:stop].copy_(stored.rows(start, stop))


def build(saved: SavedModel, *, device: torch.device, dtype: torch.dtype, quantize: Bits | None = None) -> Transformer:
    """The model, in evaluation mode; peak memory is its weights and 128 MiB.

    With `quantize` the blocks' matrices are packed one by one as they are read, and the peak is the packed weights, one
    matrix in `dtype` and what packing it takes.

    Raises:
        ModuleNotFoundError: the extra `quant` is not installed.
    """
    with torch.device("meta"):
        model = Transformer(saved.model_config).to(dtype)
        if quantize is not None:
            reserve(model, quantize)
    model = model.to_empty(device=device)
    if quantize is None:
        fill(model, saved.tensors)
    else:
        fill(model, saved.tensors, place=partial(_pack_or_copy, model, dtype))
    return model.eval()


@torch.no_grad()
def fill(model: Transformer, tensors: Mapping[str, Stored], *, place: Place = copy_whole) -> None:
    """Fill every parameter from its stored tensor, in the order of the files."""
    parameters = dict(model.named_parameters())
    for name, stored in tensors.items():
        place(name, parameters[name], stored)


def _pack_or_copy(model: Transformer, dtype: torch.dtype, name: str, parameter: Tensor, stored: Stored) -> None:
    layer = model.get_submodule(name.rpartition(".")[0])
    if isinstance(layer, FrozenLinear) and name.endswith(".weight"):
        layer.hold(stored.read().to(parameter.device, dtype))
    else:
        copy_whole(name, parameter, stored)


def stored_values(saved: SavedModel) -> Callable[[str, torch.Size], Tensor]:
    """What training a model further begins with: its parameter of a name, in fp32, read when it is asked for."""

    def value(name: str, shape: torch.Size) -> Tensor:  # noqa: ARG001  # it was compared when the model was opened
        return saved.tensors[name].read().float()

    return value


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The parameters of such a model: what a file must hold, no more and no less."""
    with torch.device("meta"):
        model = Transformer(config)
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def check_shapes(
    stored: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], *, source: Path
) -> None:
    """Compare what is stored with what the model needs, by name.

    Raises:
        ValueError: a tensor is missing, unexpected or of another shape; the message names the first three.
    """
    wrong = [f"{name} is missing" for name in expected if name not in stored]
    wrong += [f"{name} is not part of the model" for name in stored if name not in expected]
    wrong += [
        f"{name} is {list(stored[name])} and should be {list(shape)}"
        for name, shape in expected.items()
        if name in stored and stored[name] != shape
    ]
    if wrong:
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise ValueError(f"{source} does not fit its configuration: {'; '.join(wrong[:3])}{more}")
