from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from illada.data.packing import Batch, FixedRows, PackedRows, PackingConfig, RowSource
from illada.data.shards import TokenShards, write_shards
from illada.data.tokenizer import Tokenizer
from illada.seeding import Stream

DOCUMENTS = [f"{number} " + "abc " * (number % 9) for number in range(200)]
TOKENIZER = Tokenizer.train(DOCUMENTS, 280)
PAD = TOKENIZER.specials.pad


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> TokenShards:
    folder = tmp_path_factory.mktemp("packing") / "shards"
    write_shards(DOCUMENTS, TOKENIZER, folder, shard_bytes=500)
    return TokenShards.open(folder)


def shards_of(folder: Path, tokens: int) -> TokenShards:
    """A corpus of an exact number of tokens."""
    write_shards(["a" * (tokens - 2)], Tokenizer.train(["x"], 263), folder)
    shards = TokenShards.open(folder)
    assert len(shards) == tokens
    return shards


def rows_of(shards: TokenShards, *, seed: int = 0, **settings: object) -> PackedRows:
    return PackedRows(shards, PackingConfig(**settings), seed=seed, pad=PAD)


def segments_of(rows: PackedRows, examples: int) -> np.ndarray:
    """The segments of many examples, all read from row 0."""
    return np.stack([rows.read(0, example=example, epoch=0)[1] for example in range(examples)])


# --- configuration and batches ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": 0}, "length is 0, but a row needs at least 1"),
        ({"split_probability": 1.5}, "split_probability is 1.5"),
        ({"random_length_probability": -0.1}, "random_length_probability is -0.1"),
    ],
)
def test_a_configuration_out_of_range_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        PackingConfig(**settings)


def batch() -> Batch:
    return Batch(
        tokens=torch.arange(12).view(3, 4),
        segments=torch.tensor([[0, 0, 0, 0], [0, 1, 1, -1], [0, -1, -1, -1]]),
        example=torch.tensor([7, 8, 9]),
        epoch=torch.tensor([0, 0, 1]),
    )


def test_a_batch_counts_rows_and_tokens_that_are_no_padding():
    assert len(batch()) == 3
    assert batch().token_count == 4 + 3 + 1


def test_rows_of_a_batch_keep_their_addresses():
    part = batch().rows(1, 3)
    assert part.tokens.tolist() == [[4, 5, 6, 7], [8, 9, 10, 11]]
    assert part.segments.tolist() == [[0, 1, 1, -1], [0, -1, -1, -1]]
    assert (part.example.tolist(), part.epoch.tolist()) == ([8, 9], [0, 1])


def test_a_batch_moves_whole():
    moved = batch().to("meta")
    assert {getattr(moved, name).device.type for name in ("tokens", "segments", "example", "epoch")} == {"meta"}


def test_a_batch_of_contradicting_shapes_is_refused():
    with pytest.raises(Exception, match="Type-check error"):
        Batch(
            tokens=torch.zeros(2, 3, dtype=torch.int64),
            segments=torch.zeros(2, 3, dtype=torch.int64),
            example=torch.zeros(3, dtype=torch.int64),
            epoch=torch.zeros(2, dtype=torch.int64),
        )


# --- windows ------------------------------------------------------------------------------------------------------


@given(length=st.integers(1, 12), tokens=st.integers(2, 40), seed=st.integers(0, 5))
@settings(max_examples=40)
def test_every_row_of_every_epoch_lies_inside_and_follows_the_one_before(tmp_path_factory, length, tokens, seed):
    shards = shards_of(tmp_path_factory.mktemp("small") / "shards", tokens)
    if tokens < length:
        with pytest.raises(ValueError, match=f"has {tokens} tokens, too few for one row of {length}"):
            rows_of(shards, length=length)
        return
    rows = rows_of(shards, length=length, seed=seed)
    whole = shards.read(0, tokens)
    assert rows.rows >= 1
    assert rows.rows * length > tokens - 2 * length, "no more than two rows' worth is left out"
    for epoch in range(3):
        read = [rows.read(row, example=0, epoch=epoch)[0] for row in range(rows.rows)]
        start = rows.shift(epoch)
        assert 0 <= start < length
        assert np.concatenate(read).tolist() == whole[start : start + rows.rows * length].tolist()


def test_the_shift_takes_every_value_and_differs_between_seeds(shards):
    rows = rows_of(shards, length=8)
    counts = np.bincount([rows.shift(epoch) for epoch in range(800)], minlength=8)
    assert len(counts) == 8
    assert (abs(counts - 100) < 5 * np.sqrt(100 * 7 / 8)).all()
    assert [rows_of(shards, length=8, seed=1).shift(epoch) for epoch in range(20)] != [
        rows.shift(epoch) for epoch in range(20)
    ]


def test_a_corpus_of_exactly_one_row_is_enough(tmp_path):
    rows = rows_of(shards_of(tmp_path / "one", 10), length=10)
    assert (rows.rows, rows.shift(0), rows.shift(1)) == (1, 0, 0)


@pytest.mark.parametrize("row", [-1, 10**6])
def test_a_row_that_does_not_exist_is_refused(shards, row):
    with pytest.raises(ValueError, match=f"there is no row {row}"):
        rows_of(shards).read(row, example=0, epoch=0)


# --- segments -----------------------------------------------------------------------------------------------------


def test_rows_are_whole_when_nothing_is_asked_for(shards):
    assert (segments_of(rows_of(shards, length=16, split_probability=0.0), 50) == 0).all()


def test_about_the_asked_share_of_the_rows_is_split_in_two(shards):
    segments = segments_of(rows_of(shards, length=16), 2000)
    assert set(np.unique(segments)) == {0, 1}
    assert (np.diff(segments, axis=1) >= 0).all()
    assert abs(segments.max(axis=1).mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / 2000)


