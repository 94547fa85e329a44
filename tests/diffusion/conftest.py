"""An exact denoiser: every conditional of a known joint distribution over {0, 1, 2}^L, read from a table."""

import itertools
import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from illada.diffusion.schedule import CosineSchedule, LinearSchedule, PolynomialSchedule

WORDS = 3
MASK = 3
VOCAB = 4


@dataclass(frozen=True)
class TabularDenoiser:
    """Logits for each of the (WORDS + 1)^L canvases, one entry per position and token."""

    logits: Tensor

    def __call__(self, tokens: Tensor) -> Tensor:
        return self.logits[tuple(tokens.unbind(dim=1))]

    def perturbed(self, *, seed: int, mask_logit: float = -math.inf) -> "TabularDenoiser":
        """Conditionals that belong to no joint distribution: independent noise on every entry."""
        noise = torch.randn(self.logits.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        logits = self.logits + noise
        logits[..., MASK] = mask_logit
        return TabularDenoiser(logits)


def random_joint(length: int, *, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand((WORDS,) * length, generator=generator, dtype=torch.float64) + 0.05
    return weights / weights.sum()


def independent_joint(length: int, *, seed: int) -> Tensor:
    joint = torch.ones((), dtype=torch.float64)
    for position in range(length):
        joint = joint[..., None] * random_joint(1, seed=seed + position)
    return joint


def exact_denoiser(joint: Tensor) -> TabularDenoiser:
    """log p(x^i | visible) for every canvas, summed out of the joint table one entry at a time."""
    length = joint.ndim
    logits = torch.full((VOCAB,) * length + (length, VOCAB), -math.inf, dtype=torch.float64)
    for canvas in itertools.product(range(VOCAB), repeat=length):
        compatible = joint[tuple(slice(None) if token == MASK else slice(token, token + 1) for token in canvas)]
        for position in range(length):
            if canvas[position] == MASK:
                others = [axis for axis in range(length) if axis != position]
                marginal = compatible.sum(dim=others) if others else compatible
                logits[(*canvas, position, slice(0, WORDS))] = (marginal / marginal.sum()).log()
            else:
                logits[(*canvas, position, canvas[position])] = 0.0
    return TabularDenoiser(logits)


@pytest.fixture(scope="session")
def joint() -> Tensor:
    """p(x) over {0, 1, 2}^4."""
    return random_joint(4, seed=0)


@pytest.fixture(scope="session")
def denoise(joint) -> TabularDenoiser:
    """The exact conditionals of `joint`."""
    return exact_denoiser(joint)


@pytest.fixture(scope="session")
def independent() -> tuple[Tensor, TabularDenoiser]:
    """A joint of independent tokens, with its conditionals."""
    joint = independent_joint(3, seed=5)
    return joint, exact_denoiser(joint)


@pytest.fixture(
    params=[LinearSchedule(), CosineSchedule(), PolynomialSchedule(), PolynomialSchedule(power=0.7)],
    ids=["linear", "cosine", "quadratic", "power 0.7"],
)
def schedule(request):
    return request.param
