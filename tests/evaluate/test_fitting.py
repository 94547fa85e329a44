"""Prompts that do not fit lose examples first, and their beginning last."""

from hypothesis import given
from hypothesis import strategies as st

from illada.evaluate.fitting import Room, fit, tokens_of
from illada.evaluate.task import Question, Shot


def room(context):
    """A token for every character."""
    return Room(context=context, encode=lambda text: [ord(c) for c in text], decode=lambda ids: "".join(map(chr, ids)))


SHOTS = tuple(Shot(ask=f"ask {n}?", answer=f" it is {n}.") for n in range(3))
QUESTION = Question(id="0", ask="what is it?", preface="Answer.", shots=SHOTS)


def test_what_fits_stays_as_it_is():
    assert fit(QUESTION, room(1000), answer=100) == (QUESTION, "")


def test_the_first_examples_go_first():
    found, note = fit(QUESTION, room(150), answer=30)
    assert found.shots == SHOTS[1:]
    assert found.ask == QUESTION.ask
    assert note == "2 of 3 examples fit the context"


def test_the_beginning_goes_last():
    long = Question(id="0", ask="x" * 200 + " what is it?", preface="Answer.", shots=SHOTS)
    found, note = fit(long, room(100), answer=10)
    assert found.shots == ()
    assert found.ask.endswith("what is it?")
    assert note == "0 of 3 examples fit the context; its beginning does not fit the context"


def test_an_answer_may_be_longer_than_what_is_kept_for_it():
    assert room(100).reserve(1000) == 25
    assert room(100).reserve(7) == 7


@given(st.integers(100, 600), st.integers(1, 700), st.integers(0, 500))
def test_there_is_room_for_the_answer(context, answer, length):
    question = Question(id="0", ask="y" * length, shots=SHOTS)
    found, _ = fit(question, room(context), answer=answer)
    assert tokens_of(found, room(context)) + min(answer, context // 4) <= context
    assert question.ask.endswith(found.ask)
