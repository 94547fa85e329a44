import io
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from illada.demo.live import FILLED, FRESH, GIVEN, DenoisingView, SudokuView, board_text, printable

PUZZLE = (1, 0, 3, 4, 3, 4, 0, 2, 2, 1, 4, 0, 0, 3, 2, 1)
SOLUTION = (1, 2, 3, 4, 3, 4, 1, 2, 2, 1, 4, 3, 4, 3, 2, 1)
TEXT = ["def", " answer", "():", "\n", "    ", "return", " 4", "2"]


def plain_console(encoding: str = "utf-8") -> Console:
    return Console(file=io.TextIOWrapper(io.BytesIO(), encoding=encoding), width=60)


def terminal(height: int = 24) -> Console:
    file = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    return Console(file=file, width=60, height=height, force_terminal=True, color_system="truecolor", _environ={})


def written(console: Console) -> str:
    console.file.flush()
    return console.file.buffer.getvalue().decode(console.encoding)


def reveal(view: DenoisingView, pieces: list[str]) -> None:
    """Reveal the pieces from the last to the first, one per step, after the bare canvas."""
    canvas: list[str | None] = [None] * len(pieces)
    view.update(canvas, set())
    for position in reversed(range(len(pieces))):
        canvas[position] = pieces[position]
        view.update(canvas, {position})


def test_printable_leaves_text_newlines_and_tabs_alone():
    assert printable("naïve\n\tλ [bold]x[/bold]") == "naïve\n\tλ [bold]x[/bold]"


def test_printable_shows_controls_instead_of_sending_them():
    assert printable("\x1b[2J\x07\r\x9b\x7f\u202e\ud800") == "␛[2J␇␍\ufffd\ufffd\ufffd\ufffd"


@given(st.text(), st.sampled_from(["utf-8", "ascii", "latin-1"]))
def test_printable_text_can_always_be_written_and_controls_nothing(text, encoding):
    shown = printable(text, encoding=encoding)
    shown.encode(encoding)
    assert not {chr(code) for code in [*range(32), *range(127, 160)]} & set(shown) - {"\n", "\t"}


def test_a_pipe_gets_the_first_some_middle_and_the_last_frame():
    console = plain_console()
    with DenoisingView(console, title="a function") as view:
        reveal(view, TEXT)
    output = written(console)
    frames = [line for line in output.splitlines() if "masked" in line or "done" in line]
    assert [frame.strip("╰╯─ ") for frame in frames] == [
        "step 0: 8 of 8 tokens masked",
        "step 2: 6 of 8 tokens masked",
        "step 4: 4 of 8 tokens masked",
        "step 6: 2 of 8 tokens masked",
        "done",
    ]
    assert "\x1b" not in output


def test_a_pipe_gets_few_frames_of_a_long_text():
    console = plain_console()
    with DenoisingView(console, title="long") as view:
        reveal(view, ["x"] * 100)
    assert written(console).count(" long ") == 5


def test_a_pipe_gets_the_last_frame_even_if_masks_remain():
    console = plain_console()
    with DenoisingView(console, title="cut short") as view:
        view.update([None, None, None, None, "a"], set())
        view.update([None, None, None, "b", "a"], {3})
        view.update([None, None, "c", "b", "a"], {2})
    assert written(console).count("cut short") == 3
    assert "2 of 5 tokens masked" in written(console)


def test_the_same_frame_is_never_printed_twice():
    console = plain_console()
    with DenoisingView(console, title="given") as view:
        view.update(["all", " given"], set())
    assert written(console).count("all given") == 1


def test_a_view_without_frames_prints_nothing():
    console = plain_console()
    with DenoisingView(console, title="nothing"):
        pass
    assert written(console) == ""


def test_the_finished_text_stays_on_the_terminal():
    console = terminal()
    with DenoisingView(console, title="a function", frame_seconds=0.0) as view:
        reveal(view, TEXT)
    last = written(console).rpartition("a function")[2]
    assert "answer" in last
    assert "done" in last
    assert "░" not in last


def test_a_terminal_sees_every_frame():
    console = terminal()
    with DenoisingView(console, title="a function", frame_seconds=0.0) as view:
        reveal(view, TEXT)
    assert all(f"step {k}: {8 - k} of 8 tokens masked" in written(console) for k in range(8))


def test_a_text_taller_than_the_terminal_is_whole_in_the_end():
    console = terminal(height=8)
    with DenoisingView(console, title="tall", frame_seconds=0.0) as view:
        view.update([f"line {k}\n" for k in range(40)], set())
    assert all(f"line {k} " in written(console) for k in range(40))


