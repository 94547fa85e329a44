"""What each published layout calls the numbers of a ModelConfig and the tensors of a Transformer.

The computation is the same in all of them, and ours: pre-norm blocks of RMSNorm, half-split rotary positions,
grouped-query attention and SwiGLU. `fixed` lists what a layout's configuration could change about that.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from illada.model.config import ModelConfig


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One layout, as data."""

    name: str
    model_type: str
    """What `config.json` says under this key."""
    architecture: str
    """The class that the authors' code loads such a folder with."""
    keys: Mapping[str, str]
    """ModelConfig field -> key of `config.json`."""
    tensors: Mapping[str, str]
    """Name of ours -> name in the files; {} stands for the number of a block."""
    fixed: Mapping[str, tuple[Any, ...]]
    """Key -> the values under which the model computes what ours does, what is written first. Keys that stand neither
    here nor in `keys` change nothing about a forward in evaluation mode."""
    decides: Mapping[str, Any] = field(default_factory=dict)
    """ModelConfig fields that follow from the layout alone."""
    absent: Mapping[str, Any] = field(default_factory=dict)
    """What the authors' code takes where a key is absent. There is no such value for rope_theta and rms_norm_eps: a
    wrong guess changes every number and is not noticed."""
    mask_text: str | None = None
    """[MASK], where the folder does not say what it looks like."""
    end_texts: tuple[str, ...] = ()
    """Tokens that end an answer, beside EOS."""

    def published_name(self, ours: str) -> str:
        """What the files call our parameter `ours`."""
        block = re.match(r"blocks\.(\d+)\.", ours)
        if block is None:
            return self.tensors[ours]
        return self.tensors[f"blocks.{{}}.{ours[block.end() :]}"].format(block[1])


_LLAMA_KEYS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "ffn_size": "intermediate_size",
    "max_length": "max_position_embeddings",
    "rope_theta": "rope_theta",
    "norm_eps": "rms_norm_eps",
    "tied_head": "tie_word_embeddings",
    "init_std": "initializer_range",
}
_LLAMA_TENSORS = {
    "embedding.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "head.weight": "lm_head.weight",
    "blocks.{}.attention_norm.weight": "model.layers.{}.input_layernorm.weight",
    "blocks.{}.attention.q_proj.weight": "model.layers.{}.self_attn.q_proj.weight",
    "blocks.{}.attention.q_proj.bias": "model.layers.{}.self_attn.q_proj.bias",
    "blocks.{}.attention.k_proj.weight": "model.layers.{}.self_attn.k_proj.weight",
    "blocks.{}.attention.k_proj.bias": "model.layers.{}.self_attn.k_proj.bias",
    "blocks.{}.attention.v_proj.weight": "model.layers.{}.self_attn.v_proj.weight",
    "blocks.{}.attention.v_proj.bias": "model.layers.{}.self_attn.v_proj.bias",
    "blocks.{}.attention.o_proj.weight": "model.layers.{}.self_attn.o_proj.weight",
    "blocks.{}.mlp_norm.weight": "model.layers.{}.post_attention_layernorm.weight",
    "blocks.{}.mlp.gate_proj.weight": "model.layers.{}.mlp.gate_proj.weight",
    "blocks.{}.mlp.up_proj.weight": "model.layers.{}.mlp.up_proj.weight",
    "blocks.{}.mlp.down_proj.weight": "model.layers.{}.mlp.down_proj.weight",
}
_LLAMA_FIXED = {"hidden_act": ("silu",), "attention_bias": (False,), "mlp_bias": (False,)}
_LLAMA_ABSENT = {"hidden_act": "silu", "tie_word_embeddings": False}
_QWEN_FIXED = {"hidden_act": ("silu",), "use_sliding_window": (False,)}

# arXiv 2606.25331; keys and names as the authors' model file reads them
ILLADA = Layout(
    name="illada",
    model_type="illada",
    architecture="ILLaDAForCausalLM",
    keys=_LLAMA_KEYS,
    tensors=_LLAMA_TENSORS,
    fixed={**_LLAMA_FIXED, "layer_norm_eps": (None,)},
    absent={"hidden_act": "silu", "tie_word_embeddings": True},
    # token 5, which neither its config.json nor its tokenizer names
    mask_text="<[MASK]>",
)

