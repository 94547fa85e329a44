"""Rows of examples: what stands where in each style, against plain Python on the same examples."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from illada.data.dialogues import Example
from illada.data.example_rows import ExamplePacking, ExampleRows
from illada.data.instructions import InstructionSet, InstructionStream, write_instructions
from illada.data.loader import Loader
from illada.data.packing import PADDING, PackedRows, PackingConfig, Part

PAD, EOS = 0, 2
LENGTHS = [(3, 2), (5, 9), (2, 4), (7, 1), (4, 17), (1, 6), (6, 3)]
"""(prompt, response) of each dialogue's only answer, end of text included."""


def example(number, prompt, response):
    return Example(prompt=[10 + number] * prompt, response=[50 + number] * (response - 1) + [EOS])


DIALOGUES = [[example(number, *lengths)] for number, lengths in enumerate(LENGTHS)]
LONG = [[example(20, 2, 3), example(21, 8, 4), example(22, 15, 5)]]
"""One dialogue of three answers."""


@pytest.fixture
def instructions(tmp_path):
    write_instructions(DIALOGUES, tmp_path / "set", vocab_size=100)
    return InstructionSet.open(tmp_path / "set")


def rows_of(instructions, seed=0, **options):
    return ExampleRows(instructions, ExamplePacking(**options), seed=seed, pad=PAD, eos=EOS)


def pieces(row):
    """(tokens, parts) of every example of a row, told apart by where a prompt begins."""
    used = row.segments != PADDING
    begins = [
        place
        for place in np.flatnonzero(used)
        if row.parts[place] == Part.PROMPT and (place == 0 or row.parts[place - 1] != Part.PROMPT)
    ]
    ends = [*begins[1:], int(used.sum())]
    return [(row.tokens[a:b].tolist(), row.parts[a:b].tolist()) for a, b in zip(begins, ends, strict=True)]


def everything(rows, epoch=0):
    return [piece for row in range(rows.rows) for piece in pieces(rows.read(row, example=row, epoch=epoch))]


# --- the set ------------------------------------------------------------------------------------------------------


def test_what_was_written_is_read(tmp_path):
    dialogues = [*DIALOGUES, *LONG]
    assert write_instructions(dialogues, tmp_path / "set", vocab_size=70_000) == 8
    found = InstructionSet.open(tmp_path / "set")
    assert found.tokens.dtype == np.dtype("<u4")
    examples = [pair for dialogue in dialogues for pair in dialogue]
    for number, expected in enumerate(examples):
        tokens, prompt = found.example(number)
        assert (tokens[:prompt].tolist(), tokens[prompt:].tolist()) == (expected.prompt, expected.response)
    assert len(found) == 8
    assert found.whole.tolist() == [0, 1, 2, 3, 4, 5, 6, 9]


def test_a_set_that_was_cut_off_is_refused(tmp_path):
    write_instructions(DIALOGUES, tmp_path / "set", vocab_size=100)
    file = tmp_path / "set" / "tokens.array"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"set is not a complete set .* delete it"):
        InstructionSet.open(tmp_path / "set")


def test_an_empty_set_can_be_written_and_opened(tmp_path):
    assert write_instructions([], tmp_path / "set", vocab_size=100) == 0
    assert len(InstructionSet.open(tmp_path / "set")) == 0


# --- the stream ---------------------------------------------------------------------------------------------------


def test_the_stream_holds_every_dialogue_once_and_nothing_else(instructions):
    stream = InstructionStream(instructions, seed=1)
    tokens = stream.read(0, len(stream)).tolist()
    starts = [*stream.document_starts(0, len(stream)), len(stream)]
    texts = [tokens[a:b] for a, b in pairwise(starts)]
    assert sorted(texts) == sorted(pair.prompt + pair.response for [pair] in DIALOGUES)
    assert texts != [pair.prompt + pair.response for [pair] in DIALOGUES]  # in another order
    for start in range(len(stream) - 11):
        assert stream.read(start, 11).tolist() == tokens[start : start + 11]
        assert stream.document_starts(start, 11).tolist() == [at - start for at in starts if start <= at < start + 11]


def test_the_stream_has_the_whole_of_a_dialogue_of_several_answers(tmp_path):
    write_instructions(LONG, tmp_path / "set", vocab_size=100)
    stream = InstructionStream(InstructionSet.open(tmp_path / "set"), seed=0)
    assert stream.read(0, len(stream)).tolist() == LONG[0][-1].prompt + LONG[0][-1].response


def test_windows_of_the_stream_hold_no_padding_at_all(instructions):
    stream = InstructionStream(instructions, seed=1)
    rows = PackedRows(stream, PackingConfig(length=16, split_probability=0.5), seed=0, pad=PAD)
    batch = Loader([(rows, 1.0)], seed=0).next(12)
    assert batch.parts is None
    assert int((batch.segments == PADDING).sum()) == 0
    assert int((batch.tokens == PAD).sum()) == 0
    assert set(batch.segments.unique().tolist()) == {0, 1}


