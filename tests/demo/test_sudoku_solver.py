"""The solver after a few steps: it has begun to learn, and whatever it knows, it keeps to what it was given."""

import io
import re

import pytest
import torch
from rich.console import Console

from illada.data.sudoku import SOLUTION_COUNT, completions, is_valid, split_solutions
from illada.demo.sudoku import MODEL, SudokuConfig, solve, solved_boards, train_solver, unseen_puzzles
from illada.model.accounting import count_parameters
from illada.model.transformer import Transformer, initialize

CONFIG = SudokuConfig(steps=100, batch_size=16, held_out=20, peak=4e-3)


@pytest.fixture(scope="module")
def trained():
    """(solver, what was printed) after 100 steps."""
    output = io.StringIO()
    return train_solver(CONFIG, Console(file=output, width=200)), output.getvalue()


@pytest.fixture(scope="module")
def solver(trained):
    return trained[0]


# --- training -----------------------------------------------------------------------------------------------------


def test_the_loss_falls(trained):
    told = re.findall(r"sudoku (\d+)/100 loss ([\d.]+) nats/token", trained[1])
    losses = {int(step): float(loss) for step, loss in told}
    assert max(losses) == 100
    assert losses[100] < losses[min(losses)] - 0.3


def test_the_solver_is_ready_for_use(solver):
    assert not solver.training
    assert count_parameters(MODEL).total == sum(parameter.numel() for parameter in solver.parameters()) < 500_000


def test_training_again_gives_the_same_solver():
    short = SudokuConfig(steps=3, batch_size=4)
    first, second = (train_solver(short, Console(quiet=True)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_training_ends_when_its_time_is_up():
    output = io.StringIO()
    train_solver(SudokuConfig(steps=1000, batch_size=4, max_minutes=1e-9), Console(file=output, width=200))
    assert "1000/1000" not in output.getvalue()


# --- puzzles ------------------------------------------------------------------------------------------------------


def test_puzzles_are_of_boards_that_were_not_trained_on():
    puzzle, solution = unseen_puzzles(CONFIG, blanks=9)
    train, _ = split_solutions(CONFIG.seed, CONFIG.held_out)
    trained_on = {tuple(row) for row in train.tolist()}
    assert len(trained_on) == SOLUTION_COUNT - 20
    assert puzzle.shape == solution.shape == (20, 16)
    assert not trained_on & {tuple(row) for row in solution.tolist()}


def test_every_puzzle_has_its_blanks_and_one_completion():
    puzzle, solution = unseen_puzzles(CONFIG, blanks=9)
    assert (puzzle == 0).sum(1).tolist() == [9] * 20
    for row in range(20):
        assert completions(puzzle[row]).tolist() == [solution[row].tolist()]


# --- solving ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("blanks", [1, 9, 16])
def test_blanks_are_filled_and_givens_kept(solver, blanks):
    puzzle, _ = unseen_puzzles(CONFIG, blanks=blanks)
    board, revealed_at = solve(solver, puzzle)
    given = puzzle != 0
    assert bool(((board >= 1) & (board <= 4)).all())
    assert torch.equal(board[given], puzzle[given])
    assert bool((revealed_at[given] == 0).all())
    # one blank per forward
    expected = list(range(1, blanks + 1))
    assert [sorted(row[row > 0].tolist()) for row in revealed_at] == [expected] * 20


@pytest.mark.parametrize("seed", range(3))
def test_a_model_that_knows_nothing_writes_digits_too(seed):
    model = Transformer(MODEL)
    initialize(model, seed=seed)  # left to itself it would write the special tokens as often
    puzzle, _ = unseen_puzzles(CONFIG, blanks=12)
    board, _ = solve(model.eval(), puzzle)
    assert bool(((board >= 1) & (board <= 4)).all())


def test_a_full_board_comes_back_as_it_is(solver):
    _, solution = unseen_puzzles(CONFIG, blanks=9)
    board, revealed_at = solve(solver, solution[:2])
    assert torch.equal(board, solution[:2])
    assert not revealed_at.any()


def test_every_step_is_shown(solver):
    puzzle, _ = unseen_puzzles(CONFIG, blanks=5)
    seen = []

    def on_step(number, tokens, revealed):
        seen.append((number, revealed.sum(1).tolist()))

    solve(solver, puzzle[:3], on_step=on_step)
    assert seen == [(number, [1, 1, 1]) for number in range(1, 6)]


def test_it_solves_more_than_chance_does(solver):
    puzzle, solution = unseen_puzzles(CONFIG, blanks=2)
    board, _ = solve(solver, puzzle)
    assert int((board == solution).all(1).sum()) >= 4  # of 20; guesses get one or two


def test_correct_means_equal_to_the_solution(solver):
    puzzle, solution = unseen_puzzles(CONFIG, blanks=9)
    board, revealed_at = solve(solver, puzzle)
    board[0] = solution[0]
    board[1] = solution[1]
    board[1, 0] = 1 + board[1, 0] % 4
    boards = solved_boards(puzzle, board, revealed_at, solution)
    assert [boards[0].correct, boards[1].correct] == [True, False]
    assert is_valid(torch.tensor(boards[0].solution))
    assert boards[0].puzzle == tuple(puzzle[0].tolist())
    assert boards[0].revealed_at == tuple(revealed_at[0].tolist())
    assert len(boards) == 20
