import json
import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from illada.data.loader import Loader
from illada.data.packing import PADDING, FixedRows, PackedRows, PackingConfig, Part, Row
from illada.seeding import Stream


def numbered(rows: int, *, source: int = 0) -> FixedRows:
    """Rows that say where they are from: [source, number of the row]."""
    return FixedRows(torch.tensor([[source, row] for row in range(rows)]))


def mix(sizes: list[int], weights: list[float], *, seed: int = 0) -> Loader:
    sources = [numbered(size, source=number) for number, size in enumerate(sizes)]
    return Loader(list(zip(sources, weights, strict=True)), seed=seed)


def sequence(loader: Loader, batches: list[int]) -> list[list[int]]:
    """[source, row, example, epoch] of every example."""
    read = [loader.next(size) for size in batches]
    return [
        [*row, example, epoch]
        for batch in read
        for row, example, epoch in zip(batch.tokens.tolist(), batch.example.tolist(), batch.epoch.tolist(), strict=True)
    ]


SIZES, WEIGHTS = [13, 40, 7], [1.0, 2.5, 0.4]
REFERENCE = sequence(mix(SIZES, WEIGHTS), [60])


# --- one sequence, however it is reached --------------------------------------------------------------------------


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6))
@settings(max_examples=15)
def test_any_batch_sizes_give_the_same_sequence(batches):
    got = sequence(mix(SIZES, WEIGHTS), batches)
    assert got[:60] == REFERENCE[: len(got)]


@given(world=st.sampled_from([1, 2, 3, 4, 6]), factor=st.integers(1, 3), steps=st.integers(1, 3))
@settings(max_examples=12)
def test_the_shares_of_all_processes_make_the_same_sequence(world, factor, steps):
    loaders = [mix(SIZES, WEIGHTS) for _ in range(world)]
    got = []
    for _ in range(steps):
        parts = [loader.next(world * factor, rank=rank, world=world) for rank, loader in enumerate(loaders)]
        assert [len(part) for part in parts] == [factor] * world
        got += [row for part in parts for row in part.tokens.tolist()]
        assert torch.cat([part.example for part in parts]).tolist() == list(
            range(len(got) - len(parts) * factor, len(got))
        )
    assert got == [entry[:2] for entry in REFERENCE[: len(got)]]
    assert all(loader.state() == loaders[0].state() for loader in loaders)


@given(before=st.integers(1, 30), after=st.integers(1, 30))
@settings(max_examples=12)
def test_a_resumed_loader_goes_on_as_if_never_stopped(before, after):
    stopped = mix(SIZES, WEIGHTS)
    stopped.next(before)
    resumed = mix(SIZES, WEIGHTS)
    resumed.load_state(json.loads(json.dumps(stopped.state())))
    assert sequence(resumed, [after]) == REFERENCE[before : before + after]


def test_a_state_is_not_changed_by_going_on():
    loader = mix(SIZES, WEIGHTS)
    loader.next(5)
    state = loader.state()
    loader.next(5)
    assert state["example"] == 5
    assert sum(state["taken"]) == 5


def test_the_batch_has_the_rows_and_segments_that_the_source_gives():
    batch = mix([5], [1.0]).next(3)
    assert batch.tokens.shape == batch.segments.shape == (3, 2)
    assert batch.tokens.dtype == batch.segments.dtype == batch.epoch.dtype == torch.int64
    assert batch.segments.eq(0).all()
    assert batch.example.tolist() == [0, 1, 2]


# --- reading ahead ------------------------------------------------------------------------------------------------


class Watched:
    """Rows that record which of them was read when, and may be slow or broken."""

    length, rows = 2, 100

    def __init__(self, *, seconds: float = 0.0, broken: bool = False) -> None:
        self.seconds, self.broken = seconds, broken
        self.read_examples: list[int] = []
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()

    def read(self, row: int, *, example: int, epoch: int) -> Row:
        with self._lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(self.seconds)
        with self._lock:
            self.at_once -= 1
            self.read_examples.append(example)
        if self.broken and example >= 4:
            raise ValueError("the shard file x was altered")
        return Row(torch.full((2,), row).numpy(), torch.zeros(2, dtype=torch.int64).numpy())


def wait_for(condition, *, seconds: float = 20.0) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "this did not happen in time"
        time.sleep(0.005)


