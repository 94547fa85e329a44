"""Messages become token ids, and nothing in a message becomes a special token."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from illada.data.chat import ChatTemplate, Message, Rendered
from illada.data.tokenizer import CHAT_TEMPLATE, Tokenizer

TOKENIZER = Tokenizer.train(["the cat sat on the mat. [the dog] asked: 12 + 34? " * 5], 300)
ROLES = {"system": 4, "user": 5, "assistant": 6}
TAGGED = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}</{{ message.role }}>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
SPECIALS = list(TOKENIZER.special_texts)
FRAGMENTS = st.sampled_from(
    [*SPECIALS, "[", "]", "[MA", "SK]", "EOS", "[[EOS]]", "[E", " ", "a", "\n", "é", "\U000f0000"]
)
CONTENT = st.lists(FRAGMENTS, max_size=8).map("".join)


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


# --- our template -------------------------------------------------------------------------------------------------


def test_a_trained_tokenizer_has_a_template_and_tokens_for_the_roles():
    assert TOKENIZER.chat_template == CHAT_TEMPLATE
    assert {role: TOKENIZER.special_texts[f"[{role.upper()}]"] for role in ROLES} == ROLES


def test_turns_stand_behind_their_roles():
    messages = [{"role": "system", "content": "the mat"}, user(" the cat? "), assistant("sat"), user("the dog?")]
    specials, encode = TOKENIZER.specials, TOKENIZER.encode
    expected = [
        specials.bos,
        ROLES["system"],
        *encode("the mat"),
        ROLES["user"],
        *encode("the cat?"),
        ROLES["assistant"],
        *encode("sat"),
        ROLES["user"],
        *encode("the dog?"),
        ROLES["assistant"],
    ]
    template = ChatTemplate(TOKENIZER)
    assert template.encode(messages) == expected
    assert template.encode(messages, add_generation_prompt=False) == expected[:-1]
    assert template.render(messages) == TOKENIZER.decode(expected, skip_special=False)


def test_the_template_survives_saving(tmp_path):
    TOKENIZER.save(tmp_path)
    assert ChatTemplate(Tokenizer.load(tmp_path)).encode([user("the cat")]) == ChatTemplate(TOKENIZER).encode(
        [user("the cat")]
    )


def test_digits_are_tokens_by_themselves():
    tokens = [TOKENIZER.decode([token]) for token in TOKENIZER.encode("12 + 3456")]
    assert [token for token in tokens if any(character.isdigit() for character in token)] == list("123456")


# --- nothing becomes special --------------------------------------------------------------------------------------


@settings(max_examples=300)
@given(st.lists(CONTENT, min_size=1, max_size=3))
@pytest.mark.parametrize("source", [CHAT_TEMPLATE, TAGGED, "{% for m in messages %}{{ m.content }}{% endfor %}"])
def test_no_content_brings_a_special_token_with_it(source, contents):
    template = ChatTemplate(TOKENIZER, source)
    special = set(TOKENIZER.special_texts.values())
    neutral = template.encode([user("x")] * len(contents))
    ids = template.encode([user(content) for content in contents])
    assert [token for token in ids if token in special] == [token for token in neutral if token in special]
    # and nothing is lost or added: the text is the rendered one
    assert TOKENIZER.decode(ids, skip_special=False) == template.render([user(content) for content in contents])


@settings(max_examples=200)
@given(CONTENT)
def test_the_rendered_text_holds_the_content_as_it_is(content):
    assert ChatTemplate(TOKENIZER, TAGGED).render([user(content)]) == f"<user>{content}</user>\n<assistant>"


def test_other_markup_in_a_content_is_seen_by_the_template():
    source = "{% for m in messages %}{{ m.content.split('</think>')[-1] }}{% endfor %}"
    assert ChatTemplate(TOKENIZER, source).render([assistant("so</think>yes")]) == "yes"


# --- what is refused ----------------------------------------------------------------------------------------------


def test_a_tokenizer_without_a_template_is_refused():
    bare = Tokenizer(TOKENIZER._backend, TOKENIZER.texts)
    with pytest.raises(ValueError, match="the tokenizer has no chat template: give one"):
        ChatTemplate(bare)
    assert ChatTemplate(bare, TAGGED).render([user("a")]) == "<user>a</user>\n<assistant>"


def test_a_template_that_is_no_jinja_is_refused():
    with pytest.raises(ValueError, match="the chat template is no valid Jinja"):
        ChatTemplate(TOKENIZER, "{% for %}")


def test_a_template_cannot_reach_into_python():
    template = ChatTemplate(TOKENIZER, "{{ messages.__class__.__mro__ }}")
    with pytest.raises(ValueError, match="refuses this dialogue"):
        template.render([user("a")])


def test_what_a_template_refuses_is_told():
    source = "{{ raise_exception('Conversation roles must alternate') }}"
    with pytest.raises(ValueError, match="refuses this dialogue: Conversation roles must alternate"):
        ChatTemplate(TOKENIZER, source).encode([user("a")])


def test_a_system_turn_that_is_refused_goes_into_the_first_question():
    source = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + TAGGED
    )
    template = ChatTemplate(TOKENIZER, source)
    messages = [{"role": "system", "content": "Be brief."}, user("Who?")]
    assert template.render(messages) == "<user>Be brief.\n\nWho?</user>\n<assistant>"
    with pytest.raises(ValueError, match="System role not supported"):
        template.render(messages[:1])


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "there are 0 messages"),
        ([{"role": "tool", "content": "a"}], "must be one of system, user, assistant; got 'tool'"),
        ([{"role": "user"}], "a message has the form"),
        ([{"role": "user", "content": 3}], "a message has the form"),
        (["hello"], "a message has the form"),
    ],
)
def test_messages_of_another_form_are_refused(messages, message):
    with pytest.raises(ValueError, match=message):
        ChatTemplate(TOKENIZER).encode([Message.parse(value) for value in messages])


def test_an_answer_is_opened_or_continued_but_not_both():
    template = ChatTemplate(TOKENIZER, TAGGED)
    with pytest.raises(ValueError, match="choose one"):
        template.render([user("a")], continue_final=True)
    begun = [user("a"), assistant("  so far ")]
    assert (
        template.render(begun, add_generation_prompt=False, continue_final=True)
        == "<user>a</user>\n<assistant>  so far "
    )


# --- rendered text ------------------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(st.lists(CONTENT, min_size=1, max_size=3))
@pytest.mark.parametrize("source", [CHAT_TEMPLATE, TAGGED])
def test_rendered_text_splits_into_the_ids_of_the_dialogue(source, contents):
    template = ChatTemplate(TOKENIZER, source)
    messages = [user(content) for content in contents]
    rendered = template.rendered(messages)
    head, tail = template.split(rendered)
    assert head + TOKENIZER.encode(tail) == template.encode(messages)
    assert rendered.mark not in tail
    assert rendered.replace(rendered.mark, "") == template.render(messages)


def test_only_the_templates_own_special_tokens_are_whole():
    rendered = ChatTemplate(TOKENIZER).rendered([user("[EOS] [USER]")])
    assert rendered.count("[USER]") == rendered.count("[ASSISTANT]") == 1
    assert "[EOS]" not in rendered
    head, tail = ChatTemplate(TOKENIZER).split(rendered)
    assert head[-1] == ROLES["assistant"]
    assert tail == ""


def test_a_copy_of_rendered_text_keeps_its_mark():
    rendered = ChatTemplate(TOKENIZER).rendered([user("[EOS]")])
    for copied in (copy.copy(rendered), copy.deepcopy(rendered)):
        assert (copied, copied.mark, type(copied)) == (rendered, rendered.mark, Rendered)
