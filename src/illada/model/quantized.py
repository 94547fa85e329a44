"""Linear layers whose matrices are held in 8 or 4 bits, through torchao; what they multiply stays as it was.

int8    symmetric, one scale per output: half the bytes of bf16
int4    a scale and an offset per 64 inputs: a quarter of the bytes of bf16, and 6 % of them more

Only the matrices of the blocks, where nearly all parameters are, are held so. The embedding, which may be the LM head
too, the head, biases and norms keep their dtype: the vocabulary's matrix is where few bits cost most. A matrix that
the kernel of int4 cannot take (its inputs no multiple of 32, or its outputs none of 16) is held in int8.

These layers do not train, but gradients pass through to what lies beneath them, so an adapter does
(`illada.model.lora`). The backward pass unpacks one matrix at a time; nothing unpacked is kept.
"""

import logging
from types import ModuleType
from typing import Any, Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Bits = Literal["int8", "int4"]

_GROUPS = (64, 32)
"""Inputs that share a scale in int4: the first of these that divides their number."""
_OUTPUTS = 16
"""The kernel of int4 takes outputs by so many."""


class FrozenLinear(nn.Linear):
    """A linear layer whose matrix is packed; it computes in the dtype of what was packed, under autocast too."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool, bits: Bits) -> None:
        super().__init__(inputs, outputs, bias=bias)
        self._bits: Bits = bits
        self.weight = nn.Parameter(torch.empty(0), requires_grad=False)
        self.requires_grad_(False)

    def hold(self, weight: Tensor) -> None:
        """Pack the matrix [out, in].

        Raises:
            ModuleNotFoundError: the extra `quant` is not installed.
        """
        assert weight.shape == (self.out_features, self.in_features)
        self.weight = nn.Parameter(_packed(weight.detach(), self._bits), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """X Wᵀ + b."""
        product: Tensor = _FrozenProduct.apply(x.to(self.weight.dtype), self.weight)  # type: ignore[no-untyped-call]  # torch leaves Function.apply untyped
        return product if self.bias is None else product + self.bias

    def unpacked(self) -> Tensor:
        """The matrix [out, in] that the packed one stands for."""
        return _unpacked(self.weight.detach())


def check_bits(bits: str | None) -> None:
    """Refuse what there is no packing of.

    Raises:
        ValueError: neither None, int8 nor int4.
    """
    if bits is not None and bits not in get_args(Bits):
        raise ValueError(f"quantize must be one of {', '.join(get_args(Bits))}; got {bits!r}")


def reserve(model: nn.Module, bits: Bits) -> None:
    """Put empty layers that will hold few bits in the places of the blocks' linear layers; nothing trains any more."""
    linear = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    for name, layer in linear:
        if name.startswith("blocks."):
            parent, _, child = name.rpartition(".")
            with layer.weight.device:
                place = FrozenLinear(layer.in_features, layer.out_features, bias=layer.bias is not None, bits=bits)
            setattr(model.get_submodule(parent), child, place.to(layer.weight.dtype))
    model.requires_grad_(False)


def quantize(model: nn.Module, bits: Bits) -> None:
    """Pack the blocks' matrices of a model whose weights are there, one after the other.

    Raises:
        ModuleNotFoundError: the extra `quant` is not installed.
    """
    linear = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    reserve(model, bits)
    for name in list(linear):
        place = model.get_submodule(name)
        if isinstance(place, FrozenLinear):
            layer = linear.pop(name)  # its own matrix is let go before the next is packed
            place.hold(layer.weight)
            if layer.bias is not None:
                place.bias.data.copy_(layer.bias.data)


class _FrozenProduct(torch.autograd.Function):
    """X Wᵀ for a packed W, which is unpacked once more for the gradient of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        with torch.autocast(gradient.device.type, enabled=False):
            return gradient @ _unpacked(weight), None


def _packed(weight: Tensor, bits: Bits) -> Tensor:
    torchao = import_torchao()
    outputs, inputs = weight.shape
    group = next((size for size in _GROUPS if inputs % size == 0), None)
    if bits == "int8" or group is None or outputs % _OUTPUTS:
        config = torchao.Int8WeightOnlyConfig(set_inductor_config=False)
    elif weight.device.type == "cpu":
        # the formats for GPUs need one to pack; this is torchao's for the kernel that torch has for CPUs
        from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig

        config = PrototypeInt4WeightOnlyConfig(group_size=group, set_inductor_config=False)
    else:
        config = torchao.Int4WeightOnlyConfig(
            group_size=group, int4_packing_format="tile_packed_to_4d", set_inductor_config=False
        )
    layer = nn.Linear(inputs, outputs, bias=False, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=False)
    torchao.quantize_(layer, config)
    return layer.weight.detach()


def _unpacked(weight: Tensor) -> Tensor:
    if weight.qdata.dtype == torch.int8:  # type: ignore[attr-defined]  # torchao's tensors have it
        whole: Tensor = weight.dequantize()
        return whole
    # a kernel that can only multiply tells its matrix by multiplying the identity
    identity = torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device)
    return F.linear(identity, weight).T


def import_torchao() -> ModuleType:
    """`torchao.quantization`, without what it says on being imported.

    Raises:
        ModuleNotFoundError: the extra `quant` is not installed.
    """
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)  # of every kernel for a GPU that is not there
    try:
        import torchao.quantization
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("quantize needs torchao: pip install 'illada[quant]'") from error
    finally:
        logging.disable(disabled)
    return cast(ModuleType, torchao.quantization)
