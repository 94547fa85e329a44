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
    assert fit(QUESTION, room(1000), kept=100, chat=True) == (QUESTION, "")


def test_the_first_examples_go_first():
    found, note = fit(QUESTION, room(150), kept=30, chat=True)
    assert found.shots == SHOTS[1:]
    assert found.ask == QUESTION.ask
    assert note == "2 of 3 examples fit the context"


def test_the_beginning_goes_last():
    long = Question(id="0", ask="x" * 200 + " what is it?", preface="Answer.", shots=SHOTS)
    found, note = fit(long, room(100), kept=10, chat=True)
    assert found.shots == ()
    assert found.ask.endswith("what is it?")
    assert note == "0 of 3 examples fit the context; its beginning does not fit the context"


def test_an_answer_may_be_longer_than_what_is_kept_for_it():
    assert room(100).reserve(1000) == 25
    assert room(100).reserve(7) == 7


def test_a_text_needs_no_room_for_turns():
    """None of its examples is left out as long as the text itself fits, with BOS and a few tokens to spare."""
    size = len(QUESTION.text)
    assert fit(QUESTION, room(size + 40), kept=30, chat=False) == (QUESTION, "")
    assert fit(QUESTION, room(size + 40), kept=30, chat=True)[0].shots == SHOTS[2:]


@given(st.integers(100, 600), st.integers(1, 700), st.integers(0, 500), st.booleans())
def test_there_is_room_for_the_answer(context, answer, length, chat):
    question = Question(id="0", ask="y" * length, shots=SHOTS)
    kept = room(context).reserve(answer)
    found, _ = fit(question, room(context), kept=kept, chat=chat)
    assert tokens_of(found, room(context), chat=chat) + kept <= context
    assert question.ask.endswith(found.ask)
