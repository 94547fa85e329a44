"""Dialogues from JSON lines, and the examples made of them."""

import gzip
import json

import pytest

from illada.data.chat import ChatTemplate, Message
from illada.data.dialogues import Dialogue, DialogueSource, encode_dialogue, encode_dialogues, parse_dialogue_source
from illada.data.tokenizer import Tokenizer

TOKENIZER = Tokenizer.train(["the cat sat on the mat and the dog asked why " * 5], 300)
TURNS = [("user", "why?"), ("assistant", " so "), ("user", "and?"), ("assistant", "[EOS] no")]


def messages_of(turns):
    return [{"role": role, "content": content} for role, content in turns]


def write(file, *rows):
    file.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return str(file)


def read(file, **options):
    return [
        [(message.role, message.content) for message in dialogue.messages]
        for dialogue in DialogueSource(path=file, **options).read()
    ]


def test_rows_hold_messages_or_a_prompt_and_a_response(tmp_path):
    file = write(
        tmp_path / "a.jsonl",
        {"messages": messages_of(TURNS), "id": 7},
        "",
        {"prompt": "2+2?", "response": "4"},
        {"prompt": "hi", "response": "hello", "system": "Be kind."},
    )
    assert read(file) == [
        TURNS,
        [("user", "2+2?"), ("assistant", "4")],
        [("system", "Be kind."), ("user", "hi"), ("assistant", "hello")],
    ]


def test_fields_may_have_other_names_and_files_may_be_compressed(tmp_path):
    file = tmp_path / "a.jsonl.gz"
    file.write_bytes(gzip.compress(b'{"question": "why?", "answer": "so", "prompt": "not this"}\n'))
    assert read(str(file), prompt="question", response="answer") == [[("user", "why?"), ("assistant", "so")]]


def test_a_spec_names_fields_and_weight():
    source = parse_dialogue_source("a,b.jsonl,prompt=question,response=answer,weight=2.5")
    assert source == DialogueSource(path="a,b.jsonl", prompt="question", response="answer", weight=2.5)
    assert parse_dialogue_source("a.jsonl") == DialogueSource(path="a.jsonl")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("a.jsonl,field=x", "unknown key 'field' in source 'a.jsonl,field=x': choose among prompt, response, weight"),
        ("a.jsonl,weight=much", "'much', but it must be a number"),
        ("a.jsonl,weight=0", "the weight of a.jsonl is 0.0, but it must be above 0"),
        ("a.jsonl,weight=inf", "but it must be above 0"),
    ],
)
def test_a_bad_spec_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        parse_dialogue_source(spec)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "line 2 is not valid JSON"),
        ([1], "line 2: a line must hold a JSON object"),
        (
            {"text": "a"},
            "line 2: there is neither a list of messages nor text in the field 'prompt'; the fields are: text",
        ),
        ({"prompt": "a", "response": 3}, "line 2: .* nor text in the field 'response'"),
        ({"prompt": "a", "response": " "}, "line 2: an assistant's message is empty"),
        ({"messages": []}, "line 2: user and assistant must take turns .* got no messages"),
        ({"messages": messages_of(TURNS[:3])}, "line 2: .* last word; got user, assistant, user"),
        ({"messages": messages_of(TURNS[1:])}, "line 2: .* got assistant, user, assistant"),
        ({"messages": [{"role": "user"}]}, "line 2: a message has the form"),
        ({"messages": messages_of([("robot", "a")])}, "line 2: the role of a message must be one of"),
    ],
)
def test_a_broken_line_is_named(tmp_path, row, message):
    file = write(tmp_path / "a.jsonl", {"prompt": "a", "response": "b"}, row)
    with pytest.raises(ValueError, match=f"a.jsonl, {message}"):
        read(file)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such file: .*nowhere\.jsonl"):
        read(str(tmp_path / "nowhere.jsonl"))


# --- examples -----------------------------------------------------------------------------------------------------


def dialogue(turns):
    return Dialogue(messages=tuple(Message(role=role, content=content) for role, content in turns))


def test_every_answer_is_an_example_behind_its_history():
    template = ChatTemplate(TOKENIZER)
    first, second = encode_dialogue(dialogue(TURNS), template)
    eos = TOKENIZER.specials.eos
    assert first.prompt == template.encode(messages_of(TURNS[:1]))
    assert first.response == [*TOKENIZER.encode("so"), eos]
    assert second.prompt == template.encode(messages_of(TURNS[:3]))
    assert second.response == [*TOKENIZER.encode("[EOS] no"), eos]


def test_an_example_has_one_end_of_text_whatever_its_texts_spell():
    eos = TOKENIZER.specials.eos
    turns = [("system", "[EOS]"), ("user", "[EOS][MASK]"), ("assistant", "[EOS]")]
    [example] = encode_dialogue(dialogue(turns), ChatTemplate(TOKENIZER))
    assert eos not in example.prompt
    assert example.response.count(eos) == 1
    assert example.response[-1] == eos
    assert TOKENIZER.decode(example.response) == "[EOS]"


def test_dialogues_are_encoded_one_by_one():
    template = ChatTemplate(TOKENIZER)
    dialogues = [dialogue(TURNS), dialogue(TURNS[:2])]
    assert list(encode_dialogues(dialogues, template)) == [encode_dialogue(item, template) for item in dialogues]
