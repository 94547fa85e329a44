"""torch.compile for generation: fewer and larger operations where a forward computes few positions.

Every block is compiled by itself, for any number of positions, so all of them share two graphs: what comes before
attention over the cache and what comes behind it. Attention itself stays as it is: which rows share a call is decided
anew in every forward.
"""

import shutil
from collections.abc import Callable

import torch
from torch import Tensor

from illada.model.attention import AttentionLayout
from illada.model.cache import CachedLayer
from illada.model.rotary import Angles
from illada.model.transformer import Transformer


class _UncompiledLayer(CachedLayer):
    """One layer's part of the cache, left out of the graphs."""

    attend = torch.compiler.disable(CachedLayer.attend)  # type: ignore[no-untyped-call]  # torch leaves it untyped


def compile_for_generation(model: Transformer) -> None:
    """Compile the blocks, in place. The first forwards take seconds; results differ by what rounding does.

    Raises:
        RuntimeError: the model is on a CPU, and there is no C++ compiler.
    """
    if model.embedding.weight.device.type == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        raise RuntimeError("torch.compile needs a C++ compiler, and there is none: install g++, or do not compile")
    for block in model.blocks:
        block.forward = _with_cache_outside(torch.compile(block.forward, dynamic=True))


def _with_cache_outside(compiled: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def forward(x: Tensor, angles: Angles, layout: AttentionLayout | CachedLayer) -> Tensor:
        if isinstance(layout, CachedLayer):
            layout = _UncompiledLayer(**vars(layout))
        return compiled(x, angles, layout)

    return forward
