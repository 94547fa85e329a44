"""Every caching policy against a plain reading of its paper: one prompt, dictionaries of keys and values, loops.

The naive sampler keeps, for each layer, the key and value that every position had when it was last computed. A policy
is a function that says in sets which positions a forward computes. In float64, so that a batch and a row agree.
"""

import math
from dataclasses import dataclass, field, replace

import pytest
import torch
import torch.nn.functional as F

from illada.model.config import ModelConfig
from illada.model.rotary import rotary_angles, rotate
from illada.model.transformer import Transformer
from illada.sample.caching import CACHING, Caching
from illada.sample.canvas import Canvas
from illada.sample.policy import read_policy
from illada.sample.request import SamplingParams
from illada.sample.sampler import fill
from illada.sample.stopping import Stopping
from illada.sample.writing import Prompt, write

VOCAB, MASK, EOS, CONTEXT = 24, 3, 2, 96
NEVER = Stopping(end_ids=(), strings=(), decode=lambda ids: bytes(97 + token for token in ids))


@pytest.fixture(scope="module")
def model():
    config = ModelConfig(
        vocab_size=VOCAB, hidden_size=16, layers=3, heads=2, kv_heads=1, ffn_size=24, max_length=CONTEXT
    )
    transformer = Transformer(config).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in transformer.parameters():
            if parameter.dim() == 2:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return transformer.double()


# --- a naive cached model -----------------------------------------------------------------------------------------


def alone(module, state):
    """One position through a part of a block."""
    return module(state[None, None])[0, 0]


@dataclass
class NaiveModel:
    model: Transformer
    gamma: float | None = None
    """Of Elastic-Cache; None: layers are not watched."""
    kept: list[dict[int, tuple[torch.Tensor, torch.Tensor]]] = field(default_factory=list)
    entered: list[dict[int, torch.Tensor]] = field(default_factory=list)
    watched: list[int | None] = field(default_factory=list)
    attention: list[dict[int, float] | None] = field(default_factory=list)
    work: int = 0

    def __post_init__(self):
        for _ in self.model.blocks:
            self.kept.append({})
            self.entered.append({})
            self.watched.append(None)
            self.attention.append(None)

    def forward(self, text, positions):
        """Logits at the positions, of which keys and values are computed anew."""
        config, work = self.model.config, 0
        x = {place: self.model.embedding.weight[text[place]] for place in positions}
        drifted = False
        for number, block in enumerate(self.model.blocks):
            self.entered[number] |= x
            if drifted:
                x = {place: self.entered[number][place] for place in range(len(text))}
            work += len(x)
            weights = {}
            for place, state in x.items():
                normed = alone(block.attention_norm, state)
                key = self._turned(block.attention.k_proj(normed).view(config.kv_heads, -1), place)
                value = block.attention.v_proj(normed).view(config.kv_heads, -1)
                self.kept[number][place] = (key, value)
            for place, state in x.items():
                query = self._turned(
                    block.attention.q_proj(alone(block.attention_norm, state)).view(config.heads, -1), place
                )
                mixed, weights[place] = self._mix(number, query, len(text))
                after = state + block.attention.o_proj(mixed)
                x[place] = after + alone(block.mlp, alone(block.mlp_norm, after))
            if self.gamma is not None:
                drifted |= self._watch(number, weights, text)
        self.work += math.floor(work / len(self.model.blocks))
        return {place: self.model.logits(alone(self.model.norm, state)).float() for place, state in x.items()}

    def _turned(self, states, place):
        config = self.model.config
        angles = rotary_angles(torch.tensor([[place]]), config.head_size, config.rope_theta)
        return rotate(states[None, :, None], angles)[0, :, 0].to(states.dtype)

    def _mix(self, number, query, length):
        keys = torch.stack([self.kept[number][place][0] for place in range(length)])
        values = torch.stack([self.kept[number][place][1] for place in range(length)])
        heads, mixed, seen = query.shape[0], [], torch.zeros(length)
        for head in range(heads):
            own = head * keys.shape[1] // heads
            probability = (keys[:, own] @ query[head] / query.shape[1] ** 0.5).softmax(0)
            mixed.append(probability @ values[:, own])
            seen += probability.float() / heads
        return torch.cat(mixed), seen

    def _watch(self, number, weights, text):
        """Has the attention of the watched token drifted? And who is watched from now on."""
        before, token = self.attention[number], self.watched[number]
        drifted = False
        if before is not None and token in weights:
            now = weights[token]
            then = torch.zeros_like(now)
            then[: len(before)] = before
            drifted = float(F.cosine_similarity(now, then, dim=0)) < self.gamma
        received = sum(weights.values())
        decoded = [place for place in range(len(text)) if text[place] != MASK]
        token = max(decoded, key=lambda place: (float(received[place]), -place))
        self.watched[number] = token
        self.attention[number] = weights.get(token)
        return drifted