# arXiv 2502.09992: LLaDA and LLaDA 1.5
LLADA = Layout(
    name="llada",
    model_type="llada",
    architecture="LLaDAModelLM",
    keys={
        "vocab_size": "embedding_size",
        "hidden_size": "d_model",
        "layers": "n_layers",
        "heads": "n_heads",
        "kv_heads": "n_kv_heads",
        "ffn_size": "mlp_hidden_size",
        "max_length": "max_sequence_length",
        "rope_theta": "rope_theta",
        "norm_eps": "rms_norm_eps",
        "tied_head": "weight_tying",
        "init_std": "init_std",
        "qkv_bias": "include_qkv_bias",
    },
    tensors={
        "embedding.weight": "model.transformer.wte.weight",
        "norm.weight": "model.transformer.ln_f.weight",
        "head.weight": "model.transformer.ff_out.weight",
        "blocks.{}.attention_norm.weight": "model.transformer.blocks.{}.attn_norm.weight",
        "blocks.{}.attention.q_proj.weight": "model.transformer.blocks.{}.q_proj.weight",
        "blocks.{}.attention.q_proj.bias": "model.transformer.blocks.{}.q_proj.bias",
        "blocks.{}.attention.k_proj.weight": "model.transformer.blocks.{}.k_proj.weight",
        "blocks.{}.attention.k_proj.bias": "model.transformer.blocks.{}.k_proj.bias",
        "blocks.{}.attention.v_proj.weight": "model.transformer.blocks.{}.v_proj.weight",
        "blocks.{}.attention.v_proj.bias": "model.transformer.blocks.{}.v_proj.bias",
        "blocks.{}.attention.o_proj.weight": "model.transformer.blocks.{}.attn_out.weight",
        "blocks.{}.mlp_norm.weight": "model.transformer.blocks.{}.ff_norm.weight",
        "blocks.{}.mlp.gate_proj.weight": "model.transformer.blocks.{}.ff_proj.weight",
        "blocks.{}.mlp.up_proj.weight": "model.transformer.blocks.{}.up_proj.weight",
        "blocks.{}.mlp.down_proj.weight": "model.transformer.blocks.{}.ff_out.weight",
    },
    fixed={
        "block_type": ("llama",),
        "block_group_size": (1,),
        "activation_type": ("silu",),
        "layer_norm_type": ("rms",),
        "layer_norm_with_affine": (True,),
        "attention_layer_norm": (False,),
        "input_emb_norm": (False,),
        "include_bias": (False,),
        "bias_for_layer_norm": (False, None),
        "rope": (True,),
        # angles turn queries and keys in fp32 here whatever the dtype; where the file says otherwise, bf16 differs
        "rope_full_precision": (True, False),
        "alibi": (False,),
        "multi_query_attention": (None, False),
        "scale_logits": (False,),
    },
    absent={
        "block_type": "sequential",
        "activation_type": "swiglu",
        "layer_norm_type": "default",
        "rope": False,
        "weight_tying": True,
        "include_qkv_bias": False,
    },
    mask_text="<|mdm_mask|>",
    end_texts=("<|eot_id|>",),
)

LLAMA = Layout(
    name="llama",
    model_type="llama",
    architecture="LlamaForCausalLM",
    keys=_LLAMA_KEYS,
    tensors=_LLAMA_TENSORS,
    fixed=_LLAMA_FIXED,
    decides={"attention": "causal"},
    absent=_LLAMA_ABSENT,
)

QWEN2 = Layout(
    name="qwen2",
    model_type="qwen2",
    architecture="Qwen2ForCausalLM",
    keys=_LLAMA_KEYS,
    tensors=_LLAMA_TENSORS,
    fixed=_QWEN_FIXED,
    decides={"attention": "causal", "qkv_bias": True},
    absent=_LLAMA_ABSENT,
)

# arXiv 2508.15487: Qwen2 with full attention, its logits still one position behind
DREAM = Layout(
    name="dream",
    model_type="Dream",
    architecture="DreamModel",
    keys=_LLAMA_KEYS,
    tensors=_LLAMA_TENSORS,
    fixed=_QWEN_FIXED,
    decides={"qkv_bias": True, "shifted": True},
    absent=_LLAMA_ABSENT,
    mask_text="<|mask|>",
)

LAYOUTS = {layout.name: layout for layout in (ILLADA, LLADA, LLAMA, QWEN2, DREAM)}
"""By name."""


def unsayable(layout: Layout, config: ModelConfig) -> list[str]:
    """What a layout has no words for in `config`, as `field value`; empty if it can be written so."""
    said = {**{key: getattr(ModelConfig, key) for key in ("attention", "qkv_bias", "shifted")}, **layout.decides}
    return [
        f"{name} {getattr(config, name)}"
        for name, value in said.items()
        if name not in layout.keys and getattr(config, name) != value
    ]