def test_the_cut_is_uniform_over_the_inner_places(shards):
    cuts = (segments_of(rows_of(shards, length=6, split_probability=1.0), 2000) == 0).sum(axis=1)
    counts = np.bincount(cuts, minlength=7)
    assert counts[[0, 6]].tolist() == [0, 0]
    assert (abs(counts[1:6] - 400) < 5 * np.sqrt(400 * 0.8)).all()


def test_the_noise_is_the_stream_addressed_by_example_and_epoch(shards):
    rows = rows_of(shards, length=16, seed=3, split_probability=0.5)
    for example, epoch in ((0, 0), (5, 0), (1023, 2), (1024, 2), (10**10, 7)):
        split, cut, *_ = Stream(3, "pack").uniform(torch.tensor(example), 4, epoch=epoch).tolist()
        expected = np.zeros(16, dtype=np.int64)
        if split < 0.5:
            expected[1 + int(cut * 15) :] = 1
        assert rows.read(1, example=example, epoch=epoch)[1].tolist() == expected.tolist()


def test_reading_in_any_order_gives_the_same(shards):
    settings = {"length": 8, "split_probability": 0.5, "random_length_probability": 0.3}
    addresses = [(example * 700, epoch) for example in range(6) for epoch in range(3)]
    forward, backward = rows_of(shards, **settings), rows_of(shards, **settings)
    first = {key: forward.read(0, example=key[0], epoch=key[1]) for key in addresses}
    second = {key: backward.read(0, example=key[0], epoch=key[1]) for key in reversed(addresses)}
    for key in addresses:
        assert [part.tolist() for part in first[key][:2]] == [part.tolist() for part in second[key][:2]]


def test_a_shortened_row_ends_in_padding(shards):
    rows = rows_of(shards, length=8, random_length_probability=1.0, split_probability=0.0)
    whole = rows_of(shards, length=8, split_probability=0.0).read(2, example=0, epoch=0)[0]
    sizes = []
    for example in range(2000):
        tokens, segments, _ = rows.read(2, example=example, epoch=0)
        size = int((segments == 0).sum())
        assert tokens.tolist() == [*whole[:size], *[PAD] * (8 - size)]
        assert segments.tolist() == [0] * size + [-1] * (8 - size)
        sizes.append(size)
    counts = np.bincount(sizes, minlength=9)
    assert counts[0] == 0
    assert (abs(counts[1:] - 250) < 5 * np.sqrt(250 * 7 / 8)).all()


def test_few_rows_are_shortened_when_asked_for_one_percent(shards):
    segments = segments_of(rows_of(shards, length=32, random_length_probability=0.01), 3000)
    assert 5 <= (segments == -1).any(axis=1).sum() <= 60


def test_a_shortened_row_is_split_inside_what_is_left(shards):
    segments = segments_of(rows_of(shards, length=8, split_probability=1.0, random_length_probability=1.0), 300)
    kept = (segments >= 0).sum(axis=1)
    assert (segments.max(axis=1) == (kept > 1)).all()


def test_a_row_of_one_token_is_never_split(shards):
    assert (segments_of(rows_of(shards, length=1, split_probability=1.0), 50) == 0).all()


def test_documents_are_isolated_on_request(shards):
    rows = rows_of(shards, length=32, split_probability=0.0, isolate_documents=True)
    for row in range(min(rows.rows, 20)):
        tokens, segments, _ = rows.read(row, example=row, epoch=0)
        begins = (tokens == TOKENIZER.specials.bos) & (np.arange(32) > 0)
        assert segments.tolist() == np.cumsum(begins).tolist()


def test_a_row_that_begins_with_a_document_begins_with_segment_0(shards):
    rows = rows_of(shards, length=5, split_probability=0.0, isolate_documents=True)
    read = [rows.read(row, example=row, epoch=0) for row in range(rows.rows)]
    beginning = [segments for tokens, segments, _ in read if tokens[0] == TOKENIZER.specials.bos]
    assert len(beginning) > 3
    assert all(segments[0] == 0 for segments in beginning)


def test_isolation_and_the_random_cut_combine(shards):
    rows = rows_of(shards, length=32, split_probability=1.0, isolate_documents=True)
    for example in range(50):
        tokens, segments, _ = rows.read(3, example=example, epoch=0)
        cut = 1 + int(Stream(0, "pack").uniform(torch.tensor(example), 4)[1].item() * 31)
        begins = (tokens == TOKENIZER.specials.bos) & (np.arange(32) > 0) | (np.arange(32) == cut)
        assert segments.tolist() == np.cumsum(begins).tolist()


# --- fixed rows ---------------------------------------------------------------------------------------------------


def test_fixed_rows_are_given_back_as_one_segment():
    tokens = torch.arange(12).view(3, 4)
    rows = FixedRows(tokens)
    assert (rows.rows, rows.length) == (3, 4)
    read, segments, _ = rows.read(1, example=5, epoch=2)
    assert (read.tolist(), segments.tolist()) == ([4, 5, 6, 7], [0, 0, 0, 0])
    read[:] = 0
    assert tokens[1].tolist() == [4, 5, 6, 7]
    assert rows.read(1, example=0, epoch=0)[0].tolist() == [4, 5, 6, 7]


def test_fixed_rows_need_a_row():
    with pytest.raises(ValueError, match="0 rows"):
        FixedRows(torch.zeros(0, 4, dtype=torch.int64))


def test_both_kinds_are_row_sources(shards):
    assert isinstance(rows_of(shards, length=8), RowSource)
    assert isinstance(FixedRows(torch.zeros(1, 4, dtype=torch.int64)), RowSource)
