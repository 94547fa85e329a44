"""`config.json` of a published folder <-> ModelConfig."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from illada.checkpoint.huggingface.layouts import LAYOUTS, Layout, unsayable
from illada.config import from_dict
from illada.model.config import Attention, ModelConfig


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """What a reader decides about a published folder, in place of what the folder says or does not say."""

    rope_theta: float | None = None
    """Base of the rotary angles."""
    norm_eps: float | None = None
    """Epsilon of the RMSNorms."""
    attention: Attention | None = None
    """bidirectional makes a diffusion model of a causal one (layouts llama and qwen2); shifted then too."""
    shifted: bool | None = None
    """Whether the state behind token i - 1 tells of token i."""
    special_tokens: Mapping[str, str] = field(default_factory=dict)
    """Texts of the special tokens: of mask, bos, eos, pad, those that the folder does not name or names wrongly."""

    @property
    def given(self) -> list[str]:
        """The names of those that are set."""
        return [name for name, value in vars(self).items() if value not in (None, {})]


_UNSUPPORTED = {
    "quantization_config": "weights that are quantised already",
    "sliding_window_pattern": "attention to a window",
}
_SCALED = ("rope_scaling", "rope_parameters")
_FLAGS = {"rope_theta": "--rope-theta", "norm_eps": "--norm-eps"}


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no JSON object.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no JSON object")
    return values


def layout_of(values: Mapping[str, Any], *, source: Path) -> Layout:
    """The layout that a `config.json` is written in.

    Raises:
        ValueError: its model_type is of none that can be read.
    """
    model_type = values.get("model_type")
    for layout in LAYOUTS.values():
        if layout.model_type == model_type:
            return layout
    known = ", ".join(layout.model_type for layout in LAYOUTS.values())
    raise ValueError(f"{source} has the model_type {model_type!r}; those that can be read are {known}")


def read_config(values: Mapping[str, Any], overrides: Overrides, *, source: Path) -> ModelConfig:
    """The ModelConfig that a `config.json` describes.

    Raises:
        ValueError: the model computes something that ours does not, a value is missing that nothing can be guessed
            from, or sizes do not fit one another; the message names the key.
    """
    layout = layout_of(values, source=source)
    filled = {**layout.absent, **values}
    _refuse_other_computations(filled, layout, source)
    fields: dict[str, Any] = {
        name: filled[key] for name, key in layout.keys.items() if filled.get(key) is not None
    } | dict(layout.decides)
    _fill_in(fields, filled, layout)
    for name in ("rope_theta", "norm_eps"):
        if (given := getattr(overrides, name)) is not None:
            fields[name] = given
        elif name not in fields:
            raise ValueError(
                f"{source} does not give {layout.keys[name]}, and no value is safe to assume: give it with "
                f"{_FLAGS[name]} ({name}=... in Python)"
            )
    _choose_attention(fields, overrides)
    if missing := [key for name, key in layout.keys.items() if name not in fields and name != "init_std"]:
        raise ValueError(f"{source} does not give {', '.join(missing)}")
    try:
        config = from_dict(ModelConfig, fields)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    _check_head_size(filled, config, source)
    return config


def write_config(config: ModelConfig, layout: Layout) -> dict[str, Any]:
    """What `config.json` says of the model itself, in the words of a layout.

    Raises:
        ValueError: the layout has no words for it.
    """
    if cannot := unsayable(layout, config):
        raise ValueError(f"the layout {layout.name} cannot say {' and '.join(cannot)}: choose another layout")
    values: dict[str, Any] = {"architectures": [layout.architecture], "model_type": layout.model_type}
    values |= {key: allowed[0] for key, allowed in layout.fixed.items()}
    values |= {key: getattr(config, name) for name, key in layout.keys.items()}
    if "vocab_size" not in values:
        values["vocab_size"] = config.vocab_size
    return values


def _refuse_other_computations(values: Mapping[str, Any], layout: Layout, source: Path) -> None:
    for key, allowed in layout.fixed.items():
        if key in values and values[key] not in allowed:
            raise ValueError(f"{source} asks for {key} {values[key]!r}, which is not supported: only {allowed[0]!r} is")
    for key, meaning in _UNSUPPORTED.items():
        if values.get(key) is not None:
            raise ValueError(f"{source} asks for {key} ({meaning}), which is not supported")
    for key in _SCALED:
        rope = values.get(key) or {}
        kind, factor = rope.get("rope_type", rope.get("type", "default")), rope.get("factor", 1.0)
        if kind != "default" or factor != 1.0:
            raise ValueError(f"{source} asks for {key} {kind!r} with factor {factor}, which is not supported")
    partial = values.get("partial_rotary_factor", (values.get("rope_parameters") or {}).get("partial_rotary_factor"))
    if partial not in (None, 1.0):
        raise ValueError(f"{source} asks for partial_rotary_factor {partial}, which is not supported: only 1.0 is")


def _fill_in(fields: dict[str, Any], values: Mapping[str, Any], layout: Layout) -> None:
    """What a layout says in a second place, or lets follow from something else."""
    nested = values.get("rope_parameters") or {}
    if "rope_theta" not in fields and nested.get("rope_theta") is not None:
        fields["rope_theta"] = nested["rope_theta"]  # since transformers 5
    if "kv_heads" not in fields and "heads" in fields:
        fields["kv_heads"] = fields["heads"]
    if layout.name == "llada":
        fields.setdefault("vocab_size", values.get("vocab_size"))
        if "ffn_size" not in fields and "hidden_size" in fields:
            fields["ffn_size"] = values.get("mlp_ratio", 4) * fields["hidden_size"]


def _choose_attention(fields: dict[str, Any], overrides: Overrides) -> None:
    was_causal = fields.get("attention") == "causal"
    if overrides.attention is not None:
        fields["attention"] = overrides.attention
    if overrides.shifted is not None:
        fields["shifted"] = overrides.shifted
    elif was_causal and overrides.attention == "bidirectional":
        fields["shifted"] = True


def _check_head_size(values: Mapping[str, Any], config: ModelConfig, source: Path) -> None:
    stated = values.get("head_dim")
    if stated is not None and stated != config.head_size:
        raise ValueError(
            f"{source} asks for head_dim {stated}, which is not supported: heads of hidden_size {config.hidden_size} / "
            f"heads {config.heads} = {config.head_size} are"
        )
