"""Variable-length completions equal those of the authors' sampler, token for token, up to where the text ends.

Theirs finish the last block and keep what stands behind the end; ours do not, so the results agree up to there.
"""

import json
from pathlib import Path

import pytest

from illada.checkpoint.huggingface.reader import open_published
from illada.sample.request import SamplingParams
from illada.sample.stopping import Stopping
from illada.sample.writing import Prompt, write

DATA = Path(__file__).parent / "data"
GOLDEN = json.loads((DATA / "expected" / "var_generate.json").read_text())
TOKENIZER = open_published(DATA / "illada").tokenizer
MASK, EOS, BOS = 5, 2, 0


def spelt(ids):
    """Special tokens are text to the authors' harness."""
    return TOKENIZER.decode_bytes(ids, skip_special=False)


def stopping_at(strings):
    return Stopping(end_ids=(EOS,), strings=tuple(text for text in strings if text != "<eos>"), decode=spelt)


def written(load, prompt, params, stopping):
    marker = GOLDEN["end_think_token_ids"]
    reveals = []
    [writing] = write(
        load("illada"),
        [Prompt(tokens=tuple(prompt))],
        params,
        mask_id=MASK,
        stopping=stopping,
        thinking_marker=marker,
        on_step=lambda number, tokens, revealed: reveals.append(
            sorted(int(place) - len(prompt) for place in revealed[0].nonzero().flatten())
        ),
    )
    return writing, reveals


def text_of(writing):
    data = spelt(writing.tokens) if writing.cut is None else writing.cut.data
    return data.decode("utf-8", errors="replace")


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["id"])
def test_blocks_are_written_as_the_authors_write_them(case, load):
    length, block = case["max_gen_length"], case["block_length"]
    params = SamplingParams(
        length=length,
        block_length=block,
        steps=length // block * case["steps_per_block"],
        thinking_strength=case.get("end_think_logit_boost", 0.0),
        thinking_power=case.get("end_think_boost_power", 1.0),
    )
    writing, reveals = written(load, case["prompt_ids"], params, stopping_at(case["stop_strings"]))
    count = len(writing.tokens) if writing.cut is None else writing.cut.tokens
    assert list(writing.tokens[:count]) == case["output_ids"][:count]
    assert text_of(writing) == case["answer_text"]
    assert reveals == [sorted(step) for step in case["revealed_per_step"][: len(reveals)]]
    # the last block may be left early, but none before it and none behind it
    blocks = -(-len(reveals) // case["steps_per_block"])
    assert blocks == case["n_blocks"]
    if writing.cut is None:
        assert list(writing.tokens) == case["output_ids"]


@pytest.mark.parametrize("case", GOLDEN["harness_cases"], ids=lambda case: case["id"])
def test_the_harness_gets_the_same_answers(case, load):
    settings = case["settings"]
    prompt = [*([BOS] if settings.get("add_bos_token") else []), *TOKENIZER.encode(case["context"])]
    blocks = settings["gen_length"] // settings["block_length"]
    params = SamplingParams(
        canvas="variable" if settings["var"] else "fixed",
        length=settings["gen_length"],
        block_length=settings["block_length"],
        steps=settings["steps"] * blocks if settings["var"] else settings["steps"],
    )
    writing, _ = written(load, prompt, params, stopping_at(case["until"]))
    assert len(prompt) == case["n_prompt_tokens"]
    assert text_of(writing) == case["answer"]
    assert writing.clipped == (case["id"] == "harness-clipped")


def test_the_set_is_complete():
    assert (len(GOLDEN["cases"]), len(GOLDEN["harness_cases"])) == (10, 3)
