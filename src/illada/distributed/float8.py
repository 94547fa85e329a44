"""Matrix products of the blocks in fp8, by torchao: the weights stay in fp32, their products take half the time.

    tensorwise   one scale per tensor: the fastest
    rowwise      one per row: closer to bf16

It pays on large matrices under torch.compile; embedding, norms and LM head stay as they are.
"""

from typing import Literal

import torch
from torch import nn

from illada.model.transformer import Transformer

Float8 = Literal["none", "tensorwise", "rowwise"]

_CAPABILITY = (8, 9)
_MULTIPLE = 16
"""Of which the sides of a matrix must be multiples, for the hardware to take it."""


def use_float8(model: Transformer, recipe: Float8, *, device: torch.device, emulate: bool = False) -> None:
    """Let the matrices of the blocks compute in fp8, in place; `emulate` does so in numbers alone, on any device.

    Raises:
        ValueError: the device has no such arithmetic.
        ImportError: torchao is not installed.
    """
    if recipe == "none":
        return
    if not emulate:
        _check_device(device)
    try:
        from torchao.float8 import Float8LinearConfig, convert_to_float8_training
    except ImportError as error:
        raise ImportError("fp8 needs an extra: pip install 'illada[fp8]'") from error
    config = Float8LinearConfig.from_recipe_name(recipe)
    if emulate:
        object.__setattr__(config, "emulate", True)
    convert_to_float8_training(model.blocks, config=config, module_filter_fn=_fits)


def _check_device(device: torch.device) -> None:
    if device.type != "cuda":
        raise ValueError(f"fp8 needs a GPU, and the device is {device.type}: leave --fp8 out")
    if (found := torch.cuda.get_device_capability(device)) < _CAPABILITY:
        raise ValueError(
            f"fp8 needs a GPU of compute capability {'.'.join(map(str, _CAPABILITY))}, and this one has "
            f"{'.'.join(map(str, found))}: leave --fp8 out"
        )


def _fits(module: nn.Module, name: str) -> bool:
    del name
    return isinstance(module, nn.Linear) and not (module.in_features % _MULTIPLE or module.out_features % _MULTIPLE)
