import math
from dataclasses import asdict, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from illada.model.attention import segment_positions
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer, initialize

KINDS = ["bidirectional", "causal"]
VARIANTS = [{"attention": "bidirectional"}, {"attention": "causal"}, {"shifted": True, "qkv_bias": True}]


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.inference_mode():
        yield


@pytest.fixture(params=VARIANTS, ids=str)
def model(request, small):
    return small(**request.param)


def tokens_of(length: int, *, batch: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 50, (batch, length), generator=torch.Generator().manual_seed(seed))


def assert_same(one: torch.Tensor, two: torch.Tensor) -> None:
    """Equal to 1e-5 of the largest value."""
    torch.testing.assert_close(one, two, atol=1e-5 * float(two.abs().max()), rtol=0, check_dtype=False)


# --- against a second Transformer ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (4, 1)])
@pytest.mark.parametrize("length", [1, 2, 17])
def test_hidden_states_equal_those_by_hand(kind, heads, length, small, transformer_by_hand):
    model = small(attention=kind, heads=heads[0], kv_heads=heads[1])
    tokens = tokens_of(length)
    assert_same(model(tokens)[0], transformer_by_hand(model, tokens[0]))


def test_theta_and_eps_reach_the_layers(small, transformer_by_hand):
    model = small(rope_theta=37.0, norm_eps=0.1)
    tokens = tokens_of(9)
    assert_same(model(tokens)[0], transformer_by_hand(model, tokens[0]))
    assert float((model(tokens) - small()(tokens)).abs().max()) > 0.01


@pytest.mark.parametrize("length", [1, 2, 9])
def test_biases_and_the_shift_equal_those_by_hand(length, small, transformer_by_hand):
    model = small(qkv_bias=True, shifted=True)
    tokens = tokens_of(length)
    assert_same(model(tokens)[0], transformer_by_hand(model, tokens[0]))
    if length > 1:
        assert float((model(tokens) - small(qkv_bias=True)(tokens)).abs().max()) > 0.01


def test_biases_begin_at_zero_and_norms_at_one():
    model = Transformer(ModelConfig(vocab_size=50, hidden_size=32, layers=1, heads=4, ffn_size=72, qkv_bias=True))
    initialize(model, seed=0)
    vectors = {name: set(value.tolist()) for name, value in model.named_parameters() if value.dim() == 1}
    assert vectors == {name: {0.0} if name.endswith("bias") else {1.0} for name in vectors}
    assert sum(name.endswith("bias") for name in vectors) == 3


@pytest.mark.parametrize("tied", [True, False])
def test_logits_are_products_with_the_head(tied, small):
    model = small(tied_head=tied)
    hidden = model(tokens_of(5, batch=2))
    matrix = model.embedding.weight if tied else model.head.weight
    assert model.head_weight is matrix
    assert (model.head is None) == tied
    torch.testing.assert_close(model.logits(hidden), hidden @ matrix.T)
    assert model.logits(hidden[0, 0]).shape == (50,)


def test_a_row_that_is_too_long_is_refused_with_both_numbers(model):
    model(tokens_of(64))
    with pytest.raises(ValueError, match=r"rows of 65 tokens do not fit the model's context of 64"):
        model(tokens_of(65))


# --- padding and packing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right", "both"])
def test_padding_changes_nothing(model, side):
    tokens = tokens_of(10)
    alone = model(tokens)
    for width in (1, 5):
        padding = torch.full((1, width), -1)
        left = padding if side in ("left", "both") else padding[:, :0]
        right = padding if side in ("right", "both") else padding[:, :0]
        segments = torch.cat((left, torch.zeros_like(tokens), right), dim=1)
        row = torch.cat((left.clamp(min=0), tokens, right.clamp(min=0)), dim=1)
        assert_same(model(row, segments)[segments == 0], alone[0])
        # nor does it matter what the padding holds
        row = torch.where(segments == -1, 33, row)
        assert_same(model(row, segments)[segments == 0], alone[0])


@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=5), left=st.integers(0, 3), right=st.integers(0, 3))
@settings(max_examples=10)
@pytest.mark.parametrize("kind", KINDS)
def test_packing_changes_nothing(kind, sizes, left, right, packed_models):
    model = packed_models[kind]
    numbers = [number for number, size in enumerate(sizes) for _ in range(size)]
    segments = torch.tensor([[-1] * left + numbers + [-1] * right])
    row = tokens_of(segments.shape[1], seed=sum(sizes))
    hidden = model(row, segments)
    for number in range(len(sizes)):
        part = segments[0] == number
        assert_same(hidden[:, part], model(row[:, part]))


@pytest.fixture(scope="module")
def packed_models():
    models = {}
    for kind in KINDS:
        models[kind] = Transformer(
            ModelConfig(vocab_size=50, hidden_size=32, heads=4, kv_heads=2, ffn_size=72, layers=2, attention=kind)
        ).eval()
        initialize(models[kind], seed=0)
        for name, parameter in models[kind].named_parameters():
            if "norm" not in name:
                parameter.requires_grad_(requires_grad=False).mul_(8)
    return models


def test_rows_of_a_batch_do_not_see_one_another(model):
    rows = tokens_of(12, batch=4)
    together = model(rows)
    for number in range(4):
        assert_same(together[number], model(rows[number : number + 1])[0])


def test_segments_of_zeros_equal_no_segments(model):
    tokens = tokens_of(12, batch=2)
    assert torch.equal(model(tokens, torch.zeros_like(tokens)), model(tokens))


def test_segments_do_matter(model):
    tokens, segments = tokens_of(8), torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1]])
    assert float((model(tokens, segments) - model(tokens))[:, 4:].abs().max()) > 0.01


