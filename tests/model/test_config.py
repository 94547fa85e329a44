import dataclasses

import jaxtyping
import pytest

from illada.config import from_dict, from_json, to_dict, to_json
from illada.model.config import NAMED_SIZES, ModelConfig, named_size


@pytest.mark.parametrize("name", ["vocab_size", "hidden_size", "layers", "heads", "kv_heads", "ffn_size", "max_length"])
@pytest.mark.parametrize("value", [0, -3])
def test_a_size_below_one_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got {value}"):
        ModelConfig(**{name: value})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        # 30 is no multiple of 4; 36 / 4 = 9 has no pairs
        ({"hidden_size": 30}, "hidden_size 30 must be an even multiple of heads 4"),
        ({"hidden_size": 36}, "hidden_size 36 must be an even multiple of heads 4"),
        ({"heads": 8, "kv_heads": 3}, "heads 8 must be a multiple of kv_heads 3"),
        ({"heads": 2, "kv_heads": 4}, "heads 2 must be a multiple of kv_heads 4"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_with_both_numbers(values, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig(**values)


def test_an_unknown_attention_is_refused(monkeypatch):
    # the run-time check of annotations, which users do not have, would come first
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=r"one of \('bidirectional', 'causal'\), got 'sideways'"):
        ModelConfig(attention="sideways")


def test_a_causal_model_is_not_shifted_once_more():
    assert ModelConfig(shifted=True).shifted
    with pytest.raises(ValueError, match="tells of the next token as it is"):
        ModelConfig(shifted=True, attention="causal")


def test_a_checkpoint_from_before_there_were_biases_is_read():
    values = {name: value for name, value in to_dict(ModelConfig()).items() if name not in ("qkv_bias", "shifted")}
    assert from_dict(ModelConfig, values) == ModelConfig(qkv_bias=False, shifted=False)


def test_a_head_is_its_share_of_the_width():
    assert ModelConfig(hidden_size=96, heads=6, kv_heads=6).head_size == 16


def test_a_configuration_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ModelConfig().layers = 5


@pytest.mark.parametrize("name", NAMED_SIZES)
def test_a_named_size_survives_json(name):
    assert from_json(ModelConfig, to_json(named_size(name))) == NAMED_SIZES[name]


def test_the_named_sizes_are_those_announced():
    assert list(NAMED_SIZES) == ["tiny", "illada_tiny", "small", "base", "1b", "illada_8b", "llada_8b"]


def test_an_unknown_size_is_refused_and_the_known_ones_are_listed():
    with pytest.raises(ValueError, match=r"'huge'; there are: tiny, illada_tiny, small, base, 1b, illada_8b, llada_8b"):
        named_size("huge")


def test_illada_8b_is_table_1_of_its_paper():
    config = named_size("illada_8b")
    assert (config.layers, config.hidden_size, config.ffn_size) == (32, 4096, 14_336)
    assert (config.heads, config.kv_heads, config.head_size) == (32, 8, 128)
    assert (config.vocab_size, config.max_length, config.tied_head) == (155_136, 8192, True)


def test_llada_8b_is_its_published_configuration():
    config = named_size("llada_8b")
    assert (config.layers, config.hidden_size, config.ffn_size) == (32, 4096, 12_288)
    assert (config.heads, config.kv_heads, config.tied_head) == (32, 32, False)
    assert (config.vocab_size, config.max_length) == (126_464, 4096)
    assert (config.rope_theta, config.norm_eps) == (500_000.0, 1e-5)
