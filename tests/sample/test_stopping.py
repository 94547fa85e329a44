"""Where a text ends, against a search that looks at every prefix of the text in turn."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from illada.sample.stopping import Stopping

END = 9
PIECES = {0: b"a", 1: b"b", 2: b"ab", 3: b"abc", 4: b"\xc3", 5: b"\xa9", 6: "é".encode(), 7: b"", END: b""}


def decode(ids):
    return b"".join(PIECES[token] for token in ids)


def stopping(*strings):
    return Stopping(end_ids=(END,), strings=strings, decode=decode)


def naive(tokens, strings):
    """(text before the end, the string that ended it) of the first byte with which one is complete."""
    end = tokens.index(END) if END in tokens else len(tokens)
    data = decode(tokens[:end])
    for size in range(1, len(data) + 1):
        complete = [string for string in strings if data[:size].endswith(string.encode())]
        if complete:
            string = max(complete, key=lambda text: len(text.encode()))
            return data[: size - len(string.encode())], string
    return (data, None) if END in tokens else None


TOKENS = st.lists(st.sampled_from(sorted(PIECES)), max_size=12)
STRINGS = st.lists(st.text(alphabet="abcé", min_size=1, max_size=3), max_size=3, unique=True)


@settings(max_examples=300)
@given(TOKENS, STRINGS)
def test_the_first_string_to_be_complete_ends_the_text(tokens, strings):
    cut = stopping(*strings).find(tokens)
    expected = naive(tokens, strings)
    assert (cut and (cut.data, cut.stop_string)) == expected


@settings(max_examples=200)
@given(TOKENS, STRINGS)
def test_what_is_generated_behind_the_end_changes_nothing(tokens, strings):
    stop = stopping(*strings)
    whole = stop.find(tokens)
    for count in range(len(tokens)):
        if (early := stop.find(tokens[:count])) is not None:
            assert early == whole
            break


@settings(max_examples=200)
@given(TOKENS, STRINGS)
def test_the_tokens_are_those_that_lie_wholly_before_the_end(tokens, strings):
    cut = stopping(*strings).find(tokens)
    if cut is not None:
        assert cut.data.startswith(decode(tokens[: cut.tokens]))
        assert END not in tokens[: cut.tokens]
        if cut.stop_string is not None:
            assert len(decode(tokens[: cut.tokens + 1])) > len(cut.data)


@settings(max_examples=200)
@given(TOKENS, TOKENS, STRINGS)
def test_what_is_not_held_back_is_never_taken_back(before, after, strings):
    stop = stopping(*strings)
    if stop.find(before) is not None:
        return
    data = decode(before)
    certain = data[: len(data) - stop.held_back(data)]
    cut = stop.find([*before, *after])
    final = decode([*before, *after]) if cut is None else cut.data
    assert final.startswith(certain)


def test_no_more_is_held_back_than_may_become_a_stop_string():
    stop = stopping("abc", "ca")
    assert [stop.held_back(text) for text in (b"", b"b", b"xa", b"xab", b"abca"[:3], b"xc", b"xabx")] == [
        0,
        0,
        1,
        2,
        1,
        1,
        0,
    ]


@pytest.mark.parametrize(
    ("tokens", "strings", "data", "string", "count"),
    [
        ([0, 1, END, 0], (), b"ab", None, 2),
        ([END], ("a",), b"", None, 0),
        ([0, END, 2], ("ab",), b"a", None, 1),  # behind the end of text it does not count
        ([1, 3], ("bc",), b"ba", "bc", 1),  # it begins inside a token
        ([0, 1, 0], ("ba",), b"a", "ba", 1),  # it straddles tokens
        ([4, 5, 0], ("é",), b"", "é", 0),  # its bytes come in two tokens
        ([3], ("b", "abc"), b"a", "b", 0),
        ([2, 1], ("ab", "b"), b"", "ab", 0),  # of equals, the longest
    ],
)
def test_examples(tokens, strings, data, string, count):
    cut = stopping(*strings).find(tokens)
    assert (cut.data, cut.stop_string, cut.tokens) == (data, string, count)


def test_a_text_that_goes_on_has_no_end():
    assert stopping("abc").find([0, 1, 0, 1]) is None