# --- whole examples -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("one_per_row", [True, False])
def test_every_example_is_in_one_row_as_it_is(instructions, one_per_row):
    rows = rows_of(instructions, length=32, one_per_row=one_per_row)
    expected = [
        (
            pair.prompt + pair.response,
            [Part.PROMPT] * len(pair.prompt) + [Part.RESPONSE] * (len(pair.response) - 1) + [Part.END],
        )
        for [pair] in DIALOGUES
    ]
    assert sorted(everything(rows)) == sorted(expected)
    assert (rows.rows == len(DIALOGUES)) == one_per_row


@pytest.mark.parametrize("isolate", [True, False])
def test_examples_of_a_row_see_one_another_or_do_not(instructions, isolate):
    rows = rows_of(instructions, length=64, isolate=isolate)
    row = rows.read(0, example=0, epoch=0)
    count = len(pieces(row))
    assert count > 1
    assert sorted(set(row.segments[row.segments != PADDING])) == (list(range(count)) if isolate else [0])
    assert set(row.tokens[row.segments == PADDING]) <= {PAD}


def test_the_longest_of_the_batch_decides_how_far_the_others_are_filled(instructions):
    rows = rows_of(instructions, length=64, one_per_row=True, filler="batch")
    batch = Loader([(rows, 1.0)], seed=0).next(len(DIALOGUES))
    longest = max(sum(lengths) for lengths in LENGTHS)
    assert batch.tokens.shape == (len(DIALOGUES), longest)
    assert int((batch.segments != 0).sum()) == 0
    for tokens, parts in zip(batch.tokens.tolist(), batch.parts.tolist(), strict=True):
        end = parts.index(Part.END)
        assert tokens[end:] == [EOS] * (longest - end)
        assert parts[end + 1 :] == [Part.STRETCH] * (longest - end - 1)


def test_a_canvas_is_filled_up_to_whole_blocks(instructions):
    rows = rows_of(instructions, length=64, filler="canvas", block_length=8, long_canvas_probability=0.0)
    seen = {}
    for epoch in range(40):
        for tokens, parts in everything(rows, epoch):
            prompt = parts.count(Part.PROMPT)
            assert (len(tokens) - prompt) % 8 == 0
            original = DIALOGUES[tokens[0] - 10][0]
            whole = original.prompt + original.response
            assert tokens == (whole + [EOS] * 32)[: len(tokens)]
            assert parts[len(whole) :] == [Part.FILLER] * max(0, len(tokens) - len(whole))
            seen.setdefault(tokens[0] - 10, set()).add((len(tokens) - prompt) // 8)
    # an answer of several blocks is seen as far as generation would have come, others as they are
    needed = [-(-response // 8) for _, response in LENGTHS]
    assert seen == {number: set(range(1, count + 1)) for number, count in enumerate(needed)}


def test_some_canvases_are_long_whatever_the_answer_needs(instructions):
    rows = rows_of(
        instructions, length=64, filler="canvas", block_length=4, long_canvas_probability=1.0, longest_canvas=6
    )
    blocks = [(len(tokens) - parts.count(Part.PROMPT)) // 4 for tokens, parts in everything(rows)]
    assert all(1 <= count <= 6 for count in blocks)
    assert len(set(blocks)) > 2
    assert sorted(everything(rows, 0)) == sorted(everything(rows, 3))  # by the seed, not by the epoch
    assert sorted(everything(rows)) != sorted(
        everything(rows_of(instructions, 1, length=64, filler="canvas", block_length=4, long_canvas_probability=1.0))
    )


def test_which_answer_of_a_dialogue_is_learnt_is_drawn_in_every_epoch(tmp_path):
    write_instructions(LONG, tmp_path / "set", vocab_size=100)
    rows = rows_of(InstructionSet.open(tmp_path / "set"), length=32, one_per_row=True)
    drawn = [everything(rows, epoch)[0][0] for epoch in range(60)]
    texts = [pair.prompt + pair.response for pair in LONG[0]]
    counts = [drawn.count(text) for text in texts]
    assert sum(counts) == 60
    assert min(counts) > 8


def test_dialogues_that_do_not_fit_are_left_out_and_counted(instructions):
    rows = rows_of(instructions, length=13)
    assert rows.left_out == 2
    assert len(everything(rows)) == 5
    with pytest.raises(ValueError, match="none of the 7 dialogues fits into rows of 4 tokens: raise the length"):
        rows_of(instructions, length=4)


def test_rows_read_again_are_the_same(instructions):
    for options in ({"one_per_row": True, "filler": "batch"}, {"filler": "canvas", "block_length": 8}):
        rows, again = rows_of(instructions, length=64, **options), rows_of(instructions, length=64, **options)
        for row in range(rows.rows):
            first, second = rows.read(row, example=0, epoch=1), again.read(row, example=5, epoch=1)
            assert all(
                torch.equal(torch.from_numpy(a), torch.from_numpy(b)) for a, b in zip(first, second, strict=True)
            )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 0}, "length must be at least 1, got 0"),
        ({"block_length": 0}, "block_length must be at least 1, got 0"),
        ({"longest_canvas": 0}, "longest_canvas must be at least 1, got 0"),
        ({"filler": "batch"}, "needs one_per_row"),
        ({"long_canvas_probability": 1.5}, "long_canvas_probability is 1.5"),
    ],
)
def test_a_packing_that_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ExamplePacking(**options)
