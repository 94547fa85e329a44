"""The held-out bound against exact enumeration, and against models whose bound is known without any computation."""

import math
from statistics import mean, stdev

import pytest
import torch

from illada.data.shards import TokenShards, write_shards
from illada.data.tokenizer import Tokenizer
from illada.diffusion.likelihood import exact_bound
from illada.evaluate.bound import Bound, HeldOut, held_out_bound
from illada.model.config import ModelConfig
from illada.model.transformer import Transformer, initialize

VOCAB, MASK_ID, LENGTH = 11, 10, 6


def new_model(*, scale=8.0, seed=0, attention="bidirectional"):
    model = Transformer(
        ModelConfig(
            vocab_size=VOCAB,
            hidden_size=16,
            layers=1,
            heads=2,
            kv_heads=1,
            ffn_size=24,
            max_length=64,
            attention=attention,
        )
    )
    initialize(model, seed=seed)
    with torch.no_grad():
        for parameter in model.parameters():
            # far enough from their start that what a token sees decides what is predicted
            if parameter.dim() == 2:
                parameter.mul_(scale)
    return model.eval()


def rows(count, length=LENGTH, *, seed=3):
    return torch.randint(0, MASK_ID, (count, length), generator=torch.Generator().manual_seed(seed))


def held_out(tokens, *, bytes_per_token=2.0):
    return HeldOut(tokens=tokens, bytes_per_token=bytes_per_token)


def exact(model, row):
    """Nats per token, from all 2**L - 1 masks."""
    whole = torch.ones(len(row), dtype=torch.bool)
    nats = -exact_bound(lambda t: model.logits(model(t)), row, target=whole, mask_id=MASK_ID, batch_size=63)
    return nats / len(row)


# --- the value ----------------------------------------------------------------------------------------------------


