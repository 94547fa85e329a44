"""`fill` against a naive sampler: one row at a time, the whole vocabulary at every position, plain loops.

The models are tiny, with weights large enough that positions disagree, in float64: then the kernels that a forward of
another shape runs through agree to the last bit of the fp32 logits, and a tie in one sampler is a tie in the other.
"""

import math
from fractions import Fraction
from functools import cache
from itertools import product

import pytest
import torch

from illada.model.config import ModelConfig
from illada.model.transformer import Transformer
from illada.sample.canvas import Canvas
from illada.sample.request import SamplingParams
from illada.sample.sampler import fill

VOCAB = 40
MASK = 38  # not the last id, and not the first
CONTEXT = 48
PROMPT = (5, 17, 3, 30)


class Counting(Transformer):
    """A Transformer that notes how many positions every forward computes, and how many meet the vocabulary."""

    def __init__(self, config):
        super().__init__(config)
        self.forwards = []
        self.met_vocabulary = []

    def recompute(self, tokens, cache, selection, watch=None):
        self.forwards.append(len(tokens))
        return super().recompute(tokens, cache, selection, watch)

    def logits(self, hidden):
        self.met_vocabulary.append(len(hidden))
        return super().logits(hidden)


def new_model(*, seed=2, tied=True, scale=1.0, kind=Transformer):
    config = ModelConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        layers=1,
        heads=2,
        kv_heads=1,
        ffn_size=24,
        max_length=CONTEXT,
        tied_head=tied,
    )
    model = kind(config).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2:
                spread = 0.8 if "q_proj" in name or "k_proj" in name else 0.45
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread * scale)
    return model


