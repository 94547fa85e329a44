import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from illada.config import fingerprint, from_dict, from_json, merge, register_union, to_dict, to_json


@dataclass(frozen=True, kw_only=True)
class Round:
    radius: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Square:
    side: float = 1.0


Shape = Round | Square
register_union(Shape)


@dataclass(frozen=True, kw_only=True)
class Inner:
    count: int = 1
    name: str = "inner"

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count must be at least 1, got {self.count}")


@dataclass(frozen=True, kw_only=True)
class Outer:
    rate: float
    inner: Inner = field(default_factory=Inner)
    maybe: Inner | None = None
    switch: bool = True
    limit: int | None = None
    levels: tuple[tuple[float, float], ...] = ()
    parts: tuple[Inner, ...] = ()
    mode: Literal["fast", "slow"] = "fast"
    folder: Path | None = None
    shape: Shape = field(default_factory=Round)


numbers = st.integers(-(2**60), 2**60)
rates = st.floats(allow_nan=False) | st.integers(-99, 99)
inners = st.builds(Inner, count=st.integers(1, 2**40), name=st.text(max_size=5))
outers = st.builds(
    Outer,
    rate=rates,
    inner=inners,
    maybe=st.none() | inners,
    switch=st.booleans(),
    limit=st.none() | numbers,
    levels=st.lists(st.tuples(rates, rates), max_size=3).map(tuple),
    parts=st.lists(inners, max_size=3).map(tuple),
    mode=st.sampled_from(["fast", "slow"]),
    folder=st.none() | st.sampled_from([Path("a"), Path("/b/c d")]),
    shape=st.builds(Round, radius=rates) | st.builds(Square, side=rates),
)
EXAMPLE = Outer(rate=0.5, maybe=Inner(count=2), levels=((0.0, 1.0),), folder=Path("x/y"), shape=Square(side=2.0))

# --- there and back -----------------------------------------------------------------------------------------------


@given(outers)
@settings(max_examples=60)
def test_json_and_back_is_the_same(config):
    assert from_json(Outer, to_json(config)) == config
    assert from_dict(Outer, to_dict(config)) == config


def test_the_dictionary_holds_plain_json_types():
    assert to_dict(EXAMPLE) == {
        "rate": 0.5,
        "inner": {"count": 1, "name": "inner"},
        "maybe": {"count": 2, "name": "inner"},
        "switch": True,
        "limit": None,
        "levels": [[0.0, 1.0]],
        "parts": [],
        "mode": "fast",
        "folder": "x/y",
        "shape": {"side": 2.0, "kind": "Square"},
    }


def test_the_text_has_one_field_per_line():
    assert to_json(Inner(count=3)) == '{\n  "count": 3,\n  "name": "inner"\n}\n'


def test_what_is_left_out_has_its_default():
    assert from_dict(Outer, {"rate": 1}) == Outer(rate=1.0)
    assert type(from_dict(Outer, {"rate": 1}).rate) is float


# --- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"raet": 1.0}, "raet"),
        ({"inner": {"cuont": 3}}, r"cuont.*Outer\.inner"),
        ({"inner": {"count": 0}}, r"count must be at least 1, got 0.*Outer\.inner"),
        ({"parts": [{}, {"count": -5}]}, r"count must be at least 1, got -5.*Outer\.parts\[1\]"),
        ({"rate": "0.1"}, r"expected float, got '0\.1'.*Outer\.rate"),
        ({"rate": None}, r"expected float, got None.*Outer\.rate"),
        ({"rate": True}, r"expected float, got True.*Outer\.rate"),
        ({"inner": {"count": 2.5}}, r"expected int, got 2\.5.*Outer\.inner\.count"),
        ({"inner": {"count": "2"}}, r"expected int, got '2'.*Outer\.inner\.count"),
        ({"inner": {"count": True}}, r"expected int, got True.*Outer\.inner\.count"),
        ({"inner": {"name": 7}}, r"expected str, got 7.*Outer\.inner\.name"),
        ({"inner": None}, r"Inner.*Outer\.inner"),
        ({"inner": []}, r"Outer\.inner"),
        ({"maybe": {"count": "x"}}, r"Outer\.maybe\.count"),
        ({"switch": "false"}, r"expected bool, got 'false'.*Outer\.switch"),
        ({"switch": 0}, r"expected bool, got 0.*Outer\.switch"),
        ({"limit": 1.0}, r"expected int, got 1\.0.*Outer\.limit"),
        ({"levels": 3}, r"Outer\.levels"),
        ({"levels": [[0.0]]}, r"Outer\.levels\[0\]"),
        ({"levels": [[0.0, "a"]]}, r"expected float, got 'a'.*Outer\.levels\[0\]\[1\]"),
        ({"mode": "medium"}, r"must be one of fast, slow; got 'medium' @ Outer\.mode"),
        ({"folder": 3}, r"Outer\.folder"),
        ({"shape": {"kind": "Triangle"}}, r"Outer\.shape"),
        ({"shape": {"radius": 1.0}}, r"Outer\.shape"),
        ({"shape": {"kind": "Round", "side": 1.0}}, r"side.*Outer\.shape"),
    ],
)
def test_a_wrong_value_is_refused_by_name(change, message):
    with pytest.raises(ValueError, match=f"not a valid Outer: .*{message}"):
        from_dict(Outer, {"rate": 1.0} | change)


