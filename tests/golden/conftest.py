"""Golden checkpoints as models of ours: the published tensor names are translated here, for the tests alone."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import safetensors.torch
import torch

from illada.checkpoint.native import load_weights
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer

DATA = Path(__file__).parent / "data"

_ILLADA = {
    "model.embed_tokens": "embedding",
    "model.norm": "norm",
    "model.layers.": "blocks.",
    "self_attn.": "attention.",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "mlp_norm",
}
_LLADA = {
    "model.transformer.wte": "embedding",
    "model.transformer.ln_f": "norm",
    "model.transformer.ff_out": "head",
    "model.transformer.blocks.": "blocks.",
    "attn_norm": "attention_norm",
    ".ff_norm": ".mlp_norm",
    ".attn_out": ".attention.o_proj",
    ".q_proj": ".attention.q_proj",
    ".k_proj": ".attention.k_proj",
    ".v_proj": ".attention.v_proj",
    ".ff_proj": ".mlp.gate_proj",
    ".up_proj": ".mlp.up_proj",
    ".ff_out": ".mlp.down_proj",
}


def our_name(published: str) -> str:
    for theirs, ours in (_LLADA if "transformer" in published else _ILLADA).items():
        published = published.replace(theirs, ours)
    return published


def read_config(values: dict) -> ModelConfig:
    if values["model_type"] == "illada":
        return ModelConfig(
            vocab_size=values["vocab_size"],
            hidden_size=values["hidden_size"],
            layers=values["num_hidden_layers"],
            heads=values["num_attention_heads"],
            kv_heads=values["num_key_value_heads"],
            ffn_size=values["intermediate_size"],
            max_length=values["max_position_embeddings"],
            rope_theta=values["rope_theta"],
            norm_eps=values["rms_norm_eps"],
            tied_head=values["tie_word_embeddings"],
        )
    return ModelConfig(
        vocab_size=values["vocab_size"],
        hidden_size=values["d_model"],
        layers=values["n_layers"],
        heads=values["n_heads"],
        kv_heads=values["n_kv_heads"],
        ffn_size=values["mlp_hidden_size"],
        max_length=values["max_sequence_length"],
        rope_theta=values["rope_theta"],
        norm_eps=values["rms_norm_eps"],
        tied_head=values["weight_tying"],
    )


@cache
def _load(name: str) -> Transformer:
    model = Transformer(read_config(json.loads((DATA / name / "config.json").read_text())))
    weights = safetensors.torch.load_file(DATA / name / "model.safetensors")
    load_weights(model, {our_name(key): value for key, value in weights.items()}, source=name)
    return model.eval()


@pytest.fixture
def load() -> Callable[[str], Transformer]:
    return _load


@pytest.fixture
def name_of() -> Callable[[str], str]:
    return our_name


@pytest.fixture(params=["illada", "llada", "llada-gqa"])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def expected() -> Callable[[str], dict]:
    def read(file: str) -> dict:
        path = DATA / "expected" / file
        return json.loads(path.read_text()) if path.suffix == ".json" else safetensors.torch.load_file(path)

    return read


@pytest.fixture(autouse=True)
def _fp32() -> None:
    assert torch.get_default_dtype() == torch.float32