def test_the_next_batch_is_read_while_this_one_is_in_use():
    rows = Watched()
    loader = Loader([(rows, 1.0)], seed=0)
    loader.next(3)
    wait_for(lambda: len(rows.read_examples) == 6)
    time.sleep(0.05)
    assert rows.read_examples == [0, 1, 2, 3, 4, 5], "one batch ahead and no further"
    assert loader.next(3).example.tolist() == [3, 4, 5]
    assert rows.read_examples[:6] == [0, 1, 2, 3, 4, 5], "nothing was read twice"


def test_what_was_read_ahead_in_vain_changes_nothing():
    loader = mix(SIZES, WEIGHTS)
    got = sequence(loader, [4, 4, 2, 6])
    loader.load_state({"example": 0, "taken": [0, 0, 0]})
    assert sequence(loader, [4]) == got[:4]
    assert got == REFERENCE[:16]


def test_the_state_does_not_run_ahead():
    loader = mix(SIZES, WEIGHTS)
    loader.next(4)
    time.sleep(0.02)
    assert loader.state()["example"] == 4


def test_an_error_comes_with_the_batch_that_it_belongs_to_and_every_time():
    loader = Loader([(Watched(broken=True), 1.0)], seed=0)
    assert len(loader.next(4)) == 4
    for _ in range(2):
        with pytest.raises(ValueError, match="the shard file x was altered"):
            loader.next(4)
        assert loader.state()["example"] == 4


@pytest.mark.parametrize("readers", [1, 4])
def test_several_readers_read_rows_at_a_time_and_the_same_batch(readers):
    rows = Watched(seconds=0.01)
    loader = Loader([(rows, 1.0)], seed=0, readers=readers)
    order = Stream(0, "order/0").permute(torch.arange(100), 100)[:8]
    assert loader.next(8).tokens[:, 0].tolist() == order.tolist()
    assert rows.most_at_once == readers


def test_packed_rows_may_be_read_by_several_threads():
    rows = PackedRows(Numbers(), PackingConfig(length=16, random_length_probability=0.5), seed=0, pad=0)
    alone, together = (Loader([(rows, 1.0)], seed=0, readers=readers) for readers in (1, 8))
    for _ in range(5):
        one, other = alone.next(700), together.next(700)
        assert torch.equal(one.tokens, other.tokens)
        assert torch.equal(one.segments, other.segments)


class Numbers:
    """A stream of tokens 0, 1, 2 ... in one document."""

    def __len__(self) -> int:
        return 5000

    def read(self, start: int, length: int):
        return torch.arange(start, start + length).numpy()

    def document_starts(self, start: int, length: int):
        return torch.zeros(0, dtype=torch.int64).numpy()


