"""Rows divided among processes, as far as one process can see; several are compared in test_sharding.py."""

import pytest
import torch
from torch.distributed.device_mesh import DeviceMesh

from illada.distributed.context import divide_rows
from illada.model.attention import Share, attend, attention_layout, offsets_within, run_offsets
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer, initialize

SEGMENTS = torch.tensor([[0, 0, 0, 1, 1, 2, 2, -1], [0, 0, 0, 0, 0, 0, 0, 0], [0, 1, 1, 1, 1, 1, 1, 1]])


def share(number, count, whole=None):
    return Share(number=number, count=count, gather=lambda states: states if whole is None else whole)


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_the_offsets_of_a_share_are_those_of_its_positions(count):
    offsets = run_offsets(SEGMENTS)
    flat = torch.arange(SEGMENTS.numel()).view(SEGMENTS.shape)
    for number in range(count):
        own = share(number, count).positions(8)
        kept = flat[:, own].flatten().tolist()
        expected = [sum(place < offset for place in kept) for offset in offsets.tolist()]
        assert offsets_within(own, offsets, length=8).tolist() == expected


def test_rows_that_do_not_divide_are_refused_with_both_numbers():
    with pytest.raises(ValueError, match="rows of 37 tokens do not divide among 4 processes"):
        share(0, 4).positions(37)


@pytest.mark.parametrize("segments", [None, SEGMENTS])
@pytest.mark.parametrize("count", [2, 4])
def test_attention_over_a_share_is_a_part_of_that_over_all(segments, count):
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(3, 2, 8, 4, generator=generator) for _ in range(3))
    expected = attend(query, key, value, attention_layout(segments, causal=False))
    both = torch.stack((key, value))
    for number in range(count):
        part = share(number, count, whole=both)
        own = part.positions(8)
        layout = attention_layout(segments, causal=False, share=part)
        got = attend(query[:, :, own], key[:, :, own], value[:, :, own], layout)
        torch.testing.assert_close(got, expected[:, :, own])


def test_a_model_gives_the_states_of_its_share():
    config = ModelConfig(vocab_size=30, hidden_size=16, layers=1, heads=2, kv_heads=1, ffn_size=24, max_length=8)
    model = Transformer(config)
    initialize(model, seed=0)
    tokens = torch.randint(0, 30, SEGMENTS.shape, generator=torch.Generator().manual_seed(0))
    expected = model(tokens, SEGMENTS)
    gathered = {}

    def keep(states):  # of the whole row: what a process that has all of it would send
        gathered["states"] = states
        return states

    model.share = Share(number=0, count=1, gather=keep)
    assert torch.equal(model(tokens, SEGMENTS), expected)
    model.share = Share(number=1, count=2, gather=lambda states: gathered["states"])
    torch.testing.assert_close(model(tokens, SEGMENTS), expected[:, 4:])


def test_the_states_of_a_shifted_model_come_from_the_process_before():
    config = ModelConfig(
        vocab_size=30, hidden_size=16, layers=1, heads=2, kv_heads=1, ffn_size=24, max_length=8, shifted=True
    )
    model = Transformer(config)
    initialize(model, seed=0)
    tokens = torch.randint(0, 30, SEGMENTS.shape, generator=torch.Generator().manual_seed(0))
    expected = model(tokens, SEGMENTS)
    sent = []

    def keep(states):  # keys and values, and behind the last norm the states of the whole row
        sent.append(states)
        return states

    model.share = Share(number=0, count=1, gather=keep)
    assert torch.equal(model(tokens, SEGMENTS), expected)
    assert len(sent) == config.layers + 1
    for number in (0, 1):
        answers = iter(sent)
        model.share = Share(number=number, count=2, gather=lambda states, answers=answers: next(answers))
        torch.testing.assert_close(model(tokens, SEGMENTS), expected[:, 4 * number : 4 * number + 4])


def test_a_causal_model_is_refused():
    model = Transformer(ModelConfig(attention="causal"))
    with pytest.raises(ValueError, match=r"mesh\.context divides rows that are seen in both directions"):
        divide_rows(model, DeviceMesh.__new__(DeviceMesh))