def test_frames_keep_their_distance_in_time():
    start = time.monotonic()
    with DenoisingView(terminal(), title="slow", frame_seconds=0.05) as view:
        reveal(view, TEXT[:4])
    assert time.monotonic() - start >= 4 * 0.05


def test_a_negative_frame_time_is_refused():
    with pytest.raises(ValueError, match="got -1"):
        DenoisingView(plain_console(), title="x", frame_seconds=-1.0)


def test_fresh_tokens_are_highlighted_and_the_others_not():
    console = terminal()
    with DenoisingView(console, title="x", frame_seconds=0.0) as view:
        view.update(["old", "new", None], {1})
    highlighted = console.get_style(FRESH).render("new", color_system=console._color_system)
    assert highlighted in written(console)
    assert console.get_style(FRESH).render("old", color_system=console._color_system) not in written(console)


def test_markup_and_escapes_of_the_model_are_only_text():
    for console in (plain_console(), terminal()):
        with DenoisingView(console, title="[red]title[/red]", frame_seconds=0.0) as view:
            view.update(["[bold]not markup[/bold]", "[/nothing]", "\x1b]0;owned\x07", ":smile:"], {0})
        assert "[red]title[/red]" in written(console)
        assert "[bold]not markup[/bold]" in written(console)
        assert "[/nothing]" in written(console)
        assert "␛]0;owned␇" in written(console)
        assert ":smile:" in written(console)
        assert "\x1b]" not in written(console)


@given(st.lists(st.one_of(st.none(), st.text()), max_size=6))
def test_any_text_can_be_shown_on_any_console(pieces):
    for console in (plain_console(), plain_console("ascii")):
        with DenoisingView(console, title="any") as view:
            view.update(pieces, {0})
        assert not {chr(code) for code in range(32)} & set(written(console)) - {"\n"}


def test_a_console_without_unicode_gets_masks_it_can_write():
    console = plain_console("ascii")
    with DenoisingView(console, title="ascii") as view:
        view.update([None, "λ"], {1})
    assert "##?" in written(console)


def test_a_board_is_drawn_with_dots_for_blanks():
    assert board_text(PUZZLE, PUZZLE).plain == "1 · │ 3 4\n3 4 │ · 2\n────┼────\n2 1 │ 4 ·\n· 3 │ 2 1"
    assert board_text(PUZZLE, PUZZLE, encoding="ascii").plain == "1 . | 3 4\n3 4 | . 2\n----+----\n2 1 | 4 .\n. 3 | 2 1"


def test_digits_are_styled_by_where_they_come_from():
    board = (1, 2, 3, 4, 3, 4, 1, 2, 2, 1, 4, 0, 0, 3, 2, 1)
    drawing = board_text(PUZZLE, board, {6})
    styles = [span.style for span in drawing.spans if drawing.plain[span.start : span.end].isdigit()]
    assert styles == [GIVEN, FILLED, *[GIVEN] * 4, FRESH, *[GIVEN] * 4, *[GIVEN] * 3]


def test_a_board_of_another_size_is_refused():
    with pytest.raises(ValueError, match="a puzzle of 16 and a board of 4"):
        board_text(PUZZLE, (1, 2, 3, 4))


def fill(view: SudokuView, boards: int) -> None:
    board = list(PUZZLE)
    view.update([board] * boards, [set()] * boards)
    for cell in (cell for cell in range(16) if not PUZZLE[cell]):
        board[cell] = SOLUTION[cell]
        view.update([board] * boards, [{cell}] * boards)


def test_boards_stand_side_by_side_and_are_filled_in_the_end():
    console = plain_console()
    with SudokuView(console, [PUZZLE, PUZZLE]) as view:
        fill(view, 2)
    output = written(console)
    row = [line.split() for line in output.splitlines() if line.startswith("1 2 │ 3 4")][-1]
    assert row == ["1", "2", "│", "3", "4"] * 2
    assert output.count("┼") == 2 * 5


def test_boards_are_redrawn_on_a_terminal():
    console = terminal()
    with SudokuView(console, [PUZZLE], frame_seconds=0.0) as view:
        fill(view, 1)
    assert written(console).count("┼") >= 5
    assert "·" not in written(console).rpartition("┼")[2]


def test_boards_and_puzzles_must_match_in_number():
    view = SudokuView(plain_console(), [PUZZLE, PUZZLE])
    with pytest.raises(ValueError, match=r"2 puzzles need as many boards \(1\) and sets \(2\)"):
        view.update([PUZZLE], [set(), set()])