def same_rows(model):
    """Every token has a twin of the same embedding and the same row of the head: every argmax is a tie."""
    with torch.no_grad():
        for matrix in {model.embedding.weight, model.head_weight}:
            matrix[VOCAB // 2 :] = matrix[: VOCAB // 2]
    return model


def blind(model):
    """Positions do not see one another: all masked positions have one distribution and one confidence."""
    with torch.no_grad():
        model.blocks[0].attention.o_proj.weight.zero_()
    return model


def lover_of(token):
    """One coordinate of the residual stream is positive everywhere, and the head gives `token` 50 times its value."""
    model = new_model(tied=False)
    with torch.no_grad():
        model.embedding.weight[:, 0] = 3.0
        model.blocks[0].attention.o_proj.weight[0] = 0.0
        model.blocks[0].mlp.down_proj.weight[0] = 0.0
        model.head.weight[token, 0] = 50.0
    return model


@cache
def shared_model(kind, tied):
    if kind == "zero":
        return new_model(tied=tied, scale=0.0)
    model = new_model(tied=tied)
    return {"random": lambda m: m, "twins": same_rows, "blind": blind}[kind](model)


# the naive sampler


def naive_counts(total, parts):
    return [total // parts + (1 if number < total % parts else 0) for number in range(parts)]


def naive_schedule(holes, block_length, steps):
    """[(positions of the block, [reveals of each step])]."""
    blocks = [holes[start : start + block_length] for start in range(0, len(holes), block_length)]
    if steps < len(blocks):
        merged = []
        for size in naive_counts(len(blocks), steps):
            merged.append([position for block in blocks[:size] for position in block])
            blocks = blocks[size:]
        return [(block, [len(block)]) for block in merged]
    shares = [1] * len(blocks)
    further = len(holes) - len(blocks)
    due = [Fraction((steps - len(blocks)) * (len(block) - 1), max(further, 1)) for block in blocks]
    for number, quota in enumerate(due):
        shares[number] += math.floor(quota)
    by_rest = sorted(range(len(blocks)), key=lambda number: (math.floor(due[number]) - due[number], number))
    for number in by_rest[: steps - sum(shares)]:
        shares[number] += 1
    return [(block, naive_counts(len(block), share)) for block, share in zip(blocks, shares, strict=True)]


def naive_logits(model, row, given, guidance):
    logits = model.logits(model(torch.tensor([row])))[0].float()
    if not guidance:
        return logits
    hidden_prompt = [MASK if position in given else token for position, token in enumerate(row)]
    unconditional = model.logits(model(torch.tensor([hidden_prompt])))[0].float()
    return unconditional + (guidance + 1) * (logits - unconditional)


def likeliest(scores):
    best = 0
    for token, score in enumerate(scores):
        if score > scores[best]:
            best = token
    return best


@torch.inference_mode()
def naive_fill(model, tokens, params):
    """(tokens, the forward that filled each position, forwards) at temperature 0, most confident first."""
    row = [MASK if token is None else token for token in tokens]
    holes = [position for position, token in enumerate(tokens) if token is None]
    given = {position for position, token in enumerate(tokens) if token is not None}
    revealed_at = [0] * len(row)
    forwards = 0
    for block, counts in naive_schedule(holes, params.block_length, min(params.steps or len(holes), len(holes))):
        for count in counts:
            forwards += 1
            logits = naive_logits(model, row, given, params.guidance)
            logits[:, [MASK, *params.suppress]] = -math.inf
            candidates = []
            for position in block:
                if not revealed_at[position]:
                    token = likeliest(logits[position].tolist())
                    confidence = float(logits[position].softmax(-1)[token])
                    candidates.append((-confidence, position, token))
            for _, position, token in sorted(candidates)[:count]:
                row[position] = token
                revealed_at[position] = forwards
    return tuple(row), tuple(revealed_at), forwards


def plain(filled):
    return filled.tokens, filled.revealed_at, filled.forwards


def fill_one(model, tokens, params, *, seed=0, on_step=None):
    [filled] = fill(model, [Canvas(tokens=tuple(tokens), seed=seed)], params, mask_id=MASK, on_step=on_step)
    return plain(filled)


def assert_equals_naive(model, tokens, params):
    assert fill_one(model, tokens, params) == naive_fill(model, tokens, params), params


def behind(prompt, holes):
    return (*prompt, *[None] * holes)


SUPPRESSED = (0, 3, 7, 12, 19, 20, 25, 31, 39)


@pytest.mark.parametrize("block_length", [1, 4, 7, 16, 40])
@pytest.mark.parametrize("length", [1, 5, 16, 23])
def test_fill_equals_the_naive_sampler(length, block_length):
    all_steps = sorted({1, min(3, length), (length + 1) // 2, length})
    for steps, guidance, suppress in product(all_steps, (0.0, 1.5), ((), SUPPRESSED)):
        params = SamplingParams(
            length=length, block_length=block_length, steps=steps, guidance=guidance, suppress=suppress
        )
        # every other case has a tied head, and over the grid every combination meets both heads
        tied = (block_length + steps + bool(guidance) + bool(suppress)) % 2 == 0
        assert_equals_naive(shared_model("random", tied), behind(PROMPT, length), params)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("guidance", [0.0, 1.5])
@pytest.mark.parametrize("suppress", [(), (0, 1, 5, 20)])
@pytest.mark.parametrize("kind", ["zero", "twins", "blind"])
def test_fill_equals_the_naive_sampler_where_everything_ties(kind, suppress, guidance, tied):
    for block_length, steps in [(1, 7), (3, 4), (40, 3)]:
        params = SamplingParams(length=7, block_length=block_length, steps=steps, guidance=guidance, suppress=suppress)
        assert_equals_naive(shared_model(kind, tied), behind(PROMPT, 7), params)


@pytest.mark.parametrize(
    "tokens",
    [
        (None, 4, None, None, 9, None, 1, 1, None),
        (6, None, None, None, 8, 2),
        (None,) * 9,
        (None, None, 7),
    ],
)
@pytest.mark.parametrize("guidance", [0.0, 1.5])
def test_holes_anywhere_equal_the_naive_sampler(tokens, guidance):
    for block_length, steps in [(2, None), (2, 2), (4, 3), (40, 1)]:
        params = SamplingParams(block_length=block_length, steps=steps, guidance=guidance)
        assert_equals_naive(shared_model("random", False), tokens, params)
        assert_equals_naive(shared_model("twins", True), tokens, params)


def test_the_model_of_the_grid_is_no_easy_one():
    tokens, revealed_at, _ = fill_one(
        shared_model("random", False), behind(PROMPT, 23), SamplingParams(block_length=40)
    )
    order = revealed_at[len(PROMPT) :]
    assert order != tuple(sorted(order))
    assert len(set(tokens[len(PROMPT) :])) > 5
    guided, _, _ = fill_one(
        shared_model("random", False), behind(PROMPT, 23), SamplingParams(block_length=40, guidance=1.5)
    )
    assert guided != tokens


def test_when_all_logits_tie_the_lowest_allowed_id_fills_from_the_left():
    params = SamplingParams(length=5, block_length=3, steps=3, suppress=(0, 1))
    tokens, revealed_at, forwards = fill_one(shared_model("zero", True), behind((9,), 5), params)
    assert tokens == (9, 2, 2, 2, 2, 2)
    assert revealed_at == (0, 1, 1, 2, 3, 3)
    assert forwards == 3


# a batch


UNEQUAL = [
    behind(PROMPT, 9),
    behind((1,), 13),
    behind((2, 2, 2, 8, 30, 11, 4), 2),
    (3, None, 4, None, None, 21),
    (7, 8, 9),
    (None,) * 6,
]


@pytest.mark.parametrize("guidance", [0.0, 1.5])
@pytest.mark.parametrize(("temperature", "top_p"), [(0.0, 1.0), (0.8, 0.9)])
@pytest.mark.parametrize("unmasking", ["low_confidence", "random"])
def test_unequal_rows_in_one_batch_equal_each_alone(unmasking, temperature, top_p, guidance):
    model = shared_model("random", False)
    for block_length, steps in [(4, None), (5, 3)]:
        shape = {"block_length": block_length, "steps": steps, "unmasking": unmasking}
        params = SamplingParams(temperature=temperature, top_p=top_p, guidance=guidance, **shape)
        canvases = [Canvas(tokens=tokens, seed=10 * row) for row, tokens in enumerate(UNEQUAL)]
        together = [plain(filled) for filled in fill(model, canvases, params, mask_id=MASK)]
        assert together == [fill_one(model, canvas.tokens, params, seed=canvas.seed) for canvas in canvases]
        if temperature == 0 and unmasking == "low_confidence":
            assert together == [naive_fill(model, tokens, params) for tokens in UNEQUAL]


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**32, 2**62 + 5, 2**63 - 1])
def test_any_seed_up_to_63_bits_is_its_own_noise_alone_and_in_a_batch(seed):
    params = SamplingParams(temperature=1.0, unmasking="random")
    model, tokens = shared_model("random", False), behind(PROMPT, 12)
    alone = fill_one(model, tokens, params, seed=seed)
    canvases = [Canvas(tokens=tokens, seed=other) for other in (3, seed, 2**63 - 2)]
    together = [plain(filled) for filled in fill(model, canvases, params, mask_id=MASK)]
    assert together[1] == alone
    assert len(set(together)) == 3


def test_random_order_is_uniform_and_asks_no_model():
    params = SamplingParams(unmasking="random")
    canvases = [Canvas(tokens=(1, None, 2, None, None, None), seed=seed) for seed in range(800)]
    filled = fill(shared_model("random", False), canvases, params, mask_id=MASK)
    first = [0] * 6
    for row in filled:
        first[row.revealed_at.index(1)] += 1
    assert first[0] == first[2] == 0
    chi_square = sum((first[position] - 200) ** 2 / 200 for position in (1, 3, 4, 5))
    assert chi_square < 16.27  # exceeded once in a thousand
    other = fill(shared_model("zero", True), canvases, params, mask_id=MASK)
    assert [row.revealed_at for row in other] == [row.revealed_at for row in filled]


# [MASK]


@pytest.mark.parametrize("unmasking", ["low_confidence", "random"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("guidance", [0.0, 1.5])
def test_a_model_that_loves_the_mask_never_gets_it(guidance, temperature, unmasking):
    model = lover_of(MASK)
    row = torch.tensor([[MASK if token is None else token for token in behind(PROMPT, 11)]])
    assert (model.logits(model(row)).argmax(-1) == MASK).all()
    params = SamplingParams(block_length=4, steps=5, temperature=temperature, guidance=guidance, unmasking=unmasking)
    for filled in fill(model, [Canvas(tokens=tokens) for tokens in UNEQUAL], params, mask_id=MASK):
        assert MASK not in filled.tokens


def test_suppressed_tokens_are_in_no_output():
    model = lover_of(6)
    assert set(fill_one(model, behind((1,), 5), SamplingParams())[0]) == {1, 6}
    for temperature in (0.0, 1.0):
        params = SamplingParams(suppress=(6, 8), temperature=temperature)
        assert {6, 8}.isdisjoint(fill_one(model, behind((1,), 20), params)[0])


# canvases


@pytest.mark.parametrize("tokens", [(1, 2, 3), (1,)])
def test_a_canvas_without_holes_returns_itself_without_a_forward(tokens):
    model = new_model(kind=Counting)
    assert fill_one(model, tokens, SamplingParams()) == (tokens, (0,) * len(tokens), 0)
    assert model.forwards == []


def test_a_given_mask_token_is_refused():
    canvases = [Canvas(tokens=(1, None)), Canvas(tokens=(1, MASK, None))]
    with pytest.raises(ValueError, match=rf"id of \[MASK\], {MASK}"):
        fill(shared_model("random", True), canvases, SamplingParams(), mask_id=MASK)


def test_a_canvas_longer_than_the_context_is_refused_with_both_numbers():
    model = shared_model("random", True)
    assert len(fill_one(model, behind((1,), CONTEXT - 1), SamplingParams(steps=1))[0]) == CONTEXT
    with pytest.raises(ValueError, match=f"{CONTEXT + 1} tokens .* {CONTEXT}"):
        fill(model, [Canvas(tokens=behind((1,), CONTEXT))], SamplingParams(), mask_id=MASK)


# what is told, and what it costs


def watch(model, canvases, params):
    """The results, and (number, tokens, revealed) of every step, copied."""
    seen = []
    filled = fill(
        model,
        canvases,
        params,
        mask_id=MASK,
        on_step=lambda number, tokens, revealed: seen.append((number, tokens.tolist(), revealed.tolist())),
    )
    return filled, seen


@pytest.mark.parametrize("unmasking", ["low_confidence", "random"])
def test_on_step_tells_every_step_once_with_what_it_revealed(unmasking):
    canvases = [Canvas(tokens=tokens) for tokens in UNEQUAL]
    params = SamplingParams(block_length=4, steps=5, unmasking=unmasking)
    filled, seen = watch(shared_model("random", False), canvases, params)
    assert [number for number, _, _ in seen] == [1, 2, 3, 4, 5]
    for row, canvas in enumerate(canvases):
        revealed_at = [0] * len(canvas.tokens)
        for number, tokens, revealed in seen:
            assert not any(revealed[row][len(canvas.tokens) :])
            for position in range(len(canvas.tokens)):
                if revealed[row][position]:
                    assert revealed_at[position] == 0
                    revealed_at[position] = number
                is_open = canvas.tokens[position] is None and revealed_at[position] == 0
                assert tokens[row][position] == (MASK if is_open else filled[row].tokens[position])
        assert tuple(revealed_at) == filled[row].revealed_at


def test_forwards_count_the_steps_of_each_row():
    canvases = [Canvas(tokens=tokens) for tokens in UNEQUAL]
    for steps, expected in [(None, [9, 13, 2, 3, 0, 6]), (4, [4, 4, 2, 3, 0, 4]), (1, [1, 1, 1, 1, 0, 1])]:
        filled, seen = watch(shared_model("random", True), canvases, SamplingParams(block_length=4, steps=steps))
        assert [row.forwards for row in filled] == expected
        assert [max(row.revealed_at) for row in filled] == expected
        assert len(seen) == max(expected)


@pytest.mark.parametrize(("guidance", "times"), [(0.0, 1), (1.5, 2)])
def test_only_the_masks_of_the_block_meet_the_vocabulary_and_padding_is_not_computed(guidance, times):
    model = new_model(kind=Counting)
    canvases = [Canvas(tokens=behind(PROMPT, 16)), Canvas(tokens=behind((1,), 8))]
    fill(model, canvases, SamplingParams(block_length=4, steps=8, guidance=guidance), mask_id=MASK)
    # the long canvas reveals 2 of 4 with each forward; the short one 1 of 4
    long, short = [4, 2] * 4, [4, 3, 2, 1] * 2
    assert model.forwards == [20 + 9] * 8 * times
    assert model.met_vocabulary == [both for pair in zip(long, short, strict=True) for both in [sum(pair)] * times]
