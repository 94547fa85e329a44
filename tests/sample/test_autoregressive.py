"""Token after token, against a plain loop over one prompt with full logits."""

from dataclasses import replace

import pytest
import torch

from illada.model.config import ModelConfig
from illada.model.transformer import Transformer
from illada.sample.autoregressive import check_causal
from illada.sample.canvas import Canvas
from illada.sample.choice import nucleus
from illada.sample.request import SamplingParams
from illada.sample.sampler import fill
from illada.sample.stopping import Stopping
from illada.sample.writing import Prompt, budget_within, write
from illada.seeding import Stream

VOCAB, MASK, EOS, CONTEXT = 24, 3, 2, 96


def stopping(*strings):
    return Stopping(end_ids=(EOS,), strings=strings, decode=lambda ids: bytes(97 + token for token in ids))


@pytest.fixture(scope="module")
def model():
    config = ModelConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        layers=2,
        heads=2,
        kv_heads=1,
        ffn_size=24,
        max_length=CONTEXT,
        attention="causal",
    )
    transformer = Transformer(config).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in transformer.parameters():
            if parameter.dim() == 2:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    # in float64 a batch and a row alone agree to the last bit of the fp32 logits
    return transformer.double()


@torch.inference_mode()
def naive(model, prompt, params, *, seed=0, marker=()):
    """The tokens of one prompt: no batch, no canvas, every logit of every position."""
    budget, _ = budget_within(CONTEXT, prompt=len(prompt), params=params)
    text = list(prompt)
    while len(text) - len(prompt) < budget and stopping(*params.stop).find(text[len(prompt) :]) is None:
        logits = model.logits(model(torch.tensor([text])))[0, -1].float()
        logits[[MASK, *params.suppress]] = -torch.inf
        written = text[len(prompt) :]
        if marker and tuple(marker) not in {tuple(written[k : k + len(marker)]) for k in range(len(written))}:
            begun = max(n for n in range(len(marker)) if n == 0 or tuple(written[-n:]) == tuple(marker[:n]))
            progress = (len(written) + 1) / budget
            logits[marker[begun]] += params.thinking_strength * progress**params.thinking_power
        if params.temperature:
            scaled = nucleus(logits.double() / params.temperature, params.top_p)
            number = len(written)
            uniform = Stream(0, "gumbel").uniform64(torch.tensor(seed), VOCAB, epoch=number * 65536 + number)
            logits = scaled - (-uniform.log()).log()
        text.append(max(range(VOCAB), key=lambda token: float(logits[token])))
    return tuple(text[len(prompt) :])


def run(model, prompts, params, seeds=None, *, marker=(), on_step=None):
    seeds = seeds or [0] * len(prompts)
    requests = [Prompt(tokens=tuple(prompt), seed=seed) for prompt, seed in zip(prompts, seeds, strict=True)]
    return write(
        model,
        requests,
        params,
        mask_id=MASK,
        stopping=stopping(*params.stop),
        thinking_marker=marker,
        on_step=on_step,
    )


