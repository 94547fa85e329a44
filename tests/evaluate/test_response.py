"""The bound on held-out responses, against its exact value by enumeration."""

import math
from dataclasses import replace
from itertools import combinations

import pytest
import torch

from illada.data.dialogues import Example
from illada.evaluate.response import response_bound
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer, initialize

MASK = 3
EXAMPLES = [
    Example(prompt=[5, 6, 7], response=[8, 9, 2]),
    Example(prompt=[4], response=[2]),
    Example(prompt=[9] * 6, response=[4, 5, 6, 2]),
]


@pytest.fixture(scope="module")
def model():
    transformer = Transformer(
        ModelConfig(vocab_size=12, hidden_size=16, layers=1, heads=2, kv_heads=1, ffn_size=24, init_std=0.5)
    )
    initialize(transformer, seed=1)
    return transformer.eval()


@torch.no_grad()
def exact(model, example):
    """Mean over l of L/l times the mean over all choices of l positions of the summed cross-entropies, in nats."""
    length = len(example.response)
    total = 0.0
    for count in range(1, length + 1):
        sums = []
        for places in combinations(range(length), count):
            text = [*example.prompt, *(MASK if at in places else token for at, token in enumerate(example.response))]
            logits = model.logits(model(torch.tensor([text]), None))[0].double().log_softmax(-1)
            sums.append(-sum(float(logits[len(example.prompt) + at, example.response[at]]) for at in places))
        total += length / count * sum(sums) / len(sums) / length
    return total


def test_the_estimate_is_the_exact_bound_on_average(model):
    expected = sum(exact(model, example) for example in EXAMPLES) / sum(len(example.response) for example in EXAMPLES)
    draws = [response_bound(model, EXAMPLES, mask_id=MASK, samples=12, seed=seed).nats_per_token for seed in range(60)]
    mean = sum(draws) / len(draws)
    error = math.sqrt(sum((draw - mean) ** 2 for draw in draws) / (len(draws) - 1) / len(draws))
    assert abs(mean - expected) < 4 * error
    assert error < 0.02 * expected


def test_the_same_noise_gives_the_same_number_in_batches_of_any_size(model):
    values = [response_bound(model, EXAMPLES, mask_id=MASK, batch_size=size).nats_per_token for size in (1, 2, 3)]
    assert values == pytest.approx([values[0]] * 3, rel=1e-6)


def test_the_number_has_its_unit_in_its_name(model):
    bound = response_bound(model, EXAMPLES, mask_id=MASK)
    assert bound.metrics() == {"held_out/response_nats_per_token": bound.nats_per_token}
    assert bound.tokens == 8


def test_nothing_to_measure_on_is_refused(model):
    with pytest.raises(ValueError, match="there are 0 examples to measure on"):
        response_bound(model, [], mask_id=MASK)


# --- a causal model -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def causal(model):
    transformer = Transformer(replace(model.config, attention="causal"))
    transformer.load_state_dict(model.state_dict())
    return transformer.eval()


@torch.no_grad()
def chained(model, example):
    """-log p(response | prompt), one forward for every token, in nats."""
    nats, text = 0.0, list(example.prompt)
    for token in example.response:
        nats -= float(model.logits(model(torch.tensor([text])))[0, -1].double().log_softmax(0)[token])
        text.append(token)
    return nats


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_of_a_causal_model_it_is_the_value_whatever_the_masks(causal, batch_size):
    bounds = [
        response_bound(causal, EXAMPLES, mask_id=MASK, samples=samples, seed=seed, batch_size=batch_size)
        for samples, seed in ((1, 0), (4, 5))
    ]
    assert bounds[0] == bounds[1]
    assert bounds[0].tokens == 8
    assert bounds[0].nats_per_token == pytest.approx(sum(chained(causal, one) for one in EXAMPLES) / 8, rel=1e-5)


def test_a_causal_model_needs_a_prompt(causal):
    with pytest.raises(ValueError, match="a prompt, which has 0 tokens: begin it with BOS"):
        response_bound(causal, [Example(prompt=[], response=[4, 2])], mask_id=MASK)
