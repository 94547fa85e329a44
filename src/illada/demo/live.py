"""Masks turning into text, and blanks into digits, before the reader's eyes.

On a terminal each step redraws the last one; anywhere else (a pipe, a log) a handful of frames are printed one below
another. Text of the model is drawn as text: no markup is read in it and no control character reaches the terminal.
"""

import time
from collections.abc import Collection, Sequence
from types import TracebackType
from typing import TypeVar

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from illada.demo.report import VISIBLE_CONTROLS

GIVEN = "bold"
FRESH = "black on cyan"
FILLED = "cyan"
MASKED = "bright_black"

_MASK = "░░"
_BLANK = "·"
_SIDE = 4
_ASCII = str.maketrans("░·│─┼…", "#.|-+.")
_SPARSE_FRAMES = (0.75, 0.5, 0.25)
"""Where nothing can be redrawn: a frame when no more than this share of the masks is left."""


ViewT = TypeVar("ViewT", bound="_Stage")


def printable(text: str, *, encoding: str = "utf-8") -> str:
    """The text with control characters made visible (newline and tab stay) and nothing `encoding` cannot write."""
    shown = text.translate(VISIBLE_CONTROLS)
    if not encoding.lower().startswith("utf"):
        shown = shown.translate(_ASCII)
    return shown.encode(encoding, errors="replace").decode(encoding)


class _Stage:
    """Shows one frame after another: redrawn in place on a terminal, a few of them printed elsewhere."""

    def __init__(self, console: Console, frame_seconds: float) -> None:
        if frame_seconds < 0:
            raise ValueError(f"frame_seconds must be 0 or more, got {frame_seconds}")
        self._console = console
        self._frame_seconds = frame_seconds
        animated = console.is_terminal and not console.is_dumb_terminal
        self._live = Live(console=console, auto_refresh=False) if animated else None
        self._next_frame = 0.0
        self._most_left = 0
        self._milestones = [1.0, *_SPARSE_FRAMES]
        self._unprinted: RenderableType | None = None

    def show(self, frame: RenderableType, *, left: int) -> None:
        """Draw a frame in which `left` positions are still to fill."""
        if self._live is None:
            self._show_sparsely(frame, left)
            return
        time.sleep(max(0.0, self._next_frame - time.monotonic()))
        self._next_frame = time.monotonic() + self._frame_seconds
        self._live.update(frame, refresh=True)

    def _show_sparsely(self, frame: RenderableType, left: int) -> None:
        self._most_left = max(self._most_left, left)
        self._unprinted = frame
        passed = [share for share in self._milestones if left <= share * self._most_left]
        if passed and left:
            self._milestones = [share for share in self._milestones if share not in passed]
            self._print()

    def _print(self) -> None:
        if self._unprinted is not None:
            self._console.print(self._unprinted)
            self._unprinted = None

    def __enter__(self: ViewT) -> ViewT:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the last frame on the screen, whole even where it is taller than the terminal."""
        if self._live is not None:
            self._live.stop()
        self._print()


class DenoisingView(_Stage):
    """A text being revealed, a few tokens per step.

    Args:
        console: where to draw.
        title: what is being written.
        frame_seconds: the shortest time between two frames on a terminal, in seconds.
    """

    def __init__(self, console: Console, *, title: str, frame_seconds: float = 0.03) -> None:
        super().__init__(console, frame_seconds)
        self._title = printable(title, encoding=console.encoding)
        self._frames = 0

    def update(self, pieces: Sequence[str | None], fresh: Collection[int]) -> None:
        """Show the canvas: a text per position, None where it is still masked; `fresh` were revealed in this step."""
        masked = sum(piece is None for piece in pieces)
        state = f"step {self._frames}: {masked} of {len(pieces)} tokens masked" if masked else "done"
        self._frames += 1
        canvas = Text(tab_size=4, overflow="fold")
        for position, piece in enumerate(pieces):
            canvas.append_text(self._piece(piece, fresh=position in fresh))
        title, subtitle = Text(self._title, style=GIVEN), Text(state)
        frame = Panel(canvas, title=title, title_align="left", subtitle=subtitle, padding=(1, 2), border_style=MASKED)
        self.show(frame, left=masked)

    def _piece(self, piece: str | None, *, fresh: bool) -> Text:
        encoding = self._console.encoding
        if piece is None:
            return Text(printable(_MASK, encoding=encoding), style=MASKED)
        return Text(printable(piece, encoding=encoding), style=FRESH if fresh else "")


def board_text(
    puzzle: Sequence[int], board: Sequence[int], fresh: Collection[int] = (), *, encoding: str = "utf-8"
) -> Text:
    """A 4x4 sudoku as five lines: given digits bold, `fresh` cells highlighted, 0 a dot.

    Raises:
        ValueError: puzzle or board has not 16 cells.
    """
    if len(puzzle) != _SIDE**2 or len(board) != _SIDE**2:
        raise ValueError(f"a board has {_SIDE**2} cells, got a puzzle of {len(puzzle)} and a board of {len(board)}")
    drawing = Text()
    for cell, (given, digit) in enumerate(zip(puzzle, board, strict=True)):
        style = GIVEN if given else FRESH if cell in fresh else FILLED if digit else MASKED
        drawing.append(str(digit) if digit else printable(_BLANK, encoding=encoding), style=style)
        drawing.append(printable(_after(cell), encoding=encoding), style=MASKED)
    return drawing


def _after(cell: int) -> str:
    """What stands between a cell and the next: a space, the line between boxes, or the end of a row."""
    row, column = divmod(cell, _SIDE)
    if column < _SIDE - 1:
        return " │ " if column == 1 else " "
    return ("\n────┼────\n" if row == 1 else "\n") if row < _SIDE - 1 else ""


class SudokuView(_Stage):
    """4x4 sudoku boards being filled side by side.

    Args:
        console: where to draw.
        puzzles: the boards as given, 16 digits each, 0 = blank.
        frame_seconds: the shortest time between two frames on a terminal, in seconds.
    """

    def __init__(self, console: Console, puzzles: Sequence[Sequence[int]], *, frame_seconds: float = 0.25) -> None:
        super().__init__(console, frame_seconds)
        self._puzzles = puzzles

    def update(self, boards: Sequence[Sequence[int]], fresh: Sequence[Collection[int]]) -> None:
        """Show all boards as they are now; `fresh` holds, per board, the cells filled in this step.

        Raises:
            ValueError: the numbers of puzzles, boards and sets of fresh cells differ.
        """
        if not len(self._puzzles) == len(boards) == len(fresh):
            raise ValueError(
                f"{len(self._puzzles)} puzzles need as many boards ({len(boards)}) and sets ({len(fresh)})"
            )
        drawn = zip(self._puzzles, boards, fresh, strict=True)
        texts = [board_text(*board, encoding=self._console.encoding) for board in drawn]
        # an empty line below keeps frames apart where they are printed one under another
        self.show(Group(Columns(texts, padding=(1, 4)), Text()), left=sum(list(board).count(0) for board in boards))
