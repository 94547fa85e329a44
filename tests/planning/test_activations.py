"""What blocks keep, counted from the tensors that autograd and checkpointing hold."""

from dataclasses import replace

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from illada.distributed.activation import checkpoint_activations
from illada.model.accounting import estimate_memory
from illada.model.config import ModelConfig, named_size
from illada.model.transformer import Transformer
from illada.planning.activations import block_activations, outer_activations

SMALL = ModelConfig(vocab_size=60, hidden_size=64, layers=3, heads=4, kv_heads=2, ffn_size=144, max_length=512)
VARIANTS = {
    "grouped": SMALL,
    "as many keys as queries": replace(SMALL, kv_heads=4),
    "wide": replace(SMALL, ffn_size=400),
    "few heads": replace(SMALL, heads=2, kv_heads=1),
}
TOKENS = 256


def kept_by_blocks(config: ModelConfig, *, dtype: torch.dtype, autocast: bool) -> int:
    """Bytes of the distinct storages that the backward pass of all but the outermost layers waits for.

    The difference between models of two depths: what is outside the blocks is in both.
    """

    def kept(layers: int) -> int:
        model = Transformer(replace(config, layers=layers)).to(dtype)
        own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        storages = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                storages[storage.data_ptr()] = storage
            return tensor

        with saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            hidden = model(torch.zeros(1, TOKENS, dtype=torch.int64))
        assert hidden.requires_grad
        matrices = sum(p.numel() for p in model.blocks.parameters() if p.dim() > 1)
        casts = 2 * matrices if autocast and dtype == torch.float32 else 0
        return sum(storage.nbytes() for storage in storages.values()) - casts

    return (kept(5) - kept(2)) // 3


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize(
    ("compute", "dtype", "autocast"),
    [(4, torch.float32, False), (2, torch.float32, True), (2, torch.bfloat16, True)],
    ids=["fp32", "autocast", "autocast, weights gathered in bf16"],
)
def test_a_block_keeps_what_autograd_saves(name, compute, dtype, autocast):
    expected = kept_by_blocks(VARIANTS[name], dtype=dtype, autocast=autocast)
    assert TOKENS * block_activations(VARIANTS[name], compute=compute).kept == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("name", ["tiny", "illada_8b", "llada_8b"])
@pytest.mark.parametrize("compute", [2, 4])
def test_it_is_what_describe_counts(name, compute):
    """But for the states that the last norm gives, which the loss holds on to."""
    config = named_size(name)
    whole = config.layers * block_activations(config, compute=compute).kept + outer_activations(config)
    described = estimate_memory(config, length=1, compute_bytes=compute).activations
    assert whole - 4 * config.hidden_size == pytest.approx(described, rel=1e-3)


def allocated_by_blocks(config: ModelConfig, how: str, memory_changes) -> int:
    """Bytes per block that are still there behind a forward pass, as the allocator counts them."""

    def left(layers: int) -> int:
        model = Transformer(replace(config, layers=layers))
        checkpoint_activations(model, how)
        tokens = torch.zeros(1, TOKENS, dtype=torch.int64)
        return sum(memory_changes(lambda: model(tokens)))

    return (left(5) - left(2)) // 3


@pytest.mark.parametrize("how", ["none", "selective", "full"])
@pytest.mark.parametrize("name", ["grouped", "wide"])
def test_checkpointing_keeps_what_it_says(name, how, memory_changes):
    config = VARIANTS[name]
    expected = TOKENS * block_activations(config, compute=4, checkpointing=how).kept
    assert allocated_by_blocks(config, how, memory_changes) == pytest.approx(expected, rel=0.05)


def test_what_is_not_kept_is_computed_again():
    none, selective, full = (
        block_activations(SMALL, compute=2, checkpointing=how) for how in ("none", "selective", "full")
    )
    assert none.recomputed == 0
    assert none.kept > selective.kept > full.kept == 4 * SMALL.hidden_size
    assert full.recomputed == none.kept - full.kept > selective.recomputed > 0


def test_tensor_parallel_divides_what_is_inside_and_not_the_stream():
    whole, divided = (block_activations(SMALL, compute=2, tensor=size) for size in (1, 2))
    inside = 2 * (3 * 64 + 2 * 32) + 4 * 4 + 4 * 2 * 144
    assert whole.kept - divided.kept == inside // 2