def prompts_of(count, *, longest=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    lengths = [1 + number % longest for number in range(count)]
    return [torch.randint(4, VOCAB, (length,), generator=generator).tolist() for length in lengths]


# --- token for token ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 30])
def test_greedy_equals_a_plain_loop(model, length):
    params = SamplingParams(length=length)
    prompts = prompts_of(9)
    for prompt, writing in zip(prompts, run(model, prompts, params), strict=True):
        assert writing.tokens == naive(model, prompt, params)
        assert writing.cut == stopping().find(writing.tokens)
        assert MASK not in writing.tokens


@pytest.mark.parametrize(("temperature", "top_p"), [(0.7, 1.0), (2.0, 0.9), (1.0, 1e-9)])
def test_sampling_equals_a_plain_loop_with_the_noise_of_each_request(model, temperature, top_p):
    params = SamplingParams(length=20, temperature=temperature, top_p=top_p, suppress=(EOS,))
    prompts, seeds = prompts_of(6), [3, 1, 4, 1, 5, 9]
    texts = []
    for prompt, seed, writing in zip(prompts, seeds, run(model, prompts, params, seeds), strict=True):
        assert writing.tokens == naive(model, prompt, params, seed=seed)
        texts.append(tuple(writing.tokens))
    greedy = [tuple(writing.tokens) for writing in run(model, prompts, replace(params, temperature=0.0))]
    assert (texts == greedy) == (top_p < 1e-6)


@pytest.mark.parametrize("stop", [("k",), ("nn", "q"), ("abcdef",), ("h", "hi", "s")])
def test_it_ends_with_a_stop_string(model, stop):
    params = SamplingParams(length=24, stop=stop, suppress=(EOS,))
    prompts = prompts_of(12)
    writings = run(model, prompts, params)
    for prompt, writing in zip(prompts, writings, strict=True):
        assert writing.tokens == naive(model, prompt, params)
        assert writing.cut == stopping(*stop).find(writing.tokens)
    if stop != ("abcdef",):
        assert any(writing.cut is not None for writing in writings)


def test_the_end_of_thinking_is_favoured_as_on_a_canvas(model):
    marker = (5, 7, 5, 8)
    params = SamplingParams(length=24, thinking_strength=100.0, thinking_power=3.0, suppress=(EOS,))
    prompts = prompts_of(6)
    writings = run(model, prompts, params, marker=marker)
    for prompt, writing in zip(prompts, writings, strict=True):
        assert writing.tokens == naive(model, prompt, params, marker=marker)
    plain = run(model, prompts, params)
    assert [writing.tokens for writing in plain] != [writing.tokens for writing in writings]


# --- a batch ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_64_unequal_prompts_in_one_batch_equal_each_alone(model, temperature):
    params = SamplingParams(length=20, temperature=temperature, stop=("q", "ii"), top_p=0.95)
    prompts, seeds = prompts_of(64, longest=23), list(range(64))
    together = run(model, prompts, params, seeds)
    for prompt, seed, writing in zip(prompts, seeds, together, strict=True):
        assert writing == run(model, [prompt], params, [seed])[0]
    assert any(writing.cut is not None for writing in together)
    assert len({writing.forwards for writing in together}) > 3  # rows left one by one


def test_rows_that_are_done_leave_the_forwards(model, monkeypatch):
    params, rows, recompute = SamplingParams(length=40, stop=("k",), suppress=(EOS,)), [], model.recompute
    monkeypatch.setattr(
        model,
        "recompute",
        lambda tokens, cache, selection, *rest: (
            rows.append(len(selection.slots)) or recompute(tokens, cache, selection, *rest)
        ),
    )
    writings = run(model, prompts_of(16), params)
    assert rows == sorted(rows, reverse=True)
    assert rows[-1] < rows[0] == 16
    assert sum(rows) == sum(writing.forwards for writing in writings)


def test_a_step_tells_which_tokens_are_new(model):
    params, prompts, told = SamplingParams(length=5, suppress=(EOS,)), [[5, 6, 7], [8]], []
    writings = run(
        model, prompts, params, on_step=lambda number, tokens, revealed: told.append((number, tokens[revealed]))
    )
    assert [number for number, _ in told] == [1, 2, 3, 4, 5]
    for step, (_, tokens) in enumerate(told):
        assert tokens.tolist() == [writing.tokens[step] for writing in writings]


def test_no_prompts_are_no_texts(model):
    assert run(model, [], SamplingParams()) == []


# --- what it costs ------------------------------------------------------------------------------------------------


def test_a_forward_writes_a_token_and_computes_what_is_new(model):
    [writing] = run(model, [[5, 6, 7]], SamplingParams(length=6, suppress=(EOS,)))
    assert (writing.forwards, writing.revealed_at) == (6, (1, 2, 3, 4, 5, 6))
    assert writing.positions == 3 + 5


def test_a_budget_is_clipped_to_the_context(model):
    params = SamplingParams(length=24, suppress=(EOS,))
    writings = run(model, [[5] * 3, [6] * 79, [7] * 95], params)
    assert [len(writing.tokens) for writing in writings] == [24, 17, 1]
    assert [writing.clipped for writing in writings] == [False, True, True]


# --- refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "name", "default"),
    [
        ({"canvas": "fixed"}, "canvas", "'variable', got 'fixed'"),
        ({"block_length": 8}, "block_length", "32, got 8"),
        ({"steps": 4}, "steps", "None, got 4"),
        ({"guidance": 1.5}, "guidance", "0.0, got 1.5"),
        ({"unmasking": "random"}, "unmasking", "'low_confidence', got 'random'"),
        ({"blocks": 2}, "blocks", "1, got 2"),
        ({"caching": "dual"}, "caching", "'none', got 'dual'"),
        ({"reveal_last": (7,)}, "reveal_last", r"\(\), got \(7,\)"),
        ({"end": "last", "reveal_last": (EOS,)}, "end", "'free', got 'last'"),
    ],
)
def test_what_only_diffusion_can_be_told_is_refused(model, options, name, default):
    params = SamplingParams(length=8, **options)
    with pytest.raises(
        ValueError, match=f"one token after the other: {name} says nothing to it; leave it at {default}"
    ):
        run(model, [[5]], params)


def test_the_rest_is_not_refused():
    check_causal(SamplingParams(length=7, temperature=1.0, top_p=0.5, stop=("x",), end="never", seed=3, suppress=(9,)))


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ([], {}, "a prompt has 0 tokens: begin it with BOS"),
        ([5] * CONTEXT, {}, "fills the model's context of 96"),
        ([5, MASK], {}, "has the id of"),
        ([5], {"suppress": (VOCAB,)}, "cannot suppress token 24"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_first_forward(model, prompt, options, message):
    with pytest.raises(ValueError, match=message):
        run(model, [prompt], SamplingParams(length=4, **options))


def test_a_causal_model_fills_no_holes(model):
    with pytest.raises(
        ValueError, match="does not see what stands behind a gap: it continues texts and fills no holes"
    ):
        fill(model, [Canvas(tokens=(5, None, 6))], SamplingParams(), mask_id=MASK)
