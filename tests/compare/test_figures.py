"""Figures: every arm is drawn where its numbers say, and texts stay texts."""

import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest

from illada.compare.figures import Bar, Curve, Point, bars, curves


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg)


def all_of(root: ET.Element, kind: str) -> list[ET.Element]:
    return [one for one in root.iter() if one.tag.endswith(kind)]


def test_bars_lie_in_the_order_of_their_values_and_show_every_seed():
    some = [
        Bar(name=name, value=v, low=v - 0.1, high=v + 0.1, dots=(v - 0.05, v + 0.05))
        for name, v in (("a", 0.2), ("b", 0.8))
    ]
    root = parsed(bars(some, title="exact", share=True))
    circles = all_of(root, "circle")
    large = [float(one.get("cx")) for one in circles if one.get("r") == "5"]
    assert large == sorted(large)
    assert len(circles) == 2 + 4
    texts = "".join(text.text for text in all_of(root, "text"))
    assert "20.0 %" in texts
    assert "80.0 %" in texts


def test_an_interval_that_leaves_the_scale_is_cut_at_its_end():
    root = parsed(bars([Bar(name="a", value=0.99, low=0.7, high=1.4)], title="exact", share=True))
    whisker = next(one for one in all_of(root, "line") if one.get("stroke-width") == "2")
    widest = max(float(one.get("x2")) for one in all_of(root, "line") if one.get("class") == "axis")
    assert float(whisker.get("x2")) == pytest.approx(widest)


@pytest.mark.parametrize("logarithmic", [False, True])
def test_curves_fall_where_their_numbers_fall(logarithmic):
    points = tuple(Point(x=10.0**k, y=5.0 - k, low=4.8 - k, high=5.2 - k) for k in range(4))
    root = parsed(
        curves([Curve(name="loss", points=points)], title="t", across_is="tokens", share=False, logarithmic=logarithmic)
    )
    line = all_of(root, "polyline")[0].get("points").split()
    places = [tuple(map(float, one.split(","))) for one in line]
    assert places == sorted(places)
    heights = [y for _, y in places]
    assert heights == sorted(heights)  # downwards on the page
    steps = [b[0] - a[0] for a, b in pairwise(places)]
    assert (max(steps) - min(steps) < 0.5) == logarithmic
    assert len(all_of(root, "polygon")[0].get("points").split()) == 8


def test_names_are_text_whatever_they_hold():
    svg = bars([Bar(name="<script>", value=0.5, low=0.4, high=0.6)], title="a & b", share=False)
    assert "<script>" not in svg
    assert "a & b" in "".join(text.text for text in all_of(parsed(svg), "text"))


def test_equal_numbers_can_be_drawn():
    svg = curves(
        [Curve(name="flat", points=(Point(x=1.0, y=2.0, low=2.0, high=2.0),))], title="t", across_is="x", share=False
    )
    assert not re.search("nan|inf", svg)