def test_a_model_that_knows_nothing_needs_log_v():
    model = Transformer(new_model().config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    bound = held_out_bound(model, held_out(rows(7, 12)), mask_id=MASK_ID, samples=3)
    assert bound.nats_per_token == pytest.approx(math.log(VOCAB), rel=1e-6)
    assert bound.standard_error == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("number", range(3))
def test_the_estimate_agrees_with_the_enumeration(number):
    model, row = new_model(seed=number), rows(3)[number]
    bound = held_out_bound(model, held_out(row[None]), mask_id=MASK_ID, samples=3000, batch_size=500)
    expected = exact(model, row)
    assert abs(bound.nats_per_token - expected) < 4 * bound.standard_error
    assert bound.standard_error < 0.02 * expected  # close enough to tell a wrong weight from a right one


def test_several_rows_are_averaged():
    model, tokens = new_model(), rows(4)
    bound = held_out_bound(model, held_out(tokens), mask_id=MASK_ID, samples=800, batch_size=400)
    singles = [
        held_out_bound(model, held_out(row[None]), mask_id=MASK_ID, samples=800, batch_size=400) for row in tokens
    ]
    error = math.hypot(*(single.standard_error for single in singles)) / 4
    assert abs(bound.nats_per_token - mean(exact(model, row) for row in tokens)) < 4 * error


def without_context():
    """A model in which no position sees another: each token costs what it costs, whatever is masked."""
    model = new_model()
    with torch.no_grad():
        model.blocks[0].attention.o_proj.weight.zero_()
    return model


def costs(model):
    """Nats for each token at a masked position of a model without context."""
    with torch.no_grad():
        logits = model.logits(model(torch.tensor([[MASK_ID]])))[0, 0]
    return -logits.log_softmax(-1)


def test_the_standard_error_is_that_of_the_rows():
    model = without_context()
    tokens = torch.tensor([0, 3, 4, 9])[:, None].expand(4, LENGTH).contiguous()
    bound = held_out_bound(model, held_out(tokens), mask_id=MASK_ID, samples=5)
    each = costs(model)[[0, 3, 4, 9]].tolist()
    assert bound.nats_per_token == pytest.approx(mean(each), rel=1e-5)
    assert bound.standard_error == pytest.approx(stdev(each) / 2, rel=1e-4)


def test_one_row_and_one_mask_have_no_spread():
    bound = held_out_bound(new_model(), held_out(rows(1)), mask_id=MASK_ID, samples=1)
    assert bound.standard_error == 0.0


def test_masks_leave_no_mask_in_what_is_predicted():
    """Every clean token is scored by what is seen of it: a model that copies what it sees gains nothing by that."""
    model = without_context()
    tokens = rows(16, 12)
    expected = float(costs(model)[tokens].mean())
    bound = held_out_bound(model, held_out(tokens), mask_id=MASK_ID, samples=400, batch_size=800)
    # with equal numbers of masks at every position, the mean over masks is the mean over tokens
    assert bound.nats_per_token == pytest.approx(expected, rel=0.02)


# --- the noise ----------------------------------------------------------------------------------------------------


def test_the_same_model_gives_the_same_value_twice():
    model, text = new_model(), held_out(rows(5))
    assert held_out_bound(model, text, mask_id=MASK_ID) == held_out_bound(model, text, mask_id=MASK_ID)


def test_the_global_random_state_is_neither_read_nor_moved():
    model, text = new_model(), held_out(rows(5))
    expected = held_out_bound(model, text, mask_id=MASK_ID)
    torch.manual_seed(123)
    before = torch.get_rng_state()
    assert held_out_bound(model, text, mask_id=MASK_ID) == expected
    assert torch.equal(torch.get_rng_state(), before)


def test_another_seed_gives_other_masks():
    model, text = new_model(), held_out(rows(5))
    values = {held_out_bound(model, text, mask_id=MASK_ID, seed=seed).nats_per_token for seed in range(4)}
    assert len(values) == 4


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_the_batch_size_changes_nothing(size):
    model, text = new_model(), held_out(rows(5))
    expected = held_out_bound(model, text, mask_id=MASK_ID, samples=4)
    got = held_out_bound(model, text, mask_id=MASK_ID, samples=4, batch_size=size)
    assert got.nats_per_token == pytest.approx(expected.nats_per_token, rel=1e-5)
    assert got.standard_error == pytest.approx(expected.standard_error, rel=1e-4)


def test_nothing_is_left_to_differentiate():
    model = new_model()
    held_out_bound(model, held_out(rows(2)), mask_id=MASK_ID)
    assert all(parameter.grad is None for parameter in model.parameters())


# --- bits per byte ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bytes_per_token", [1.0, 3.7])
def test_bits_per_byte_are_nats_per_token_in_other_units(bytes_per_token):
    text = held_out(rows(3), bytes_per_token=bytes_per_token)
    bound = held_out_bound(new_model(), text, mask_id=MASK_ID)
    assert bound.bits_per_byte * bytes_per_token == pytest.approx(bound.nats_per_token * math.log2(math.e))


def test_the_metrics_have_their_names():
    bound = Bound(nats_per_token=3.0, standard_error=0.5, bits_per_byte=1.25)
    assert bound.metrics() == {
        "held_out/nats_per_token": 3.0,
        "held_out/standard_error_nats_per_token": 0.5,
        "held_out/bits_per_byte": 1.25,
    }


# --- rows of held-out text ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["only a few bytes, no merges"], 263)


@pytest.fixture
def shards(tokenizer, tmp_path):
    """Shards of one document, a token for each byte of it, one for its begin and one for its end."""

    def write(letters: str) -> TokenShards:
        write_shards([letters], tokenizer, tmp_path / "shards", workers=1)
        return TokenShards.open(tmp_path / "shards", tokenizer=tokenizer)

    return write


def whole(shards):
    return shards.read(0, len(shards)).tolist()


def test_windows_are_spread_over_the_text(shards):
    text = shards("".join(chr(97 + number // 10) for number in range(98)))  # 100 tokens with begin and end
    found = HeldOut.from_shards(text, rows=4, length=10)
    assert found.tokens.tolist() == [whole(text)[start : start + 10] for start in (0, 20, 50, 70)]


def test_all_windows_are_taken_if_they_are_few(shards):
    text = shards("abcdefghijk")
    found = HeldOut.from_shards(text, rows=100, length=5)
    assert found.tokens.tolist() == [whole(text)[:5], whole(text)[5:10]]


def test_a_short_text_is_one_shorter_row(shards, tokenizer):
    text = shards("abc")
    found = HeldOut.from_shards(text, rows=100, length=50)
    assert found.tokens.tolist() == [whole(text)]
    assert tokenizer.decode(found.tokens[0].tolist()) == "abc"
    model = Transformer(ModelConfig(vocab_size=263, hidden_size=8, layers=1, heads=1, kv_heads=1, ffn_size=8))
    initialize(model, seed=0)
    bound = held_out_bound(model, found, mask_id=tokenizer.specials.mask)
    assert math.isfinite(bound.nats_per_token)


def test_a_token_weighs_its_share_of_all_bytes(shards):
    text = shards("é" * 30)
    found = HeldOut.from_shards(text, rows=2, length=7)
    assert found.bytes_per_token == pytest.approx(60 / len(text))


@pytest.mark.parametrize(("count", "length"), [(0, 5), (5, 0), (-1, 5)])
def test_no_rows_at_all_are_refused(count, length, shards):
    with pytest.raises(ValueError, match=f"positive count and length, got {count} of {length} tokens"):
        HeldOut.from_shards(shards("abc"), rows=count, length=length)


# --- a causal model -----------------------------------------------------------------------------------------------


@torch.no_grad()
def chained(model, row):
    """-log p of all tokens but the first, one forward for each, in nats per token."""
    nats = [
        -float(model.logits(model(row[None, :place]))[0, -1].double().log_softmax(0)[row[place]])
        for place in range(1, len(row))
    ]
    return mean(nats)


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_of_a_causal_model_it_is_the_value_whatever_the_masks(batch_size):
    model, tokens = new_model(attention="causal"), rows(7)
    expected = [chained(model, row) for row in tokens]
    bounds = [
        held_out_bound(model, held_out(tokens), mask_id=MASK_ID, samples=samples, seed=seed, batch_size=batch_size)
        for samples, seed in ((1, 0), (4, 5))
    ]
    assert bounds[0] == bounds[1]
    assert bounds[0].nats_per_token == pytest.approx(mean(expected), rel=1e-5)
    assert bounds[0].standard_error == pytest.approx(stdev(expected) / math.sqrt(7), rel=1e-4)
    assert bounds[0].bits_per_byte == pytest.approx(mean(expected) / math.log(2) / 2, rel=1e-5)


def test_one_row_of_a_causal_model_has_no_error():
    bound = held_out_bound(new_model(attention="causal"), held_out(rows(1)), mask_id=MASK_ID)
    assert bound.standard_error == 0.0