class Answers:
    """Rows of which row n has 2 + n tokens of its own, and behind them ends of text up to the longest of the batch."""

    rows, length = 20, 24

    def __init__(self, *, stretch):
        self._stretch = stretch

    def read(self, row, *, example, epoch):
        used = 2 + row
        inside = np.arange(self.length) < used
        parts = np.where(inside, Part.RESPONSE, Part.STRETCH if self._stretch else Part.PROMPT)
        segments = np.where(inside | self._stretch, 0, PADDING)
        return Row(np.where(inside, row, 99), segments, parts)


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("multiple", [1, 4])
def test_ends_of_text_reach_as_far_on_every_process_as_on_one(world, multiple):
    alone, *loaders = [Loader([(Answers(stretch=True), 1.0)], seed=3) for _ in range(1 + world)]
    for _ in range(4):
        whole = alone.next(8, multiple=multiple)
        parts = [loader.next(8, rank=rank, world=world, multiple=multiple) for rank, loader in enumerate(loaders)]
        for name in ("tokens", "segments", "parts", "example"):
            assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))
        longest = 2 + int(whole.tokens[:, 0].max())
        assert whole.tokens.shape[1] == -(-longest // multiple) * multiple


def test_rows_that_are_padded_come_as_short_as_they_can_be():
    loader = Loader([(Answers(stretch=False), 1.0)], seed=3)
    batch = loader.next(8, rank=1, world=2)
    longest = 2 + max(int(row[0]) for row in batch.tokens)
    assert batch.tokens.shape == (4, longest)


# --- passing over -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 17])
def test_examples_that_are_passed_over_are_those_that_would_have_come(count):
    loader = mix(SIZES, WEIGHTS)
    loader.next(3)
    assert loader.example == 3
    loader.skip(count)
    assert loader.example == 3 + count
    assert sequence(loader, [10]) == REFERENCE[3 + count : 13 + count]


# --- order --------------------------------------------------------------------------------------------------------


@given(size=st.integers(1, 30), batch=st.integers(1, 17))
@settings(max_examples=15)
def test_every_row_is_visited_once_per_epoch(size, batch):
    loader = mix([size], [1.0])
    visits = sequence(loader, [batch] * (2 * size // batch + 1))
    for epoch in range(2):
        part = visits[epoch * size : (epoch + 1) * size]
        assert sorted(entry[1] for entry in part) == list(range(size))
        assert {entry[3] for entry in part} == {epoch}


def test_in_a_mix_too_every_row_of_a_source_comes_once_per_epoch():
    entries = sequence(mix(SIZES, WEIGHTS), [150])
    for source, size in enumerate(SIZES):
        rows = [entry[1] for entry in entries if entry[0] == source]
        for start in range(0, len(rows) - size + 1, size):
            assert sorted(rows[start : start + size]) == list(range(size))


def test_the_order_is_the_permutation_of_the_stream_and_new_in_each_epoch():
    rows = [entry[1] for entry in sequence(mix([1500], [1.0], seed=4), [3000])]
    for epoch in range(2):
        order = Stream(4, "order/0").permute(torch.arange(1500), 1500, epoch=epoch)
        assert rows[epoch * 1500 : (epoch + 1) * 1500] == order.tolist()
    assert rows[:1500] != rows[1500:]


def test_the_seed_changes_the_order():
    assert sequence(mix([40], [1.0], seed=1), [40]) != sequence(mix([40], [1.0], seed=2), [40])


# --- proportions --------------------------------------------------------------------------------------------------


def worst_deviation(loader: Loader, weights: list[float], examples: int) -> float:
    shares = [weight / sum(weights) for weight in weights]
    worst = 0.0
    for _ in range(examples):
        loader.next(1)
        state = loader.state()
        deviations = [
            abs(taken - share * state["example"]) for taken, share in zip(state["taken"], shares, strict=True)
        ]
        worst = max(worst, *deviations)
    return worst


@given(st.lists(st.floats(0.01, 10.0), min_size=1, max_size=8))
@settings(max_examples=15)
def test_no_source_strays_a_whole_example_from_its_share(weights):
    assert worst_deviation(mix([1000] * len(weights), weights), weights, 60) < 1.0


def test_many_small_sources_beside_large_ones_keep_their_share():
    """Always serving the source that is owed most lets some of these fall more than one example behind."""
    weights = [5.0, 1.0, 1.0, 99.0, 97.0, 9.0]
    assert worst_deviation(mix([300] * 6, weights), weights, 200) < 1.0


def test_equal_weights_take_turns():
    sources = [entry[0] for entry in sequence(mix([50, 50], [3.0, 3.0]), [20])]
    assert all({first, second} == {0, 1} for first, second in zip(sources[::2], sources[1::2], strict=True))


# --- what is refused ----------------------------------------------------------------------------------------------


def test_a_loader_needs_a_source():
    with pytest.raises(ValueError, match="0 sources"):
        Loader([], seed=0)


def test_weights_must_be_above_zero():
    with pytest.raises(ValueError, match=r"\[1.0, 0.0\], but each must be above 0"):
        mix([3, 3], [1.0, 0.0])


def test_sources_must_agree_on_the_length():
    longer = FixedRows(torch.zeros(3, 5, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"lengths \[2, 5\]"):
        Loader([(numbered(3), 1.0), (longer, 1.0)], seed=0)


@pytest.mark.parametrize(("size", "world"), [(0, 1), (-2, 2), (5, 2)])
def test_a_batch_must_divide_among_the_processes(size, world):
    with pytest.raises(ValueError, match=f"batch_size is {size}, .* multiple of the {world} processes"):
        mix([5], [1.0]).next(size, world=world)


@pytest.mark.parametrize("rank", [-1, 2])
def test_a_rank_must_exist(rank):
    with pytest.raises(ValueError, match=f"rank is {rank}, but the 2 processes"):
        mix([5], [1.0]).next(4, rank=rank, world=2)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"example": 3, "taken": [3]}, "had 1 sources, but there are 3 now"),
        ({"example": 3, "taken": [1, 1, 0]}, "contradicts itself"),
        ({"taken": [1, 1, 1]}, "not the state of a loader"),
        ({"example": 3}, "not the state of a loader"),
    ],
)
def test_a_state_of_another_loader_is_refused(state, message):
    loader = mix(SIZES, WEIGHTS)
    with pytest.raises(ValueError, match=message):
        loader.load_state(state)
    assert sequence(loader, [5]) == REFERENCE[:5]
