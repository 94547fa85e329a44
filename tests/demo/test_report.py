import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from illada.demo import report as module
from illada.demo.report import Curve, Denoising, Report, SolvedBoard, write_report

SOLUTION = (1, 2, 3, 4, 3, 4, 1, 2, 2, 1, 4, 3, 4, 3, 2, 1)
VOID = {"meta", "input"}


class Page(HTMLParser):
    """What a browser makes of the page: its elements, checked to be closed in order, and the text of each kind."""

    def __init__(self, source: str):
        super().__init__()
        self.open, self.elements, self.texts = [], [], {}
        self.feed(source)
        self.close()
        assert self.open == [], f"left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        # a title inside a drawing is a tooltip
        for tag in set(self.open) - ({"title"} if "svg" in self.open else set()):
            self.texts[tag] = self.texts.get(tag, "") + data

    def with_class(self, name):
        return [attrs for _, attrs in self.elements if name in (attrs.get("class") or "").split()]

    def count(self, tag):
        return sum(element == tag for element, _ in self.elements)


def page_of(path: Path, **fields) -> Page:
    write_report(Report(title=fields.pop("title", "a run"), **fields), path)
    return Page(path.read_text(encoding="utf-8"))


def a_denoising(pieces=("def", " f", "(x):\n", "\treturn x"), revealed_at=(0, 2, 1, 3)) -> Denoising:
    return Denoising(title="completing f", pieces=tuple(pieces), revealed_at=tuple(revealed_at))


def a_board(correct=True) -> SolvedBoard:
    puzzle, revealed_at = (0, *SOLUTION[1:15], 0), (2, *[0] * 14, 1)
    return SolvedBoard(puzzle=puzzle, solution=SOLUTION, revealed_at=revealed_at, correct=correct)


def a_curve(label="training", points=200) -> Curve:
    return Curve(label=label, steps=tuple(range(points)), values=tuple(8.0 / (1 + k) for k in range(points)))


def test_a_full_report_holds_every_part(tmp_path):
    page = page_of(
        tmp_path / "report.html",
        title="illada demo",
        facts=(("held-out bits per byte", "7.9 → 2.9"), ("tokens", "4,915,200")),
        curves=(a_curve(), a_curve("held-out", 9)),
        denoisings=(a_denoising(), a_denoising()),
        boards=(a_board(), a_board(correct=False)),
    )
    assert page.texts["h1"] == page.texts["title"] == "illada demo"
    assert (page.texts["dt"], page.texts["dd"]) == ("held-out bits per bytetokens", "7.9 → 2.94,915,200")
    assert (page.count("article"), page.count("figure"), page.count("section")) == (2, 2, 3)


def test_what_is_empty_is_left_out(tmp_path):
    page = page_of(tmp_path / "report.html")
    assert page.count("h1") == 1
    assert page.count("section") == page.count("svg") == 0


