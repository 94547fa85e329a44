"""Files of dialogues become encoded sets once, and a part of them is held out by what it says."""

import json

import pytest

from illada.data.chat import ChatTemplate
from illada.data.instruction_corpus import InstructionConfig, prepare_instructions
from illada.data.tokenizer import Tokenizer

TOKENIZER = Tokenizer.train(["the cat sat on the mat and the dog asked why " * 5], 300)


def write(file, numbers):
    rows = [{"prompt": f"why {number}?", "response": f"so {number}"} for number in numbers]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def texts(instructions):
    return {TOKENIZER.decode(instructions.example(pair)[0].tolist()) for pair in range(len(instructions))}


def prepare(folder, *files, told=None, **options):
    config = InstructionConfig(files=files, **({"held_out_fraction": 0.2} | options))
    return prepare_instructions(config, TOKENIZER, folder / "cache", report=(told if told is not None else []).append)


def test_every_dialogue_is_trained_on_or_held_out(tmp_path):
    one, other = write(tmp_path / "a.jsonl", range(80)), write(tmp_path / "b.jsonl", range(60, 140))
    corpus = prepare(tmp_path, one, f"{other},weight=3")
    train = [texts(part) for part, _ in corpus.train]
    held_out = texts(corpus.held_out)
    assert train[0] | train[1] | held_out == {f"why {number}?so {number}" for number in range(140)}
    # a dialogue that is in both files is on one side with both copies
    assert not (train[0] | train[1]) & held_out
    assert 10 < len(held_out) < 50
    assert [weight for _, weight in corpus.train] == [1.0, 3.0]


def test_what_is_held_out_stays_so_when_files_are_added(tmp_path):
    one, other = write(tmp_path / "a.jsonl", range(80)), write(tmp_path / "b.jsonl", range(80, 140))
    alone, both = prepare(tmp_path, one), prepare(tmp_path, one, other)
    assert texts(alone.held_out) == texts(both.held_out) & {f"why {number}?so {number}" for number in range(80)}


def test_the_second_time_it_is_only_opened(tmp_path):
    file = write(tmp_path / "a.jsonl", range(80))
    first = prepare(tmp_path, file)
    told = []
    assert prepare(tmp_path, file, told=told).folder == first.folder
    assert told == [f"instructions: prepared before, in {first.folder}"]
    write(tmp_path / "a.jsonl", range(81))
    assert prepare(tmp_path, file).folder != first.folder


def test_another_template_is_another_corpus(tmp_path):
    file = write(tmp_path / "a.jsonl", range(40))
    (tmp_path / "chat.jinja").write_text("{% for m in messages %}Q: {{ m.content }}\n{% endfor %}A: ")
    corpus = prepare(tmp_path, file, template=str(tmp_path / "chat.jinja"))
    assert corpus.folder != prepare(tmp_path, file).folder
    tokens, prompt = corpus.train[0][0].example(0)
    assert TOKENIZER.decode(tokens[:prompt].tolist()).startswith("Q: why ")
    assert TOKENIZER.decode(tokens[:prompt].tolist()).endswith("?\nA: ")


def test_a_broken_line_leaves_nothing_behind(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text('{"prompt": "a", "response": "b"}\n{"prompt": "a"}\n')
    with pytest.raises(ValueError, match=r"a\.jsonl, line 2: .* 'response'"):
        prepare(tmp_path, str(file))
    assert not any((tmp_path / "cache").glob("*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"held_out_fraction": 0.0}, "held_out_fraction is 0.0"),
        ({"held_out_fraction": 1.0}, "held_out_fraction is 1.0"),
    ],
)
def test_a_split_that_leaves_one_side_empty_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        InstructionConfig(**options)


def test_no_files_a_missing_template_and_nothing_held_out_are_told(tmp_path):
    with pytest.raises(ValueError, match="nothing to fine-tune on: give files of dialogues with --data"):
        prepare(tmp_path)
    file = write(tmp_path / "a.jsonl", range(3))
    with pytest.raises(FileNotFoundError, match=r"no chat template at .*nowhere\.jinja"):
        prepare(tmp_path, file, template=str(tmp_path / "nowhere.jinja"))
    with pytest.raises(ValueError, match="no dialogue is held out"):
        prepare(tmp_path, file, held_out_fraction=1e-9)


def test_the_tokens_are_those_of_the_template(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"prompt": "the cat?", "response": "sat"}) + "\n" + '{"prompt": "x", "response": "y"}\n')
    corpus = prepare(tmp_path, str(file), held_out_fraction=0.5)
    sets = [corpus.train[0][0], corpus.held_out]
    found = [part.example(pair)[0].tolist() for part in sets for pair in range(len(part))]
    prompt = ChatTemplate(TOKENIZER).encode([{"role": "user", "content": "the cat?"}])
    assert [*prompt, *TOKENIZER.encode("sat"), TOKENIZER.specials.eos] in found