@dataclass
class State:
    """What a naive policy knows before a forward; numbers count from 1."""

    forward: int
    block_forward: int
    length: int
    start: int
    stop: int
    previous: int
    masked: set
    revealed_at: dict
    surprise: float


def naive_none(state):
    return set(range(state.length))


def naive_prefix(state):
    return set(range(0 if state.block_forward == 1 else state.start, state.length))


def naive_dual(state):
    return set(range(state.length)) if state.block_forward == 1 else set(range(state.start, state.stop))


def naive_delayed(refresh):
    def policy(state):
        if (state.forward - 1) % refresh == 0:
            return set(range(state.length))
        # decoded in the forward before: computed once more, with its token in place, and then kept
        return state.masked | {place for place, at in state.revealed_at.items() if at == state.forward - 1}

    return policy


def naive_entropy(threshold, recent):
    def policy(state):
        if state.surprise > threshold:
            return set(range(state.length))
        latest = sorted(state.revealed_at, key=lambda place: (-state.revealed_at[place], -place))[:recent]
        return state.masked | set(latest)

    return policy


def naive_block_reuse(state):
    begin = state.previous if state.block_forward == 1 else state.start
    return set(range(begin, state.stop))


def naive_elastic(watched):
    def policy(state):
        fresh = {place for place, at in state.revealed_at.items() if at == state.forward - 1}
        block = {place for place in state.masked if state.start <= place < state.stop}
        return block | fresh | {place for place in watched() if place is not None}

    return policy


@torch.inference_mode()
def naive(model, prompt, params, policy, *, gamma=None):
    """(tokens, positions computed) of a canvas that grows, or of a fixed one."""
    cached = NaiveModel(model, gamma=gamma)
    if policy is None:
        policy = naive_elastic(lambda: cached.watched)
    grows = params.canvas == "variable"
    text = list(prompt) + ([] if grows else [MASK] * params.length)
    revealed_at, computed, forward, surprise = {}, set(), 0, math.inf
    for start in range(0, params.length, params.block_length):
        size = min(params.block_length, params.length - start)
        begin = len(prompt) + start
        text += [MASK] * size if grows else []
        for step in range(size):
            forward += 1
            masked = {place for place, token in enumerate(text) if token == MASK}
            previous = max(len(prompt), begin - params.block_length)
            state = State(forward, step + 1, len(text), begin, begin + size, previous, masked, revealed_at, surprise)
            positions = policy(state) | (set(range(len(text))) - computed)
            logits = cached.forward(text, sorted(positions))
            computed |= positions
            place, token, surprise = surest(logits, sorted(masked & set(range(begin, begin + size))))
            text[place], revealed_at[place] = token, forward
    return text[len(prompt) :], cached.work


def surest(logits, masked):
    best = None
    for place in masked:
        values = logits[place].clone()
        values[MASK] = -torch.inf
        probability = values.softmax(-1)
        token = int(values.argmax())
        if best is None or float(probability[token]) > best[0]:
            spread = -sum(p * math.log(p) for p in probability.tolist() if p)
            best = (float(probability[token]), place, token, spread)
    return best[1:]


def prompts_of(count, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(4, VOCAB, (1 + 3 * number,), generator=generator).tolist() for number in range(count)]


def run(model, prompts, params):
    return write(model, [Prompt(tokens=tuple(prompt)) for prompt in prompts], params, mask_id=MASK, stopping=NEVER)


# --- the papers ---------------------------------------------------------------------------------------------------

READINGS = {
    "none": naive_none,
    "prefix": naive_prefix,
    "dual": naive_dual,
    "delayed,refresh=4": naive_delayed(4),
    "delayed,refresh=100": naive_delayed(100),
    "entropy,threshold=1.5,recent=3": naive_entropy(1.5, 3),
    "entropy,threshold=0.5,recent=8": naive_entropy(0.5, 8),
    "block_reuse": naive_block_reuse,
}


@pytest.mark.parametrize("canvas", ["variable", "fixed"])
@pytest.mark.parametrize("caching", READINGS)
def test_a_policy_is_what_its_paper_says(model, caching, canvas):
    params = SamplingParams(length=18, block_length=6, canvas=canvas, caching=caching)
    prompts = prompts_of(4)
    for prompt, writing in zip(prompts, run(model, prompts, params), strict=True):
        tokens, work = naive(model, prompt, params, READINGS[caching])
        assert list(writing.tokens) == tokens
        assert writing.positions == work


