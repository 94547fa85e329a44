"""What the sampler refuses, before the first forward."""

import pytest
import torch

from illada.model.config import ModelConfig
from illada.model.transformer import Transformer
from illada.sample.canvas import Canvas
from illada.sample.request import SamplingParams
from illada.sample.sampler import fill

VOCABULARY, MASK = 12, 3


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Transformer(
        ModelConfig(vocab_size=VOCABULARY, hidden_size=8, layers=1, heads=2, kv_heads=1, ffn_size=8, max_length=16)
    )


def test_no_canvas_gives_no_result(model):
    assert fill(model, [], SamplingParams(), mask_id=MASK) == []


def test_a_full_canvas_beyond_the_context_is_refused_too(model):
    with pytest.raises(ValueError, match="17 tokens exceeds the model's context of 16"):
        fill(model, [Canvas(tokens=(5,) * 17)], SamplingParams(), mask_id=MASK)


@pytest.mark.parametrize("token", [-1, VOCABULARY])
def test_an_id_that_there_is_not_cannot_be_suppressed(model, token):
    with pytest.raises(ValueError, match=f"cannot suppress token {token}: the model's ids run from 0 to 11"):
        fill(model, [Canvas(tokens=(5, None))], SamplingParams(suppress=(token,)), mask_id=MASK)


def test_one_token_must_be_left_to_choose(model):
    everything = SamplingParams(suppress=tuple(range(VOCABULARY)))
    with pytest.raises(ValueError, match="all 12 tokens are suppressed"):
        fill(model, [Canvas(tokens=(5, None))], everything, mask_id=MASK)


def test_a_seed_beyond_64_bits_is_refused():
    with pytest.raises(ValueError, match="signed 64-bit"):
        SamplingParams(seed=2**63)
