"""Chat texts and encodings equal those of the authors' code, except where a message spells a special token."""

import json
from pathlib import Path

import pytest

from illada.checkpoint.huggingface.reader import open_published
from illada.data.chat import ChatTemplate

DATA = Path(__file__).parent / "data"
GOLDEN = json.loads((DATA / "expected" / "tokenizer.json").read_text())
TOKENIZERS = {name: open_published(DATA / name).tokenizer for name in ("illada", "llada")}


def spells_special(tokenizer, text):
    return any(special in text for special in tokenizer.special_texts)


@pytest.mark.parametrize("case", GOLDEN["chat"], ids=lambda case: f"{case['model']}-{case['text'][:40]!r}")
def test_chat(case):
    tokenizer = TOKENIZERS[case["model"]]
    template = ChatTemplate(tokenizer)
    generates = case["add_generation_prompt"]
    # their harness lets the model go on with the last message where no answer is opened
    options = {"add_generation_prompt": generates, "continue_final": not generates and case["model"] == "illada"}
    ids = template.encode(case["messages"], **options)
    assert template.render(case["messages"], **options) == case["text"]
    if any(spells_special(tokenizer, message["content"]) for message in case["messages"]):
        assert ids != case["ids"]
        assert tokenizer.decode(ids, skip_special=False) == tokenizer.decode(case["ids"], skip_special=False)
    else:
        assert ids == case["ids"]


@pytest.mark.parametrize("case", GOLDEN["encode"], ids=lambda case: f"{case['model']}-{case['text'][:20]!r}")
def test_encode(case):
    tokenizer = TOKENIZERS[case["model"]]
    ids = tokenizer.encode(case["text"])
    assert tokenizer.decode(ids) == case["text"]
    assert tokenizer.decode(case["ids"], skip_special=False) == case["decoded"]
    assert tokenizer.decode(case["ids"]) == case["decoded_skip_special"]
    assert (ids == case["ids"]) == (not spells_special(tokenizer, case["text"]))