# --- who sees whom ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 5, 11])
def test_a_token_changes_what_may_see_it(place, small):
    tokens = tokens_of(12)
    changed = tokens.clone()
    changed[0, place] = (changed[0, place] + 1) % 50
    for kind in KINDS:
        model = small(attention=kind)
        difference = (model(changed) - model(tokens)).abs().amax(-1)[0]
        sees = torch.arange(12) >= place if kind == "causal" else torch.ones(12, dtype=torch.bool)
        assert bool((difference[sees] > 1e-4).all())
        assert bool((difference[~sees] == 0).all())


def test_bidirectional_and_causal_differ_in_one_field_and_no_weight(small):
    one, two = small(attention="bidirectional"), small(attention="causal")
    differing = {name for name, value in asdict(one.config).items() if asdict(two.config)[name] != value}
    assert differing == {"attention"}
    assert replace(one.config, attention="causal") == two.config
    two.load_state_dict(one.state_dict())
    assert [str(module) for module in one.modules()] == [str(module) for module in two.modules()]
    assert float((one(tokens_of(9)) - two(tokens_of(9)))[:, :-1].abs().max()) > 0.01
    # a lone token sees itself in both
    assert torch.equal(one(tokens_of(1)), two(tokens_of(1)))


# --- precision ----------------------------------------------------------------------------------------------------


def test_bf16_autocast_is_close_and_norms_stay_in_fp32(small):
    model, tokens = small(), tokens_of(16)
    exact = model(tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model(tokens)
    assert rough.dtype == torch.float32
    assert 1e-5 < float((rough - exact).abs().max() / exact.abs().max()) < 0.05


def test_a_model_in_bf16_gives_bf16(small):
    model, tokens = small(), tokens_of(16)
    exact = model(tokens)
    rough = model.bfloat16()(tokens)
    assert rough.dtype == torch.bfloat16
    assert float((rough.float() - exact).abs().max() / exact.abs().max()) < 0.1


# --- initialisation -----------------------------------------------------------------------------------------------

WIDE = ModelConfig(
    vocab_size=900, hidden_size=128, layers=8, heads=4, kv_heads=2, ffn_size=300, tied_head=False, init_std=0.03
)


def initialized(config: ModelConfig, *, seed: int = 0) -> dict[str, torch.Tensor]:
    model = Transformer(config)
    initialize(model, seed=seed)
    return dict(model.named_parameters())


def expected_std(name: str) -> float:
    if name == "embedding.weight":
        return math.sqrt(1 / (2 * 128))
    if name.endswith(("o_proj.weight", "down_proj.weight")):
        return 0.03 / math.sqrt(2 * 8)
    return 0.03


def test_every_matrix_has_the_standard_deviation_of_its_rule():
    for name, parameter in initialized(WIDE).items():
        if parameter.dim() == 1:
            assert bool((parameter == 1).all()), name
            continue
        error = 5 / math.sqrt(2 * parameter.numel())
        assert float(parameter.std()) == pytest.approx(expected_std(name), rel=error), name
        assert abs(float(parameter.mean())) < 5 * expected_std(name) / math.sqrt(parameter.numel()), name


def test_values_are_normal():
    values = initialized(WIDE)["head.weight"].flatten() / 0.03
    for sigmas in (1, 2, 3):
        inside = float((values.abs() < sigmas).double().mean())
        assert inside == pytest.approx(math.erf(sigmas / math.sqrt(2)), abs=5e-3)


def test_no_two_tensors_share_their_numbers():
    model = initialized(WIDE)
    starts = {float(value.flatten()[0] / value.std()) for value in model.values() if value.dim() == 2}
    assert len(starts) == sum(value.dim() == 2 for value in model.values())


def test_the_seed_decides_the_weights():
    one, again, other = initialized(WIDE), initialized(WIDE), initialized(WIDE, seed=1)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert all(not torch.equal(one[name], other[name]) for name in one if one[name].dim() == 2)


def test_the_state_of_the_global_generator_does_not_matter():
    torch.manual_seed(1)
    one = initialized(WIDE)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    model = Transformer(WIDE)
    drawn = torch.get_rng_state()
    initialize(model, seed=0)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert not torch.equal(before, drawn)
    assert all(torch.equal(one[name], value) for name, value in model.named_parameters())


def test_the_order_of_construction_and_other_tensors_do_not_matter():
    """A tensor of one model has the same numbers in any model where its name and shape are the same."""
    one = initialized(WIDE)
    fewer = initialized(replace(WIDE, tied_head=True, kv_heads=4, attention="causal"))
    shared = [name for name in fewer if fewer[name].shape == one[name].shape]
    assert "blocks.7.attention.o_proj.weight" in shared
    assert "blocks.0.attention.k_proj.weight" not in shared
    assert all(torch.equal(fewer[name], one[name]) for name in shared)


def test_the_first_logits_are_small(small):
    """Untrained, the model knows nothing: its cross-entropy is close to log(vocab)."""
    model = Transformer(WIDE)
    initialize(model, seed=0)
    logits = model.logits(model(tokens_of(32)))
    assert float(logits.logsumexp(-1).mean() - logits.mean()) == pytest.approx(math.log(900), abs=0.2)


def test_positions_are_counted_within_segments(small):
    """A token alone in its segment stands at position 0, wherever that is in the row."""
    model, row = small(), torch.full((1, 6), 7)
    segments = torch.arange(6)[None]
    assert segment_positions(segments).tolist() == [[0] * 6]
    hidden = model(row, segments)
    for place in range(1, 6):
        assert_same(hidden[0, place], hidden[0, 0])
