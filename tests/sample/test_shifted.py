"""A shifted model is sampled, scored and trained as Dream defines it: logits = cat(logits[:1], logits[:-1]).

The second route is the same weights in a model that knows nothing of the shift, its logits moved here by hand.
"""

from dataclasses import replace

import pytest
import torch

from illada.data.packing import Batch
from illada.evaluate.bound import HeldOut, held_out_bound
from illada.evaluate.scoring import ScoringParams, score_candidates
from illada.evaluate.shared_forwards import Candidate
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer, initialize
from illada.sample.canvas import Canvas
from illada.sample.request import SamplingParams
from illada.sample.sampler import fill
from illada.train.objective import DiffusionObjective, NoiseConfig

MASK, VOCAB = 30, 31
PLAIN = ModelConfig(
    vocab_size=VOCAB, hidden_size=16, layers=2, heads=2, kv_heads=1, ffn_size=24, max_length=40, init_std=0.6
)


def pair(config):
    """(shifted, plain): the same weights."""
    plain, shifted = Transformer(config).double(), Transformer(replace(config, shifted=True)).double()
    initialize(plain, seed=1)
    shifted.load_state_dict(plain.state_dict())
    return shifted.eval(), plain.eval()


@pytest.fixture(scope="module")
def models():
    return pair(PLAIN)


def moved_logits(plain, row):
    with torch.no_grad():
        logits = plain.logits(plain(torch.tensor([row])))[0]
    return torch.cat((logits[:1], logits[:-1]))


def filled_by_hand(plain, prompt, length):
    row = [*prompt, *[MASK] * length]
    while MASK in row:
        logits = moved_logits(plain, row)
        logits[:, MASK] = -torch.inf
        confidence, token = logits.softmax(-1).max(-1)
        place = max((place for place, value in enumerate(row) if value == MASK), key=lambda p: float(confidence[p]))
        row[place] = int(token[place])
    return row


@pytest.mark.parametrize("prompts", [[(5, 6, 7)], [(5, 6, 7), (8,), (3, 4, 5, 6, 9)]], ids=["alone", "padded"])
def test_completions(models, prompts):
    shifted, plain = models
    canvases = [Canvas(tokens=(*prompt, *[None] * 6)) for prompt in prompts]
    filled = fill(shifted, canvases, SamplingParams(length=6, block_length=6), mask_id=MASK)
    assert [list(row.tokens) for row in filled] == [filled_by_hand(plain, prompt, 6) for prompt in prompts]


@pytest.mark.parametrize("prompt", [(5, 6, 7), (8,), ()])
def test_what_tells_of_a_mask_is_computed_with_it(prompt):
    """In one layer, keys and values change with their own token alone: `delayed` is exact, and computes few positions.

    The last token of the prompt is among them only because the first mask is read off it.
    """
    shifted, plain = pair(replace(PLAIN, layers=1))
    canvas = Canvas(tokens=(*prompt, *[None] * 6))
    params = SamplingParams(length=6, block_length=6, caching="delayed,refresh=0")
    [filled] = fill(shifted, [canvas], params, mask_id=MASK)
    assert list(filled.tokens) == filled_by_hand(plain, prompt, 6)


def test_scores(models):
    shifted, plain = models
    texts = [Candidate(prompt=(5, 6), target=(7, 8, 9)), Candidate(prompt=(4,), target=(3, 12), behind=(2,))]
    found = score_candidates(shifted, texts, ScoringParams(), mask_id=MASK, byte_counts=[1, 1])
    for text, score in zip(texts, found, strict=True):
        row = [*text.prompt, *[MASK] * len(text.target), *text.behind]
        total = 0.0
        for _ in text.target:
            logs = moved_logits(plain, row).log_softmax(-1)
            hidden = [place for place, token in enumerate(row) if token == MASK]
            truth = {place: text.target[place - len(text.prompt)] for place in hidden}
            best = max(hidden, key=lambda place: float(logs[place, truth[place]]))
            total += float(logs[best, truth[best]])
            row[best] = truth[best]
        assert score.log_probability == pytest.approx(total, abs=1e-5)


def test_losses(models):
    """Over packed rows: the first token of a segment has nobody before it."""
    shifted, plain = models
    segments = torch.tensor([[0] * 5 + [1] * 7, [0] * 12])
    tokens = torch.randint(0, MASK, segments.shape, generator=torch.Generator().manual_seed(0))
    batch = Batch(tokens=tokens, segments=segments, example=torch.arange(2), epoch=torch.zeros(2, dtype=torch.int64))
    objective = DiffusionObjective(NoiseConfig(), mask_id=MASK, seed=0)
    noisy, masked, t = objective.corrupt(batch)
    total = 0.0
    for row, cuts in enumerate(([(0, 5), (5, 12)], [(0, 12)])):
        for start, stop in cuts:
            logs = moved_logits(plain, noisy[row, start:stop].tolist()).log_softmax(-1)
            for place in range(start, stop):
                if masked[row, place]:
                    total -= float(logs[place - start, tokens[row, place]]) / float(t[row, place])
    with torch.no_grad():
        loss = objective(shifted, batch, normaliser=24)
    assert float(loss) == pytest.approx(total / 24, rel=1e-5)


def test_the_shift_matters_to_the_bound(models):
    tokens = torch.randint(0, MASK, (4, 12), generator=torch.Generator().manual_seed(0))
    held_out = HeldOut(tokens=tokens, bytes_per_token=1.0)
    bounds = [held_out_bound(model, held_out, mask_id=MASK).nats_per_token for model in models]
    assert abs(bounds[0] - bounds[1]) > 0.01