def test_a_missing_key_is_refused_by_name():
    with pytest.raises(ValueError, match=r"required field missing @ Outer\.rate"):
        from_dict(Outer, {})


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(ValueError, match="colour") as caught:
        from_dict(Outer, {"switch": 1, "colour": "red"})
    assert all(part in str(caught.value) for part in ("Outer.rate", "Outer.switch", "colour"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("values", [[], "text", None, 3])
def test_what_is_no_object_is_refused(values):
    with pytest.raises(ValueError, match="not a valid Outer: expected an object, got"):
        from_dict(Outer, values)


@pytest.mark.parametrize("text", ["", "{", '{"rate": }', "rate: 1"])
def test_text_that_is_no_json_is_refused(text):
    with pytest.raises(ValueError, match=r"line 1 column"):
        from_json(Outer, text)


def test_json_that_is_no_object_is_refused():
    with pytest.raises(ValueError, match="expected an object, got \\[1\\]"):
        from_json(Outer, "[1]")


# --- fingerprints -------------------------------------------------------------------------------------------------


@given(outers, outers)
@settings(max_examples=60)
def test_fingerprints_are_equal_exactly_when_configurations_are(one, two):
    assert (fingerprint(one) == fingerprint(two)) == (to_dict(one) == to_dict(two))
    assert fingerprint(one) == fingerprint(from_json(Outer, to_json(one)))


CHANGES = [
    {"rate": 0.5000000000000001},
    {"inner": Inner(count=2)},
    {"maybe": None},
    {"switch": False},
    {"limit": 0},
    {"levels": ((0.0, 1.0), (0.5, 1.0))},
    {"parts": (Inner(),)},
    {"mode": "slow"},
    {"folder": Path("x/z")},
    {"shape": Round(radius=2.0)},
]


def test_every_field_changes_the_fingerprint():
    prints = [fingerprint(EXAMPLE), *(fingerprint(replace(EXAMPLE, **change)) for change in CHANGES)]
    assert {name for change in CHANGES for name in change} == set(to_dict(EXAMPLE))
    assert len(set(prints)) == len(prints)


def test_a_whole_number_and_the_same_float_have_one_fingerprint():
    assert Outer(rate=1) == Outer(rate=1.0)
    assert fingerprint(Outer(rate=1)) == fingerprint(Outer(rate=1.0))


def test_the_fingerprint_does_not_change_from_version_to_version():
    # SHA-256 of {"count":1,"name":"inner"}, by the command line
    assert fingerprint(Inner()) == "f11480fdcdb9f51d910a894e99ab434a45e39c513cf346f84480233e2cffc81b"


def test_the_order_of_the_fields_in_the_code_does_not_matter():
    @dataclass(frozen=True, kw_only=True)
    class Backwards:
        name: str = "inner"
        count: int = 1

    assert list(to_dict(Backwards())) != list(to_dict(Inner()))
    assert fingerprint(Backwards()) == fingerprint(Inner())


def test_the_order_of_keys_in_a_file_does_not_matter():
    backwards = json.dumps(dict(reversed(to_dict(EXAMPLE).items())))
    assert fingerprint(from_json(Outer, backwards)) == fingerprint(EXAMPLE)


# --- single fields by name ----------------------------------------------------------------------------------------


def test_single_fields_are_replaced_by_name():
    assert merge(Inner, None, {}) == Inner()
    assert merge(Inner, Inner(count=3), {"name": "x"}) == Inner(count=3, name="x")
    assert merge(Inner, None, {"count": 2}) == Inner(count=2)


def test_options_that_there_are_not_are_listed_with_those_there_are():
    with pytest.raises(ValueError, match=r"^there is no option cuont, nmae; there are: count, name$"):
        merge(Inner, None, {"nmae": "x", "cuont": 1})
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        merge(Inner, Inner(), {"count": 0})
