"""config.json -> ModelConfig and back; what the model does not compute is refused by the name of its key."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from illada.checkpoint.huggingface.configuration import Overrides, read_config, read_json, write_config
from illada.checkpoint.huggingface.layouts import LAYOUTS
from illada.model.config import ModelConfig

SOURCE = Path("folder/config.json")
LLAMA = {
    "model_type": "llama",
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 5000.0,
    "initializer_range": 0.02,
}
ILLADA = {**LLAMA, "model_type": "illada"}
QWEN2 = {**LLAMA, "model_type": "qwen2"}
DREAM = {**LLAMA, "model_type": "Dream", "use_sliding_window": False, "sliding_window": None, "mask_token_id": 299}
# the keys and values of the published 8B model, but for the sizes
LLADA = {
    "activation_type": "silu",
    "alibi": False,
    "alibi_bias_max": 8.0,
    "attention_dropout": 0.0,
    "attention_layer_norm": False,
    "attention_layer_norm_with_affine": True,
    "bias_for_layer_norm": False,
    "block_group_size": 1,
    "block_type": "llama",
    "d_model": 32,
    "embedding_dropout": 0.0,
    "embedding_size": 300,
    "include_bias": False,
    "include_qkv_bias": False,
    "init_fn": "mitchell",
    "init_std": 0.02,
    "input_emb_norm": False,
    "layer_norm_type": "rms",
    "layer_norm_with_affine": True,
    "max_sequence_length": 64,
    "mlp_hidden_size": 48,
    "mlp_ratio": 4,
    "model_type": "llada",
    "multi_query_attention": None,
    "n_heads": 4,
    "n_kv_heads": 2,
    "n_layers": 2,
    "rms_norm_eps": 1e-5,
    "rope": True,
    "rope_full_precision": True,
    "rope_theta": 5000.0,
    "scale_logits": False,
    "vocab_size": 300,
    "weight_tying": False,
}
OURS = ModelConfig(
    vocab_size=300,
    hidden_size=32,
    layers=2,
    heads=4,
    kv_heads=2,
    ffn_size=48,
    max_length=64,
    rope_theta=5000.0,
    norm_eps=1e-5,
    tied_head=False,
)


def read(values, **overrides):
    return read_config(values, Overrides(**overrides), source=SOURCE)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (ILLADA, replace(OURS, tied_head=True)),
        ({**ILLADA, "tie_word_embeddings": False, "layer_norm_eps": None, "rope_scaling": None}, OURS),
        (LLADA, OURS),
        ({**LLADA, "weight_tying": True, "include_qkv_bias": True}, replace(OURS, tied_head=True, qkv_bias=True)),
        (LLAMA, replace(OURS, attention="causal")),
        ({**LLAMA, "head_dim": 8, "tie_word_embeddings": True}, replace(OURS, attention="causal", tied_head=True)),
        (QWEN2, replace(OURS, attention="causal", qkv_bias=True)),
        (DREAM, replace(OURS, qkv_bias=True, shifted=True)),
    ],
    ids=["illada", "illada untied", "llada", "llada tied, biases", "llama", "llama tied", "qwen2", "dream"],
)
def test_layouts(values, expected):
    assert read(values) == expected


def test_a_key_that_the_authors_code_defaults_may_be_absent():
    del (few := dict(LLAMA))["num_key_value_heads"]
    assert read(few).kv_heads == 4
    few = {key: value for key, value in LLADA.items() if key not in ("mlp_hidden_size", "n_kv_heads", "embedding_size")}
    assert (read(few).ffn_size, read(few).kv_heads, read(few).vocab_size) == (128, 4, 300)


def test_rows_that_no_token_has_are_part_of_the_model():
    assert read({**LLADA, "vocab_size": 290}).vocab_size == 300


def test_the_angles_as_transformers_5_writes_them():
    values = {key: value for key, value in LLAMA.items() if key != "rope_theta"}
    values["rope_parameters"] = {"rope_theta": 5000.0, "rope_type": "default"}
    assert read(values) == replace(OURS, attention="causal")


# --- what nothing can be assumed for ------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [ILLADA, LLADA, LLAMA], ids=["illada", "llada", "llama"])
@pytest.mark.parametrize(
    ("key", "name", "flag"), [("rope_theta", "rope_theta", "--rope-theta"), ("rms_norm_eps", "norm_eps", "--norm-eps")]
)
def test_angles_and_epsilon_are_given_or_asked_for(values, key, name, flag):
    few = {other: value for other, value in values.items() if other != key}
    with pytest.raises(ValueError, match=rf"config\.json does not give {key}.*{flag} \({name}=\.\.\. in Python\)"):
        read(few)
    with pytest.raises(ValueError, match=flag):
        read({**values, key: None})
    assert getattr(read(few, **{name: 0.25}), name) == 0.25
    assert getattr(read(values, **{name: 0.25}), name) == 0.25


def test_a_size_that_is_missing_is_named():
    few = {key: value for key, value in LLAMA.items() if key not in ("hidden_size", "intermediate_size")}
    with pytest.raises(ValueError, match=r"config\.json does not give hidden_size, intermediate_size"):
        read(few)


# --- causal becomes bidirectional ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "attention", "shifted"),
    [
        ({}, "causal", False),
        ({"attention": "causal"}, "causal", False),
        ({"attention": "bidirectional"}, "bidirectional", True),
        ({"attention": "bidirectional", "shifted": False}, "bidirectional", False),
    ],
)
def test_a_causal_model_keeps_its_shift(overrides, attention, shifted):
    config = read(QWEN2, **overrides)
    assert (config.attention, config.shifted) == (attention, shifted)


def test_a_bidirectional_model_has_none_to_keep():
    assert not read(ILLADA, attention="bidirectional").shifted
    assert not read(DREAM, shifted=False).shifted


# --- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "change", "message"),
    [
        (ILLADA, {"layer_norm_eps": 1e-5}, "layer_norm_eps 1e-05"),
        (ILLADA, {"attention_bias": True}, "attention_bias True"),
        (ILLADA, {"mlp_bias": True}, "mlp_bias True"),
        (ILLADA, {"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        (ILLADA, {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "rope_scaling 'linear' with factor 2.0"),
        (ILLADA, {"rope_scaling": {"type": "dynamic", "factor": 4.0}}, "rope_scaling 'dynamic' with factor 4.0"),
        (ILLADA, {"rope_scaling": {"rope_type": "default", "factor": 2.0}}, "rope_scaling 'default' with factor 2.0"),
        (LLAMA, {"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "rope_parameters 'llama3'"),
        (LLAMA, {"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
        (LLAMA, {"head_dim": 16}, "head_dim 16.* = 8 are"),
        (LLAMA, {"attention_bias": True}, "attention_bias True"),
        (LLAMA, {"quantization_config": {"quant_method": "gptq"}}, "quantization_config .weights that are quantised"),
        (QWEN2, {"use_sliding_window": True}, "use_sliding_window True"),
        (LLADA, {"block_type": "sequential"}, "block_type 'sequential'"),
        (LLADA, {"activation_type": "swiglu"}, "activation_type 'swiglu'"),
        (LLADA, {"layer_norm_type": "default"}, "layer_norm_type 'default'"),
        (LLADA, {"attention_layer_norm": True}, "attention_layer_norm True"),
        (LLADA, {"include_bias": True}, "include_bias True"),
        (LLADA, {"input_emb_norm": True}, "input_emb_norm True"),
        (LLADA, {"alibi": True}, "alibi True"),
        (LLADA, {"rope": False}, "rope False"),
        (LLADA, {"scale_logits": True}, "scale_logits True"),
        (LLADA, {"multi_query_attention": True}, "multi_query_attention True"),
    ],
)
def test_another_computation_is_refused_by_its_key(values, change, message):
    read(values)
    with pytest.raises(ValueError, match=rf"^folder/config\.json asks for {message}"):
        read({**values, **change})


@pytest.mark.parametrize("key", ["block_type", "activation_type", "layer_norm_type", "rope"])
def test_where_lladas_code_would_take_something_else_an_absent_key_is_refused(key):
    with pytest.raises(ValueError, match=rf"asks for {key}"):
        read({other: value for other, value in LLADA.items() if other != key})


@pytest.mark.parametrize("model_type", ["gpt2", None, "mistral"])
def test_another_layout_is_refused_and_the_known_ones_are_listed(model_type):
    with pytest.raises(ValueError, match=rf"the model_type {model_type!r}; .* illada, llada, llama, qwen2, Dream$"):
        read({**LLAMA, "model_type": model_type})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": "32"}, r"config\.json: not a valid ModelConfig.*expected int, got '32'"),
        ({"num_key_value_heads": 3}, r"config\.json: .*heads 4 must be a multiple of kv_heads 3"),
        ({"rope_theta": True}, "expected float, got True"),
    ],
)
def test_values_that_fit_nothing_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        read({**LLAMA, **change})


# --- and back -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("tied", [True, False])
def test_what_is_written_is_read(name, tied):
    config = replace(OURS, tied_head=tied, init_std=0.07, **LAYOUTS[name].decides)
    values = json.loads(json.dumps(write_config(config, LAYOUTS[name])))
    assert read(values) == config
    assert values["model_type"] == LAYOUTS[name].model_type
    assert "auto_map" not in values


def test_what_a_layout_cannot_say_is_refused():
    with pytest.raises(ValueError, match="the layout illada cannot say qkv_bias True and shifted True: choose another"):
        write_config(replace(OURS, qkv_bias=True, shifted=True), LAYOUTS["illada"])


def test_the_keys_of_lladas_file_are_those_published():
    written = write_config(OURS, LAYOUTS["llada"])
    assert written.keys() - {"architectures"} <= LLADA.keys()
    assert {key: LLADA[key] for key in written if key in LLADA and key != "bias_for_layer_norm"} == {
        key: value for key, value in written.items() if key not in ("architectures", "bias_for_layer_norm")
    }


# --- files --------------------------------------------------------------------------------------------------------


def test_files_that_hold_no_object(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"x\.json does not exist"):
        read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ValueError, match=r"x\.json is no JSON"):
        read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(ValueError, match=r"x\.json holds no JSON object"):
        read_json(tmp_path / "x.json")


def test_what_is_given_is_known():
    assert Overrides().given == []
    assert Overrides(shifted=False, rope_theta=1.0, special_tokens={"mask": "x"}).given == [
        "rope_theta",
        "shifted",
        "special_tokens",
    ]