def test_the_page_refers_to_nothing_outside_itself(tmp_path):
    path = tmp_path / "report.html"
    page = page_of(path, curves=(a_curve(),), denoisings=(a_denoising(),), boards=(a_board(),))
    assert not re.search(r"https?:|//[a-z]|url\(|@import|fetch\(|XMLHttp", path.read_text(encoding="utf-8"))
    assert not {"link", "img", "iframe", "base", "object"} & {tag for tag, _ in page.elements}
    assert all("src" not in attrs and "href" not in attrs for _, attrs in page.elements)
    policy = next(attrs for _, attrs in page.elements if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy["content"].startswith("default-src 'none'")


def test_light_dark_and_phone_are_provided_for(tmp_path):
    page = page_of(tmp_path / "report.html")
    assert "prefers-color-scheme: dark" in page.texts["style"]
    assert "max-width: 600px" in page.texts["style"]
    assert any(attrs.get("name") == "viewport" for _, attrs in page.elements)


def test_html_in_any_field_stays_text(tmp_path):
    evil = "</pre></title></style><script>alert('x')</script>&amp;<b title=\"y\">{braces}"
    page = page_of(
        tmp_path / "report.html",
        title=evil,
        facts=((evil, evil),),
        curves=(Curve(label=evil, steps=(1,), values=(2.0,)),),
        denoisings=(Denoising(title=evil, pieces=(evil,), revealed_at=(1,)),),
    )
    assert page.count("script") == 1
    for tag in ("title", "h1", "dt", "dd", "h3", "pre"):
        assert page.texts[tag] == evil
    assert evil in page.texts["li"]


@given(st.lists(st.text(), max_size=8))
def test_the_canvas_text_is_the_models_text_but_for_controls(tmp_path_factory, pieces):
    path = tmp_path_factory.mktemp("page") / "report.html"
    page = page_of(path, denoisings=(a_denoising(pieces, range(len(pieces))),))
    expected = "".join(pieces).translate(module.VISIBLE_CONTROLS)
    assert page.texts.get("pre", "") == expected


def test_control_characters_become_visible(tmp_path):
    pieces = ("\x1b[31m", "\x00", "\r\n", "\t", "\x7f\x9b", "\u202e", "\ud800")
    page = page_of(tmp_path / "report.html", denoisings=(a_denoising(pieces, range(7)),))
    assert page.texts["pre"] == "␛[31m␀␍\n\t\ufffd\ufffd\ufffd\ufffd"


def test_a_token_carries_its_step_and_its_place_in_the_order(tmp_path):
    page = page_of(tmp_path / "report.html", denoisings=(a_denoising(),))
    tokens = [attrs for attrs in page.with_class("t") if "data-s" in attrs]
    assert [attrs["data-s"] for attrs in tokens] == ["2", "1", "3"]
    assert [attrs["style"] for attrs in tokens] == ["--k:0.500", "--k:0.000", "--k:1.000"]
    assert ("article", {"data-steps": "3"}) in page.elements
    assert "3 tokens revealed in 3 steps, 1 given (uncoloured)" in page.texts["p"]


def test_newlines_and_tabs_are_marked_without_entering_the_text(tmp_path):
    page = page_of(tmp_path / "report.html", denoisings=(a_denoising(),))
    assert (page.count("i"), page.count("u")) == (1, 1)
    assert page.texts["pre"] == "def f(x):\n\treturn x"


def test_the_slider_runs_from_the_bare_canvas_to_the_last_step(tmp_path):
    page = page_of(tmp_path / "report.html", denoisings=(a_denoising(),))
    (slider,) = [attrs for tag, attrs in page.elements if tag == "input"]
    assert (slider["min"], slider["max"], slider["value"]) == ("0", "3", "3")
    assert "hidden" in page.with_class("controls")[0], "without scripts the finished text stands alone"


def test_one_step_or_none_is_drawn_too(tmp_path):
    page = page_of(
        tmp_path / "report.html", denoisings=(a_denoising(["a"], [1]), a_denoising(["b"], [0]), a_denoising([], []))
    )
    assert page.count("article") == 3


def test_a_dense_curve_is_smoothed_and_a_sparse_one_dotted(tmp_path):
    page = page_of(tmp_path / "report.html", curves=(a_curve(points=100), a_curve("held-out", points=5)))
    assert len(page.with_class("raw")) == len(page.with_class("line")) == len(page.with_class("link")) == 1
    assert page.count("circle") == 5
    assert {"nats per token", "step"} <= set(re.findall("nats per token|step", page.texts["text"]))


def numbers(path: str) -> list[tuple[float, float]]:
    return [tuple(map(float, point.split())) for point in path.removeprefix("M").split("L")]


def test_the_drawing_follows_the_data(tmp_path):
    curve = Curve(label="loss", steps=(0, 50, 100), values=(3.0, 2.0, 1.0))
    page = page_of(tmp_path / "report.html", curves=(curve,))
    (left, top), (middle, centre), (right, bottom) = numbers(page.with_class("link")[0]["d"])
    assert middle == pytest.approx((left + right) / 2)
    assert centre == pytest.approx((top + bottom) / 2)
    assert left < right
    assert top < bottom, "a lower loss lies further down"


def test_a_long_curve_is_thinned_but_keeps_its_ends(tmp_path):
    page = page_of(tmp_path / "report.html", curves=(a_curve(points=100_000), a_curve("short", points=50)))
    long, short = (numbers(attrs["d"]) for attrs in page.with_class("raw"))
    assert 300 < len(long) <= 601
    assert len(short) == 50
    assert (long[0][0], long[-1][0]) == pytest.approx((short[0][0], 770.0))


def test_values_that_are_not_finite_are_skipped(tmp_path):
    curve = Curve(label="loss", steps=(1, 2, 3, 4), values=(float("nan"), 2.0, float("inf"), 1.0))
    page = page_of(tmp_path / "report.html", curves=(curve,))
    assert page.count("circle") == 2
    nothing = Curve(label="loss", steps=(1,), values=(float("nan"),))
    assert page_of(tmp_path / "empty.html", curves=(nothing,)).count("svg") == 0


@pytest.mark.parametrize("values", [(2.0,), (2.0, 2.0), (1e-6, 2e-6), (5.0, 12_345.0)])
def test_flat_tiny_and_huge_curves_have_at_least_two_ticks(tmp_path, values):
    curve = Curve(label="loss", steps=tuple(range(len(values))), values=values)
    assert len(page_of(tmp_path / "report.html", curves=(curve,)).with_class("grid")) >= 2


@given(st.floats(-1e4, 1e4), st.floats(1e-2, 1e5), st.integers(5, 9))
def test_ticks_are_inside_evenly_spaced_and_about_as_many_as_asked(low, width, count):
    ticks = module._ticks(low, low + width, count)
    gaps = [b - a for a, b in pairwise(ticks)]
    assert max(2, count / 2.5 - 1) <= len(ticks) <= count + 1
    assert all(low - 1e-6 * width <= tick <= low + width * (1 + 1e-6) for tick in ticks)
    assert max(gaps) == pytest.approx(min(gaps), rel=1e-5)


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=300))
def test_smoothing_is_the_mean_over_a_window_that_shrinks_at_the_ends(values):
    for i, smooth in enumerate(module._smooth(values)):
        half = min(len(values) // 40, i, len(values) - 1 - i)
        window = values[i - half : i + half + 1]
        assert smooth == pytest.approx(sum(window) / len(window), abs=1e-9)


def test_a_board_shows_given_digits_bold_and_filled_ones_in_order(tmp_path):
    page = page_of(tmp_path / "report.html", boards=(a_board(),))
    assert "".join(map(str, SOLUTION[1:15])) == page.texts["b"]
    first, last = [attrs["style"] for tag, attrs in page.elements if tag == "i"]
    assert (first, last) == ("--k:1.000", "--k:0.000")
    assert page.texts["i"] == f"{SOLUTION[0]}{SOLUTION[15]}"


def test_solved_and_failed_boards_are_told_apart_and_counted(tmp_path):
    page = page_of(tmp_path / "report.html", boards=(a_board(), a_board(), a_board(correct=False)))
    assert (len(page.with_class("correct")), len(page.with_class("wrong"))) == (2, 1)
    assert "2 of 3 boards solved" in page.texts["p"]


def test_a_finished_page_replaces_the_old_one_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "folder" / "report.html"
    page_of(path, title="first")
    assert page_of(path, title="second").texts["h1"] == "second"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_keeps_the_old_page(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    page_of(path, title="old")

    def full_disk(self, target):
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write_report(Report(title="new"), path)
    assert "old" in path.read_text(encoding="utf-8")
    assert list(tmp_path.iterdir()) == [path]


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="2 steps but 1 values"):
        Curve(label="loss", steps=(1, 2), values=(1.0,))
    with pytest.raises(ValueError, match="2 pieces and 1 reveal steps"):
        Denoising(title="x", pieces=("a", "b"), revealed_at=(1,))
    with pytest.raises(ValueError, match="the lowest -1"):
        Denoising(title="x", pieces=("a",), revealed_at=(-1,))


def test_a_board_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"\(16, 15, 16\)"):
        SolvedBoard(puzzle=SOLUTION, solution=SOLUTION[:15], revealed_at=(0,) * 16, correct=True)
