"""AdamW as the papers use it, and the moving average of the weights."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from illada.distributed.gradients import by_mesh
from illada.distributed.placement import local


@dataclass(frozen=True, kw_only=True)
class AdamWConfig:
    """AdamW (arXiv 1711.05101). Weight decay 0.1 is the papers'; betas, eps and clipping are our choice."""

    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    """On matrices; norms do not decay."""
    clip_norm: float | None = 1.0
    """Largest norm of the gradient over all parameters; None: no clipping."""


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that train, by name: all of them, or an adapter's alone."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def build_optimizer(model: nn.Module, config: AdamWConfig) -> torch.optim.AdamW:
    """Fused AdamW over what trains of `model`; the loop sets the learning rate of each step."""
    parameters = trained(model).values()
    matrices = by_mesh(parameter for parameter in parameters if parameter.dim() > 1)
    vectors = by_mesh(parameter for parameter in parameters if parameter.dim() <= 1)
    groups = [{"params": group, "weight_decay": config.weight_decay} for group in matrices]
    groups += [{"params": group, "weight_decay": 0.0} for group in vectors]
    return torch.optim.AdamW(groups, lr=0.0, betas=(config.beta1, config.beta2), eps=config.eps, fused=True)


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's tensors under the names of their parameters: `blocks.0.mlp.up_proj.weight/exp_avg`."""
    return {
        f"{name}/{key}": value
        for name, parameter in trained(model).items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def begin_moments(optimizer: torch.optim.Optimizer) -> None:
    """Give AdamW the state of no step taken, where it has none yet: something to read a checkpoint into."""
    for parameter in (parameter for group in optimizer.param_groups for parameter in group["params"]):
        if not optimizer.state.get(parameter):
            optimizer.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }


class WeightAverage:
    """Exponential moving average, in fp32, of what trains: average = decay * average + (1 - decay) * weights."""

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        """Start from the model's weights.

        Raises:
            ValueError: `decay` is not in (0, 1).
        """
        if not 0 < decay < 1:
            raise ValueError(f"the decay of the weight average must lie between 0 and 1, got {decay}")
        self.decay = decay
        self.tensors = {name: parameter.detach().float().clone() for name, parameter in trained(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights of one more step; each process averages its part of them."""
        weights = [local(parameter.detach()).float() for parameter in trained(model).values()]
        torch._foreach_lerp_([local(average) for average in self.tensors.values()], weights, 1 - self.decay)
