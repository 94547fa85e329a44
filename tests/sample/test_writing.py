"""Block after block, against a plain loop over one prompt with full logits."""

from dataclasses import replace

import pytest
import torch

from illada.model.config import ModelConfig
from illada.model.transformer import Transformer
from illada.sample.request import SamplingParams
from illada.sample.stopping import Stopping
from illada.sample.writing import Prompt, budget_within, write

VOCAB, MASK, EOS, CONTEXT = 24, 3, 2, 96


def decode(ids):
    return bytes(97 + token for token in ids)


def stopping(*strings):
    return Stopping(end_ids=(EOS,), strings=strings, decode=decode)


@pytest.fixture(scope="module")
def model():
    config = ModelConfig(
        vocab_size=VOCAB, hidden_size=16, layers=2, heads=2, kv_heads=1, ffn_size=24, max_length=CONTEXT
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
def naive(model, prompt, params, *, marker=()):
    """The tokens of every block, one prompt, temperature 0, no early leaving."""
    budget, _ = budget_within(CONTEXT, prompt=len(prompt), params=params)
    steps = min(params.steps or budget, budget)
    bounds = [(start, min(start + params.block_length, budget)) for start in range(0, budget, params.block_length)]
    assert steps % len(bounds) == 0 or steps == budget
    text, written = list(prompt), 0
    for start, stop in bounds:
        size = stop - start
        share = size if steps == budget else steps // len(bounds)
        text += [MASK] * size
        for step in range(share):
            count = size // share + (step < size % share)
            logits = naive_logits(model, text, len(prompt), params)
            where = [place for place in range(len(prompt) + start, len(text)) if text[place] == MASK]
            add_boost(logits, text, len(prompt), where[0], budget, params, marker)
            probability = logits.softmax(-1)
            best = {place: max(range(VOCAB), key=lambda token: float(logits[place, token])) for place in where}
            order = sorted(where, key=lambda place: (-float(probability[place, best[place]]), place))
            for place in order[:count]:
                text[place] = best[place]
        written += size
        if stopping(*params.stop).find(text[len(prompt) :]) is not None:
            break
    return text[len(prompt) :]


def naive_logits(model, text, prompt, params):
    def plain(tokens):
        return model.logits(model(torch.tensor([tokens]), None))[0].float()

    logits = plain(text)
    if params.guidance:
        without = plain([MASK] * prompt + text[prompt:])
        logits = without + (params.guidance + 1) * (logits - without)
    logits[:, [MASK, *params.suppress]] = -torch.inf
    return logits


def add_boost(logits, text, prompt, place, budget, params, marker):
    written = text[prompt:]
    joined = ",".join(map(str, written))
    if not marker or not params.thinking_strength or ",".join(map(str, marker)) in joined:
        return
    begun = max(size for size in range(len(marker)) if text[prompt:place][-size:] == list(marker[:size]) or size == 0)
    progress = (place - prompt + 1) / budget
    logits[place, marker[begun]] += params.thinking_strength * progress**params.thinking_power


def check(model, prompts, params, *, marker=()):
    writings = write(
        model,
        [Prompt(tokens=tuple(prompt)) for prompt in prompts],
        params,
        mask_id=MASK,
        stopping=stopping(*params.stop),
        thinking_marker=marker,
    )
    for prompt, writing in zip(prompts, writings, strict=True):
        expected = naive(model, prompt, params, marker=marker)
        cut = stopping(*params.stop).find(expected)
        assert writing.cut == cut
        count = len(expected) if cut is None else cut.tokens
        assert list(writing.tokens[:count]) == expected[:count]
        assert MASK not in writing.tokens[:count]
    return writings


def prompts_of(count, *, longest=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    lengths = [1 + number % longest for number in range(count)]
    return [torch.randint(4, VOCAB, (length,), generator=generator).tolist() for length in lengths]


# --- token for token ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "block", "steps"), [(1, 4, None), (7, 4, None), (12, 4, 6), (12, 4, 3), (16, 16, 5), (20, 32, None)]
)
@pytest.mark.parametrize("guidance", [0.0, 1.5])
def test_equals_a_plain_loop(model, length, block, steps, guidance):
    params = SamplingParams(length=length, block_length=block, steps=steps, guidance=guidance)
    check(model, prompts_of(4), params)


@pytest.mark.parametrize("stop", [("k",), ("nn", "q"), ("abcdef",), ("h", "hi", "s")])
def test_equals_a_plain_loop_with_stop_strings(model, stop):
    params = SamplingParams(length=24, block_length=4, stop=stop, suppress=(EOS,))
    writings = check(model, prompts_of(12), params)
    if stop != ("abcdef",):
        assert any(writing.cut is not None for writing in writings)


@pytest.mark.parametrize(("strength", "power"), [(40.0, 1.0), (100.0, 3.0)])
def test_equals_a_plain_loop_with_the_end_of_thinking(model, strength, power):
    marker = (5, 7, 5, 8)
    params = SamplingParams(
        length=24, block_length=8, thinking_strength=strength, thinking_power=power, suppress=(EOS,)
    )
    writings = check(model, prompts_of(6), params, marker=marker)
    held = [",".join(map(str, marker)) in ",".join(map(str, writing.tokens)) for writing in writings]
    assert any(held)
    without = check(model, prompts_of(6), replace(params, thinking_strength=0.0))
    assert [writing.tokens for writing in without] != [writing.tokens for writing in writings]


# --- a batch ------------------------------------------------------------------------------------------------------


def run(model, prompts, params, seeds):
    requests = [Prompt(tokens=tuple(prompt), seed=seed) for prompt, seed in zip(prompts, seeds, strict=True)]
    return write(model, requests, params, mask_id=MASK, stopping=stopping(*params.stop))


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("unmasking", ["low_confidence", "random"])
def test_64_unequal_prompts_in_one_batch_equal_each_alone(model, temperature, unmasking):
    params = SamplingParams(
        length=20, block_length=4, temperature=temperature, unmasking=unmasking, stop=("q", "ii"), top_p=0.95
    )
    prompts, seeds = prompts_of(64, longest=23), list(range(64))
    together = run(model, prompts, params, seeds)
    for prompt, seed, writing in zip(prompts, seeds, together, strict=True):
        assert writing == run(model, [prompt], params, [seed])[0]
    ends = [writing.cut is not None for writing in together]
    assert any(ends)
    assert len({writing.forwards for writing in together}) > 3  # rows left one by one


def test_rows_that_are_done_leave_the_forwards(model, monkeypatch):
    params = SamplingParams(length=40, block_length=4, stop=("k",), suppress=(EOS,))
    rows = []
    recompute = model.recompute
    monkeypatch.setattr(
        model,
        "recompute",
        lambda tokens, cache, selection, *rest: (
            rows.append(len(selection.slots)) or recompute(tokens, cache, selection, *rest)
        ),
    )
    writings = run(model, prompts_of(16), params, [0] * 16)
    assert rows == sorted(rows, reverse=True)
    assert rows[-1] < rows[0] == 16
    assert sum(rows) == sum(writing.forwards for writing in writings)


def test_blocks_do_not_share_their_noise(model):
    params = SamplingParams(length=32, block_length=4, temperature=5.0, suppress=(EOS,))
    tokens = run(model, [[4]], params, [0])[0].tokens
    assert len({tuple(tokens[start : start + 4]) for start in range(0, 32, 4)}) == 8


# --- what it costs ------------------------------------------------------------------------------------------------


def test_positions_are_the_lengths_of_the_rows_summed(model):
    prompt = [5, 6, 7]
    params = SamplingParams(length=8, block_length=4, suppress=(EOS,))
    [writing] = run(model, [prompt], params, [0])
    assert (writing.forwards, writing.positions) == (8, 4 * (3 + 4) + 4 * (3 + 8))
    [guided] = run(model, [prompt], replace(params, guidance=1.0), [0])
    assert guided.positions == 2 * writing.positions
    [fixed] = run(model, [prompt], replace(params, canvas="fixed"), [0])
    assert (fixed.forwards, fixed.positions) == (8, 8 * (3 + 8))


def test_a_row_leaves_inside_a_block_and_its_text_is_that_of_the_whole_block(model):
    params = SamplingParams(length=16, block_length=16, stop=("k", "q", "n"), suppress=(EOS,))
    prompts = prompts_of(12)
    early = run(model, prompts, params, [0] * 12)
    left = 0
    for prompt, writing in zip(prompts, early, strict=True):
        whole = naive(model, prompt, params)
        assert writing.cut == stopping("k", "q", "n").find(whole)
        left += writing.forwards < 16
    assert left > 0


def test_the_fixed_canvas_takes_all_its_steps(model):
    params = SamplingParams(canvas="fixed", length=16, block_length=4, stop=("k", "q", "n", "h"), suppress=(EOS,))
    writings = run(model, prompts_of(8), params, [0] * 8)
    assert {writing.forwards for writing in writings} == {16}
    assert any(writing.cut is not None for writing in writings)


# --- budgets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "length", "block", "expected"),
    [
        (10, 20, 8, (20, False)),
        (76, 20, 8, (20, False)),  # it just fits
        (77, 20, 8, (16, True)),  # 19 are left: two whole blocks
        (90, 20, 8, (6, True)),  # less than one block is left
        (95, 1, 8, (1, False)),
        (95, 9, 8, (1, True)),
    ],
)
def test_a_budget_is_clipped_to_the_context_in_whole_blocks(prompt, length, block, expected):
    params = SamplingParams(length=length, block_length=block)
    assert budget_within(CONTEXT, prompt=prompt, params=params) == expected


@pytest.mark.parametrize("prompt", [96, 97, 200])
def test_a_prompt_that_fills_the_context_is_refused(prompt):
    with pytest.raises(
        ValueError, match=f"the prompt has {prompt} tokens and fills the model's context of 96: shorten"
    ):
        budget_within(CONTEXT, prompt=prompt, params=SamplingParams(length=4))


def test_a_fixed_canvas_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="need 97 tokens, but the model's context holds 96"):
        budget_within(CONTEXT, prompt=77, params=SamplingParams(canvas="fixed", length=20))


def test_a_clipped_row_writes_its_blocks_beside_one_that_is_not(model):
    params = SamplingParams(length=24, block_length=8, suppress=(EOS,))
    prompts = [[5] * 3, [6] * 79, [7] * 93]
    writings = run(model, prompts, params, [0] * 3)
    assert [len(writing.tokens) for writing in writings] == [24, 16, 3]
    assert [writing.clipped for writing in writings] == [False, True, True]
    for prompt, writing in zip(prompts, writings, strict=True):
        assert list(writing.tokens) == naive(model, prompt, params)
