import pytest

from illada.checkpoint.huggingface.layouts import LAYOUTS, unsayable
from illada.checkpoint.saved import parameter_shapes
from illada.model.config import ModelConfig

FULL = ModelConfig(layers=12, tied_head=False, qkv_bias=True)
BY_LAYOUT = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


@BY_LAYOUT
def test_every_parameter_has_a_name_of_its_own(layout):
    names = [layout.published_name(name) for name in parameter_shapes(FULL)]
    assert len(set(names)) == len(names)
    assert not any("{" in name for name in names)


@pytest.mark.parametrize(
    ("layout", "ours", "published"),
    [
        ("illada", "embedding.weight", "model.embed_tokens.weight"),
        ("illada", "blocks.11.mlp_norm.weight", "model.layers.11.post_attention_layernorm.weight"),
        ("illada", "blocks.0.attention.o_proj.weight", "model.layers.0.self_attn.o_proj.weight"),
        ("llada", "head.weight", "model.transformer.ff_out.weight"),
        ("llada", "blocks.11.mlp.down_proj.weight", "model.transformer.blocks.11.ff_out.weight"),
        ("llada", "blocks.3.mlp.gate_proj.weight", "model.transformer.blocks.3.ff_proj.weight"),
        ("qwen2", "blocks.7.attention.k_proj.bias", "model.layers.7.self_attn.k_proj.bias"),
    ],
)
def test_some_names(layout, ours, published):
    assert LAYOUTS[layout].published_name(ours) == published


def test_illada_8b_has_its_290_tensors_and_the_head():
    """32 x 9 and three, of which the head is the embedding."""
    names = parameter_shapes(ModelConfig(layers=32))
    assert len(names) + 1 == 291


@BY_LAYOUT
def test_the_keys_are_fields(layout):
    assert layout.keys.keys() | layout.decides.keys() <= vars(ModelConfig()).keys()
    assert not layout.keys.keys() & layout.decides.keys()


@pytest.mark.parametrize(
    ("changes", "layouts"),
    [
        ({}, {"illada", "llada"}),
        ({"qkv_bias": True}, {"llada"}),
        ({"qkv_bias": True, "shifted": True}, {"dream"}),
        ({"shifted": True}, set()),
        ({"attention": "causal"}, {"llama"}),
        ({"attention": "causal", "qkv_bias": True}, {"qwen2"}),
    ],
)
def test_who_has_words_for_what(changes, layouts):
    config = ModelConfig(**changes)
    assert {name for name, layout in LAYOUTS.items() if not unsayable(layout, config)} == layouts


def test_what_cannot_be_said_is_named():
    config = ModelConfig(attention="causal", qkv_bias=True)
    assert unsayable(LAYOUTS["illada"], config) == ["attention causal", "qkv_bias True"]
