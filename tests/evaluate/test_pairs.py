"""Prompt and candidate as the authors cut them."""

import json
from pathlib import Path

import pytest

from illada.data.tokenizer import Tokenizer
from illada.evaluate.pairs import encode_pair, encode_pairs

GOLDEN = Path(__file__).parents[1] / "golden" / "data"
TOKENIZER = Tokenizer.load(GOLDEN / "illada", special_texts={"mask": "<[MASK]>"})
ITEMS = json.loads((GOLDEN / "expected" / "scoring.json").read_text())["items"]


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item["id"])
def test_ids_are_those_of_the_authors(item):
    for candidate, stored in zip(item["candidates"], item["illada"]["bos0_eos0"]["candidates"], strict=True):
        assert encode_pair(TOKENIZER, item["prompt"], candidate) == (stored["prefix_ids"], stored["target_ids"])


def test_blanks_at_the_end_of_the_prompt_move_to_the_candidate():
    assert encode_pair(TOKENIZER, "The king ", "saw") == encode_pair(TOKENIZER, "The king", " saw")


def test_an_empty_prompt():
    prefix, target = encode_pair(TOKENIZER, "", "The king")
    assert prefix == []
    assert target == TOKENIZER.encode("The king")


def test_many_pairs_at_once_are_the_same_pairs():
    pairs = [(item["prompt"], candidate) for item in ITEMS for candidate in item["candidates"]]
    assert encode_pairs(TOKENIZER, pairs) == [encode_pair(TOKENIZER, *pair) for pair in pairs]
    assert encode_pairs(TOKENIZER, []) == []


def test_a_candidate_without_a_token_is_refused():
    with pytest.raises(ValueError, match="adds no token"):
        encode_pair(TOKENIZER, "The king", "")
