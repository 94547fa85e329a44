"""LoRA (arXiv 2106.09685) through peft: a trained low-rank update beside linear layers that stay as they are.

    y = W x + alpha / rank · B (A x)        A [rank, in] random, B [out, rank] zero at the start

A model with an adapter is the same `Transformer`, in which peft has put layers of its own in the places of some
linear ones. Only the adapter's tensors ask for gradients, so only they train, are averaged and are saved.
"""

import contextlib
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, cast

import torch
from torch import nn

from illada.model.quantized import import_torchao
from illada.model.transformer import Transformer
from illada.seeding import Stream

LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers of a block."""

Base = Literal["fp32", "bf16", "int8", "int4"]
"""How the weights that do not train are held."""

_ADAPTER = "default"
"""What peft calls an adapter that nobody named."""

_READ = ("r", "lora_alpha", "use_rslora", "target_modules", "exclude_modules", "rank_pattern", "alpha_pattern")
"""Fields of peft's configuration that decide what a finished adapter computes."""
_IGNORED = (
    *("peft_type", "peft_version", "task_type", "auto_mapping", "base_model_name_or_path", "revision"),
    *("inference_mode", "lora_dropout", "init_lora_weights", "runtime_config", "megatron_core", "qalora_group_size"),
)
"""Fields that decide nothing about it by themselves. Any other asks for something else, unless it is empty."""


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Which layers get a low-rank update, of what rank, and how what lies beneath them is held.

    Raises:
        ValueError: a rank below 1, an alpha that is not above 0, or layers that there are none of.
    """

    rank: int | None = None
    """None: no adapter; all weights train."""
    alpha: float = 32.0
    """The update counts alpha / rank times."""
    targets: tuple[str, ...] = LINEAR_LAYERS
    """Which linear layers of every block."""
    base: Base = "fp32"
    """int8 and int4 (QLoRA, arXiv 2305.14314) need the extra `quant`. The adapter itself is fp32."""

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        if self.rank is not None and self.rank < 1:
            raise ValueError(f"lora.rank must be at least 1, got {self.rank}; without it all weights train")
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise ValueError(f"lora.alpha must be above 0, got {self.alpha}")
        if not self.targets or set(self.targets) - set(LINEAR_LAYERS):
            raise ValueError(f"lora.targets must be some of {', '.join(LINEAR_LAYERS)}; got {', '.join(self.targets)}")

    def for_peft(self, *, base_model: str) -> dict[str, Any]:
        """The content of peft's `adapter_config.json`.

        Raises:
            ValueError: there is no rank.
        """
        if self.rank is None:
            raise ValueError("an adapter needs a rank (lora.rank), got none")
        return {
            "peft_type": "LORA",
            "base_model_name_or_path": base_model,
            "r": self.rank,
            "lora_alpha": self.alpha,
            "target_modules": list(self.targets),
            "inference_mode": True,
        }


def check_plain(config: Mapping[str, Any]) -> None:
    """Let nothing pass that is not LoRA as this module has it.

    Raises:
        ValueError: another kind of adapter, or a variant of LoRA; the message names the field that asks for it.
    """
    if config.get("peft_type") != "LORA":
        raise ValueError(f"only adapters of peft_type LORA can be used, got {config.get('peft_type')!r}")
    for name, value in config.items():
        if name not in (*_READ, *_IGNORED) and value not in (None, False, "none", {}, []):
            raise ValueError(f"the adapter's {name} is {value!r}, which is not supported: only plain LoRA is")


def update_scale(config: Mapping[str, Any], *, rank: int) -> float:
    """By what B A is multiplied: alpha / rank, or alpha / sqrt(rank) in rank-stabilised LoRA (arXiv 2312.03732)."""
    return float(config.get("lora_alpha", 8)) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def attach_adapter(model: Transformer, config: Mapping[str, Any]) -> None:
    """Put an adapter into a model whose weights are there; from now on only the adapter's tensors ask for gradients.

    Args:
        model: without an adapter.
        config: the content of peft's `adapter_config.json`.

    Raises:
        ModuleNotFoundError: the extra `finetune` is not installed.
        ValueError: the adapter is no LoRA of linear layers, or does something that is not supported here.
    """
    peft = _peft()
    wanted = _understood(config, peft)
    with warnings.catch_warnings():
        # its own merge needs what only transformers knows of a quantised layer; ours is `merge_adapter`
        warnings.filterwarnings("ignore", message=".*instantiated without `get_apply_tensor_subclass`")
        try:
            peft.inject_adapter_in_model(wanted, model, adapter_name=_ADAPTER)
        except ValueError as error:
            raise ValueError(f"the adapter does not fit the model: {str(error).splitlines()[0]}") from error
    for tensor in adapter_tensors(model).values():
        tensor.data = tensor.data.float()


def initialize_adapter(model: Transformer, *, seed: int) -> None:
    """A uniform in ±1/sqrt(in), as peft has it, from a stream named after the tensor; B zero: no change at first."""
    for name, tensor in adapter_tensors(model).items():
        if ".lora_A." not in name:
            nn.init.zeros_(tensor)
            continue
        rank, inputs = tensor.shape
        uniform = Stream(seed, f"initialize/{name}").uniform(torch.arange(rank), inputs)
        with torch.no_grad():
            tensor.copy_((2 * uniform - 1) * inputs**-0.5)


def adapter_tensors(model: nn.Module) -> dict[str, nn.Parameter]:
    """The tensors of the adapter under their names in the model, `blocks.0.attention.q_proj.lora_A.default.weight`."""
    return {name: parameter for name, parameter in model.named_parameters() if ".lora_" in name}


def _peft() -> ModuleType:
    with contextlib.suppress(ModuleNotFoundError):
        import_torchao()  # peft would, and not as quietly
    try:
        import peft
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("LoRA needs peft: pip install 'illada[finetune]'") from error
    return cast(ModuleType, peft)


def _understood(config: Mapping[str, Any], peft: ModuleType) -> Any:
    """The configuration as peft's own object, made of nothing but fields that are known here."""
    check_plain(config)
    return peft.LoraConfig(**{name: config[name] for name in _READ if config.get(name) is not None})
