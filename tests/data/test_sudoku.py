from itertools import combinations, product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from illada.data import sudoku

FULL = [1, 2, 3, 4, 3, 4, 1, 2, 2, 1, 4, 3, 4, 3, 2, 1]


def obeys_the_rules(board: list[int]) -> bool:
    """The rules once more, cell by cell: no digit twice among the peers."""
    for a, b in product(range(16), repeat=2):
        same_row, same_column = a // 4 == b // 4, a % 4 == b % 4
        same_box = a // 8 == b // 8 and a % 4 // 2 == b % 4 // 2
        if a != b and (same_row or same_column or same_box) and board[a] == board[b]:
            return False
    return all(1 <= digit <= 4 for digit in board)


def fill(board: list[int]) -> list[list[int]]:
    """All completions by depth-first search, which knows nothing of the enumeration."""
    if 0 not in board:
        return [board]
    cell = board.index(0)
    found = []
    for digit in range(1, 5):
        peers = [
            i
            for i in range(16)
            if i // 4 == cell // 4 or i % 4 == cell % 4 or (i // 8 == cell // 8 and i % 4 // 2 == cell % 4 // 2)
        ]
        if digit not in [board[i] for i in peers]:
            found += fill([*board[:cell], digit, *board[cell + 1 :]])
    return found


def test_the_enumeration_is_what_depth_first_search_finds_in_its_order():
    assert sudoku.solutions().tolist() == fill([0] * 16)


def test_there_are_288_boards_and_every_one_is_valid():
    boards = sudoku.solutions()
    assert boards.shape == (sudoku.SOLUTION_COUNT, sudoku.CELLS) == (288, 16)
    assert all(sudoku.is_valid(board) for board in boards)


def test_changing_what_was_returned_does_not_change_the_next_answer():
    sudoku.solutions().zero_()
    assert sudoku.is_valid(sudoku.solutions()[0])


@given(st.lists(st.integers(0, 5), min_size=16, max_size=16))
def test_validity_agrees_with_the_rules_for_any_numbers(board):
    assert sudoku.is_valid(torch.tensor(board)) == obeys_the_rules(board)


@pytest.mark.parametrize("cell", range(16))
@pytest.mark.parametrize("digit", range(5))
def test_one_changed_cell_breaks_a_board(cell, digit):
    board = [*FULL[:cell], digit, *FULL[cell + 1 :]]
    assert sudoku.is_valid(torch.tensor(board)) == (board == FULL)


def test_a_board_with_good_rows_and_columns_but_bad_boxes_is_refused():
    latin = torch.tensor([1, 2, 3, 4, 2, 3, 4, 1, 3, 4, 1, 2, 4, 1, 2, 3])
    assert not sudoku.is_valid(latin)


def test_the_split_is_disjoint_and_complete():
    train, test = sudoku.split_solutions(0, 58)
    assert (len(train), len(test)) == (230, 58)
    assert sorted(train.tolist() + test.tolist()) == sudoku.solutions().tolist()


def test_the_split_depends_on_the_seed_and_on_nothing_else():
    assert torch.equal(sudoku.split_solutions(3, 40)[1], sudoku.split_solutions(3, 40)[1])
    assert not torch.equal(sudoku.split_solutions(3, 40)[1], sudoku.split_solutions(4, 40)[1])


def test_a_smaller_held_out_part_is_contained_in_a_larger_one():
    small, large = sudoku.split_solutions(1, 20)[1], sudoku.split_solutions(1, 60)[1]
    assert torch.equal(small, large[:20])


def test_the_split_mixes_boards_that_the_enumeration_keeps_together():
    first_digits = sudoku.split_solutions(0, 58)[1][:, 0].tolist()
    assert set(first_digits) == {1, 2, 3, 4}
    assert first_digits != sorted(first_digits)


@pytest.mark.parametrize("held_out", [-1, 288, 1000])
def test_a_split_without_boards_to_train_on_is_refused(held_out):
    with pytest.raises(ValueError, match=f"between 0 and 287, got {held_out}"):
        sudoku.split_solutions(0, held_out)


def test_nothing_held_out_leaves_every_board_to_train_on():
    train, test = sudoku.split_solutions(0, 0)
    assert (len(train), len(test)) == (288, 0)


@pytest.mark.parametrize("blanks", [0, 4, 8, 10, 12])
def test_a_puzzle_has_its_board_as_only_completion(blanks):
    boards = sudoku.split_solutions(5, 20)[1]
    for board, puzzle in zip(boards.tolist(), sudoku.puzzles(boards, blanks, seed=2).tolist(), strict=True):
        assert puzzle.count(0) == blanks
        assert fill(puzzle) == [board]


