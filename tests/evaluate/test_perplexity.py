"""Perplexity against sums by hand: windows, the exact value of a causal model, the bound of a diffusion model."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from illada.evaluate.perplexity import perplexity, score_windows, windows
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer, initialize

BOS, MASK = 0, 1
TEXTS = [[4, 5, 6, 7, 8, 9, 10, 4, 4, 6, 7], [5, 9], []]


def make(**changes):
    values = {"vocab_size": 11, "hidden_size": 16, "layers": 2, "heads": 2, "kv_heads": 1, "ffn_size": 32}
    model = Transformer(ModelConfig(**{**values, "max_length": 6, "init_std": 0.6, **changes}))
    initialize(model, seed=1)
    return model.eval()


def measured(model, texts=TEXTS, **options):
    return perplexity(model, texts, bos_id=BOS, mask_id=MASK, byte_count=100, **options)


def next_token_nats(model, prompt, target):
    """By hand: token after token, each from all that stands before it."""
    nats = 0.0
    for place, token in enumerate(target):
        with torch.no_grad():
            hidden = model(torch.tensor([[*prompt, *target[:place]]]))
            nats -= float(model.logits(hidden)[0, -1].log_softmax(-1)[token])
    return nats


@given(st.integers(0, 60), st.integers(1, 12), st.data())
def test_windows_count_every_token_once_and_fit(count, length, data):
    stride = data.draw(st.integers(1, length))
    found = list(windows(count, length=length, stride=stride))
    counted = [token for _, begin, end in found for token in range(begin, end)]
    assert counted == list(range(count))
    for number, (start, begin, end) in enumerate(found):
        assert 0 <= start <= begin < end
        assert end - start <= length
        if number:
            assert end - begin <= stride
            assert start == max(0, end - length), "as much text in front as the window holds"


def test_a_causal_model_gives_the_value_itself():
    model = make(attention="causal")
    by_hand = next_token_nats(model, [BOS], [4, 5, 6, 7, 8]) + next_token_nats(model, [BOS], [9, 10, 4, 4, 6])
    by_hand += next_token_nats(model, [BOS, 10, 4, 4, 6], [7])
    by_hand += next_token_nats(model, [BOS], [5, 9])
    found = measured(model)
    assert found.exact
    assert found.standard_error_nats == 0
    assert found.nats == pytest.approx(by_hand, abs=1e-4)
    assert (found.tokens, found.texts, found.windows) == (13, 2, 4)


def test_a_shorter_stride_has_more_text_in_front():
    model = make(attention="causal")
    by_hand = next_token_nats(model, [BOS], [4, 5, 6, 7, 8])
    text = TEXTS[0]
    for begin in range(5, 11, 2):
        end = min(11, begin + 2)
        by_hand += next_token_nats(model, [BOS, *text[end - 5 : begin]], text[begin:end])
    assert measured(model, [text], stride=2).nats == pytest.approx(by_hand, abs=1e-4)


def test_the_bound_of_a_diffusion_model_is_that_of_every_mask():
    model = make()
    found = measured(model, [[5, 9, 4]], samples=4096)
    exact = 0.0
    for subset in range(1, 8):
        hidden = [place for place in range(3) if subset >> place & 1]
        text = [5, 9, 4]
        noisy = [MASK if place in hidden else token for place, token in enumerate(text)]
        with torch.no_grad():
            seen = model.logits(model(torch.tensor([[BOS, *noisy]])))[0, 1:].log_softmax(-1)
        nats = -sum(float(seen[place, text[place]]) for place in hidden)
        exact += nats / (len(hidden) * math.comb(3, len(hidden)))
    assert not found.exact
    assert abs(found.nats - exact) < 4 * found.standard_error_nats
    assert 0 < found.standard_error_nats < 0.2


def test_every_text_has_its_own_windows():
    model = make()
    scores = score_windows(model, TEXTS, bos_id=BOS, mask_id=MASK, samples=8)
    assert [len(its_windows) for its_windows in scores] == [3, 1, 0]
    assert [sum(window.tokens for window in its_windows) for its_windows in scores] == [11, 2, 0]
    for text, its_windows in zip(TEXTS[:2], scores, strict=False):
        alone = measured(model, [text], samples=8)
        assert -sum(window.log_probability for window in its_windows) == pytest.approx(alone.nats, rel=1e-5)


def test_units():
    found = measured(make(attention="causal"))
    values = found.summary()
    assert values["nats_per_token"] == found.nats / 13
    assert values["bits_per_byte"] == pytest.approx(found.nats / math.log(2) / 100)
    assert values["perplexity_per_token"] == pytest.approx(math.exp(found.nats / 13))


def test_the_batch_changes_nothing():
    model = make()
    alone = measured(model, positions_per_forward=1, samples=8)
    together = measured(model, samples=8)
    assert alone.nats == pytest.approx(together.nats, rel=1e-5)


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [([[]], {}, "0 tokens"), (TEXTS, {"stride": 6}, "between 1 and the 5 tokens"), (TEXTS, {"stride": -1}, "between")],
)
def test_what_cannot_be_measured_is_refused(texts, options, message):
    with pytest.raises(ValueError, match=message):
        measured(make(), texts, **options)
