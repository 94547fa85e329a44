"""Recomputation changes what is kept and how much is computed, never a gradient."""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from illada.distributed.activation import checkpoint_activations
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer, initialize

CONFIG = ModelConfig(vocab_size=30, hidden_size=32, layers=3, heads=4, kv_heads=2, ffn_size=48, max_length=16)
TOKENS = torch.randint(0, 30, (2, 16), generator=torch.Generator().manual_seed(0))
SEGMENTS = (torch.arange(16) > 6).long().expand(2, -1).clone()


class Count(TorchDispatchMode):
    """How often each operation ran."""

    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.seen[operation.overloadpacket.__name__] += 1
        return operation(*args, **(kwargs or {}))


def run(how, *, segments=SEGMENTS):
    """(gradients, operations of forward and backward, numbers kept for the backward pass beside the weights)."""
    model = Transformer(CONFIG)
    initialize(model, seed=0)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    checkpoint_activations(model, how)
    kept = {}

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with Count() as count:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = model(TOKENS, segments).square().sum()
        loss.backward()
    return {name: p.grad for name, p in model.named_parameters()}, count.seen, sum(kept.values())


@pytest.fixture(scope="module")
def plain():
    return run("none")


@pytest.mark.parametrize("how", ["selective", "full"])
@pytest.mark.parametrize("segments", [None, SEGMENTS])
def test_gradients_stay_what_they_are_to_the_bit(how, segments):
    expected, _, _ = run("none", segments=segments)
    got, _, _ = run(how, segments=segments)
    assert all(torch.equal(got[name], gradient) for name, gradient in expected.items())


def test_full_computes_every_forward_twice_but_for_the_last_product(plain):
    _, operations, _ = run("full")
    # 7 matrices a block: one product forward, two backward; once more for what the backward pass reads, which the
    # result of the last is not
    assert plain[1]["mm"] == 3 * 7 * 3
    assert operations["mm"] == (3 * 7 + 6) * 3
    assert operations["silu"] == 2 * plain[1]["silu"]


def test_selective_computes_no_matrix_product_twice(plain):
    _, operations, _ = run("selective")
    assert operations["mm"] == plain[1]["mm"]
    attention = "_scaled_dot_product_flash_attention_for_cpu"
    assert operations[attention] == plain[1][attention] == 3
    assert operations["silu"] == 2 * plain[1]["silu"]


def test_what_is_kept_shrinks(plain):
    kept = {how: run(how)[2] for how in ("selective", "full")}
    # `full` keeps the input of each block, the masks, and what lies outside the blocks
    assert kept["full"] < 0.35 * plain[2]
    assert kept["full"] < kept["selective"] + plain[2]  # what selective keeps is in torch's own cache


def test_names_and_state_stay_what_they_are():
    model = Transformer(CONFIG)
    names = list(model.state_dict())
    checkpoint_activations(model, "full")
    assert list(model.state_dict()) == names