@pytest.mark.parametrize("gamma", [0.0, 0.9, 0.99, 1.0])
def test_elastic_computes_deeper_layers_anew_where_attention_drifts(model, gamma):
    params = SamplingParams(length=18, block_length=6, caching=f"elastic,gamma={gamma}")
    prompts = prompts_of(3)
    for prompt, writing in zip(prompts, run(model, prompts, params), strict=True):
        tokens, work = naive(model, prompt, params, None, gamma=gamma)
        assert list(writing.tokens) == tokens
        assert writing.positions == work


def test_the_drift_of_the_reading_is_not_always_or_never(model):
    work = {}
    for gamma in (0.0, 0.99, 1.0):
        params = SamplingParams(length=18, block_length=6, caching=f"elastic,gamma={gamma}")
        work[gamma] = sum(writing.positions for writing in run(model, prompts_of(3), params))
    assert work[0.0] < work[0.99] < work[1.0]


def test_approximate_caches_change_what_a_model_of_random_weights_says(model):
    """Otherwise the comparisons above would hold for any policy."""
    exact = [writing.tokens for writing in run(model, prompts_of(4), SamplingParams(length=18, block_length=6))]
    for caching in ("dual", "delayed,refresh=100", "block_reuse", "elastic,gamma=0"):
        params = SamplingParams(length=18, block_length=6, caching=caching)
        assert [writing.tokens for writing in run(model, prompts_of(4), params)] != exact


# --- exact where they must be -------------------------------------------------------------------------------------


@pytest.mark.parametrize("canvas", ["variable", "fixed"])
@pytest.mark.parametrize("name", sorted(set(CACHING) - {"none"}))
def test_refreshed_with_every_forward_all_are_exact(model, name, canvas):
    exact = SamplingParams(length=20, block_length=8, steps=10, canvas=canvas)
    cached = replace(exact, caching=f"{name},refresh=1")
    prompts = prompts_of(5)
    assert run(model, prompts, cached) == run(model, prompts, exact)
    canvases = [Canvas(tokens=(5, None, 7, None, None, 9, None)), Canvas(tokens=(None, 4, None))]
    assert fill(model, canvases, cached, mask_id=MASK) == fill(model, canvases, exact, mask_id=MASK)


@pytest.mark.parametrize("guidance", [0.0, 1.5])
@pytest.mark.parametrize("unmasking", ["low_confidence", "threshold,tau=0.4", "running_confidence", "random"])
@pytest.mark.parametrize("name", sorted(CACHING))
def test_any_caching_goes_with_any_unmasking_and_rows_do_not_disturb_one_another(model, name, unmasking, guidance):
    if name == "elastic" and guidance:
        pytest.skip("refused: it watches one forward, and guidance takes two")
    params = SamplingParams(length=14, block_length=5, caching=name, unmasking=unmasking, guidance=guidance)
    prompts = prompts_of(5)
    together = run(model, prompts, params)
    assert all(MASK not in writing.tokens and len(writing.tokens) == 14 for writing in together)
    assert together == [run(model, [prompt], params)[0] for prompt in prompts]


def test_elastic_with_guidance_is_refused():
    with pytest.raises(ValueError, match="watches one forward, and guidance takes two"):
        SamplingParams(caching="elastic", guidance=1.0)


# --- by name ------------------------------------------------------------------------------------------------------


def test_all_are_policies():
    assert all(isinstance(policy(), Caching) for policy in CACHING.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("best", "caching must be one of none, prefix, .*; got 'best'"),
        ("none,refresh=1", "caching none has no options; got 'refresh=1'"),
        ("dual,tau=1", "caching dual has the options refresh; got 'tau=1'"),
        ("dual,refresh", "caching dual has the options refresh; got 'refresh'"),
        ("dual,refresh=x", "refresh of caching dual must be a number, got 'x'"),
        ("dual,refresh=-1", "refresh must be 0 or more forwards, got -1"),
        ("entropy,threshold=-1", "threshold of entropy must be 0 or more, got -1.0"),
        ("elastic,gamma=2", "gamma of elastic must be between 0 and 1, got 2.0"),
    ],
)
def test_a_text_that_is_no_policy_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        read_policy(text, CACHING, kind="caching")
    with pytest.raises(ValueError, match=message):
        SamplingParams(caching=text)
