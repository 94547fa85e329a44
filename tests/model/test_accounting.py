from dataclasses import replace

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from illada.model.accounting import count_flops, count_parameters, estimate_memory
from illada.model.config import NAMED_SIZES, ModelConfig, named_size
from illada.model.transformer import Transformer

SMALL = ModelConfig(vocab_size=60, hidden_size=32, layers=3, heads=4, kv_heads=2, ffn_size=72)
VARIANTS = {
    "grouped": SMALL,
    "as many keys as queries": replace(SMALL, kv_heads=4),
    "head of its own": replace(SMALL, tied_head=False),
    "causal": replace(SMALL, attention="causal"),
    "biases": replace(SMALL, qkv_bias=True),
    "other sizes": ModelConfig(vocab_size=33, hidden_size=48, layers=1, heads=3, kv_heads=1, ffn_size=20),
}

# --- parameters ---------------------------------------------------------------------------------------------------


def by_formula(config: ModelConfig) -> tuple[int, int]:
    """(all parameters, those of embedding and head), written out."""
    width, kv_width = config.hidden_size, config.kv_heads * (config.hidden_size // config.heads)
    attention = 2 * width * width + 2 * width * kv_width  # q and o; k and v
    block = attention + 3 * width * config.ffn_size + 2 * width  # gate, up, down; two norms
    block += width + 2 * kv_width if config.qkv_bias else 0
    embedding = config.vocab_size * width * (1 if config.tied_head else 2)
    return config.layers * block + width + embedding, embedding


@pytest.mark.parametrize("config", [*NAMED_SIZES.values(), *VARIANTS.values()], ids=[*NAMED_SIZES, *VARIANTS])
def test_parameters_equal_the_formula(config):
    count = count_parameters(config)
    assert (count.total, count.embedding) == by_formula(config)
    assert count.non_embedding == count.total - count.embedding


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_parameters_are_those_of_a_model_with_weights(config):
    assert count_parameters(config).total == sum(p.numel() for p in Transformer(config).parameters())


def test_illada_8b_has_the_published_number_of_parameters():
    count = count_parameters(named_size("illada_8b"))
    assert (count.total, count.non_embedding) == (7_615_025_152, 6_979_588_096)


def test_llada_8b_has_8_02_billion():
    # 32 blocks of 4 square attention matrices, 3 MLP matrices and 2 norms; the last norm; embedding and head
    block = 4 * 4096 * 4096 + 3 * 4096 * 12_288 + 2 * 4096
    expected = 32 * block + 4096 + 2 * 126_464 * 4096
    assert count_parameters(named_size("llada_8b")).total == expected == 8_015_581_184
    assert f"{expected / 1e9:.2f}" == "8.02"


@pytest.mark.parametrize(
    ("name", "low", "high"), [("tiny", 2e6, 4e6), ("small", 25e6, 35e6), ("base", 100e6, 120e6), ("1b", 0.9e9, 1.2e9)]
)
def test_our_sizes_are_what_their_names_say(name, low, high):
    count = count_parameters(named_size(name))
    assert low < count.non_embedding < high


def test_counting_takes_no_memory_for_weights():
    """On the meta device a model far larger than any machine is counted."""
    huge = replace(named_size("illada_8b"), ffn_size=2**40)
    assert count_parameters(huge).total == by_formula(huge)[0]


# --- FLOPs --------------------------------------------------------------------------------------------------------


def counted(config: ModelConfig, length: int) -> tuple[float, float]:
    """(forward, forward and backward) per token as torch counts them, attention as plain matrix products."""
    model, tokens = Transformer(config), torch.zeros(2, length, dtype=torch.int64)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        logits = model.logits(model(tokens))
        forward = counter.get_total_flops()
        logits.sum().backward()
    return forward / tokens.numel(), counter.get_total_flops() / tokens.numel()


@pytest.mark.parametrize("length", [1, 40])
@pytest.mark.parametrize("name", ["grouped", "as many keys as queries", "head of its own", "biases", "other sizes"])
def test_flops_equal_those_that_torch_counts(name, length):
    count = count_flops(VARIANTS[name], length=length)
    forward, training = counted(VARIANTS[name], length)
    assert count.forward == pytest.approx(forward, rel=1e-6)
    assert count.training == pytest.approx(training, rel=1e-6)


@pytest.mark.parametrize("length", [1, 40])
def test_a_causal_model_needs_half_the_attention(length):
    """Torch counts what the plain products compute; of these pairs of positions only the lower triangle is needed."""
    causal, full = count_flops(VARIANTS["causal"], length=length), count_flops(SMALL, length=length)
    assert counted(VARIANTS["causal"], length)[0] == pytest.approx(full.forward, rel=1e-6)
    pairs = int(torch.ones(length, length).tril().sum())
    assert causal.attention == pytest.approx(full.attention * pairs / length**2)
    assert (causal.blocks, causal.head) == (full.blocks, full.head)


def test_the_head_counts_at_its_fraction_of_positions():
    whole, half = count_flops(SMALL, length=8), count_flops(SMALL, length=8, head_fraction=0.5)
    assert half.head == whole.head / 2 == 32 * 60
    assert half.forward == whole.blocks + whole.attention + 32 * 60


def test_a_long_model_is_two_flops_per_parameter_and_token():
    """The rule of thumb 2 N per token holds where rows are short."""
    config = named_size("illada_8b")
    count = count_flops(config, length=1, head_fraction=0.0)
    assert count.forward == pytest.approx(2 * count_parameters(config).non_embedding, rel=1e-3)


# --- memory -------------------------------------------------------------------------------------------------------


def kept_bytes(config: ModelConfig, length: int, *, autocast: bool) -> int:
    """Bytes of the distinct storages that the backward pass of one row waits for, the weights themselves apart."""
    model = Transformer(config)
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage  # held, so that no address comes twice
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        hidden = model(torch.zeros(1, length, dtype=torch.int64))
    assert hidden.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("name", VARIANTS)
def test_activations_are_those_that_are_kept(name, autocast):
    for length in (64, 256):
        estimate = estimate_memory(VARIANTS[name], length=length, compute_bytes=2 if autocast else 4)
        measured = kept_bytes(VARIANTS[name], length, autocast=autocast)
        assert estimate.activations + estimate.casts == pytest.approx(measured, rel=0.02)


def test_only_autocast_casts():
    matrices = count_parameters(SMALL).non_embedding
    assert estimate_memory(SMALL, length=8, compute_bytes=4).casts == 0
    assert estimate_memory(SMALL, length=8, weight_bytes=2, compute_bytes=2).casts == 0
    assert estimate_memory(SMALL, length=8, compute_bytes=2).casts == 2 * matrices


def test_activations_grow_with_the_length_alone():
    short, long = estimate_memory(SMALL, length=10), estimate_memory(SMALL, length=30)
    assert long.activations == 3 * short.activations
    assert (long.weights, long.gradients, long.optimizer) == (short.weights, short.gradients, short.optimizer)


@pytest.mark.parametrize("weight_bytes", [2, 4])
def test_weights_gradients_and_moments_are_those_of_adamw(weight_bytes):
    dtype = {2: torch.bfloat16, 4: torch.float32}[weight_bytes]
    model = Transformer(SMALL).to(dtype)
    estimate = estimate_memory(SMALL, length=8, weight_bytes=weight_bytes)
    assert estimate.weights == sum(p.nbytes for p in model.parameters())
    assert estimate.gradients == sum(torch.zeros_like(p).nbytes for p in model.parameters())
    moments = torch.optim.AdamW(model.float().parameters())
    model(torch.zeros(1, 4, dtype=torch.int64)).sum().backward()
    moments.step()
    held = sum(moments.state[p][key].nbytes for p in model.parameters() for key in ("exp_avg", "exp_avg_sq"))
    assert estimate.optimizer == held


def test_the_total_is_the_sum_of_its_parts():
    estimate = estimate_memory(named_size("illada_8b"), length=8192)
    parts = (estimate.weights, estimate.gradients, estimate.optimizer, estimate.casts, estimate.activations)
    assert estimate.training == sum(parts)
    assert estimate.weights == 4 * 7_615_025_152