def test_where_no_puzzle_is_unique_the_completions_are_as_few_as_can_be():
    boards = sudoku.solutions()
    for board, puzzle in zip(boards[:4].tolist(), sudoku.puzzles(boards[:4], 13, seed=0), strict=True):
        fewest = min(
            sum(all(other[cell] == board[cell] for cell in clues) for other in boards.tolist())
            for clues in combinations(range(16), 3)
        )
        assert len(sudoku.completions(puzzle)) == fewest > 1


def test_the_clues_are_digits_of_the_board():
    boards = sudoku.solutions()
    puzzles = sudoku.puzzles(boards, 9, seed=0)
    assert bool(((puzzles == boards) | (puzzles == sudoku.BLANK)).all())


def test_blanks_fall_everywhere_and_change_with_seed_and_row():
    boards = sudoku.solutions()[:1].expand(200, 16)
    first, second = (sudoku.puzzles(boards, 6, seed=seed) == 0 for seed in (0, 1))
    assert not torch.equal(first, second)
    assert torch.equal(first, sudoku.puzzles(boards, 6, seed=0) == 0)
    assert len(first.unique(dim=0)) > 100
    # 6 of 16 cells: 75 blanks per cell on average, with a standard deviation of 7
    assert 40 < first.sum(dim=0).min() <= first.sum(dim=0).max() < 110


def test_the_choice_of_blanks_is_uniform_among_the_unique_ones():
    board = sudoku.solutions()[7]
    single = (sudoku.puzzles(board.expand(1600, 16), 1, seed=0) == 0).sum(dim=0)
    # one blank is always unique: 100 per cell on average, with a standard deviation of 10
    assert 60 < single.min() <= single.max() < 140


@pytest.mark.parametrize("blanks", [-1, 17])
def test_an_impossible_number_of_blanks_is_refused(blanks):
    with pytest.raises(ValueError, match=f"between 0 and 16, got {blanks}"):
        sudoku.puzzles(sudoku.solutions(), blanks, seed=0)


def test_boards_that_are_not_full_are_refused_by_row():
    boards = sudoku.solutions()[:3]
    boards[1, 4] = 0
    with pytest.raises(ValueError, match=r"not: \[1\]"):
        sudoku.puzzles(boards, 4, seed=0)


def test_completions_are_those_of_depth_first_search():
    puzzle = [0, 2, 0, 0, 0, 0, 0, 2, 0, 0, 4, 0, 4, 0, 0, 0]
    found = sudoku.completions(torch.tensor(puzzle)).tolist()
    assert found == fill(puzzle)
    assert found


def test_a_puzzle_against_the_rules_has_no_completion():
    assert len(sudoku.completions(torch.tensor([1, 1] + [0] * 14))) == 0


def test_ids_come_back_as_the_board_and_blanks_are_masks():
    puzzles = sudoku.puzzles(sudoku.solutions(), 7, seed=0)
    ids = sudoku.encode_board(puzzles)
    assert torch.equal(sudoku.decode_board(ids), puzzles)
    assert torch.equal(ids == sudoku.MASK_ID, puzzles == sudoku.BLANK)
    assert sudoku.encode_board(torch.tensor(FULL)).tolist() == [digit + 3 for digit in FULL]


def test_the_special_ids_are_distinct_and_no_digit():
    special = [sudoku.PAD_ID, sudoku.BOS_ID, sudoku.EOS_ID, sudoku.MASK_ID]
    digits = [sudoku.FIRST_DIGIT_ID + digit - 1 for digit in range(1, 5)]
    assert special + digits == list(range(sudoku.VOCAB_SIZE)) == list(range(8))


@pytest.mark.parametrize("digit", [-1, 5])
def test_what_is_no_digit_cannot_be_encoded(digit):
    with pytest.raises(ValueError, match=r"0 \(blank\) to 4"):
        sudoku.encode_board(torch.tensor([digit, *FULL[1:]]))


@pytest.mark.parametrize("wrong", [sudoku.PAD_ID, sudoku.BOS_ID, sudoku.EOS_ID, 8])
def test_what_is_no_digit_id_cannot_be_decoded(wrong):
    with pytest.raises(ValueError, match=rf"got \[{wrong}\]"):
        sudoku.decode_board(torch.tensor([wrong] + [4] * 15))


def test_a_board_is_drawn_with_its_boxes():
    puzzle = torch.tensor([1, 0, 3, 4, *FULL[4:]])
    assert sudoku.render(puzzle).splitlines() == [
        "┌───┬───┐",
        "│1 ·│3 4│",
        "│3 4│1 2│",
        "├───┼───┤",
        "│2 1│4 3│",
        "│4 3│2 1│",
        "└───┴───┘",
    ]
    assert "│1 _│3 4│" in sudoku.render(puzzle, blank="_")
