"""Texts become token ids that fit, cut on the left."""

import copy
import pickle
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from illada.data.chat import Rendered
from illada.evaluate.pairs import encode_pair
from illada.harness.prompts import Prompts
from illada.sample.request import SamplingParams

CHAT = [
    {"role": "user", "content": "the [EOS] cat"},
    {"role": "assistant", "content": " sat. "},
    {"role": "user", "content": "[USER]on the mat"},
]


@pytest.fixture
def prompts(model):
    return Prompts(model=model, bos=True)


def test_bos_stands_in_front_unless_it_is_not_wanted(prompts, model):
    ids = model.tokenizer.encode("the cat")
    assert prompts.encode("the cat") == [model.tokenizer.specials.bos, *ids]
    assert replace(prompts, bos=False).encode("the cat") == ids
    assert prompts.encode("") == [model.tokenizer.specials.bos]


def test_a_special_token_spelt_in_a_text_stays_text(prompts, model):
    ids = prompts.encode("[BOS] the [EOS]")
    assert not set(ids[1:]) & set(model.tokenizer.special_texts.values())
    assert model.tokenizer.decode(ids[1:]) == "[BOS] the [EOS]"


# --- what a template has rendered ---------------------------------------------------------------------------------


@pytest.mark.parametrize("carried", [lambda text: text, copy.deepcopy, lambda text: pickle.loads(pickle.dumps(text))])
def test_a_dialogue_has_the_ids_that_the_template_gives_it(prompts, model, carried):
    """Also when lm-eval has copied its text, or kept it in a file."""
    rendered = carried(model.chat_template.rendered(CHAT))
    assert isinstance(rendered, str)
    assert prompts.encode(rendered) == model.chat_template.encode(CHAT)


def test_no_bos_is_added_to_a_dialogue(prompts, model):
    assert prompts.encode(model.chat_template.rendered(CHAT)).count(model.tokenizer.specials.bos) == 1


def test_the_same_text_from_elsewhere_is_text(prompts, model):
    plain = str(model.chat_template.render(CHAT))
    assert not isinstance(plain, Rendered)
    ids = prompts.encode(plain)
    assert not set(ids[1:]) & set(model.tokenizer.special_texts.values())


def test_what_is_scored_behind_a_dialogue(prompts, model):
    """Encoded behind the last special token, and never special itself."""
    rendered = model.chat_template.rendered(CHAT)
    left_open = model.chat_template.rendered(
        [*CHAT, {"role": "assistant", "content": "The answer is"}], add_generation_prompt=False, continue_final=True
    )
    encode = model.tokenizer.encode
    [(prompt, target), (begun, rest)] = prompts.encode_pairs([(rendered, "the [EOS] dog"), (left_open, " a hat")])
    assert (list(prompt), target) == (model.chat_template.encode(CHAT), encode("the [EOS] dog"))
    prefix, tail = encode_pair(model.tokenizer, "The answer is", " a hat")
    assert (list(begun), rest) == ([*model.chat_template.encode(CHAT), *prefix], tail)


# --- pairs --------------------------------------------------------------------------------------------------------


def test_pairs_are_those_of_the_pipeline(prompts, model):
    texts = [("the cat ", "sat"), ("", "the dog"), ("the cat ", "on the log"), ("a man", " in a hat")]
    bos = model.tokenizer.specials.bos
    for (context, continuation), (prompt, target) in zip(texts, prompts.encode_pairs(texts), strict=True):
        prefix, expected = encode_pair(model.tokenizer, context, continuation)
        assert (prompt, target) == ((bos, *prefix), expected)


def test_the_candidates_of_a_question_have_one_prompt_between_them(prompts):
    (first, _), (second, _) = prompts.encode_pairs([("the cat sat", " on"), ("the cat sat", " in")])
    assert first is second


def test_more_pairs_than_are_encoded_at_once(prompts, monkeypatch):
    texts = [(f"the cat {number}", f" sat {number}") for number in range(7)]
    expected = prompts.encode_pairs(texts)
    monkeypatch.setattr("illada.harness.prompts._ENCODED_TOGETHER", 3)
    assert prompts.encode_pairs(texts) == expected


# --- room ---------------------------------------------------------------------------------------------------------


@given(count=st.integers(0, 150), room=st.integers(1, 64), bos=st.booleans())
def test_the_end_of_a_prompt_is_kept_behind_its_bos(model, count, room, bos):
    first = [model.tokenizer.specials.bos] if bos else []
    ids = [*first, *range(10, 10 + count)]
    found = Prompts(model=model, bos=True).fit(ids, room=room)
    assert len(found.ids) == min(len(ids), room)
    assert found.cut == len(ids) - len(found.ids)
    assert list(found.ids[: len(first)]) == first
    kept = list(found.ids[len(first) :])
    assert kept == ids[len(ids) - len(kept) :]


def test_a_scored_text_is_never_cut(prompts):
    found = prompts.fit_scored(range(100), range(20), behind=1)
    assert len(found.ids) + 20 + 1 == prompts.context
    with pytest.raises(ValueError, match=r"63 tokens are to be scored.*holds 64"):
        prompts.fit_scored([0], range(63), behind=1)


@pytest.mark.parametrize(
    ("count", "length", "cut"),
    [
        (48, 16, 0),  # fits
        (48, 40, 0),  # the answer is cut, to no less than a quarter of the context
        (49, 40, 1),
        (100, 40, 52),
        (60, 8, 4),
    ],
)
def test_a_growing_answer_is_cut_before_the_prompt(prompts, count, length, cut):
    assert prompts.fit_written(range(count), SamplingParams(length=length)).cut == cut


def test_a_fixed_canvas_has_all_its_room(prompts):
    assert prompts.fit_written(range(30), SamplingParams(length=40, canvas="fixed")).cut == 6
    with pytest.raises(ValueError, match=r"fixed canvas of 64 tokens leaves no room.*of 64"):
        prompts.fit_written(range(3), SamplingParams(length=64, canvas="fixed"))
