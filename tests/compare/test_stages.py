"""Stages of a plan: what they start from, what a canvas adds to an answer, and a text of which there is no more."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from illada.compare.plan import Pace, TextStage, changed
from illada.compare.stages import (
    FLOOR,
    FirstTokens,
    Opening,
    encoded,
    held_out_pairs,
    instruction_folder,
    lesson_task,
    lesson_tokenizer,
    on_canvas,
    run_config,
    text_corpus,
    text_task,
)
from illada.data.corpus import CorpusConfig
from illada.data.dialogues import Example
from illada.data.example_rows import ExamplePacking
from illada.data.packing import PackingConfig

from .conftest import CAUSAL, MODEL, small_plan

EOS = 2


@pytest.mark.parametrize(("size", "filled"), [(1, 4), (4, 4), (5, 8)])
def test_an_answer_is_filled_up_to_the_end_of_its_last_block(size, filled):
    packing = ExamplePacking(length=64, filler="canvas", block_length=4)
    example = Example(prompt=[7, 8], response=[*range(10, 9 + size), EOS])
    found = on_canvas(example, packing, eos=EOS)
    assert found.prompt == [7, 8]
    assert found.response == [*example.response, *[EOS] * (filled - size)]
    assert on_canvas(example, replace(packing, filler="none"), eos=EOS) == example


class Numbers:
    """A stream of 0 .. 99, a document every ten."""

    def __len__(self) -> int:
        return 100

    def read(self, start: int, length: int) -> np.ndarray:
        return np.arange(start, start + length)

    def document_starts(self, start: int, length: int) -> np.ndarray:
        return np.array([at - start for at in range(start, start + length) if at % 10 == 0], dtype=np.int64)


def test_the_beginning_of_a_text_is_as_long_as_it_is_told_to_be():
    assert len(FirstTokens(Numbers(), 30)) == 30
    assert len(FirstTokens(Numbers(), 300)) == 100
    assert FirstTokens(Numbers(), 30).read(5, 4).tolist() == [5, 6, 7, 8]
    assert FirstTokens(Numbers(), 30).document_starts(5, 10).tolist() == [5]


def test_looks_divide_the_stage_and_keep_the_rate():
    plan = small_plan()
    config = run_config(plan, Pace(steps=25, decay=0.5), plan.lessons.noise, looks=4)
    assert config.loop.steps % 4 == 0
    assert config.loop.keep_every == config.loop.steps // 4
    rates = [config.learning_rate.rate(step, steps=config.loop.steps) for step in range(config.loop.steps)]
    assert rates[2:] == [plan.peak] * (config.loop.steps - 2)
    falling = run_config(plan, Pace(steps=25, decay=0.5), plan.lessons.noise)
    assert falling.learning_rate.rate(24, steps=25) == pytest.approx(plan.peak * FLOOR)


def test_exercises_are_encoded_once(pool):
    plan = small_plan()
    tokenizer = lesson_tokenizer(plan.lessons, pool.places)
    folders = {instruction_folder(plan.lessons.lessons, tokenizer, None, pool.places) for _ in range(2)}
    assert len(folders) == 1
    other = replace(plan.lessons.lessons, wrong=0.5)
    assert instruction_folder(other, tokenizer, None, pool.places) not in folders
    assert lesson_tokenizer(plan.lessons, pool.places).fingerprint == tokenizer.fingerprint


def test_the_held_out_loss_of_both_objectives_counts_by_the_same_tokens(pool):
    """Of an untrained model every token costs about log(vocabulary), fillers too: more per token of the answer."""
    plan = small_plan()
    tokenizer = lesson_tokenizer(plan.lessons, pool.places)
    opening = Opening(tokenizer=tokenizer)
    losses = []
    for one in (plan, changed(plan, dict(CAUSAL))):
        task = lesson_task(one, one.lessons, opening, None, pool.places)
        [loss] = task.measure(task.model.eval()).values()
        losses.append(loss)
    examples = encoded(held_out_pairs(plan.lessons, None), tokenizer)
    filled = [on_canvas(example, plan.lessons.examples, eos=tokenizer.specials.eos) for example in examples]
    more = sum(len(one.response) for one in filled) / sum(len(one.response) for one in examples)
    assert more > 1
    assert losses[0] / losses[1] == pytest.approx(more, rel=0.2)


def test_a_text_of_which_there_is_no_more_has_as_many_rows(pool, tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(f"line {n} of the text" for n in range(800)))
    stage = TextStage(
        pace=Pace(steps=2, batch_size=4),
        corpus=CorpusConfig(sources=(str(tmp_path / "a.txt"),), vocab_size=270, workers=1),
        packing=PackingConfig(length=32, split_probability=0.0),
        unique_rows=6,
    )
    plan = small_plan(text=stage, model=MODEL)
    task = text_task(plan, stage, text_corpus(stage, pool.places))
    one, other = (task.loader.next(6) for _ in range(2))
    rows = [{tuple(row) for row in batch.tokens.tolist()} for batch in (one, other)]
    assert len(rows[0]) == 6
    assert int(other.epoch.min()) == 1
    seen = torch.unique(torch.cat((one.tokens, other.tokens)))
    assert len(seen) <= 270
