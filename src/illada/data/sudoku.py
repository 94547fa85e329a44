"""4x4 sudoku: a world small enough to enumerate, in which an answer is right or wrong.

A board is 16 numbers in reading order, 1 to 4, with 0 for a blank; rows, columns and 2x2 boxes hold every digit once.
There are 288 full boards. Nothing in the puzzle says which blank comes first, so it suits a model that may fill in
any order.
"""

from functools import cache
from itertools import combinations, permutations, product

import torch
from jaxtyping import Int
from torch import Tensor

from illada.seeding import Stream

SIDE = 4
CELLS = SIDE * SIDE
SOLUTION_COUNT = 288
BLANK = 0

PAD_ID, BOS_ID, EOS_ID, MASK_ID = 0, 1, 2, 3
FIRST_DIGIT_ID = 4
VOCAB_SIZE = FIRST_DIGIT_ID + SIDE

_DIGITS = range(1, SIDE + 1)


def _units() -> list[list[int]]:
    """The cell numbers of the four rows, four columns and four boxes."""
    rows = [[SIDE * row + column for column in range(SIDE)] for row in range(SIDE)]
    columns = [list(column) for column in zip(*rows, strict=True)]
    boxes = [[SIDE * (top + i) + left + j for i in (0, 1) for j in (0, 1)] for top in (0, 2) for left in (0, 2)]
    return rows + columns + boxes


_UNITS = torch.tensor(_units())


def _valid(boards: Int[Tensor, "*n 16"]) -> Tensor:
    """One bool per board: does every row, column and box hold the digits 1 to 4 once each."""
    in_order = boards[..., _UNITS].sort(dim=-1).values
    return (in_order == torch.tensor(_DIGITS)).flatten(-2).all(dim=-1)


def is_valid(board: Int[Tensor, "16"]) -> bool:
    """Whether the board is full and breaks no rule."""
    return bool(_valid(board))


@cache
def _solutions() -> Tensor:
    lines = list(permutations(_DIGITS))
    # the rows of a box are two lines, so filter the upper and the lower half before joining them
    halves = [a + b for a, b in product(lines, lines) if len({*a[:2], *b[:2]}) == len({*a[2:], *b[2:]}) == SIDE]
    boards = torch.tensor([upper + lower for upper, lower in product(halves, halves)])
    return boards[_valid(boards)]


def solutions() -> Int[Tensor, "288 16"]:
    """All full boards, in lexicographic order."""
    return _solutions().clone()


def split_solutions(seed: int, held_out: int) -> tuple[Int[Tensor, "train 16"], Int[Tensor, "test 16"]]:
    """All 288 full boards in random order, cut into those to train on and `held_out` others.

    Raises:
        ValueError: `held_out` leaves no board to train on, or is negative.
    """
    if not 0 <= held_out < SOLUTION_COUNT:
        raise ValueError(f"held_out must be between 0 and {SOLUTION_COUNT - 1}, got {held_out}")
    order = Stream(seed, "sudoku/split").permute(torch.arange(SOLUTION_COUNT), SOLUTION_COUNT)
    return _solutions()[order[held_out:]], _solutions()[order[:held_out]]


def completions(puzzle: Int[Tensor, "16"]) -> Int[Tensor, "count 16"]:
    """The full boards that agree with every given digit of the puzzle, in lexicographic order."""
    agree = (_solutions() == puzzle) | (puzzle == BLANK)
    return _solutions()[agree.all(dim=-1)]


@cache
def _best_blanks(canonical: tuple[int, ...], blanks: int) -> Tensor:
    """Every choice of `blanks` cells that leaves this board the fewest completions, as bool [choices, 16]."""
    cells = torch.tensor(list(combinations(range(CELLS), blanks)), dtype=torch.int64)
    blank = torch.zeros(len(cells), CELLS, dtype=torch.bool).scatter_(1, cells, value=True)
    differs = (_solutions() != torch.tensor(canonical)).float()
    # another board completes the puzzle when it differs from this one nowhere but in the blanks
    clashes = (~blank).float() @ differs.T
    count = (clashes == 0).sum(dim=1)
    return blank[count == count.min()]


def _canonical(board: Tensor) -> tuple[int, ...]:
    """The board with its digits renamed so that the first row reads 1 2 3 4: which blanks are good stays the same."""
    rename = torch.empty(SIDE + 1, dtype=torch.int64)
    rename[board[:SIDE]] = torch.tensor(_DIGITS)
    return tuple(rename[board].tolist())


def puzzles(boards: Int[Tensor, "n 16"], blanks: int, *, seed: int) -> Int[Tensor, "n 16"]:
    """Blank out `blanks` random cells of each full board such that as few boards as possible fit the rest.

    Up to 12 blanks that is one board, the puzzle's only solution. The choice is uniform among the best ones and
    depends on the seed, the board and its row number.

    Raises:
        ValueError: `blanks` is not between 0 and 16, or a board is not a full valid one.
    """
    if not 0 <= blanks <= CELLS:
        raise ValueError(f"blanks must be between 0 and {CELLS}, got {blanks}")
    broken = (~_valid(boards)).nonzero().flatten().tolist()
    if broken:
        raise ValueError(f"boards must be full and valid, but these rows are not: {broken}")
    draws = Stream(seed, "sudoku/blanks").uniform64(torch.arange(len(boards)), 1).flatten().tolist()
    result = boards.clone()
    for row, draw in enumerate(draws):
        choices = _best_blanks(_canonical(boards[row]), blanks)
        result[row, choices[int(draw * len(choices))]] = BLANK
    return result


def encode_board(board: Int[Tensor, "*n 16"]) -> Int[Tensor, "*n 16"]:
    """Digits to token ids; a blank becomes the mask.

    Raises:
        ValueError: a number outside 0 .. 4.
    """
    if bool(((board < BLANK) | (board > SIDE)).any()):
        raise ValueError(f"a board holds 0 (blank) to {SIDE}, got {sorted(set(board.flatten().tolist()))}")
    return board + MASK_ID


def decode_board(ids: Int[Tensor, "*n 16"]) -> Int[Tensor, "*n 16"]:
    """Token ids to digits; the mask becomes a blank.

    Raises:
        ValueError: an id that is neither the mask nor a digit.
    """
    if bool(((ids < MASK_ID) | (ids >= VOCAB_SIZE)).any()):
        wrong = sorted({number for number in ids.flatten().tolist() if not MASK_ID <= number < VOCAB_SIZE})
        raise ValueError(f"a board holds the ids {MASK_ID} (mask) to {VOCAB_SIZE - 1}, got {wrong}")
    return ids - MASK_ID


def render(board: Int[Tensor, "16"], *, blank: str = "·") -> str:
    """The board as nine characters by seven lines of plain text, boxes framed."""
    symbols = [str(digit) if digit else blank for digit in board.tolist()]
    lines = []
    for row in range(SIDE):
        a, b, c, d = symbols[SIDE * row : SIDE * (row + 1)]
        lines.append(f"│{a} {b}│{c} {d}│")
    return "\n".join(["┌───┬───┐", *lines[:2], "├───┼───┤", *lines[2:], "└───┴───┘"])
