"""What holds for every completion, whatever is asked for."""

from functools import cache
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from illada.data.tokenizer import Tokenizer
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer
from illada.pipeline import LanguageModel
from illada.sample.canvas import Canvas
from illada.sample.request import SamplingParams
from illada.sample.sampler import fill

SMALL = settings(max_examples=40)
MASK = 4
VOCAB = 11


def new_transformer(vocab_size):
    config = ModelConfig(
        vocab_size=vocab_size, hidden_size=16, layers=1, heads=2, kv_heads=1, ffn_size=24, max_length=40
    )
    model = Transformer(config).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return model


@cache
def language_model():
    tokenizer = Tokenizer.train(["a few words of a text, and a few more words"], 270)
    return LanguageModel(transformer=new_transformer(tokenizer.vocab_size), tokenizer=tokenizer)


@cache
def transformer():
    return new_transformer(VOCAB)


@st.composite
def sampling_options(draw):
    length = draw(st.integers(1, 14))
    return {
        "length": length,
        "block_length": draw(st.integers(1, 18)),
        "steps": draw(st.none() | st.integers(1, length)),
        "temperature": draw(st.sampled_from([0.0, 0.5, 1.0, 30.0])),
        "top_p": draw(st.sampled_from([1.0, 0.9, 0.01])),
        "guidance": draw(st.sampled_from([0.0, 0.5, 4.0])),
        "unmasking": draw(st.sampled_from(["low_confidence", "random"])),
        "suppress": tuple(draw(st.sets(st.integers(0, VOCAB - 1), max_size=5))),
        "seed": draw(st.integers(0, 2**63 - 1)),
    }


CANVASES = st.lists(
    st.lists(st.none() | st.sampled_from([token for token in range(VOCAB) if token != MASK]), min_size=1, max_size=12),
    min_size=1,
    max_size=4,
)


def check_completion(completion, params, *, mask):
    assert mask not in completion.tokens
    assert set(completion.tokens).isdisjoint(params.suppress)
    assert completion.forwards == (params.steps or params.length)
    assert len(completion.tokens) <= params.length
    assert (completion.finish_reason == "stop") == (len(completion.tokens) < params.length)
    assert len(completion.revealed_at) == len(completion.tokens)
    assert all(1 <= at <= completion.forwards for at in completion.revealed_at)


@SMALL
@given(st.lists(st.text(max_size=5), min_size=1, max_size=3), sampling_options())
def test_every_completion_is_whole_and_accounted_for(prompts, options):
    model, params = language_model(), SamplingParams(**options)
    for completion in model.generate(prompts, params):
        check_completion(completion, params, mask=model.tokenizer.specials.mask)


@SMALL
@given(st.text(max_size=4), st.text(max_size=4), sampling_options())
def test_every_gap_is_filled_to_its_length(prefix, suffix, options):
    model, params = language_model(), SamplingParams(**options)
    completion = model.infill(prefix, suffix, params)
    check_completion(completion, params, mask=model.tokenizer.specials.mask)
    assert len(completion.tokens) == params.length


@SMALL
@given(CANVASES, sampling_options())
def test_every_canvas_keeps_what_was_given_and_gets_each_hole_filled_once(rows, options):
    params = SamplingParams(**options)
    canvases = [Canvas(tokens=tuple(row), seed=params.seed) for row in rows]
    seen = []
    filled = fill(
        transformer(),
        canvases,
        params,
        mask_id=MASK,
        on_step=lambda number, tokens, revealed: seen.append(revealed.clone()),
    )
    for number, (canvas, row) in enumerate(zip(canvases, filled, strict=True)):
        assert MASK not in row.tokens
        assert row.forwards == min(params.steps or len(canvas.holes), len(canvas.holes))
        for given_token, token, at in zip(canvas.tokens, row.tokens, row.revealed_at, strict=True):
            if given_token is None:
                assert token not in params.suppress
                assert 1 <= at <= row.forwards
            else:
                assert (token, at) == (given_token, 0)
        assert sum(int(revealed[number].sum()) for revealed in seen) == len(canvas.holes)
        # every forward that counts reveals something
        assert set(row.revealed_at) - {0} == set(range(1, row.forwards + 1))


@pytest.mark.parametrize("unmasking", ["low_confidence", "random"])
@SMALL
@given(st.integers(1, 12), st.integers(1, 14), st.data())
def test_blocks_are_finished_from_left_to_right(unmasking, holes, block_length, data):
    steps = data.draw(st.integers(1, holes))
    params = SamplingParams(block_length=block_length, steps=steps, unmasking=unmasking)
    [filled] = fill(transformer(), [Canvas(tokens=(1, *[None] * holes))], params, mask_id=MASK)
    order = filled.revealed_at[1:]
    blocks = [order[start : start + block_length] for start in range(0, holes, block_length)]
    for earlier, later in pairwise(blocks):
        assert max(earlier) <= min(later)
        assert steps < len(blocks) or max(earlier) < min(later)
